//! What the server derives from the compiled-in descriptors: reflection (v1 and v1alpha), and the metrics of all methods.
//!
//! Reflection lists the services of its listener, and health. It also serves the files of `google.rpc` whose messages are
//! details of statuses, so that grpcurl and similar tools can decode these.

use crate::transport::{MethodLimits, RpcMetrics};
use crate::wire;
use crate::wire::admin::admin_service_server;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use std::sync::Arc;
use tonic::service::Routes;

const BUILT_IN: &str = "the descriptors are compiled in, and a test reflects on them";

/// The longest request to health or reflection, in bytes: both contain a name.
const COMMON_REQUEST_BYTES: usize = 4 * 1024;

/// The longest request to the admin service, in bytes: a kick names up to 10,000 connections.
const ADMIN_REQUEST_BYTES: usize = 1024 * 1024;

/// The longest answer, in bytes: of a list, and of all other methods.
const PAGE_BYTES: usize = 256 * 1024;
const ANSWER_BYTES: usize = 1024;

/// The limits and metrics of the methods of all services.
pub(super) fn rpc_metrics(max_message_bytes: usize) -> Arc<RpcMetrics> {
    let reflection =
        [tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET];
    let limits = |service: &str, method: &str| {
        let is_reflection = service.starts_with("grpc.reflection.");
        MethodLimits {
            request_bytes: match service {
                "grpc.health.v1.Health" => COMMON_REQUEST_BYTES,
                admin_service_server::SERVICE_NAME => ADMIN_REQUEST_BYTES,
                _ if is_reflection => COMMON_REQUEST_BYTES,
                _ => max_message_bytes,
            },
            answer_bytes: if method.starts_with("List") { PAGE_BYTES } else { ANSWER_BYTES },
            // A reflection client can reconnect for its next question. A chat client would miss messages.
            may_be_silent: !is_reflection,
        }
    };
    RpcMetrics::from_descriptors(&[wire::DESCRIPTORS, reflection[0], reflection[1]], limits).expect(BUILT_IN)
}

/// Adds server reflection of these services and of health.
pub(super) fn with_reflection(routes: Routes, services: &[&str]) -> Routes {
    let builder = || {
        let files = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
            .register_file_descriptor_set(error_details());
        let health = "grpc.health.v1.Health";
        services.iter().chain([&health]).fold(files, |builder, name| builder.with_service_name(*name))
    };
    routes
        .add_service(builder().build_v1().expect(BUILT_IN))
        .add_service(builder().build_v1alpha().expect(BUILT_IN))
}

/// `google/rpc/status.proto` and `google/rpc/error_details.proto`, under these names. tonic-types compiles them from another
/// folder, but clients request a file by the path of its import.
fn error_details() -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET).expect(BUILT_IN);
    for file in &mut set.file {
        if file.package() == "google.rpc" && !file.name().contains('/') {
            file.name = Some(format!("google/rpc/{}", file.name()));
        }
    }
    set
}
