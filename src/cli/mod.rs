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

/// A gRPC broadcast server: every member of a room receives every message, in one order.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The program's commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server.
    Serve(Box<ServeArgs>),
    /// Chat from a terminal or a pipe.
    ///
    /// Publishes each line of the input and prints the room's messages. On a terminal, each line starts with the sender's
    /// name, like "ann: hi"; announcements of the server have no name. Piped output contains only the texts, each escaped
    /// to fit on one line.
    Chat(ChatArgs),
    /// Check whether a server is serving, for container health checks.
    Health(HealthArgs),
    /// Inspect and control a running server.
    Admin(Box<AdminArgs>),
    /// Load a server, measure its speed, and check delivery and order.
    #[cfg(feature = "bench")]
    Bench(Box<BenchArgs>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
