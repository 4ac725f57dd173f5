//! `chatroom bench`, as its user runs it: against a server of ours, one that refuses, one that dies, and one that lies.

use crate::common::{PATIENCE, server::Server, within};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, thread};

fn bench(addr: SocketAddr, flags: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatroom"));
    command.args(["bench", "--addr", &addr.to_string(), "--idle", "50ms", "--warmup", "200ms"]);
    command.args(flags.split_whitespace()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn runs(addr: SocketAddr, flags: &str) -> Output {
    bench(addr, flags).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn figures(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The figures of a run in which everyone heard everything, in one order.
fn is_sound(addr: SocketAddr, flags: &str) -> Value {
    let output = runs(addr, &format!("{flags} --json"));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let all = figures(&output);
    let keys = [
        "protocol",
        "connections",
        "transports",
        "rooms",
        "publishers",
        "rate",
        "window",
        "size",
        "duration_seconds",
        "messages",
        "deliveries",
        "messages_per_second",
        "deliveries_per_second",
        "latency_us",
        "lost",
        "duplicates",
        "orders",
        "connect_seconds",
        "connects_per_second",
        "failed",
        "stalled",
        "server",
        "client",
    ];
    assert!(keys.iter().all(|key| all.get(key).is_some()), "{all}");
    assert_eq!(
        (&all["lost"], &all["duplicates"], &all["orders"]),
        (&0.into(), &0.into(), &1.into()),
        "{all}"
    );
    assert_eq!(all["failed"], Value::Object(serde_json::Map::new()), "{all}");
    let latency = ["p50", "p90", "p99", "p999", "max"].map(|q| all["latency_us"][q].as_f64().unwrap());
    assert!(latency[0] > 0.0 && latency.is_sorted(), "{all}");
    all
}

/// How many heard a message, on average. What is under way when measuring begins and ends blurs it.
fn receivers(all: &Value) -> f64 {
    all["deliveries"].as_f64().unwrap() / all["messages"].as_f64().unwrap()
}

#[test]
fn closed_loop_delivers_to_all_in_order() {
    let server = Server::start_quiet(&[]);
    let pid = std::process::id();
    let flags = format!("--connections 20 --publishers 4 --window 8 --duration 1s --pid {pid}");
    let all = is_sound(server.addr, &flags);
    assert!((15.0..25.0).contains(&receivers(&all)), "{all}");
    assert_eq!((&all["window"], &all["rate"]), (&8.into(), &Value::Null));
    assert!(
        all["server"]["rss_bytes_joined"].as_u64() > Some(0) && all["server"]["threads"].as_u64() > Some(0)
    );
    assert!(
        all["server"]["cpu_seconds"].is_number() && all["client"]["cpu_ns_per_delivery"].as_f64() > Some(0.0)
    );
}

#[test]
fn open_loop_keeps_its_rate() {
    let server = Server::start_quiet(&[]);
    let all = is_sound(server.addr, "--connections 10 --publishers 3 --rate 300 --duration 2s --size 200");
    // What is said late is said all the same.
    let messages = all["messages"].as_u64().unwrap();
    assert!((300..=700).contains(&messages), "{all}");
    assert_eq!((&all["window"], &all["rate"], &all["server"]), (&Value::Null, &300.0.into(), &Value::Null));
}

#[test]
fn latency_counts_from_due_time() {
    let server = Server::start_quiet(&[]);
    let child = bench(server.addr, "--connections 2 --rate 100 --duration 3s --json").spawn().unwrap();
    let until_it_measures = Duration::from_millis(1500);
    thread::sleep(until_it_measures);
    signal(child.id(), "STOP");
    // A third of what it measures.
    thread::sleep(Duration::from_secs(1));
    signal(child.id(), "CONT");
    let output = child.wait_with_output().unwrap();
    let all = figures(&output);
    // A third of the messages were due while it could not say them: the later ones waited for less.
    assert!(output.status.success() && all["latency_us"]["p90"].as_f64() > Some(300_000.0), "{output:?}");
}

#[test]
fn rooms_and_shared_transports_are_separate() {
    let server = Server::start_quiet(&[]);
    let flags = "--connections 24 --rooms 4 --publishers 8 --window 4 --duration 1s";
    for more in ["", "--transports 3 --threads 2", "--protocol v1 --transports 5"] {
        let all = is_sound(server.addr, &format!("{flags} {more}"));
        assert!((4.0..8.0).contains(&receivers(&all)), "{more}: {all}");
    }
}

#[test]
fn stalled_readers_are_reported_apart() {
    let server = Server::start_quiet(&["--lag-limit-bytes", "512KiB"]);
    for more in ["", "--read-rate 4096"] {
        let flags = format!("--connections 5 --stall 3 --size 4096 --window 16 --duration 4s {more}");
        let all = is_sound(server.addr, &flags);
        assert_eq!(all["stalled"]["connections"], 3);
        let ended = all["stalled"]["ended"].as_object().unwrap();
        let count: u64 = ended.values().map(|count| count.as_u64().unwrap()).sum();
        // With a status as long as the server waits for them to take it, by a reset after that.
        assert_eq!(count, 3, "{all}");
    }
}

#[test]
fn connection_churn_loses_nothing() {
    let server = Server::start_quiet(&[]);
    for more in ["", "--transports 4 --threads 2"] {
        let flags = format!("--connections 30 --publishers 3 --window 4 --churn 50 --duration 2s {more}");
        let all = is_sound(server.addr, &flags);
        assert!(all["churned"].as_u64() > Some(10), "{all}");
    }
}

#[test]
fn run_without_publishers() {
    let server = Server::start_quiet(&[]);
    let output = runs(server.addr, "--connections 50 --publishers 0 --json");
    let all = figures(&output);
    assert!(output.status.success() && all["messages"] == 0 && all["orders"].is_null(), "{output:?}");
    assert!(all["latency_us"]["p50"].is_null() && all["connects_per_second"].as_f64() > Some(0.0));
}

#[test]
fn refused_calls_are_counted_by_status() {
    let server = Server::start_quiet(&["--max-connections", "5"]);
    let output = runs(server.addr, "--connections 8 --duration 500ms --json");
    let all = figures(&output);
    assert_eq!(
        (output.status.code(), &all["failed"]["RESOURCE_EXHAUSTED"]),
        (Some(1), &3.into()),
        "{output:?}"
    );
    assert!(stderr(&output).contains("3 connections: RESOURCE_EXHAUSTED"), "{output:?}");
    assert!(all["deliveries"].as_u64() > Some(0) && all["lost"] == 0, "the others go on: {all}");
}

#[test]
fn unreachable_server_is_reported() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = runs(nobody, "--connections 8");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("no connection could join") && stderr(&output).contains("refused"),
        "{output:?}"
    );
}

#[test]
fn silent_server_times_out() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let began = Instant::now();
    let output = runs(silent.local_addr().unwrap(), "--connections 8");
    assert!(
        output.status.code() == Some(1) && stderr(&output).contains("8 connections: no response"),
        "{output:?}"
    );
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn other_protocol_is_reported() {
    let server = Server::start_quiet(&[]);
    let output = runs(server.metrics_addr, "--connections 2");
    assert!(
        output.status.code() == Some(1) && stderr(&output).contains("no connection could join"),
        "{output:?}"
    );
}

#[tokio::test]
async fn server_death_ends_run_and_is_reported() {
    let server = Server::start_quiet(&[]);
    let mut witness = server.join("bench-1").await;
    let child = bench(server.addr, "--connections 10 --rooms 2 --publishers 2 --duration 60s --json")
        .spawn()
        .unwrap();
    within(PATIENCE, "the first message", witness.next()).await.unwrap();
    // It warms up; let it measure.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let killed = Instant::now();
    drop(server);
    let output = child.wait_with_output().unwrap();
    let all = figures(&output);
    let failed: u64 = all["failed"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert!(output.status.code() == Some(1) && failed == 10 && all["lost"] == 0, "{output:?}");
    assert!(killed.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn interrupt_still_reports() {
    let server = Server::start_quiet(&[]);
    let mut witness = server.join("lobby").await;
    let child = bench(server.addr, "--connections 10 --rate 100 --duration 60s --json").spawn().unwrap();
    within(PATIENCE, "the first message", witness.next()).await.unwrap();
    // It warms up; let it measure.
    tokio::time::sleep(Duration::from_secs(1)).await;
    signal(child.id(), "INT");
    let output = child.wait_with_output().unwrap();
    let all = figures(&output);
    assert!(
        output.status.success() && all["messages"].as_u64() > Some(0) && all["orders"] == 1,
        "{output:?}"
    );
    assert!(all["duration_seconds"].as_f64() < Some(30.0));
}

#[test]
fn svg_and_histogram_log_are_readable() {
    let server = Server::start_quiet(&[]);
    let folder = std::env::temp_dir().join(format!("chatroom-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (plot, log) = (folder.join("run.svg"), folder.join("run.hlog"));
    let files = format!("--plot {} --histogram {}", plot.display(), log.display());
    let all = is_sound(server.addr, &format!("--connections 5 --rate 200 --duration 3s --threads 2 {files}"));
    let picture = fs::read_to_string(plot).unwrap();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"), "{picture}");
    assert!(["p99", "latency, ms", "deliveries/s"].iter().all(|text| picture.contains(text)), "{picture}");
    let latencies = read_log(&fs::read(log).unwrap());
    fs::remove_dir_all(folder).unwrap();
    let ns = |key: &str| format!("{:.0}", all["latency_us"][key].as_f64().unwrap() * 1e3);
    assert_eq!(latencies.value_at_quantile(0.5).to_string(), ns("p50"));
    assert_eq!(latencies.value_at_quantile(1.0).to_string(), ns("max"));
}

/// All intervals of a log together.
fn read_log(bytes: &[u8]) -> Histogram<u64> {
    let mut total = Histogram::new(3).unwrap();
    for entry in IntervalLogIterator::new(bytes) {
        if let LogEntry::Interval(interval) = entry.unwrap() {
            let encoded = interval.encoded_histogram();
            total
                .add(Deserializer::new().deserialize::<u64, _>(&mut &unbase64(encoded)[..]).unwrap())
                .unwrap();
        }
    }
    total
}

fn unbase64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes().filter(|&digit| digit != b'=') {
        bits = bits << 6 | DIGITS.iter().position(|&d| d == digit).unwrap() as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

#[test]
fn invalid_options_are_refused() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    for (flags, words) in [
        ("--connections 3 --transports 4", "--transports is more than --connections"),
        ("--connections 3 --publishers 4", "--publishers is more than"),
        ("--connections 10000000", "open files, and the limit is"),
        ("--protocol framed --rooms 2", "one room"),
        ("--churn 1 --connections 1", "--churn needs connections that do not publish"),
        ("--pid 2147483647", "--pid"),
    ] {
        let output = runs(nobody, flags);
        assert!(output.status.code() == Some(1) && stderr(&output).contains(words), "{flags}: {output:?}");
    }
    for flags in ["--rate 1 --window 1", "--size 39", "--read-rate 5", "--protocol smoke"] {
        assert_eq!(runs(nobody, flags).status.code(), Some(2), "{flags}");
    }
}

#[test]
fn server_process_is_found_by_asking_it() {
    let server = Server::start_quiet(&[]);
    let _another = Server::start_quiet(&[]);
    let load = "--connections 5 --publishers 1 --window 4 --duration 1s";
    let all = is_sound(server.addr, &format!("{load} --admin {}", server.admin_addr));
    assert!(
        all["server"]["rss_bytes_joined"].as_u64() > Some(0) && all["server"]["cpu_seconds"].is_number(),
        "{all}"
    );
    for (flags, code, words) in [
        (format!("--admin {}", server.addr), 1, "--admin: "),
        (format!("--admin {} --pid 1", server.admin_addr), 2, "cannot be used with"),
    ] {
        let output = runs(server.addr, &format!("{load} {flags}"));
        assert!(output.status.code() == Some(code) && stderr(&output).contains(words), "{flags}: {output:?}");
    }
}

/// A broadcast server of a few lines that speaks `framed`; what it passes on to whom, `pass` says: the texts, for a
/// receiver.
fn framed_server(pass: impl Fn(usize, u64, Vec<u8>) -> Vec<Vec<u8>> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let room: Arc<Mutex<(u64, Vec<TcpStream>)>> = Arc::default();
    let pass = Arc::new(pass);
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            room.lock().unwrap().1.push(socket.try_clone().unwrap());
            let (room, pass) = (room.clone(), pass.clone());
            thread::spawn(move || serve_framed(socket, &room, &*pass));
        }
    });
    addr
}

fn serve_framed(
    mut socket: TcpStream,
    room: &Mutex<(u64, Vec<TcpStream>)>,
    pass: &dyn Fn(usize, u64, Vec<u8>) -> Vec<Vec<u8>>,
) {
    let mut length = [0; 4];
    while socket.read_exact(&mut length).is_ok() {
        let mut text = vec![0; u32::from_be_bytes(length) as usize];
        if socket.read_exact(&mut text).is_err() {
            return;
        }
        // Eight digits f: it only asks who is in.
        let is_probe = text[8..16] == *b"ffffffff";
        let (count, receivers) = &mut *room.lock().unwrap();
        *count += u64::from(!is_probe);
        for (number, receiver) in receivers.iter_mut().enumerate() {
            let texts = if is_probe { vec![text.clone()] } else { pass(number, *count, text.clone()) };
            for text in texts {
                let _ = receiver.write_all(&[&(text.len() as u32).to_be_bytes()[..], &text].concat());
            }
        }
    }
}

const FRAMED: &str = "--protocol framed --connections 4 --publishers 2 --rate 200 --duration 1s";

#[test]
fn correct_foreign_server_passes() {
    let all = is_sound(framed_server(|_, _, text| vec![text]), FRAMED);
    assert!((3.0..5.0).contains(&receivers(&all)), "{all}");
}

/// What a run against a server says that does this to the messages.
fn is_caught(pass: impl Fn(usize, u64, Vec<u8>) -> Vec<Vec<u8>> + Send + Sync + 'static) -> (Value, String) {
    let output = runs(framed_server(pass), &format!("{FRAMED} --json"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    (figures(&output), stderr(&output))
}

#[test]
fn message_lost_for_one_receiver_is_found() {
    let (all, words) =
        is_caught(|receiver, n, text| if (receiver, n) == (2, 50) { vec![] } else { vec![text] });
    assert!(
        all["lost"] == 1 && all["duplicates"] == 0 && words.contains("1 deliveries lost"),
        "{all} {words}"
    );
}

#[test]
fn lost_last_messages_are_found() {
    let (all, words) =
        is_caught(|receiver, n, text| if receiver == 2 && n > 50 { vec![] } else { vec![text] });
    assert!(all["lost"].as_u64() > Some(100), "{all} {words}");
}

#[test]
fn duplicated_message_is_found() {
    let (all, words) =
        is_caught(
            |receiver, n, text| if (receiver, n) == (1, 50) { vec![text.clone(), text] } else { vec![text] },
        );
    assert!(all["duplicates"] == 1 && all["lost"] == 0 && words.contains("1 duplicates"), "{all} {words}");
}

#[test]
fn diverging_order_for_one_receiver_is_found() {
    let held = Mutex::new(Vec::new());
    let (all, words) = is_caught(move |receiver, n, text| match (receiver, n) {
        // Publishers take turns: these two are of different ones.
        (3, 50) => {
            held.lock().unwrap().push(text);
            vec![]
        }
        (3, 51) => [vec![text], std::mem::take(&mut *held.lock().unwrap())].concat(),
        _ => vec![text],
    });
    assert!(all["orders"] == 2 && all["lost"] == 0, "{all} {words}");
    assert!(words.contains("up to 2 different orders"), "{words}");
}

#[test]
fn damaged_text_is_found() {
    let (all, words) = is_caught(|receiver, n, mut text| {
        if (receiver, n) == (0, 50) {
            text.truncate(50);
        }
        vec![text]
    });
    assert!(all["lost"] == 1 && words.contains("1 texts were damaged"), "{all} {words}");
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}
