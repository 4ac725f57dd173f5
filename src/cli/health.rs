//! The flags of `chatroom health`.

use clap::Args;

/// `chatroom health`.
#[derive(Args, Debug)]
pub struct HealthArgs {
    /// Server to check
    #[arg(long, env = "CHATROOM_ADDR", value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    pub addr: String,
    /// Service to check, like hello.ChatRoom [default: the whole server]
    #[arg(
        long,
        env = "CHATROOM_HEALTH_SERVICE",
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub service: String,
    /// Timeout of the connect and the response together
    #[arg(long, env = "CHATROOM_HEALTH_TIMEOUT", value_name = "TIME", default_value = "3s")]
    pub timeout: humantime::Duration,
}
