//! The flags of `chatroom chat`.

use clap::Args;

/// `chatroom chat`.
#[derive(Args, Debug)]
pub struct ChatArgs {
    /// Server to chat on
    #[arg(long, env = "CHATROOM_ADDR", value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    pub addr: String,
    /// Display name
    #[arg(long, env = "CHATROOM_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// Room to be in [default: lobby]
    #[arg(long, env = "CHATROOM_ROOM", value_name = "ROOM")]
    pub room: Option<String>,
    /// Keep listening when the input has ended
    #[arg(long)]
    pub follow: bool,
}
