//! Why a connection ended: one reason of a closed list, with the same name in status, metric and log.

use std::time::Instant;

macro_rules! disconnect_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a connection ended. Each connection that ends has exactly one reason, counted once.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DisconnectReason { $($(#[$doc])* $variant,)* }

        impl DisconnectReason {
            /// All of them, in order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name that logs, metrics and error reasons use.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

disconnect_reasons! {
    /// The client half-closed and received its own last message, and its call ended OK.
    Left = "left",
    /// The client cancelled the call, or its transport went away.
    Cancelled = "cancelled",
    /// The connection lagged beyond its limit, or out of the room's retention.
    SlowConsumer = "slow_consumer",
    /// The client sent a message over the limit.
    MessageTooLarge = "message_too_large",
    /// The client sent something that is not a message of the contract.
    InvalidMessage = "invalid_message",
    /// The client started a message and did not complete it in time.
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

/// The decision to end a connection.
#[derive(Debug)]
pub struct Disconnect {
    /// Why.
    pub reason: DisconnectReason,
    /// Text for the client; none means the default text of the reason.
    pub detail: Option<String>,
    /// When it was decided: a connection that has not ended some time later is aborted.
    pub(crate) at: Instant,
    /// Offset of the last message that the connection still receives, whoever published it; 0 means none.
    pub(crate) owed: u64,
}
