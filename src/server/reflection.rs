//! Server reflection, v1 and v1alpha, and the counts of all methods: what is known from the compiled-in descriptors.
//!
//! Reflection lists the services of its listener and health. It also knows the files of `google.rpc` whose messages are
//! the details of our statuses, so that grpcurl and similar tools can show them.

use crate::transport::{MethodLimits, Methods};
use crate::wire;
use crate::wire::admin::admin_service_server;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use std::sync::Arc;
use tonic::service::Routes;

const BUILT_IN: &str = "the descriptors are compiled in, and a test reflects on them";

/// Bytes that a request to health or reflection may have: they ask for a name.
const COMMON_REQUEST_BYTES: usize = 4 * 1024;

/// Bytes that a request to the admin service may have: a kick names up to 10,000 connections.
const ADMIN_REQUEST_BYTES: usize = 1024 * 1024;

/// Bytes that an answer may have: a page of a list, and all others.
const PAGE_BYTES: usize = 256 * 1024;
const ANSWER_BYTES: usize = 1024;

/// The methods of all services, ours and the common ones.
pub(super) fn methods(max_message_bytes: usize) -> Arc<Methods> {
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
            // Who has no question any more can come back; who listens to a chat cannot.
            silence: !is_reflection,
        }
    };
    Methods::of(&[wire::DESCRIPTORS, reflection[0], reflection[1]], limits).expect(BUILT_IN)
}

/// Adds server reflection that lists these services and health.
pub(super) fn with_reflection(routes: Routes, services: &[&str]) -> Routes {
    let builder = || {
        let known = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
            .register_file_descriptor_set(error_details());
        let health = "grpc.health.v1.Health";
        services.iter().chain([&health]).fold(known, |b, name| b.with_service_name(*name))
    };
    routes
        .add_service(builder().build_v1().expect(BUILT_IN))
        .add_service(builder().build_v1alpha().expect(BUILT_IN))
}

/// `google/rpc/status.proto` and `google/rpc/error_details.proto`, by these names: tonic-types compiles them from another
/// folder, but a client that looks for a file uses the name by which everyone imports it.
fn error_details() -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET).expect(BUILT_IN);
    for file in &mut set.file {
        if file.package() == "google.rpc" && !file.name().contains('/') {
            file.name = Some(format!("google/rpc/{}", file.name()));
        }
    }
    set
}
