//! The flags of `chatroom chat`.

use crate::client::{InvalidPosition, Start};
use clap::Args;

/// `chatroom chat`.
#[derive(Args, Debug)]
pub struct ChatArgs {
    /// Server to connect to
    #[arg(long, env = "CHATROOM_ADDR", value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    pub addr: String,
    /// Display name: at most 64 visible characters, no surrounding white space
    #[arg(long, env = "CHATROOM_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// Room to join [default: lobby]
    #[arg(long, env = "CHATROOM_ROOM", value_name = "ROOM")]
    pub room: Option<String>,
    /// Keep receiving after the end of the input
    #[arg(long)]
    pub follow: bool,
    /// Kind of the published messages, for filters [default: chat]
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Receive only messages of these kinds [default: all]
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Where to start receiving: tail, earliest, last:N, or after a position like 1f0c5a9b3e7d2846:17
    ///
    /// last:N counts messages of all kinds, before --only filters them. Positions are in the output of --json and in the
    /// status that ends a call. With an empty input and without --follow, the command ends immediately.
    #[arg(long, value_name = "START", default_value = "tail", value_parser = start)]
    pub from: Start,
    /// Print when members join and leave
    #[arg(long)]
    pub presence: bool,
    /// Print everything the server sends as one JSON object per line, for scripts
    ///
    /// Each object has one field: welcome, event, ack, gap, presence, goodbye or disconnected. An ack has the number of
    /// its input line, from 1. Positions are epoch:offset, times RFC 3339, bytes base64, integers plain numbers.
    #[arg(long)]
    pub json: bool,
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "tail" => return Ok(Start::Tail),
        "earliest" => return Ok(Start::Earliest),
        _ => {}
    }
    if let Some(count) = text.strip_prefix("last:") {
        return count.parse().map(Start::Last).map_err(|_| "last:N needs a number".to_owned());
    }
    text.parse()
        .map(Start::After)
        .map_err(|error: InvalidPosition| format!("{error}; or tail, earliest, last:N"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Position;

    #[test]
    fn start_parses_keywords_counts_and_positions() {
        assert_eq!(start("tail"), Ok(Start::Tail));
        assert_eq!(start("earliest"), Ok(Start::Earliest));
        assert_eq!(start("last:7"), Ok(Start::Last(7)));
        assert_eq!(start("0a:7"), Ok(Start::After(Position { epoch: "0a".into(), offset: 7 })));
        for wrong in ["", "last", "last:", "last:x", "7", "0a:", "yesterday"] {
            assert!(start(wrong).is_err(), "{wrong}");
        }
    }
}
