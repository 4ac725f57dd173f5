//! The real binary as a child process: started, watched, stopped.
//!
//! It promises a server on a free port, all its log lines, and that it is dead when dropped.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::watch;

use super::{PATIENCE, client::Member, client::Transport, terminal, terminal::Terminal, within};

/// What a drain may take at most, its deadline included, before the process goes.
const DRAIN_PATIENCE: Duration = Duration::from_secs(40);

/// Tests that only want a server to end do not wait for balancers.
const SHORT_DRAIN: [(&str, &str); 3] =
    [("CHATROOM_DRAIN_NOTICE", "0s"), ("CHATROOM_DRAIN_SPREAD", "0s"), ("CHATROOM_DRAIN_DEADLINE", "5s")];

const START_PATIENCE: Duration = Duration::from_secs(10);

pub struct Server {
    child: Child,
    pub addr: SocketAddr,
    pub admin_addr: SocketAddr,
    pub metrics_addr: SocketAddr,
    log: Log,
    _unread: Option<ChildStderr>,
}

/// Whether somebody reads the server's log.
enum Reader {
    Reads,
    Stops,
    Closes,
}

/// How the server ended, and its own account of who came and went.
#[derive(Debug)]
pub struct Stopped {
    pub status: ExitStatus,
    pub joined: u64,
    pub departed: u64,
    pub took: Duration,
}

impl Server {
    /// A server that logs each coming and going.
    pub fn start(options: &[&str]) -> Self {
        Self::spawn("info", options, &[])
    }

    /// A server with these variables in its environment.
    pub fn start_in(environment: &[(&str, &str)], options: &[&str]) -> Self {
        Self::spawn("info", options, environment)
    }

    /// A server for storms: it logs warnings and its last line only.
    pub fn start_quiet(options: &[&str]) -> Self {
        Self::spawn("warn,chatroom::server=info", options, &[])
    }

    /// A server whose log nobody reads.
    pub fn start_unread(options: &[&str]) -> Self {
        Self::spawn_for(&Reader::Stops, "info", options, &[])
    }

    /// A server whose log nobody can read: each write fails.
    pub fn start_without_stderr() -> Self {
        Self::spawn_for(&Reader::Closes, "info", &[], &[])
    }

