//! Why a connection ended: one word of a closed list, the same in status, metric and log.

use std::time::Instant;

macro_rules! disconnect_reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// Why a connection ended. Each end has exactly one, counted once.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DisconnectReason { $($(#[$doc])* $variant,)* }

        impl DisconnectReason {
            /// All of them, in order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word that logs, metrics and error reasons use.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

disconnect_reasons! {
    /// The client half-closed, heard its own last message, and its call ended OK.
    Left = "left",
    /// The client cancelled the call, or its transport went away.
    Cancelled = "cancelled",
    /// The connection fell too far behind, or out of the room's retention.
    SlowConsumer = "slow_consumer",
    /// The client sent a message over the limit.
    MessageTooLarge = "message_too_large",
    /// The client sent something that is not a message of the contract.
    InvalidMessage = "invalid_message",
    /// The client began a message and did not complete it in time.
    RequestIncomplete = "request_incomplete",
    /// An operator ended the connection.
    Kicked = "kicked",
    /// The server is stopping.
    Shutdown = "shutdown",
}

impl std::fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason that was decided, and what to tell the client beside the word.
#[derive(Debug)]
pub struct Disconnect {
    /// Why.
    pub reason: DisconnectReason,
    /// Words for the client; none means the reason's own.
    pub detail: Option<String>,
    /// When it was decided: a connection that is not gone some time after is aborted.
    pub(crate) at: Instant,
    /// Offset of the last message that the connection is owed whoever said it; 0 means none.
    pub(crate) owed: u64,
}
