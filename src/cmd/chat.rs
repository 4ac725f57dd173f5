//! `chatroom chat`.

use crate::cli::ChatArgs;

/// Chats.
///
/// # Errors
/// What ended it.
pub fn run(_args: &ChatArgs) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
