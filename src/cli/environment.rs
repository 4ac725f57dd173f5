//! The program's environment variables, declared by the flags.
//!
//! An empty variable counts as unset, because templates leave empty variables where they have no value.

use super::Cli;
use clap::builder::Resettable;
use clap::{Arg, Command, CommandFactory as _, FromArgMatches as _};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

const PREFIX: &str = "CHATROOM_";

impl Cli {
    /// Parses this process's command line; exits on an error, `--help` or `--version`.
    pub fn of_process() -> Self {
        let matches = without_empty_variables(Self::command()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

fn without_empty_variables(command: Command) -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let unset = |arg: Arg| {
        if arg.get_env().is_some_and(is_empty) { arg.env(Resettable::Reset) } else { arg }
    };
    command.mut_args(unset).mut_subcommands(without_empty_variables)
}

/// Variables with the program's prefix that belong to no flag: misspelt, or of another version. Excludes those that
/// Kubernetes derives from service names.
pub fn unknown_variables() -> Vec<String> {
    unknown(std::env::vars_os().map(|(name, _)| name))
}

fn unknown(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let mut known = HashSet::new();
    collect_known(&Cli::command(), &mut known);
    let unknown = names.filter(|name| !known.contains(name));
    let unknown = unknown.map(|name| name.to_string_lossy().into_owned());
    let mut unknown: Vec<_> =
        unknown.filter(|name| name.starts_with(PREFIX) && !is_of_service(name)).collect();
    unknown.sort_unstable();
    unknown
}

fn collect_known(command: &Command, known: &mut HashSet<OsString>) {
    known.extend(command.get_arguments().filter_map(Arg::get_env).map(OsStr::to_owned));
    command.get_subcommands().for_each(|command| collect_known(command, known));
}

/// Whether Kubernetes sets the variable: a service named "chatroom" or "chatroom-x" produces `CHATROOM_SERVICE_HOST`,
/// `CHATROOM_X_PORT_50051_TCP_ADDR` and so on in every container of its namespace.
fn is_of_service(name: &str) -> bool {
    name.contains("_SERVICE_") || name.contains("_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_without_a_flag_are_unknown() {
        let names = [
            "PATH",
            "CHATROOM_LISTEN",
            "CHATROOM_ADMIN_ADDR",
            "CHATROOM_LISTNE",
            "CHATROOM_",
            "CHATROOM_SERVICE_HOST",
            "CHATROOM_SERVICE_PORT_GRPC",
            "CHATROOM_PORT",
            "CHATROOM_PORT_50051_TCP_ADDR",
            "CHATROOM_ADMIN_PORT_50052_TCP",
        ];
        let unknown = unknown(names.into_iter().map(OsString::from));
        assert_eq!(unknown, ["CHATROOM_", "CHATROOM_LISTNE"]);
    }

    #[test]
    fn no_flag_variable_looks_like_a_kubernetes_service() {
        let mut known = HashSet::new();
        collect_known(&Cli::command(), &mut known);
        assert!(known.len() > 30);
        let taken: Vec<_> = known.iter().filter(|name| is_of_service(&name.to_string_lossy())).collect();
        assert!(taken.is_empty(), "{taken:?}");
    }
}
