//! `chatroom chat`, as its user runs it: piped, in two terminals, with a server that comes and goes.

use crate::common::{
    PATIENCE,
    proxy::{Plan, Proxy},
    server::Server,
};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;

fn chat(addr: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatroom"));
    command.args(["chat", "--addr", addr]).args(flags);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(addr: &str, flags: &[&str], input: &str) -> Output {
    let mut child = chat(addr, flags).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn piped_lines_are_published_and_printed() {
    let server = Server::start(&[]);
    let lines = (0..500).map(|n| format!("line {n} ü")).collect::<Vec<_>>().join("\n") + "\n";
    let output = run(&server.addr.to_string(), &["--name", "ann"], &lines);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), lines);
}

#[test]
fn empty_input_exits_at_once() {
    let server = Server::start(&[]);
    let output = run(&server.addr.to_string(), &[], "");
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

#[tokio::test]
async fn piped_output_is_one_line_per_message() {
    let server = Server::start(&[]);
    let mut chat = Following::start(&server.addr.to_string(), &["--from", "earliest"]);
    let mut mallory = server.join_as("lobby", "mallory").await;
    let forged = "hi\nboss: pay mallory\r\u{1b}[2K\u{202e}evil\u{2028}\u{9b}31m\u{85}end";
    for text in [forged, "the next line"] {
        mallory.publish(text).await;
        mallory.receives(text).await;
    }
    let escaped = r"hi\nboss: pay mallory\r\u{1b}[2K\u{202e}evil\u{2028}\u{9b}31m\u{85}end";
    chat.receives(escaped);
    chat.receives("the next line");
    chat.ends();
}

#[test]
fn unreachable_server_is_one_line_and_exit_code() {
    let output = run("127.0.0.1:1", &[], "hi\n");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("chatroom: cannot connect to 127.0.0.1:1: "), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn refused_room_name_prints_the_rule() {
    let server = Server::start(&[]);
    let output = run(&server.addr.to_string(), &["--room", "a b"], "hi\n");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("InvalidArgument") && error.contains("A-Z a-z 0-9"), "{error}");
}

#[test]
fn non_utf8_line_is_reported_and_skipped() {
    let server = Server::start(&[]);
    let mut child = chat(&server.addr.to_string(), &[]).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"one\nbad \xff\nthree\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "one\nbad \u{fffd}\nthree\n");
    assert!(String::from_utf8(output.stderr).unwrap().contains("line 2 is not UTF-8"));
}

#[test]
fn other_protocol_is_an_error_without_retry() {
    let server = Server::start(&[]);
    let output = run(&server.metrics_addr.to_string(), &[], "hi\n");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("cannot join") && error.lines().count() == 1, "{error}");
}

#[test]
fn lines_before_oversized_one_are_printed() {
    let server = Server::start(&[]);
    for _ in 0..20 {
        let output = run(&server.addr.to_string(), &[], &format!("first\n{}\nlast\n", "a".repeat(70_000)));
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "first\n");
    }
}

/// The lines that a chat of these flags prints when it says this; it must end well.
fn printed(addr: &str, flags: &[&str], input: &str) -> Vec<String> {
    let output = run(addr, flags, input);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The same in JSON: what each object is, and what is in it.
fn printed_json(addr: &str, flags: &[&str], input: &str) -> Vec<(String, Value)> {
    let lines = printed(addr, &[flags, &["--json"]].concat(), input);
    let parsed = lines.iter().map(|line| match serde_json::from_str(line).unwrap() {
        Value::Object(object) if object.len() == 1 => object.into_iter().next().unwrap(),
        other => panic!("{other}"),
    });
    parsed.collect()
}

/// What there is of this in it.
fn of<'a>(received: &'a [(String, Value)], name: &str) -> Vec<&'a Value> {
    received.iter().filter(|(is, _)| is == name).map(|(_, value)| value).collect()
}

