//! Header blocks: that of a request, and what those of an answer say of the call.

use super::protocol::Fault;
use crate::rpc::{CODES, code_name};
use loona_hpack::Decoder;
use percent_encoding::percent_decode;
use tonic::Code;

/// The header block of a call: nothing is indexed, nothing is compressed, so it needs no state.
pub(super) fn request(path: &str, authority: &str, room: Option<&str>) -> Vec<u8> {
    // POST and http, out of the static table.
    let mut block = vec![0x83, 0x86];
    // Names that are in the static table too.
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

/// Not Huffman-coded; the length is an integer of seven bits and then some (RFC 7541, 5.1).
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

/// What a header block of the server says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    http: Option<String>,
    grpc: Option<String>,
    words: String,
}

impl Answer {
    pub(super) fn read(decoder: &mut Decoder<'_>, block: &[u8]) -> Result<Self, Fault> {
        let mut answer = Self::default();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let read = decoder.decode_with_cb(block, |name, value| match &*name {
            b":status" => answer.http = Some(text(&value)),
            b"grpc-status" => answer.grpc = Some(text(&value)),
            b"grpc-message" => answer.words = percent_decode(&value).decode_utf8_lossy().into_owned(),
            _ => {}
        });
        read.map_err(|error| Fault { kind: "a broken header block".to_owned(), words: error.to_string() })?;
        Ok(answer)
    }

    /// How the call ends by it, if it does.
    pub(super) fn end(self, last: bool) -> Option<Fault> {
        match (self.grpc, self.http) {
            (Some(code), _) => Some(Fault { kind: grpc_status(&code), words: self.words }),
            (None, Some(code)) if code != "200" => Some(Fault::new(format!("HTTP status {code}"))),
            _ if last => Some(Fault::new("an end without a status")),
            _ => None,
        }
    }
}

/// The name of a status, as the gRPC specification writes it.
fn grpc_status(code: &str) -> String {
    let known = code.parse().ok().filter(|number| (0..CODES as i32).contains(number));
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

    fn end(headers: &[(&str, &str)], last: bool) -> Option<Fault> {
        let mut block = Vec::new();
        for (name, value) in headers {
            block.push(0);
            string(name, &mut block);
            string(value, &mut block);
        }
        Answer::read(&mut Decoder::new(), &block).unwrap().end(last)
    }

    #[test]
    fn an_answer_tells_whether_and_how_a_call_ends() {
        assert_eq!(end(&[(":status", "200"), ("content-type", "application/grpc")], false), None);
        assert_eq!(end(&[(":status", "503")], false).unwrap().kind, "HTTP status 503");
        assert_eq!(end(&[(":status", "200")], true).unwrap().kind, "an end without a status");
        let full = end(&[("grpc-status", "8"), ("grpc-message", "too slow%3A 100%\u{25}")], true).unwrap();
        assert_eq!((full.kind.as_str(), full.words.as_str()), ("RESOURCE_EXHAUSTED", "too slow: 100%%"));
        assert_eq!(end(&[("grpc-status", "99")], true).unwrap().kind, "grpc-status 99");
    }
}
