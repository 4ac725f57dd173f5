//! The `chatroom` program.

use chatroom::cli::{Cli, Command};
use chatroom::cmd;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Has memory come in small pages. mimalloc asks for huge ones (its `no_thp` feature is void in its version 3), and with
/// those every byte of the buffers that HTTP/2 holds for a transport is resident, though it uses a few hundred of them.
fn take_small_pages() {
    // A kernel that cannot do so costs memory, and nothing else.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

fn main() -> ExitCode {
    take_small_pages();
    let done = match Cli::of_process().command {
        Command::Serve(args) => cmd::serve::run(&args),
        Command::Chat(args) => cmd::chat::run(&args),
        Command::Health(args) => cmd::health::run(&args),
        Command::Admin(args) => cmd::admin::run(&args),
        #[cfg(feature = "bench")]
        Command::Bench(args) => cmd::bench::run(&args),
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
