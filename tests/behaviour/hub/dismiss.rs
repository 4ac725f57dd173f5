//! Who is dismissed gets what was said before, and ends however much is said after. The hub as a library.

use bytes::{BufMut as _, BytesMut};
use chatroom::hub::{
    ClientInfo, DisconnectReason, EventMeta, Hub, Joined, Limits, Next, Payload, Publisher, RoomName,
    ShardDriver, SubscribeOptions, Subscription, WireForm,
};
use std::future::poll_fn;

/// A message that is its number.
struct Number(u64);

impl Payload for Number {
    fn size(&self) -> usize {
        8
    }

    fn encode(&self, _: WireForm, _: &EventMeta, out: &mut BytesMut) {
        out.put_u64(self.0);
    }
}

/// A hub of one shard, which runs beside.
fn hub() -> (Hub<Number>, impl Fn() -> (Publisher<Number>, Subscription<Number>)) {
    let (hub, shards) = Hub::new(Limits::default(), 1);
    let shard = shards[0].id();
    shards.into_iter().map(ShardDriver::run).for_each(|shard| drop(tokio::spawn(shard)));
    let joining = hub.clone();
    let join = move || {
        let who = ClientInfo::anonymous();
        let joined =
            joining.join(shard, &RoomName::default(), who, SubscribeOptions::live(WireForm::default()));
        let Joined { publisher, subscription, .. } = joined.unwrap();
        (publisher, subscription)
    };
    (hub, join)
}

/// The numbers of the next frames; nothing at the end.
async fn receives(subscription: &mut Subscription<Number>) -> Option<Vec<u64>> {
    match poll_fn(|cx| subscription.poll_next(cx, usize::MAX)).await {
        Next::Frames(frames) => {
            Some(frames.chunks(8).map(|number| u64::from_be_bytes(number.try_into().unwrap())).collect())
        }
        Next::Gap(_) | Next::NeedsCapacity(_) | Next::End => None,
    }
}

#[tokio::test]
async fn dismissed_member_gets_everything_published_before() {
    let (hub, join) = hub();
    let (mut ann, mut echo) = join();
    let (_, mut bob) = join();
    let mut received = 0;
    for number in 1..=300 {
        ann.publish(Number(number)).await.unwrap();
    }
    while received < 300 {
        received = receives(&mut echo).await.unwrap().pop().unwrap();
    }
    // Bob has taken none of it yet.
    let (room, member) = hub.oldest_first().pop().unwrap();
    assert_eq!(member.id(), bob.member().id());
    assert!(room.dismiss(&member) && !room.dismiss(&member));
    let mut all = Vec::new();
    while let Some(numbers) = receives(&mut bob).await {
        all.extend(numbers);
    }
    assert_eq!(all, (1..=300).collect::<Vec<_>>());
    assert_eq!(bob.disconnected().unwrap().reason, DisconnectReason::Shutdown);
    assert_eq!(bob.delivered().offset, 300);
}

#[tokio::test]
async fn dismissed_member_ends_under_load() {
    let (hub, join) = hub();
    let (mut ann, mut echo) = join();
    let (_, mut bob) = join();
    ann.publish(Number(1)).await.unwrap();
    assert_eq!(receives(&mut echo).await.unwrap(), [1]);
    let (room, member) = hub.oldest_first().pop().unwrap();
    room.dismiss(&member);
    let mut all = Vec::new();
    for number in 2..100 {
        let Some(numbers) = receives(&mut bob).await else { break };
        all.extend(numbers);
        ann.publish(Number(number)).await.unwrap();
        assert_eq!(receives(&mut echo).await.unwrap(), [number]);
    }
    assert_eq!(all, [1], "it was owed one");
}

#[tokio::test]
async fn shut_hub_keeps_members_closed_hub_ends_them() {
    let (hub, join) = hub();
    let (mut ann, mut hearing) = join();
    hub.shut();
    let who = ClientInfo::anonymous();
    let shard = ShardDriver::id(&Hub::<Number>::new(Limits::default(), 1).1[0]);
    assert!(hub.join(shard, &RoomName::default(), who, SubscribeOptions::live(WireForm::default())).is_err());
    ann.publish(Number(7)).await.unwrap();
    assert_eq!(receives(&mut hearing).await.unwrap(), [7]);
    hub.close();
    assert_eq!(receives(&mut hearing).await, None);
    drop(hearing);
    assert_eq!(hub.connection_stats().disconnected_total(DisconnectReason::Shutdown), 1);
    assert_eq!(hub.connection_stats().present(), 0);
}
