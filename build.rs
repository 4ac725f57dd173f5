//! Generates the gRPC code from `proto/` with protox, so that no protoc is needed anywhere.

use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let protos = [
        "hello/chat.proto",
        "chatroom/v1/chat.proto",
        "chatroom/admin/v1/admin.proto",
        "grpc/health/v1/health.proto",
    ];
    let descriptors = protox::compile(protos, ["proto"])?;
    // The server-reflection service answers from this file.
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(out, prost_bytes(&descriptors))?;
    tonic_prost_build::configure()
        // One type for each message, whoever generated it: only the service and what List says are generated here.
        .extern_path(".grpc.health.v1.HealthCheckRequest", "::tonic_health::pb::HealthCheckRequest")
        .extern_path(".grpc.health.v1.HealthCheckResponse", "::tonic_health::pb::HealthCheckResponse")
        .compile_fds(descriptors)?;
    generate_example()?;
    name_the_build();
    Ok(())
}

/// The code of the examples' service; an image build leaves the examples out.
fn generate_example() -> Result<(), Box<dyn std::error::Error>> {
    let folder = "examples/game";
    println!("cargo:rerun-if-changed={folder}/game.proto");
    if std::path::Path::new(folder).exists() {
        tonic_prost_build::configure().compile_fds(protox::compile(["game.proto"], [folder])?)?;
    }
    Ok(())
}

/// What `chatroom_build_info` and the admin say of this build. An image build without the history gives the revision.
fn name_the_build() {
    println!("cargo:rerun-if-env-changed=CHATROOM_REVISION");
    println!("cargo:rerun-if-changed=.git/HEAD");
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let given = std::env::var("CHATROOM_REVISION").ok();
    let revision = given.or_else(|| said("git", &["rev-parse", "--short=12", "HEAD"]));
    let rustc = std::env::var("RUSTC").ok().and_then(|rustc| said(&rustc, &["--version"]));
    println!("cargo:rustc-env=CHATROOM_REVISION={}", revision.as_deref().unwrap_or("unknown"));
    println!("cargo:rustc-env=CHATROOM_RUSTC={}", rustc.as_deref().unwrap_or("unknown"));
}

fn prost_bytes(message: &impl prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}
