//! The examples do what they say.

use crate::common::server::Server;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

fn example(name: &str, arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--locked", "--example", name, "--"]).args(arguments);
    cargo
}

/// What an example prints.
fn prints(name: &str) -> String {
    let output = example(name, &[]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn game_receives_both_kinds_in_order() {
    let expected = "ann receives \"your turn\"\nann sees a move to 4,2\n\
        bob receives \"your turn\"\nbob sees a move to 4,2\n";
    for example in ["game", "game_service"] {
        assert_eq!(prints(example), expected, "{example}");
    }
}

#[tokio::test]
async fn bot_answers_requests() {
    let server = Server::start(&[]);
    let mut ann = server.join_as("blue", "ann").await;
    let mut bot = example("bot", &[&server.addr.to_string(), "blue"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(bot.stdout.take().unwrap()).lines();
    let is_in = tokio::task::spawn_blocking(move || lines.next()).await.unwrap();
    assert_eq!(is_in.unwrap().unwrap(), "the bot is in");
    ann.publish("!shout hello").await;
    ann.receives("!shout hello").await;
    ann.receives("HELLO").await;
    // It would stay for ever.
    server.kick_all().await;
    let ended = tokio::task::spawn_blocking(move || bot.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(1), "a bot that is kicked does not come back");
}