    /// A server in the foreground of a terminal: Ctrl-C and a hang-up there reach it as signals.
    pub fn start_on_terminal(options: &[&str]) -> (Self, Terminal) {
        let (terminal, stdin) = terminal::open();
        // `setsid --ctty` execs: the server's process is the one that is spawned.
        let mut command = Command::new("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_chatroom")]).stdin(stdin);
        let server = Self::spawn_as(command, &Reader::Reads, "info", options, &[]);
        (server, terminal)
    }

    fn spawn(log_filter: &str, options: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn_for(&Reader::Reads, log_filter, options, environment)
    }

    fn spawn_for(reader: &Reader, log_filter: &str, options: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chatroom"));
        command.stdin(Stdio::null());
        Self::spawn_as(command, reader, log_filter, options, environment)
    }

    fn spawn_as(
        mut command: Command,
        reader: &Reader,
        log_filter: &str,
        options: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        command.args(["serve", "--listen", "127.0.0.1:0", "--workers", "2"]);
        command.args(["--admin-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
        command.args(["--log-filter", log_filter]);
        command.args(options);
        for (key, _) in env::vars() {
            if key.starts_with("CHATROOM_") || key.starts_with("OTEL_") || key == "RUST_LOG" {
                command.env_remove(key);
            }
        }
        // By the environment, so that an option can have another.
        command.env("CHATROOM_LOG_FORMAT", "json");
        command.envs(SHORT_DRAIN.iter().copied()).envs(environment.iter().copied());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary was built by cargo");
        let stderr = child.stderr.take().unwrap();
        let (log, unread) = match reader {
            Reader::Reads => (Log::of(stderr), None),
            Reader::Stops => (Log::of(std::io::empty()), Some(stderr)),
            Reader::Closes => (Log::of(std::io::empty()), None),
        };
        let announced = announced_addresses(child.stdout.take().unwrap());
        let Ok([addr, admin_addr, metrics_addr]) = announced.recv_timeout(START_PATIENCE) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("no `listening on …` for each of {LISTENERS:?}; its log: {:#?}", log.lines());
        };
        Self { child, addr, admin_addr, metrics_addr, log, _unread: unread }
    }

    /// A member in `room` on a transport of its own.
    pub async fn join(&self, room: &str) -> Member {
        self.join_as(room, "someone").await
    }

    pub async fn join_as(&self, room: &str, name: &str) -> Member {
        Transport::connect(self.addr).await.join(room, name).await
    }

    /// Has an operator end everyone in the room "blue".
    pub async fn kick_all(&self) {
        self.admin(&["kick", "--room", "blue"]).await;
    }

    /// Has an operator start a drain.
    pub async fn start_drain(&self) {
        self.admin(&["drain", "start"]).await;
    }

    async fn admin(&self, words: &[&str]) {
        let admin = self.admin_addr.to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_chatroom"));
        command.args(["admin", "--addr", &admin]).args(words).stdout(Stdio::null());
        let done = tokio::task::spawn_blocking(move || command.status()).await.unwrap();
        assert!(done.unwrap().success());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Resident memory, in bytes.
    pub fn rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * 1024
    }

    /// Resident memory once it has stopped moving, in bytes.
    pub async fn settled_rss(&self) -> u64 {
        let mut before = self.rss();
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let now = self.rss();
            if now.abs_diff(before) < 64 * 1024 {
                return now;
            }
            before = now;
        }
        before
    }

    /// Open file descriptors: the sockets it still holds, beside a fixed few.
    pub fn descriptors(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        open.unwrap().count()
    }

    /// The log, to be looked at when the server is gone.
    pub fn watch_log(&self) -> Log {
        self.log.clone()
    }

    /// All lines logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// The first logged line with this message that `fits`; waits for it.
    pub async fn logs(&self, message: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let what = format!("the log line {message:?}");
        within(PATIENCE, &what, self.log.first(message, &fits)).await
    }

    /// The id under which the member called `name` was logged as a new user.
    pub async fn id_of(&self, name: &str) -> String {
        let line = self.logs("new user", |line| line["name"] == name).await;
        line["connection"].as_str().unwrap().to_owned()
    }

    /// The departure of the member called `name`; waits for it.
    pub async fn departure_of(&self, name: &str) -> String {
        let id = self.id_of(name).await;
        let line = self.logs("user left", |line| line["connection"] == id.as_str()).await;
        line["reason"].as_str().unwrap().to_owned()
    }

    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal, by its name without SIG.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.unwrap().success(), "no such process: {pid}");
    }

    /// SIGTERM, then its end.
    pub async fn stop(self) -> Stopped {
        self.terminate();
        self.ends().await
    }

    /// Waits for the end of the process, however it ends.
    pub async fn exits(&mut self) -> ExitStatus {
        let gone = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(DRAIN_PATIENCE, "the server's exit", gone).await
    }

    /// Waits for its end, which someone else has asked for.
    pub async fn ends(mut self) -> Stopped {
        let asked = Instant::now();
        let status = self.exits().await;
        let line = self.logs("stopped", |_| true).await;
        let count = |field: &str| match line[field].as_u64() {
            Some(count) => count,
            None => panic!("no {field} in {line}"),
        };
        Stopped { status, joined: count("joined"), departed: count("departed"), took: asked.elapsed() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let lines = self.log.lines();
            let last = lines.len().saturating_sub(30);
            eprintln!("the server's last lines: {:#?}", &lines[last..]);
        }
    }
}

/// The listeners whose addresses the tests need.
const LISTENERS: [&str; 3] = ["chat", "admin", "metrics"];

/// Reads stdout to its end, so that the server never blocks on it; sends the addresses of [`LISTENERS`], in their order.
fn announced_addresses(stdout: impl Read + Send + 'static) -> mpsc::Receiver<[SocketAddr; LISTENERS.len()]> {
    let (found, addresses) = mpsc::channel();
    thread::spawn(move || {
        let mut received = LISTENERS.map(|_| None);
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let told = line.strip_prefix("listening on ").and_then(|rest| rest.split_once(' '));
            let Some((addr, name)) = told else { continue };
            let listener = LISTENERS.iter().position(|listener| name == format!("({listener})"));
            if let Some(listener) = listener {
                received[listener] = Some(addr.parse().unwrap());
            }
            if let [Some(chat), Some(admin), Some(metrics)] = received {
                let _ = found.send([chat, admin, metrics]);
            }
        }
    });
    addresses
}

/// What the server wrote to stderr, as it comes.
#[derive(Clone)]
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    count: watch::Receiver<usize>,
}

impl Log {
    fn of(stderr: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (counted, count) = watch::channel(0);
        let kept = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push(line);
                counted.send_replace(kept.len());
            }
        });
        Self { lines, count }
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    async fn first(&self, message: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut count = self.count.clone();
        let mut seen = 0;
        loop {
            count.mark_unchanged();
            let fresh = self.lines.lock().unwrap()[seen..].to_vec();
            seen += fresh.len();
            for line in fresh {
                let line = serde_json::from_str(&line).unwrap_or(Value::Null);
                if line["message"] == message && fits(&line) {
                    return line;
                }
            }
            let more = count.changed().await;
            assert!(more.is_ok(), "the server is gone without {message:?}");
        }
    }
}
