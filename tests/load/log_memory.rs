//! What logs count is what they hold: compared with what the allocator was asked for.

use crate::common::{PATIENCE, own_process::runs_alone};
use crate::machine;
use bytes::BytesMut;
use chatroom::hub::{
    ClientInfo, ConnectionId, EventMeta, Hub, Limits, Next, Payload, RoomName, ShardId, SubscribeOptions,
    WireForm,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::future::poll_fn;
use std::sync::Arc;
use tokio::task::{LocalSet, yield_now};

/// Counts the bytes that are asked for. What an allocator adds by rounding up to its sizes is not in it.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What the count may differ by: a hundredth, and what belongs to rooms and not to their logs.
const TOLERANCE: f64 = 0.01;
const OF_ROOMS: f64 = 32.0 * 1024.0;

/// Bytes that are allocated now.
fn allocated() -> f64 {
    let stats = ALLOCATOR.stats();
    // A reallocation that grows counts what it adds as allocated, one that shrinks what it removes as freed.
    stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
}

/// A text, which may tell that it is the same as another.
struct Text(String, Option<Arc<str>>);

impl Payload for Text {
    fn size(&self) -> usize {
        self.0.len()
    }

    fn retained_bytes(&self) -> usize {
        self.0.capacity()
    }

    fn encode(&self, _: WireForm, _: &EventMeta, out: &mut BytesMut) {
        out.extend_from_slice(self.0.as_bytes());
    }

    fn idempotency_key(&self) -> Option<&Arc<str>> {
        self.1.as_ref()
    }
}

/// What has been allocated and what has been counted since the last time.
struct Growth<'a> {
    hub: &'a Hub<Text>,
    allocated: f64,
    counted: f64,
}

impl<'a> Growth<'a> {
    fn from_now(hub: &'a Hub<Text>) -> Self {
        Self { hub, allocated: allocated(), counted: hub.log_bytes() as f64 }
    }

    #[track_caller]
    fn is_counted(&mut self, what: &str, least: usize) {
        let now = Self::from_now(self.hub);
        let (allocated, counted) = (now.allocated - self.allocated, now.counted - self.counted);
        println!("{what}: {allocated} bytes are allocated, {counted} are counted");
        assert!(counted.abs() >= least as f64, "{what}: {counted} bytes are fewer than {least}");
        let tolerance = TOLERANCE * counted.abs() + OF_ROOMS;
        assert!((allocated - counted).abs() <= tolerance, "{what}: {allocated} allocated, {counted} counted");
        *self = now;
    }
}

fn name(room: &str) -> RoomName {
    RoomName::new(room).unwrap()
}

/// Publishes without a member, one message in each batch.
async fn publish(hub: &Hub<Text>, room: &RoomName, count: usize, message: impl Fn(usize) -> Text) {
    let who = ClientInfo::anonymous();
    for n in 0..count {
        hub.one_shot_publisher(room, &who)
            .unwrap()
            .publish(WireForm::default(), message(n))
            .map_err(drop)
            .unwrap();
        // The shard runs its jobs, and the room rests.
        for _ in 0..5 {
            yield_now().await;
        }
    }
}

/// Reads all that the room retains in this form, and leaves.
async fn read(hub: &Hub<Text>, shard: ShardId, room: &RoomName, form: WireForm, messages: u64) {
    let options = SubscribeOptions { start: chatroom::hub::Start::Earliest, ..SubscribeOptions::live(form) };
    let who = ClientInfo { id: ConnectionId::random(), ..ClientInfo::anonymous() };
    let mut joined = hub.join(shard, room, who, options).unwrap();
    while joined.subscription.delivered().offset < messages {
        let Next::Frames(_) = poll_fn(|cx| joined.subscription.poll_next(cx, usize::MAX)).await else {
            panic!("frames")
        };
    }
}

#[test]
fn counted_bytes_match_allocated() {
    let _machine = machine::alone();
    runs_alone(4 * PATIENCE, || {
        count_and_compare();
    });
}

fn count_and_compare() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limits = Limits { retention_total: 96 << 20, ..Limits::default() };
    let (hub, shards) = Hub::new(limits, 1);
    let shard = shards[0].id();
    LocalSet::new().block_on(&runtime, async {
        for shard in shards {
            tokio::task::spawn_local(shard.run());
        }
        let tending = tokio::task::spawn_local({
            let hub = hub.clone();
            async move { hub.run_housekeeping().await }
        });
        // Whatever is allocated once.
        let (blue, red, keys) = (name("blue"), name("red"), name("keys"));
        for room in [&blue, &red, &keys] {
            publish(&hub, room, 1, |_| Text("x".to_owned(), None)).await;
        }
        let mut growth = Growth::from_now(&hub);

        publish(&hub, &blue, 92, |_| Text("x".repeat(60_000), None)).await;
        growth.is_counted("92 messages of 60,000 bytes in no form", 92 * 60_000);
        read(&hub, shard, &blue, WireForm::Primary, 93).await;
        growth.is_counted("the same, then read in one form", 92 * 60_000);
        read(&hub, shard, &blue, WireForm::Secondary, 93).await;
        growth.is_counted("the same, then read in the other form", 92 * 60_000);

        publish(&hub, &red, 20_000, |_| Text("y".repeat(20), None)).await;
        growth.is_counted("20,000 messages of 20 bytes", 20_000 * 200);
        publish(&hub, &red, 1000, |_| Text(String::with_capacity(5000), None)).await;
        growth.is_counted("1,000 short messages of large capacity", 1000 * 5000);
        publish(&hub, &keys, 20_000, |n| Text("z".to_owned(), Some(format!("{n:064}").into()))).await;
        growth.is_counted("20,000 messages with a key", 20_000 * 350);

        // Nearly all of it goes when others need the place.
        let others = 96 << 20;
        for n in 0..others / 60_000 {
            publish(&hub, &name(&format!("other{}", n % 50)), 1, |_| Text("x".repeat(60_000), None)).await;
        }
        let within = hub.log_bytes();
        assert!(within <= 96 << 20, "{within}");
        assert!(hub.log_bytes_trimmed() > 20 << 20, "{}", hub.log_bytes_trimmed());
        let retained = [&blue, &red, &keys].map(|room| hub.room(room).unwrap().log().retained().1);
        assert_eq!(retained, [0, 0, 0], "the idlest went first");
        growth.is_counted("others' messages, less what they pushed out", 40 << 20);
        tending.abort();
    });
}
