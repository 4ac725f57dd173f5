//! `chatroom chat`, as its user runs it: piped, in two terminals, with a server that comes and goes.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the answer")]

mod common;

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn chat(addr: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatroom"));
    command.args(["chat", "--addr", addr]).args(flags);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn say(addr: &str, flags: &[&str], input: &str) -> Output {
    let mut child = chat(addr, flags).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_piped_chat_says_each_line_hears_it_and_ends() {
    let server = common::server::Server::start(&[]);
    let lines = (0..500).map(|n| format!("line {n} ü")).collect::<Vec<_>>().join("\n") + "\n";
    let output = say(&server.addr.to_string(), &["--name", "ann"], &lines);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), lines);
}

#[test]
fn a_chat_without_input_ends_at_once() {
    let server = common::server::Server::start(&[]);
    let output = say(&server.addr.to_string(), &[], "");
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn a_server_that_is_not_there_is_one_line_and_an_exit_code() {
    let output = say("127.0.0.1:1", &[], "hi\n");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("chatroom: cannot connect to 127.0.0.1:1: "), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn a_room_name_that_is_refused_ends_the_chat_with_the_rule() {
    let server = common::server::Server::start(&[]);
    let output = say(&server.addr.to_string(), &["--room", "a b"], "hi\n");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("InvalidArgument") && error.contains("A-Z a-z 0-9"), "{error}");
}

#[test]
fn a_line_that_is_not_utf8_is_told_and_nothing_after_it_is_lost() {
    let server = common::server::Server::start(&[]);
    let mut child = chat(&server.addr.to_string(), &[]).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"one\nbad \xff\nthree\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "one\nbad \u{fffd}\nthree\n");
    assert!(String::from_utf8(output.stderr).unwrap().contains("line 2 is not UTF-8"));
}

#[test]
fn a_port_that_does_not_chat_is_an_error_and_not_tried_again() {
    let server = common::server::Server::start(&[]);
    let output = say(&server.metrics_addr.to_string(), &[], "hi\n");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("does not chat") && error.lines().count() == 1, "{error}");
}

#[test]
fn what_was_said_before_a_message_that_is_too_large_comes_back() {
    let server = common::server::Server::start(&[]);
    for _ in 0..20 {
        let output = say(&server.addr.to_string(), &[], &format!("first\n{}\nlast\n", "a".repeat(70_000)));
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "first\n");
    }
}
