//! How an attempt ended, and whose fault that was.

/// How one attempt at one provider ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The provider answered; also with a 4xx, which is the client's affair.
    Success,
    /// The provider failed: connect, timeout, reset, broken framing, 5xx.
    Failure,
    /// The provider asked us to wait: 429, or 503 with a hint.
    Rejected,
    /// The client left first.
    ClientGone,
    /// We gave up for a reason of our own; the provider is not to blame.
    LocalRefusal,
}

// === impl Outcome ===

impl Outcome {
    /// Every outcome, in the order tables show them.
    pub const ALL: [Outcome; 5] =
        [Outcome::Success, Outcome::Failure, Outcome::Rejected, Outcome::ClientGone, Outcome::LocalRefusal];

    /// The word for it in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Failure => "failure",
            Outcome::Rejected => "rejected",
            Outcome::ClientGone => "client_gone",
            Outcome::LocalRefusal => "local_refusal",
        }
    }
}
