//! Why a call did not work, typed by who must act.

use std::fmt;
use std::time::Duration;
pub use wharfinger_types::Blame;

/// A call that did not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// The party that must act.
    pub blame: Blame,
    /// A stable code in SCREAMING_SNAKE_CASE: `HOST_KEY_MISMATCH`, `REF_NOT_FOUND`. Part of the API.
    pub reason: &'static str,
    /// The fault, its place and its remedy; lower case, no full stop. At most 4 KiB (cut in [`Failure::new`]).
    pub message: String,
    /// Not before this long from now, if the provider said so.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure with a stable reason code and a message for people.
    pub fn new(blame: Blame, reason: &'static str, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if message.len() > 4096 {
            let mut end = 4093;
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
            message.push('…');
        }
        Self { blame, reason, message, retry_after: None }
    }

    /// The holder's fault.
    pub fn request(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Blame::Request, reason, message)
    }

    /// The resource's fault.
    pub fn resource(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Blame::Resource, reason, message)
    }

    /// The provider's fault.
    pub fn provider(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Blame::Provider, reason, message)
    }

    /// The operator's to mend.
    pub fn configuration(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Blame::Configuration, reason, message)
    }

    /// A fault of the broker's own.
    pub fn bug(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Blame::Bug, reason, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