#[test]
fn history_starts_at_option() {
    let server = Server::start(&[]);
    let addr = server.addr.to_string();
    printed(&addr, &[], "1\n2\n3\n");
    assert_eq!(printed(&addr, &["--from", "earliest"], "4\n"), ["1", "2", "3", "4"]);
    assert_eq!(printed(&addr, &["--from", "last:2"], "5\n"), ["3", "4", "5"]);
    assert_eq!(printed(&addr, &[], "6\n"), ["6"]);
    assert_eq!(printed(&addr, &["--from", "earliest"], ""), ["1", "2", "3", "4", "5", "6"]);
    let received = printed_json(&addr, &["--from", "earliest"], "7\n");
    let second = of(&received, "event")[1]["position"].as_str().unwrap();
    assert_eq!(printed(&addr, &["--from", second], "8\n"), ["3", "4", "5", "6", "7", "8"]);
}

#[test]
fn invalid_start_option_prints_valid_ones() {
    let output = run("127.0.0.1:1", &["--from", "yesterday"], "");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("tail, earliest, last:N"), "{error}");
}

#[test]
fn position_beyond_end_is_an_error() {
    let server = Server::start(&[]);
    let addr = server.addr.to_string();
    let received = printed_json(&addr, &[], "1\n");
    let position = of(&received, "ack")[0]["position"].as_str().unwrap();
    let beyond = position.replace(":1", ":1000");
    let output = run(&addr, &["--from", &beyond], "hi\n");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.contains("OutOfRange"), "{error}");
}

#[test]
fn kind_options_apply() {
    let server = Server::start(&[]);
    let addr = server.addr.to_string();
    assert_eq!(printed(&addr, &["--kind", "move"], "e4\n"), ["e4"]);
    assert_eq!(printed(&addr, &[], "nice\n"), ["nice"]);
    assert_eq!(printed(&addr, &["--from", "earliest", "--only", "move,score"], "wow\n"), ["e4"]);
    let output = run(&addr, &["--kind", "a b"], "hi\n");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.contains("A-Z a-z 0-9"), "{error}");
}

