//! The flags of `chatroom health`.

use clap::Args;

/// `chatroom health`.
#[derive(Args, Debug)]
pub struct HealthArgs {
    /// Server to ask
    #[arg(long, env = "CHATROOM_ADDR", value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    pub addr: String,
    /// Service to ask for, like hello.ChatRoom [default: the server as a whole]
    #[arg(
        long,
        env = "CHATROOM_HEALTH_SERVICE",
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub service: String,
    /// How long connecting and the answer may take together
    #[arg(long, env = "CHATROOM_HEALTH_TIMEOUT", value_name = "TIME", default_value = "3s")]
    pub timeout: humantime::Duration,
}
