//! The command line: the program's commands and their flags, each also an environment variable.

mod admin;
#[cfg(feature = "bench")]
mod bench;
mod chat;
mod environment;
mod health;
mod serve;

pub use admin::{
    AdminArgs, AdminCommand, DrainCommand, KickArgs, ListArgs, TopArgs, UnbanArgs, api_word, wire_duration,
};
#[cfg(feature = "bench")]
pub use bench::{BenchArgs, ProtocolArg};
pub use chat::ChatArgs;
pub use environment::unknown_variables;
pub use health::HealthArgs;
pub use serve::{LogFormatArg, ServeArgs};

use clap::{Parser, Subcommand};

/// A gRPC broadcast server: what one client says, everyone in the room receives, in one order.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server.
    Serve(Box<ServeArgs>),
    /// Chat from the terminal, or from a pipe.
    ///
    /// Says each line of the input, and prints what is said in the room. On a terminal a line begins with who says it, like
    /// "ann: hi"; what the server itself says has no name before it. Output that is piped is the texts alone, escaped so that
    /// each is one line.
    Chat(ChatArgs),
    /// Ask a server whether it serves: for container health checks.
    Health(HealthArgs),
    /// See and steer a running server.
    Admin(Box<AdminArgs>),
    /// Load a server, and tell how fast it is and whether all was delivered, in one order.
    #[cfg(feature = "bench")]
    Bench(Box<BenchArgs>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
