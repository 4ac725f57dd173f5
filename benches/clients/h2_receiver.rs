//! The receive path of a client on the `h2` crate, to compare with that of `chatroom bench`: both join the same room of a
//! running server, and each reports its CPU time per received message.
//!
//! ```sh
//! chatroom serve --retention-bytes 64MiB &
//! cargo run --release --example h2_receiver -- 127.0.0.1:50051 100 12 &
//! chatroom bench --connections 100 --rate 2000 --warmup 1s --duration 15s
//! ```
//!
//! Both check the content and the order of each message by the same code; this one does so for the cost, and reports errors
//! only of calls that the server ends. The load tool also records latencies, and
//! publishes, so that its figure is the higher bound of its receive path.

#[allow(dead_code, reason = "the load tool's module, of which this needs the reader")]
#[path = "../../src/cmd/bench/payload.rs"]
mod payload;
#[allow(dead_code, reason = "the load tool's module, of which this needs the checks")]
#[path = "../../src/cmd/bench/receiver.rs"]
mod receiver;

use bytes::{Buf as _, Bytes, BytesMut};
use receiver::Receiver;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

type Failure = Box<dyn std::error::Error>;

/// Flag and length of a gRPC message.
const PREFIX: usize = 5;
/// More publishers than any run has.
const PUBLISHERS: usize = 1000;
/// As large as those of the load tool, so that flow control limits neither.
const WINDOW: u32 = (1 << 31) - 1;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:50051".to_owned());
    let connections: usize = arguments.next().map_or(Ok(100), |count| count.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(10), |seconds| seconds.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let received = Rc::new(Cell::new(0_u64));
    LocalSet::new().block_on(&runtime, async {
        for _ in 0..connections {
            let call = receive(address.clone(), received.clone());
            tokio::task::spawn_local(async move {
                if let Err(error) = call.await {
                    eprintln!("h2_receiver: {error}");
                }
            });
        }
        // Counts from the first message on.
        while received.get() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let messages = received.get();
        let cpu = cpu_time()?;
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let messages = received.get() - messages;
        let cpu = cpu_time()? - cpu;
        let per_second = messages as f64 / began.elapsed().as_secs_f64();
        println!(
            "{messages} messages, {per_second:.0}/s, {:.0} ns of CPU each",
            cpu as f64 / messages as f64
        );
        Ok(())
    })
}

/// CPU time of this thread, the only busy one, in nanoseconds.
fn cpu_time() -> Result<u64, Failure> {
    Ok(procfs::process::Process::myself()?.task_main_thread()?.schedstat()?.sum_exec_runtime)
}

/// Joins the lobby on a connection of its own, and counts the messages of its response.
async fn receive(address: String, received: Rc<Cell<u64>>) -> Result<(), Failure> {
    let socket = TcpStream::connect(&address).await?;
    socket.set_nodelay(true)?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).max_frame_size(1 << 20);
    let (client, connection) = builder.handshake::<_, Bytes>(socket).await?;
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let mut client = client.ready().await?;
    let request = http::Request::post(format!("http://{address}/hello.ChatRoom/Chat"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    // The request stream stays open as long as the call.
    let (response, _request_stream) = client.send_request(request, false)?;
    let mut body = response.await?.into_body();
    let mut checks = Checks { receiver: Receiver::in_the_middle(PUBLISHERS), tag: None, strange: 0 };
    let mut pending = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        // Copies only what is split between two pieces of input, as the load tool does.
        if pending.is_empty() {
            let read = checks.read(&data, &received);
            pending.extend_from_slice(&data[read..]);
        } else {
            pending.extend_from_slice(&data);
            let read = checks.read(&pending, &received);
            pending.advance(read);
        }
    }
    let errors = checks.receiver.errors();
    if checks.strange > 0 || errors != receiver::DeliveryErrors::default() {
        eprintln!("h2_receiver: {errors:?}, {} strange messages", checks.strange);
    }
    Ok(())
}

/// The checks of one connection.
struct Checks {
    receiver: Receiver,
    /// The run's tag, as of the first message.
    tag: Option<payload::Tag>,
    strange: u64,
}

impl Checks {
    /// Checks the complete messages; returns their length.
    fn read(&mut self, bytes: &[u8], received: &Cell<u64>) -> usize {
        let mut read = 0;
        while let Some(&[_, a, b, c, d]) = bytes[read..].first_chunk::<PREFIX>() {
            let end = read + PREFIX + u32::from_be_bytes([a, b, c, d]) as usize;
            let Some(message) = bytes.get(read + PREFIX..end) else { break };
            self.check(message);
            received.set(received.get() + 1);
            read = end;
        }
        read
    }

    /// `message ChatResponse { string message = 1; }`, of less than 128 bytes.
    fn check(&mut self, message: &[u8]) {
        let Some((&[0x0a, _], text)) = message.split_first_chunk::<2>() else {
            self.strange += 1;
            return;
        };
        let tag = *self.tag.get_or_insert_with(|| text.first_chunk().copied().unwrap_or_default());
        match payload::read(text, tag) {
            Some(stamp) if stamp.slot == payload::PROBE || self.receiver.record(stamp) => {}
            _ => self.strange += 1,
        }
    }
}
