//! Decoding what a client sends: prost and tonic do it; here are its bounds.

use crate::rpc::{invalid_message, refused};
use http::{HeaderMap, HeaderValue};
use prost::Message;
use std::marker::PhantomData;
use tonic::codec::{BufferSettings, CompressionEncoding, DecodeBuf, Decoder, Streaming};
use tonic::{Code, Status};

/// Bytes of decode buffer that a connection holds from the start. tonic's default is 8 KiB, which most
/// connections, that hear much and say little, would never use; it grows by need.
const BUFFER: usize = 256;

/// Content codings that a request's messages may have (gRPC compression).
pub(super) const ACCEPTED: &str = "identity,gzip";

/// Decodes requests of one type.
pub(super) struct Requests<T>(PhantomData<T>);

impl<T: Message + Default> Decoder for Requests<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        let decoded = T::decode(message);
        decoded.map(Some).map_err(|e| invalid_message(format!("not a request of this method: {e}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, BUFFER)
    }
}

/// How a request's messages are compressed.
///
/// # Errors
/// UNIMPLEMENTED for a content coding that is not [`ACCEPTED`].
pub(super) fn coding(headers: &HeaderMap) -> Result<Option<CompressionEncoding>, Status> {
    match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(b"gzip") => Ok(Some(CompressionEncoding::Gzip)),
        Some(_) => {
            let words = format!("messages may be coded as {ACCEPTED}");
            let mut status = refused(Code::Unimplemented, words, "CODING_NOT_ACCEPTED", &[], None);
            let accepted = tonic::metadata::MetadataValue::from_static(ACCEPTED);
            status.metadata_mut().insert("grpc-accept-encoding", accepted);
            Err(status)
        }
    }
}

/// The messages of a request's body, none longer than `max_bytes`.
///
/// # Errors
/// As [`coding`].
pub(super) fn messages<T: Message + Default + 'static>(
    headers: &HeaderMap,
    body: tonic::body::Body,
    max_bytes: usize,
) -> Result<Streaming<T>, Status> {
    Ok(Streaming::new_request(Requests(PhantomData), body, coding(headers)?, Some(max_bytes)))
}

/// The words for a message that is too large.
pub(super) fn too_large(max: usize) -> String {
    format!("a message may have at most {max} bytes")
}

/// What an error of [`messages`] says about the client.
pub(super) enum Fault {
    /// The call or its transport broke; there is nobody to blame it on.
    Broken,
    TooLarge,
    Late(String),
    Invalid(String),
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        // tonic reports an oversized message as OUT_OF_RANGE, and errors of HTTP/2 with their source.
        match status.code() {
            Code::OutOfRange | Code::ResourceExhausted => Self::TooLarge,
            Code::DeadlineExceeded => Self::Late(status.message().to_owned()),
            _ if std::error::Error::source(&status).is_some() => Self::Broken,
            Code::Cancelled => Self::Broken,
            _ => Self::Invalid(status.message().to_owned()),
        }
    }
}
