//! Header blocks of requests and responses.

use super::call_handler::CallError;
use crate::rpc::{CODES, code_name};
use loona_hpack::Decoder;
use percent_encoding::percent_decode;
use tonic::Code;

/// The header block of a request: without indexing or compression, so that it needs no encoder state.
pub(super) fn request(path: &str, authority: &str, room: Option<&str>) -> Vec<u8> {
    // POST and http, from the static table.
    let mut block = vec![0x83, 0x86];
    // Names from the static table.
    for (name, value) in [(4, path), (1, authority)] {
        block.push(name);
        string(value, &mut block);
    }
    let rest = [("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "chatroom-bench")];
    for (name, value) in rest.into_iter().chain(room.map(|room| ("chatroom-room", room))) {
        block.push(0);
        string(name, &mut block);
        string(value, &mut block);
    }
    block
}

/// Writes a string literal without Huffman coding; the length has a 7-bit prefix (RFC 7541, 5.1).
fn string(text: &str, block: &mut Vec<u8>) {
    let length = text.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        let mut rest = length - 127;
        while rest >= 128 {
            block.push(rest as u8 | 128);
            rest >>= 7;
        }
        block.push(rest as u8);
    }
    block.extend_from_slice(text.as_bytes());
}

/// The headers or trailers of a response, as far as they concern the call's end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ResponseHeaders {
    http: Option<String>,
    grpc: Option<String>,
    message: String,
}

impl ResponseHeaders {
    pub(super) fn read(decoder: &mut Decoder<'_>, block: &[u8]) -> Result<Self, CallError> {
        let mut headers = Self::default();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let read = decoder.decode_with_cb(block, |name, value| match &*name {
            b":status" => headers.http = Some(text(&value)),
            b"grpc-status" => headers.grpc = Some(text(&value)),
            b"grpc-message" => headers.message = percent_decode(&value).decode_utf8_lossy().into_owned(),
            _ => {}
        });
        read.map_err(|error| CallError {
            kind: "a broken header block".to_owned(),
            message: error.to_string(),
        })?;
        Ok(headers)
    }

    /// The call's end, if these headers end it; `last` is `END_STREAM`.
    pub(super) fn end(self, last: bool) -> Option<CallError> {
        match (self.grpc, self.http) {
            (Some(code), _) => Some(CallError { kind: grpc_status(&code), message: self.message }),
            (None, Some(code)) if code != "200" => Some(CallError::new(format!("HTTP status {code}"))),
            _ if last => Some(CallError::new("an end without a status")),
            _ => None,
        }
    }
}

/// The name of a status, as the gRPC specification writes it.
fn grpc_status(code: &str) -> String {
    let known = code.parse::<i32>().ok().filter(|number| usize::try_from(*number).is_ok_and(|n| n < CODES));
    let name = known.map(|number| code_name(Code::from_i32(number)));
    name.map_or_else(|| format!("grpc-status {code}"), ToOwned::to_owned)
}

/// The name of an HTTP/2 error code (RFC 9113, 7).
pub(super) fn http2_error(code: u32) -> String {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.get(code as usize).map_or_else(|| code.to_string(), |&name| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_as_it_was_meant() {
        let authority = "a-long-name.".repeat(40);
        let block = request("/a.B/C", &authority, Some("bench-1"));
        let mut read = Vec::new();
        Decoder::new()
            .decode_with_cb(&block, |name, value| {
                read.push((
                    String::from_utf8(name.to_vec()).unwrap(),
                    String::from_utf8(value.to_vec()).unwrap(),
                ));
            })
            .unwrap();
        let expected = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/a.B/C"),
            (":authority", authority.as_str()),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "chatroom-bench"),
            ("chatroom-room", "bench-1"),
        ];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    fn end(headers: &[(&str, &str)], last: bool) -> Option<CallError> {
        let mut block = Vec::new();
        for (name, value) in headers {
            block.push(0);
            string(name, &mut block);
            string(value, &mut block);
        }
        ResponseHeaders::read(&mut Decoder::new(), &block).unwrap().end(last)
    }

    #[test]
    fn an_answer_tells_whether_and_how_a_call_ends() {
        assert_eq!(end(&[(":status", "200"), ("content-type", "application/grpc")], false), None);
        assert_eq!(end(&[(":status", "503")], false).unwrap().kind, "HTTP status 503");
        assert_eq!(end(&[(":status", "200")], true).unwrap().kind, "an end without a status");
        let full = end(&[("grpc-status", "8"), ("grpc-message", "too slow%3A 100%\u{25}")], true).unwrap();
        assert_eq!((full.kind.as_str(), full.message.as_str()), ("RESOURCE_EXHAUSTED", "too slow: 100%%"));
        assert_eq!(end(&[("grpc-status", "99")], true).unwrap().kind, "grpc-status 99");
    }
}