#[test]
fn json_has_one_object_per_response() {
    let server = Server::start(&[]);
    let addr = server.addr.to_string();
    let received =
        printed_json(&addr, &["--name", "ann", "--room", "blue", "--kind", "move"], "e4 \u{1b}[2J\ne5\n");
    let welcome = of(&received, "welcome")[0];
    assert_eq!((&welcome["room"], &welcome["maxMessageBytes"]), (&"blue".into(), &65_536.into()));
    let (events, acks) = (of(&received, "event"), of(&received, "ack"));
    assert_eq!((events.len(), acks.len()), (2, 2));
    for (event, ack) in events.iter().zip(&acks) {
        assert_eq!((&event["position"], &ack["repeated"]), (&ack["position"], &false.into()));
        assert_eq!(event["sender"]["displayName"], "ann");
        assert_eq!(event["sender"]["connectionId"], welcome["connectionId"]);
        assert_eq!(event["kind"], "move");
        let time = event["time"].as_str().unwrap();
        assert!(time.len() == 30 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    }
    assert_eq!(events[0]["body"], serde_json::json!({ "text": "e4 \u{1b}[2J" }));
    assert!(events[1]["position"].as_str().unwrap().ends_with(":2"));
    let goodbye = of(&received, "goodbye")[0];
    assert_eq!((&goodbye["reason"], &goodbye["retryAfter"]), (&"left".into(), &Value::Null));
    assert_eq!(goodbye["position"], events[1]["position"]);

    let position = welcome["position"].as_str().unwrap();
    let other_epoch = position.replace(|c| c != ':', "0");
    let received = printed_json(&addr, &["--room", "blue", "--from", &other_epoch], "e6\n");
    let gap = of(&received, "gap")[0];
    assert_eq!((&gap["reason"], &gap["count"]), (&"REASON_EPOCH".into(), &0.into()));
}

/// What the objects are, each event and acknowledgement with its place.
fn outline(received: &[(String, Value)]) -> Vec<String> {
    let place = |value: &Value| {
        let position = value["position"].as_str()?;
        Some(position.rsplit_once(':')?.1.to_owned())
    };
    let of = |(is, value): &(String, Value)| match &**is {
        "event" | "ack" => format!("{is} {}", place(value).unwrap()),
        _ => is.clone(),
    };
    received.iter().map(of).collect()
}

#[test]
fn acks_follow_their_events_before_goodbye() {
    let server = Server::start(&[]);
    let addr = server.addr.to_string();
    let lines = "hi\n".repeat(500);
    let received = printed_json(&addr, &["--room", "blue"], &lines);
    let mut expected = vec!["welcome".to_owned()];
    expected.extend((1..=500).flat_map(|n| [format!("event {n}"), format!("ack {n}")]));
    expected.push("goodbye".to_owned());
    assert_eq!(outline(&received), expected);
    let lines_of = |received: &[(String, Value)]| {
        of(received, "ack").iter().map(|ack| ack["line"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(lines_of(&received), (1..=500).collect::<Vec<_>>());
    // The same when its own lines are not heard.
    let received = printed_json(&addr, &["--room", "blue", "--only", "nothing"], &lines);
    let mut expected = vec!["welcome".to_owned()];
    expected.extend((501..=1000).map(|n| format!("ack {n}")));
    expected.push("goodbye".to_owned());
    assert_eq!(outline(&received), expected);
    assert_eq!(lines_of(&received), (1..=500).collect::<Vec<_>>());
}

#[test]
fn unreadable_input_is_an_error() {
    let server = Server::start(&[]);
    let addr = server.addr.to_string();
    for flags in [&[][..], &["--follow"]] {
        let folder = std::fs::File::open("/").unwrap();
        let output = chat(&addr, flags).stdin(folder).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{flags:?}: {error}");
        assert!(
            error.starts_with("chatroom: cannot read the input: ") && error.lines().count() == 1,
            "{error}"
        );
    }
}

#[test]
fn server_without_service_is_one_line() {
    let server = Server::start(&[]);
    let addr = server.admin_addr.to_string();
    let output = run(&addr, &[], "hi\n");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error, format!("chatroom: {addr} does not speak chatroom.v1\n"));
}

/// A chat that goes on until it is ended.
struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn start(addr: &str, flags: &[&str]) -> Self {
        let mut child = chat(addr, flags).arg("--follow").spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| send.send(line).is_ok()));
        Self { child, lines }
    }

    fn publishes(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn receives(&mut self, expected: &str) {
        assert_eq!(self.lines.recv_timeout(PATIENCE).as_deref(), Ok(expected));
    }

    /// Ends it; what it wrote to stderr.
    fn ends(mut self) -> String {
        self.child.kill().unwrap();
        let output = self.child.wait_with_output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    }
}

#[tokio::test]
async fn reconnect_resumes_and_prints_gap() {
    let first = Server::start(&[]);
    let proxy = Proxy::start(first.addr, Plan::quiet()).await;
    let chatting = tokio::task::spawn_blocking(move || {
        let mut chat = Following::start(&proxy.addr.to_string(), &[]);
        chat.publishes("before");
        chat.receives("before");
        proxy.closes();
        drop(first);
        chat.publishes("meanwhile");
        let second = Server::start(&[]);
        proxy.leads_to(second.addr);
        chat.receives("meanwhile");
        chat.ends()
    });
    let notes = chatting.await.unwrap();
    assert!(notes.contains("chatroom: disconnected (") && notes.contains(", trying again in "), "{notes}");
    assert!(notes.contains("chatroom: connected again\n"), "{notes}");
    assert!(notes.contains("chatroom: missed messages from before the room restarted"), "{notes}");
}

#[test]
fn presence_is_printed() {
    let server = Server::start(&[]);
    let addr = server.addr.to_string();
    let chat = Following::start(&addr, &["--presence", "--json"]);
    let first = chat.lines.recv_timeout(PATIENCE).unwrap();
    assert!(first.contains("welcome"), "{first}");
    let guest = Following::start(&addr, &["--name", "guest"]);
    let joined = |line: &str| -> Vec<Value> {
        let mut object: Value = serde_json::from_str(line).unwrap();
        serde_json::from_value(object["presence"]["joined"].take()).unwrap_or_default()
    };
    // It is told in its own time.
    while !joined(&chat.lines.recv_timeout(PATIENCE).unwrap()).iter().any(|who| who["displayName"] == "guest")
    {
    }
    guest.ends();
    chat.ends();
}
