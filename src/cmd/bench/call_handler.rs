//! What a protocol reports about its calls. A leaf, so that protocols and the code above them share no cycle.

/// The end of a call, or of all calls of a transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CallError {
    /// The kind, by which errors are counted.
    pub(super) kind: String,
    /// The server's message; empty without one.
    pub(super) message: String,
}

impl CallError {
    pub(super) fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: String::new() }
    }
}

/// Receives the events of a transport's calls, which are numbered within it.
pub(super) trait CallHandler {
    /// The server has accepted the call.
    fn joined(&mut self, call: usize);

    /// A message's text.
    fn text(&mut self, call: usize, text: &[u8]);

    /// The call has ended.
    fn ended(&mut self, call: usize, error: CallError);
}
