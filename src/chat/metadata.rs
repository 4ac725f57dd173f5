//! Request metadata: what a call names there. All of it is optional.

use crate::hub::{DisplayName, InvalidName, InvalidPosition, RoomName, Start};
use crate::rpc::invalid;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderValue};
use tonic::Status;

/// The room. Balancers route by it, so `chatroom.v1` has it too, although its messages name the room.
const ROOM: &str = "chatroom-room";
/// The display name, and the same as binary metadata, for names outside ASCII.
const NAME: &str = "chatroom-name";
const NAME_BIN: &str = "chatroom-name-bin";
/// The position after which a client of `hello` continues.
const RESUME: &str = "chatroom-resume";

/// Binary metadata comes with or without padding (gRPC over HTTP/2, "Custom-Metadata").
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The room that a call names.
pub(super) fn room(headers: &HeaderMap) -> Result<Option<RoomName>, Status> {
    parsed(headers, ROOM, RoomName::new, InvalidName::Room)
}

/// The display name that a call gives.
pub(super) fn display_name(headers: &HeaderMap) -> Result<DisplayName, Status> {
    let plain = parsed(headers, NAME, DisplayName::new, InvalidName::Display)?;
    let Some(value) = value(headers, NAME_BIN)? else {
        return Ok(plain.unwrap_or_default());
    };
    if plain.is_some() {
        return Err(invalid(NAME_BIN, format!("must not be given beside {NAME}")));
    }
    let bytes = BASE64.decode(value.as_bytes()).map_err(|_| invalid(NAME_BIN, "must be base64"))?;
    let name = String::from_utf8(bytes).map_err(|_| invalid(NAME_BIN, "must be UTF-8"))?;
    DisplayName::new(&name).map_err(|error| invalid(NAME_BIN, error.to_string()))
}

/// Where a call begins to receive: after the position that it names, or at the tail.
pub(super) fn start(headers: &HeaderMap) -> Result<Start, Status> {
    Ok(parsed(headers, RESUME, parse_position, InvalidPosition)?.unwrap_or_default())
}

fn parse_position(text: &str) -> Result<Start, InvalidPosition> {
    let (epoch, offset) = text.split_once(':').ok_or(InvalidPosition)?;
    let offset = offset.parse().map_err(|_| InvalidPosition)?;
    Ok(Start::After(epoch.parse()?, offset))
}

fn parsed<T, E: std::error::Error>(
    headers: &HeaderMap,
    key: &str,
    parse: impl Fn(&str) -> Result<T, E>,
    not_utf8: E,
) -> Result<Option<T>, Status> {
    let Some(value) = value(headers, key)? else { return Ok(None) };
    // Header values may be any bytes; ours are UTF-8.
    let text = std::str::from_utf8(value.as_bytes());
    let parsed = text.map_err(|_| not_utf8).and_then(parse);
    parsed.map(Some).map_err(|error| invalid(key, error.to_string()))
}

/// The one value of a key: of several, a balancer may have picked another than the server would.
fn value<'a>(headers: &'a HeaderMap, key: &str) -> Result<Option<&'a HeaderValue>, Status> {
    let mut values = headers.get_all(key).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(invalid(key, "must be given once"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter().map(|(key, value)| (key.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn binary_name_is_read_with_and_without_padding() {
        for encoded in ["w4RubmU=", "w4RubmU", "8J+Ygg==", "8J+Ygg"] {
            let name = display_name(&headers(&[(NAME_BIN, encoded)])).unwrap();
            assert!(["Änne", "😂"].contains(&name.as_str()), "{encoded}: {name:?}");
        }
    }

    #[test]
    fn wrong_binary_names_are_refused_by_their_key() {
        // Not base64; not UTF-8; a control character; two values.
        for encoded in ["w4Ru!", "/w==", "Bw==", "YW5u,Ym9i"] {
            let refused = display_name(&headers(&[(NAME_BIN, encoded)])).unwrap_err();
            assert!(refused.message().starts_with(NAME_BIN), "{encoded}: {refused}");
        }
        let both = headers(&[(NAME, "ann"), (NAME_BIN, "YW5u")]);
        assert!(display_name(&both).unwrap_err().message().contains("beside"));
    }

    #[test]
    fn repeated_key_is_refused() {
        let mut headers = headers(&[(ROOM, "blue")]);
        assert_eq!(room(&headers).unwrap().unwrap().as_str(), "blue");
        headers.append(ROOM, HeaderValue::from_static("blue"));
        assert!(room(&headers).unwrap_err().message().contains("once"));
    }
}
