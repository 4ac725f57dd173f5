//! The reason of a gap: a member that was present for what it misses was too slow, one that was not finds it gone by
//! retention. The hub as a library.

use bytes::{BufMut as _, BytesMut};
use chatroom::config::{SlowPolicy, SlowRules};
use chatroom::hub::{
    Frame, Gap, Hub, Introduction, LaneId, LaneTask, Lens, Limits, Listening, Missing, Next, Publisher,
    RoomName, Stamp, Start, Subscription, log::Retention,
};
use std::future::poll_fn;
use std::time::Duration;

/// A message without content.
struct Tick;

impl Frame for Tick {
    fn size(&self) -> usize {
        1
    }

    fn frame(&self, _: usize, _: &Stamp, out: &mut BytesMut) {
        out.put_u8(0);
    }
}

const RETAINED: u64 = 10;

/// A hub that retains few messages and skips for slow members, and one of them who publishes.
struct Stage {
    hub: Hub<Tick>,
    lane: LaneId,
    publisher: Publisher<Tick>,
    echo: Subscription<Tick>,
}

impl Stage {
    fn set() -> Self {
        let retention = Retention { bytes: 1 << 20, messages: RETAINED, age: Duration::from_secs(600) };
        let slow = SlowRules { default: SlowPolicy::Skip, rooms: Vec::new() };
        let (hub, lanes) = Hub::new(Limits { retention, slow, ..Limits::default() }, 1);
        let lane = lanes[0].id();
        lanes.into_iter().map(LaneTask::run).for_each(|lane| drop(tokio::spawn(lane)));
        let live = Listening::live(0);
        let joined = hub.join(lane, &RoomName::default(), Introduction::anonymous(), live).unwrap();
        Self { hub, lane, publisher: joined.publisher, echo: joined.subscription }
    }

    fn join(&self, start: Start) -> Subscription<Tick> {
        let listening = Listening { start, strict: false, lens: Lens::whole(0), presence: false, gaps: true };
        let who = Introduction::anonymous();
        self.hub.join(self.lane, &RoomName::default(), who, listening).unwrap().subscription
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
        Next::NoRoom(_) | Next::End => panic!("an end"),
    }
}

#[tokio::test]
async fn a_present_member_that_never_read_was_too_slow() {
    let mut stage = Stage::set();
    let mut slow = stage.join(Start::Tail);
    stage.publish(3 * RETAINED).await;
    let gap = gap(&mut slow).await;
    assert_eq!((gap.why, gap.from.offset), (Missing::Slow, 1));
    assert_eq!(stage.hub.totals().skips, 1);
}

#[tokio::test]
async fn history_from_before_the_join_goes_by_retention() {
    let mut stage = Stage::set();
    stage.publish(RETAINED).await;
    let mut historian = stage.join(Start::Earliest);
    stage.publish(RETAINED / 2).await;
    let gap = gap(&mut historian).await;
    assert_eq!((gap.why, gap.from.offset), (Missing::Retention, 1));
    assert!(gap.to.offset <= RETAINED, "{gap:?}");
    assert_eq!(stage.hub.totals().skips, 0);
}

#[tokio::test]
async fn a_gap_over_the_join_is_of_a_slow_member() {
    let mut stage = Stage::set();
    stage.publish(RETAINED).await;
    let mut historian = stage.join(Start::Earliest);
    stage.publish(3 * RETAINED).await;
    let gap = gap(&mut historian).await;
    assert_eq!((gap.why, gap.from.offset), (Missing::Slow, 1));
    assert!(gap.to.offset > RETAINED, "{gap:?}");
}
