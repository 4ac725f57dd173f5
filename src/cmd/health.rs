//! `chatroom health`: one question, one line, one exit code.
//!
//! For containers whose image has nothing else to ask with. It promises an end within its timeout, whatever it finds at
//! the address, and success only for SERVING.

use crate::cli::HealthArgs;
use anyhow::{Context as _, bail};
use std::error::Error;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Asks once, and prints the answer.
///
/// # Errors
/// When the answer is anything but SERVING, or none comes in time.
pub fn run(args: &HealthArgs) -> anyhow::Result<()> {
    let HealthArgs { addr, service, timeout } = args;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(async { tokio::time::timeout(**timeout, ask(addr, service)).await });
    // A name look-up may still hang in a thread of its own: nothing waits for it.
    runtime.shutdown_background();
    let status = asked.with_context(|| format!("no answer from {addr} within {timeout}"))??;
    let what = if service.is_empty() { "the server" } else { service };
    match status {
        ServingStatus::Serving => println!("{addr}: {what} is SERVING"),
        other => bail!("{addr}: {what} is {}", other.as_str_name()),
    }
    Ok(())
}

async fn ask(addr: &str, service: &str) -> anyhow::Result<ServingStatus> {
    let url = if addr.contains("://") { addr.to_owned() } else { format!("http://{addr}") };
    let endpoint = Endpoint::from_shared(url)
        .with_context(|| format!("{addr} is not an address like 127.0.0.1:50051"))?;
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| root(&error))
        .with_context(|| format!("cannot reach {addr}"))?;
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel).check(request).await;
    let answer = answer.map_err(|status| refusal(addr, service, &status))?;
    Ok(answer.into_inner().status())
}

/// The cause at the bottom: tonic's own words above it are "transport error".
fn root(error: &tonic::transport::Error) -> anyhow::Error {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    anyhow::anyhow!("{cause}")
}

fn refusal(addr: &str, service: &str, status: &Status) -> anyhow::Error {
    match status.code() {
        Code::NotFound => anyhow::anyhow!("{addr} has no service {service}"),
        Code::Unimplemented => anyhow::anyhow!("{addr} does not speak grpc.health.v1"),
        // Its words come from whoever answers there: no line breaks from them, nor terminal codes.
        code => anyhow::anyhow!("{addr} answered {code:?}: {}", status.message().escape_debug()),
    }
}
