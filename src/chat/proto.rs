//! Protobuf messages as what a room carries.

use crate::hub::{EventMeta, Payload, WireForm};
use crate::wire;
use bytes::BytesMut;
use prost::Message;

/// Any prost message, said as it is: its members receive it as one gRPC message each, encoded once for all.
///
/// For many types over one stream, in one order: a message with a `oneof` of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Proto<T>(pub T);

impl<T: Message + 'static> Payload for Proto<T> {
    fn size(&self) -> usize {
        wire::PREFIX_LEN + self.0.encoded_len()
    }

    fn encode(&self, _: WireForm, _: &EventMeta, out: &mut BytesMut) {
        wire::frame(&self.0, out);
    }
}
