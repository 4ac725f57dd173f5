//! The reason of a gap: a member that was present for what it misses was too slow, one that was not finds it gone by
//! retention. The hub as a library.

use bytes::{BufMut as _, BytesMut};
use chatroom::config::{SlowPolicy, SlowRules};
use chatroom::hub::{
    ClientInfo, EventMeta, Gap, GapReason, Hub, Limits, Next, Payload, Publisher, RoomName, ShardDriver,
    ShardId, Start, SubscribeOptions, Subscription, View, WireForm, log::Retention,
};
use std::future::poll_fn;
use std::time::Duration;

/// A message without content.
struct Tick;

impl Payload for Tick {
    fn size(&self) -> usize {
        1
    }

    fn encode(&self, _: WireForm, _: &EventMeta, out: &mut BytesMut) {
        out.put_u8(0);
    }
}

const RETAINED: u64 = 10;

/// A hub that retains few messages and skips for slow members, and one of them who publishes.
struct Stage {
    hub: Hub<Tick>,
    shard: ShardId,
    publisher: Publisher<Tick>,
    echo: Subscription<Tick>,
}

impl Stage {
    fn set() -> Self {
        let retention = Retention { bytes: 1 << 20, messages: RETAINED, age: Duration::from_secs(600) };
        let slow = SlowRules { default: SlowPolicy::Skip, rooms: Vec::new() };
        let (hub, shards) = Hub::new(Limits { retention, slow, ..Limits::default() }, 1);
        let shard = shards[0].id();
        shards.into_iter().map(ShardDriver::run).for_each(|shard| drop(tokio::spawn(shard)));
        let live = SubscribeOptions::live(WireForm::default());
        let joined = hub.join(shard, &RoomName::default(), ClientInfo::anonymous(), live).unwrap();
        Self { hub, shard, publisher: joined.publisher, echo: joined.subscription }
    }

    fn join(&self, start: Start) -> Subscription<Tick> {
        let options = SubscribeOptions {
            start,
            strict: false,
            view: View::all(WireForm::default()),
            presence: false,
            gaps: true,
        };
        let who = ClientInfo::anonymous();
        self.hub.join(self.shard, &RoomName::default(), who, options).unwrap().subscription
    }

    /// Publishes so many messages, each in a batch of its own.
    async fn publish(&mut self, messages: u64) {
        for _ in 0..messages {
            self.publisher.publish(Tick).await.unwrap();
            poll_fn(|cx| self.echo.poll_next(cx, usize::MAX)).await;
        }
    }
}

async fn gap(subscription: &mut Subscription<Tick>) -> Gap {
    match poll_fn(|cx| subscription.poll_next(cx, usize::MAX)).await {
        Next::Gap(gap) => gap,
        Next::Frames(frames) => panic!("{} frames and no gap", frames.len()),
        Next::NeedsCapacity(_) | Next::End => panic!("an end"),
    }
}

#[tokio::test]
async fn present_member_that_never_read_is_slow() {
    let mut stage = Stage::set();
    let mut slow = stage.join(Start::Tail);
    stage.publish(3 * RETAINED).await;
    let gap = gap(&mut slow).await;
    assert_eq!((gap.reason, gap.from.offset), (GapReason::Slow, 1));
    assert_eq!(stage.hub.totals().skips, 1);
}

#[tokio::test]
async fn history_before_join_is_lost_by_retention() {
    let mut stage = Stage::set();
    stage.publish(RETAINED).await;
    let mut historian = stage.join(Start::Earliest);
    stage.publish(RETAINED / 2).await;
    let gap = gap(&mut historian).await;
    assert_eq!((gap.reason, gap.from.offset), (GapReason::Retention, 1));
    assert!(gap.to.offset <= RETAINED, "{gap:?}");
    assert_eq!(stage.hub.totals().skips, 0);
}

#[tokio::test]
async fn gap_across_join_is_slow() {
    let mut stage = Stage::set();
    stage.publish(RETAINED).await;
    let mut historian = stage.join(Start::Earliest);
    stage.publish(3 * RETAINED).await;
    let gap = gap(&mut historian).await;
    assert_eq!((gap.reason, gap.from.offset), (GapReason::Slow, 1));
    assert!(gap.to.offset > RETAINED, "{gap:?}");
}
