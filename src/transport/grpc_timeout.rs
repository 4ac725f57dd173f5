//! Parses the `grpc-timeout` header of a call (gRPC over HTTP/2, "Requests").

use http::HeaderMap;
use std::time::Duration;

/// The longest value, in digits.
const DIGITS_MAX: usize = 8;

/// The call's timeout. `None` without the header, or with one that does not follow the protocol.
pub(super) fn parse(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_up_to_eight_digits_and_a_unit() {
        let parsed = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            parse(&headers)
        };
        assert_eq!(parsed("10S"), Some(Duration::from_secs(10)));
        assert_eq!(parsed("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parsed("99999999u"), Some(Duration::from_micros(99_999_999)));
        for bad in ["", "S", "10", "-1S", "123456789S", "1x", "1 S", "ü"] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
        assert_eq!(parse(&HeaderMap::new()), None);
    }
}
