//! Messages as proto3 JSON.
//!
//! Serializes by the proto's descriptors, so that new fields appear without a change here. Differs from grpcurl in two
//! ways, both for scripts: defaults are included, and 64-bit integers are plain numbers.

use crate::wire::{self, admin};
use anyhow::Context as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;
use std::sync::OnceLock;

/// A message with its name in the descriptors.
pub(super) trait Named: prost::Message {
    const NAME: &'static str;
}

macro_rules! named {
    ($($message:ident)*) => {
        $(impl Named for admin::$message {
            const NAME: &'static str = concat!("chatroom.admin.v1.", stringify!($message));
        })*
    };
}

named! {
    Connection Room ListConnectionsResponse GetConnectionResponse KickConnectionsResponse ListRoomsResponse
    WatchConnectionsResponse AnnounceResponse GetServerInfoResponse SetLogFilterResponse
    Drain ListBansResponse RemoveBanResponse
}

/// The message as JSON.
///
/// # Errors
/// A time that proto3 JSON cannot represent, such as one after the year 9999.
pub(super) fn of<M: Named>(message: &M) -> anyhow::Result<Value> {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        DescriptorPool::decode(wire::DESCRIPTORS).expect("the build has checked the descriptors it wrote")
    });
    let descriptor = pool.get_message_by_name(M::NAME).expect("a test looks for every name");
    let mut dynamic = DynamicMessage::new(descriptor);
    let cannot = || format!("cannot write {} as JSON", M::NAME);
    dynamic.transcode_from(message).with_context(cannot)?;
    let options = SerializeOptions::new().stringify_64_bit_integers(false).skip_default_fields(false);
    dynamic.serialize_with_options(serde_json::value::Serializer, &options).with_context(cannot)
}

/// The messages as JSON.
///
/// # Errors
/// As [`of`].
pub(super) fn of_each<M: Named>(messages: &[M]) -> anyhow::Result<Vec<Value>> {
    messages.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use admin::watch_connections_response::Event;
    use serde_json::json;

    #[test]
    fn message_is_proto3_json_with_defaults_and_plain_numbers() {
        let connection = admin::Connection {
            id: "7".into(),
            name: "\u{1b}[2J\"".into(),
            api: admin::Api::Hello.into(),
            since: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            lag_time: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            bytes_out: u64::MAX,
            ..Default::default()
        };
        let value = of(&connection).unwrap();
        assert_eq!(value["name"], "\u{1b}[2J\"");
        assert_eq!(value["api"], "API_HELLO");
        assert_eq!(value["since"], "2023-11-14T22:13:20Z");
        assert_eq!(value["lagTime"], "1.500s");
        assert_eq!(value["bytesOut"], json!(u64::MAX));
        assert_eq!(value["lagMessages"], 0);
        assert_eq!(value["ending"], "");
        assert_eq!(value.get("lastActivity"), None);
        assert!(!value.to_string().contains('\u{1b}'));
    }

    #[test]
    fn descriptors_contain_every_named_message() {
        fn assert_serializes<M: Named + Default>() {
            assert!(of(&M::default()).unwrap().is_object(), "{}", M::NAME);
        }
        assert_serializes::<admin::Connection>();
        assert_serializes::<admin::Room>();
        assert_serializes::<admin::ListConnectionsResponse>();
        assert_serializes::<admin::GetConnectionResponse>();
        assert_serializes::<admin::KickConnectionsResponse>();
        assert_serializes::<admin::ListRoomsResponse>();
        assert_serializes::<admin::WatchConnectionsResponse>();
        assert_serializes::<admin::AnnounceResponse>();
        assert_serializes::<admin::GetServerInfoResponse>();
        assert_serializes::<admin::SetLogFilterResponse>();
        assert_serializes::<admin::ListBansResponse>();
        assert_serializes::<admin::RemoveBanResponse>();
    }

    #[test]
    fn oneof_field_has_its_own_name() {
        let event = Some(Event::Missed(admin::Missed { count: 3 }));
        let value = of(&admin::WatchConnectionsResponse { event, time: None }).unwrap();
        assert_eq!(value, json!({ "missed": { "count": 3 } }));
    }
}
