//! What the program makes of its environment: `CHATROOM_*` that are empty or unknown, and `NO_COLOR`.

use crate::common::{server::Server, terminal};
use serde_json::Value;
use std::process::{Command, Stdio};

#[tokio::test]
async fn unknown_variables_warn_except_kubernetes_ones() {
    let environment = [
        ("CHATROOM_MAX_ROMS", "7"),
        ("CHATROOM_SERVICE_HOST", "10.0.0.1"),
        ("CHATROOM_PORT_50051_TCP", "tcp://10.0.0.1:50051"),
        ("CHATROOM_MAX_STREAMS", "500"),
    ];
    let server = Server::start_in(&environment, &[]);
    let line = server.logs("unknown environment variables are ignored", |_| true).await;
    assert_eq!((&line["variables"], &line["level"]), (&"CHATROOM_MAX_ROMS".into(), &"WARN".into()));
    let first: Value = serde_json::from_str(&server.log()[0]).unwrap();
    assert_eq!(first["message"], "starting");
}

#[tokio::test]
async fn empty_variable_is_unset() {
    let empty = ["MAX_ROOMS", "ROOM_IDLE", "LOG_FILTER", "SLOW_POLICY", "SLOW_POLICY_FOR", "MAX_TRANSPORTS"];
    let names = empty.map(|name| format!("CHATROOM_{name}"));
    let environment: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    let server = Server::start_in(&environment, &[]);
    let first = server.logs("starting", |_| true).await;
    for setting in ["max-rooms", "room-idle", "slow-policy"] {
        assert!(!first["settings"].as_str().unwrap().contains(setting), "{first}");
    }
    let lines = server.log();
    assert!(!lines.iter().any(|line| line.contains("unknown environment variables")), "{lines:#?}");
}

/// What a command shows on a terminal as its stderr.
fn shown(words: &[&str], no_color: &str) -> String {
    let (mut terminal, stderr) = terminal::open();
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatroom"));
    command.args(words).env("NO_COLOR", no_color).env("TERM", "xterm");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    let mut child = command.spawn().unwrap();
    // With it goes our copy of the other side.
    drop(command);
    let shown = terminal.shows();
    child.wait().unwrap();
    shown
}

#[test]
fn no_color_applies_to_log_and_command_line() {
    // It logs its first line, and then cannot listen.
    let serve = ["serve", "--listen", "192.0.2.1:1"];
    for words in [&serve[..], &["serve", "--no-such-flag"]] {
        let (coloured, plain) = (shown(words, ""), shown(words, "1"));
        assert!(coloured.contains("\x1b["), "{words:?}: {coloured:?}");
        assert!(!plain.is_empty() && !plain.contains('\x1b'), "{words:?}: {plain:?}");
    }
}
