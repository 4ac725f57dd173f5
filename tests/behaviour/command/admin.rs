//! `chatroom admin`, as an operator and an operator's scripts run it, against the real server.

use crate::common::client::Member;
use crate::common::server::Server;
use serde_json::Value;
use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tonic::Code;

fn admin_at(addr: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatroom"));
    command.arg("admin").args(words).env("CHATROOM_ADMIN_ADDR", addr);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for the command elsewhere, so that members in this runtime go on.
async fn finished(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn output_of(server: &Server, words: &[&str]) -> String {
    let output = finished(admin_at(&server.admin_addr.to_string(), words)).await;
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn json(server: &Server, words: &[&str]) -> Value {
    let words = [words, &["--json"]].concat();
    serde_json::from_str(&output_of(server, &words).await).unwrap()
}

/// The one line of why not; the exit code is 1 and stdout is empty.
async fn refused(addr: &str, words: &[&str]) -> String {
    let output = finished(admin_at(addr, words)).await;
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{words:?}: {output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.lines().count(), 1, "{words:?}: {error}");
    error.strip_prefix("chatroom: ").unwrap().to_owned()
}

fn field<'a>(connections: &'a Value, name: &str) -> Vec<&'a str> {
    connections.as_array().unwrap().iter().map(|connection| connection[name].as_str().unwrap()).collect()
}

/// A command that goes on, and its lines as they come.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn watch(server: &Server, words: &[&str]) -> Self {
        let mut child = admin_at(&server.admin_addr.to_string(), words).spawn().unwrap();
        // It says so once it sees everything.
        let mut ready = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        ready.read_line(&mut line).unwrap();
        assert_eq!(line, format!("chatroom: watching {}\n", server.admin_addr));
        let (found, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).for_each(|line| drop(found.send(line)));
            drop(ready);
        });
        Self { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(crate::common::PATIENCE).expect("a line")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn everyone(server: &Server, names: &[(&str, &str)]) -> Vec<Member> {
    let mut members = Vec::new();
    for (room, name) in names {
        members.push(server.join_as(room, name).await);
    }
    members
}

#[tokio::test]
async fn list_filters_and_orders() {
    let server = Server::start(&[]);
    let _members = everyone(&server, &[("blue", "ann"), ("blue", "bob"), ("red", "cleo")]).await;
    let all = json(&server, &["list"]).await;
    assert_eq!(field(&all["connections"], "name"), ["ann", "bob", "cleo"]);
    assert_eq!(all["totalSize"], 3);
    let ann = &all["connections"][0];
    assert_eq!(
        (&ann["room"], &ann["api"], &ann["lagMessages"]),
        (&"blue".into(), &"API_HELLO".into(), &0.into())
    );
    assert_eq!(ann["id"], server.id_of("ann").await.as_str());
    let peer = ann["peer"].as_str().unwrap();
    let address = peer.split(':').next().unwrap();
    for (filter, expected) in [
        (vec!["--room", "blue"], vec!["ann", "bob"]),
        (vec!["--name", "cleo"], vec!["cleo"]),
        (vec!["--peer", peer], vec!["ann"]),
        (vec!["--peer", address, "--room", "red"], vec!["cleo"]),
        (vec!["--api", "hello", "--limit", "2"], vec!["ann", "bob"]),
        (vec!["--min-lag", "1"], vec![]),
    ] {
        let listed = json(&server, &[vec!["list"], filter.clone()].concat()).await;
        assert_eq!(field(&listed["connections"], "name"), expected, "{filter:?}");
    }
    let table = output_of(&server, &["list", "--limit", "1"]).await;
    assert!(table.starts_with("ID ") && table.ends_with("\n1 of 3 connections\n"), "{table}");
    assert_eq!(table.lines().count(), 3, "{table}");
    assert_eq!(output_of(&server, &["list", "--room", "green"]).await, "0 connections\n");
}

#[tokio::test]
async fn orders_match_the_servers() {
    let server = Server::start(&[]);
    let mut members = everyone(&server, &[("blue", "ann"), ("red", "bob")]).await;
    members[1].publish(&"x".repeat(1000)).await;
    members[1].receives(&"x".repeat(1000)).await;
    let by_bytes = json(&server, &["list", "--order", "bytes"]).await;
    assert_eq!(field(&by_bytes["connections"], "name"), ["bob", "ann"]);
    for order in ["age", "lag"] {
        let listed = json(&server, &["list", "--order", order]).await;
        assert_eq!(field(&listed["connections"], "name"), ["ann", "bob"], "{order}");
    }
}

#[tokio::test]
async fn list_walks_all_pages() {
    let server = Server::start_quiet(&["--max-streams", "2000"]);
    let transport = crate::common::client::Transport::connect(server.addr).await;
    let mut members = Vec::new();
    for n in 0..1203 {
        members.push(transport.join("blue", &format!("n{n}")).await);
    }
    let all = json(&server, &["list"]).await;
    assert_eq!((&all["totalSize"], &all["nextPageToken"]), (&1203.into(), &"".into()));
    let ids: HashSet<_> = field(&all["connections"], "id").into_iter().collect();
    assert_eq!((ids.len(), all["connections"].as_array().unwrap().len()), (1203, 1203));
    let some = json(&server, &["list", "--limit", "1001"]).await;
    assert_eq!(some["connections"].as_array().unwrap().len(), 1001);
}

#[tokio::test]
async fn connection_is_shown_by_id() {
    let server = Server::start(&[]);
    let _members = everyone(&server, &[("blue", "ann")]).await;
    let id = server.id_of("ann").await;
    assert_eq!(json(&server, &["get", &id]).await["connection"]["name"], "ann");
    let facts = output_of(&server, &["get", &id]).await;
    assert!(facts.starts_with(&format!("id             {id}\nroom           blue\n")), "{facts}");
}

#[tokio::test]
async fn kick_dry_run_ends_nobody() {
    let server = Server::start(&[]);
    let mut members = everyone(&server, &[("blue", "ann"), ("red", "bob")]).await;
    let would = output_of(&server, &["kick", "--room", "blue", "--dry-run"]).await;
    assert!(would.contains(" ann ") && !would.contains(" bob "), "{would}");
    assert!(would.ends_with("\ndry run: would kick 1 connection\n"), "{would}");
    members[0].publish("still here").await;
    members[0].receives("still here").await;
}

#[tokio::test]
async fn kick_sends_reason_to_targets_only() {
    let server = Server::start(&[]);
    let mut members = everyone(&server, &[("blue", "ann"), ("blue", "bob"), ("red", "cleo")]).await;
    let kicked = json(&server, &["kick", "--name", "ann", "--reason", "no shouting"]).await;
    assert_eq!((&kicked["kickedCount"], &kicked["bans"]), (&1.into(), &0.into()));
    assert_eq!(field(&kicked["kicked"], "name"), ["ann"]);
    members[0].ends_with(Code::PermissionDenied).await;
    assert_eq!(server.departure_of("ann").await, "kicked");
    members[1].publish("hi").await;
    members[1].receives("hi").await;

    let (id, nobody) = (server.id_of("cleo").await, "00000000-0000-4000-8000-000000000000");
    let words = output_of(&server, &["kick", &id, nobody]).await;
    assert!(words.ends_with(&format!("\nkicked 1 connection\nnot connected: {nobody}\n")), "{words}");
    members[2].ends_with(Code::PermissionDenied).await;
    assert_eq!(output_of(&server, &["kick", "--room", "red"]).await, "kicked 0 connections\n");
}

#[tokio::test]
async fn kick_with_ban_by_name() {
    let server = Server::start(&[]);
    let mut ann = server.join_as("blue", "ann").await;
    let id = server.id_of("ann").await;
    let words = output_of(&server, &["kick", &id, "--ban", "10m", "--ban-name"]).await;
    assert!(words.ends_with("\nkicked 1 connection, 1 ban for 10m00s\n"), "{words}");
    ann.ends_with(Code::PermissionDenied).await;
    let _bob = server.join_as("blue", "bob").await;
    let transport = crate::common::client::Transport::connect(server.addr).await;
    let again = crate::common::client::chat(&[("chatroom-name", "ann"), ("chatroom-room", "blue")]);
    let (_, mut ann) = transport.open(again).await;
    ann.ends_with(Code::PermissionDenied).await;
}

#[tokio::test]
async fn bans_are_listed_and_removed() {
    let server = Server::start(&[]);
    assert_eq!(output_of(&server, &["bans"]).await, "0 bans\n");
    let ban = ["--ban", "10m", "--ban-name", "--reason", "be nice"];
    for name in ["bob", "Ann"] {
        output_of(&server, &[&["kick", "--name", name], &ban[..]].concat()).await;
    }
    output_of(&server, &["kick", "--peer", "10.0.0.7", "--ban", "10m", "--ban-address"]).await;
    let listed = json(&server, &["bans"]).await;
    assert_eq!(field(&listed["bans"], "reason"), ["", "be nice", "be nice"]);
    assert_eq!(
        (&listed["bans"][0]["address"], &listed["bans"][1]["name"]),
        (&"10.0.0.7".into(), &"Ann".into())
    );
    let table = output_of(&server, &["bans", "--limit", "2"]).await;
    assert!(table.starts_with("BY ") && table.contains("\nname     Ann "), "{table}");
    assert!(table.ends_with(" be nice\n2 of 3 bans\n"), "{table}");
    let removed = output_of(&server, &["unban", "--name", "aNN"]).await;
    assert!(removed.contains("\nname  Ann ") && removed.ends_with("\nremoved 1 ban\n"), "{removed}");
    let addr = server.admin_addr.to_string();
    assert_eq!(refused(&addr, &["unban", "--name", "ann"]).await, "NotFound: no ban \"ann\"\n");
    assert_eq!(json(&server, &["unban", "--address", "10.0.0.7"]).await["ban"]["address"], "10.0.0.7");
    assert_eq!(json(&server, &["bans"]).await["totalSize"], 1);
}

#[tokio::test]
async fn rooms_are_ordered_by_name() {
    let server = Server::start(&[]);
    let _members = everyone(&server, &[("red", "ann"), ("blue", "bob"), ("red", "cleo")]).await;
    let rooms = json(&server, &["rooms"]).await;
    assert_eq!(field(&rooms["rooms"], "name"), ["blue", "red"]);
    assert_eq!((&rooms["rooms"][1]["members"], &rooms["totalSize"]), (&2.into(), &2.into()));
    let table = output_of(&server, &["rooms", "--limit", "1"]).await;
    assert!(table.contains("\nblue ") && table.ends_with("\n1 of 2 rooms\n"), "{table}");
}

#[tokio::test]
async fn watch_prints_joins_kicks_and_leaves_of_room() {
    let server = Server::start(&[]);
    let watch = Running::watch(&server, &["watch", "--room", "blue", "--json"]);
    let lines = Running::watch(&server, &["watch"]);
    let _elsewhere = server.join_as("red", "bob").await;
    let mut ann = server.join_as("blue", "ann").await;
    output_of(&server, &["kick", "--name", "ann", "--reason", "bye"]).await;
    ann.ends_with(Code::PermissionDenied).await;
    tokio::task::spawn_blocking(move || {
        let events: Vec<Value> = (0..3).map(|_| serde_json::from_str(&watch.next()).unwrap()).collect();
        assert_eq!(events[0]["joined"]["connection"]["name"], "ann");
        assert_eq!(events[1]["kicked"]["reason"], "bye");
        assert_eq!(events[2]["left"]["reason"], "kicked");
        assert!(events.iter().all(|event| event["time"].as_str().unwrap().ends_with('Z')));
        let told: Vec<_> = (0..4).map(|_| lines.next()).collect();
        let words = |line: &String| line.split_whitespace().nth(1).unwrap().to_owned();
        assert_eq!(told.iter().map(words).collect::<Vec<_>>(), ["joined", "joined", "kicked", "left"]);
        assert!(told[0].contains(" red ") && told[3].ends_with("  kicked"), "{told:?}");
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn watch_fails_when_server_exits() {
    let server = Server::start(&[]);
    let mut watch = Running::watch(&server, &["watch"]);
    server.stop().await;
    let status = tokio::task::spawn_blocking(move || watch.child.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(1));
}

#[tokio::test]
async fn announce_to_one_room_or_all() {
    let server = Server::start(&[]);
    let mut members = everyone(&server, &[("blue", "ann"), ("red", "bob")]).await;
    assert_eq!(
        output_of(&server, &["announce", "only blue", "--room", "blue"]).await,
        "announced in 1 room\n"
    );
    assert_eq!(json(&server, &["announce", "stopping soon"]).await["rooms"], 2);
    members[0].receives("only blue").await;
    members[0].receives("stopping soon").await;
    members[1].receives("stopping soon").await;
}

#[tokio::test]
async fn server_info_is_printed() {
    let server = Server::start(&["--max-rooms", "77"]);
    let _members = everyone(&server, &[("red", "ann"), ("blue", "bob")]).await;
    let info = json(&server, &["info"]).await;
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&info["connections"], &info["rooms"]), (&2.into(), &2.into()));
    assert_eq!((&info["connectionsOpened"], &info["limits"]["max-rooms"]), (&2.into(), &"77".into()));
    assert!(info["pid"] == server.pid(), "{info}");
    let listeners = info["listeners"].as_array().unwrap();
    let admin = listeners.iter().find(|listener| listener["name"] == "admin").unwrap();
    assert_eq!(admin["address"], server.admin_addr.to_string());
    let facts = output_of(&server, &["info"]).await;
    assert!(facts.lines().any(|line| line.split_whitespace().eq(["limit", "max-rooms", "77"])), "{facts}");
}

#[tokio::test]
async fn top_into_pipe_prints_frames_with_rates() {
    let server = Server::start(&[]);
    let mut ann = server.join_as("blue", "ann").await;
    let top = ["top", "--json", "--interval", "300ms", "--count", "2"];
    let mut child = admin_at(&server.admin_addr.to_string(), &top).spawn().unwrap();
    let mut published = 0;
    while child.try_wait().unwrap().is_none() {
        ann.publish("hi").await;
        ann.receives("hi").await;
        published += 1;
    }
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let frames: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(frames.len(), 2, "{text}");
    for frame in &frames {
        let rate = |name: &str| frame["rates"][name].as_f64().unwrap();
        assert!(rate("messagesPublished") > 0.0 && rate("messagesDelivered") > 0.0, "{frame}");
        assert!(rate("messagesPublished") * 0.3 < f64::from(published) * 10.0, "{frame}");
        assert_eq!(frame["info"]["connections"], 1);
        assert_eq!(field(&frame["rooms"], "name"), ["blue"]);
        assert_eq!(field(&frame["biggest"], "name"), ["ann"]);
    }
    let frames = output_of(&server, &["top", "--interval", "100ms", "--count", "3"]).await;
    assert_eq!(frames.matches("busiest rooms").count(), 3, "{frames}");
    assert!(!frames.contains('\u{1b}'), "{frames:?}");
}

#[tokio::test]
async fn top_exits_0_on_ctrl_c() {
    let server = Server::start(&[]);
    let mut child =
        admin_at(&server.admin_addr.to_string(), &["top", "--interval", "100ms"]).spawn().unwrap();
    let mut first = [0; 8];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[tokio::test]
async fn log_filter_is_changed_and_reset() {
    let server = Server::start(&[]);
    let set = json(&server, &["log-filter", "warn", "--expiry", "1h"]).await;
    assert_eq!((&set["previousFilter"], &set["filter"]), (&"info".into(), &"warn".into()));
    assert!(set["expires"].as_str().unwrap().ends_with('Z'), "{set}");
    let back = output_of(&server, &["log-filter", ""]).await;
    assert_eq!(back, "filter  info\nbefore  warn\nuntil   changed again\n");
}

#[tokio::test]
async fn unreachable_server_is_one_line_with_address_and_flag() {
    let id = "00000000-0000-4000-8000-000000000000";
    let commands: [&[&str]; 9] = [
        &["list"],
        &["get", id],
        &["kick", id],
        &["rooms"],
        &["watch"],
        &["announce", "hi"],
        &["info"],
        &["top"],
        &["log-filter", "info"],
    ];
    for words in commands {
        let error = refused("127.0.0.1:1", words).await;
        assert!(error.starts_with("cannot connect to 127.0.0.1:1: ") && error.contains("--addr"), "{error}");
    }
}

#[tokio::test]
async fn refusal_is_one_line_with_code_and_message() {
    let server = Server::start(&[]);
    let addr = server.admin_addr.to_string();
    let nobody = "00000000-0000-4000-8000-000000000000";
    let long = "x".repeat(300);
    let refusals: [(&[&str], &str); 11] = [
        (&["get", nobody], "NotFound: "),
        (&["get", "7"], "InvalidArgument: "),
        (&["kick", nobody], "NotFound: "),
        (&["kick", "7"], "InvalidArgument: "),
        (&["kick", "--name", "ann", "--reason", &long], "InvalidArgument: "),
        (&["kick", "--name", "ann", "--ban", "31days", "--ban-name"], "InvalidArgument: "),
        (&["list", "--peer", "nowhere"], "InvalidArgument: "),
        (&["list", "--room", "a b"], "InvalidArgument: "),
        (&["announce", ""], "InvalidArgument: "),
        (&["announce", "hi", "--room", "green"], "NotFound: "),
        (&["log-filter", "info", "--expiry", "25h"], "InvalidArgument: "),
    ];
    for (words, start) in refusals {
        let error = refused(&addr, words).await;
        assert!(error.starts_with(start) && error.trim_end().len() > start.len(), "{words:?}: {error}");
    }
    let error = refused(&addr, &["log-filter", "chatroom=loud=no"]).await;
    assert!(error.starts_with("InvalidArgument: "), "{error}");
}

#[tokio::test]
async fn kick_without_filter_is_refused() {
    for words in [vec!["kick"], vec!["kick", "--dry-run"], vec!["kick", "--room", "", "--min-lag", "0"]] {
        let error = refused("127.0.0.1:1", &words).await;
        assert!(error.contains("everyone"), "{error}");
    }
}

#[tokio::test]
async fn chat_listener_has_no_admin_service() {
    let server = Server::start(&[]);
    let error = refused(&server.addr.to_string(), &["list"]).await;
    assert!(error.contains("is not an admin listener") && error.contains("--addr"), "{error}");
}

#[tokio::test]
async fn silent_handshake_times_out() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let asking = refused(&addr, &["info"]);
    let error = crate::common::within(Duration::from_secs(60), "an end of waiting", asking).await;
    assert!(error.contains(&addr), "{error}");
}

#[tokio::test]
async fn closed_stdout_is_not_an_error() {
    let server = Server::start(&[]);
    let mut child =
        admin_at(&server.admin_addr.to_string(), &["top", "--interval", "100ms"]).spawn().unwrap();
    drop(child.stdout.take());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[tokio::test]
async fn drain_is_started_shown_and_cancelled() {
    let environment = [("CHATROOM_DRAIN_NOTICE", "100s"), ("CHATROOM_DRAIN_DEADLINE", "105s")];
    let server = Server::start_in(&environment, &[]);
    assert_eq!(json(&server, &["drain", "status"]).await["phase"], "DRAIN_PHASE_SERVING");
    let started = output_of(&server, &["drain", "start"]).await;
    assert!(started.starts_with("phase        notice\n"), "{started}");
    let drain = json(&server, &["drain", "status"]).await;
    assert_eq!((&drain["phase"], &drain["connections"]), (&"DRAIN_PHASE_NOTICE".into(), &0.into()));
    assert_eq!(json(&server, &["drain", "cancel"]).await["phase"], "DRAIN_PHASE_SERVING");
    let again = refused(&server.admin_addr.to_string(), &["drain", "cancel"]).await;
    assert!(again.contains("the server is not draining"), "{again}");
}
