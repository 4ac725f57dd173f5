//! A worker that cannot go on ends the server, quickly and with an error, so that its supervisor starts it again.

use crate::common::own_process::output_of;
use chatroom::config::Settings;
use chatroom::drain::{Drain, DrainTimes};
use chatroom::hub::{
    ClientInfo, EventMeta, Hub, Limits, Payload, RoomName, ShardDriver, SubscribeOptions, WireForm,
};
use chatroom::server::Server;
use chatroom::telemetry::{self, LogFormat};
use chatroom::transport::{self, MethodLimits, RpcMetrics, Worker};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(10);

/// A message that cannot be encoded.
struct Bomb;

impl Payload for Bomb {
    fn size(&self) -> usize {
        1
    }

    fn encode(&self, _: WireForm, _: &EventMeta, _: &mut bytes::BytesMut) {
        panic!("planted");
    }
}

fn limits() -> Arc<transport::TransportLimits> {
    let Settings { keepalive_interval, keepalive_timeout, .. } = Settings::default();
    Arc::new(transport::TransportLimits {
        streams: 10,
        calls: 10,
        message_bytes: 1024,
        preface_deadline: PATIENCE,
        first_stream_deadline: PATIENCE,
        request_deadline: PATIENCE,
        response_stall: PATIENCE,
        write_stall: PATIENCE,
        idle: PATIENCE,
        keepalive_interval,
        keepalive_timeout,
    })
}

fn worker(failed: &CancellationToken) -> Worker<tonic::service::Routes> {
    let methods = RpcMetrics::from_descriptors(&[], |_, _| MethodLimits {
        request_bytes: 1024,
        answer_bytes: 1024,
        may_be_silent: true,
    })
    .unwrap();
    let services = tonic::service::Routes::default();
    Worker { services, limits: limits(), methods, failed: failed.clone() }
}

#[tokio::test]
async fn shard_panic_fails_its_worker() {
    let (hub, mut shards) = Hub::<Bomb>::new(Limits::default(), 1);
    let shard: ShardDriver<Bomb> = shards.remove(0);
    let id = shard.id();
    let failed = CancellationToken::new();
    let _worker = worker(&failed).start(0, shard.run()).unwrap();
    let who = ClientInfo::anonymous();
    let mut joined =
        hub.join(id, &RoomName::default(), who, SubscribeOptions::live(WireForm::default())).unwrap();
    assert!(!failed.is_cancelled());
    joined.publisher.publish(Bomb).await.unwrap();
    timeout(PATIENCE, failed.cancelled()).await.unwrap();
}

#[tokio::test]
async fn stopped_worker_has_not_failed() {
    let failed = CancellationToken::new();
    let worker = worker(&failed).start(0, std::future::pending()).unwrap();
    tokio::task::spawn_blocking(|| worker.stop()).await.unwrap();
    assert!(!failed.is_cancelled());
}

#[test]
fn critical_task_panic_exits_with_error() {
    let output = output_of(PATIENCE, || {
        serve_until_a_shard_panics();
    });
    let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(7), "{text}");
    assert!(text.contains("planted in the shard") && text.contains("a worker failed"), "{text}");
}

fn serve_until_a_shard_panics() {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = Settings { listen: any, admin_listen: any, metrics_listen: any, ..Settings::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async {
        let (telemetry, _lines) = telemetry::init(LogFormat::Text, "info", &[]).unwrap();
        let server = Server::bind(settings.validate().unwrap(), telemetry.logs()).unwrap();
        let server = server.with_critical_task(async {
            // While it serves, not while it starts.
            tokio::time::sleep(Duration::from_millis(100)).await;
            panic!("planted in the shard");
        });
        let second = Duration::from_secs(1);
        let drain = Drain::new(DrainTimes { notice: second, spread: second, deadline: 10 * second });
        server.run(drain, std::future::ready(())).await
    });
    eprintln!("{}", ended.unwrap_err());
    std::process::exit(7);
}
