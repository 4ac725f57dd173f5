//! `chatroom health`: one health check, one line, one exit code.
//!
//! For containers whose image has no other health client. Ends within its timeout, whatever listens at the address, and
//! succeeds only for SERVING.

use crate::cli::HealthArgs;
use anyhow::{Context as _, bail};
use std::error::Error;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Checks once and prints the status.
///
/// # Errors
/// If the status is not SERVING, or there is no response in time.
pub fn run(args: &HealthArgs) -> anyhow::Result<()> {
    let HealthArgs { addr, service, timeout } = args;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let response = runtime.block_on(async { tokio::time::timeout(**timeout, check(addr, service)).await });
    // A name look-up may still block a thread: do not wait for it.
    runtime.shutdown_background();
    let status = response.with_context(|| format!("no response from {addr} within {timeout}"))??;
    let what = if service.is_empty() { "the server" } else { service };
    match status {
        ServingStatus::Serving => println!("{addr}: {what} is SERVING"),
        other => bail!("{addr}: {what} is {}", other.as_str_name()),
    }
    Ok(())
}

async fn check(addr: &str, service: &str) -> anyhow::Result<ServingStatus> {
    let url = if addr.contains("://") { addr.to_owned() } else { format!("http://{addr}") };
    let endpoint = Endpoint::from_shared(url)
        .with_context(|| format!("{addr} is not an address like 127.0.0.1:50051"))?;
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| innermost_error(&error))
        .with_context(|| format!("cannot reach {addr}"))?;
    let request = HealthCheckRequest { service: service.to_owned() };
    let response = HealthClient::new(channel).check(request).await;
    let response = response.map_err(|status| status_error(addr, service, &status))?;
    Ok(response.into_inner().status())
}

/// The innermost cause: tonic's own message is only "transport error".
fn innermost_error(error: &tonic::transport::Error) -> anyhow::Error {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    anyhow::anyhow!("{cause}")
}

fn status_error(addr: &str, service: &str, status: &Status) -> anyhow::Error {
    match status.code() {
        Code::NotFound => anyhow::anyhow!("{addr} has no service {service}"),
        Code::Unimplemented => anyhow::anyhow!("{addr} does not implement grpc.health.v1"),
        // The message comes from an unknown server: escape line breaks and terminal codes.
        code => anyhow::anyhow!("{addr} responded {code:?}: {}", status.message().escape_debug()),
    }
}
