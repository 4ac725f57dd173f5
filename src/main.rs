//! The `chatroom` program.

use chatroom::cli::{Cli, Command};
use chatroom::cmd;
use clap::Parser as _;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => cmd::serve::run(&args),
        Command::Chat(args) => cmd::chat::run(&args),
        Command::Health(args) => cmd::health::run(&args),
        Command::Admin(args) => cmd::admin::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, the causes after the error.
            eprintln!("chatroom: {error:#}");
            ExitCode::FAILURE
        }
    }
}
