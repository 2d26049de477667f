//! The reason that EC2 gives for the state of an instance (`StateReason`), and the party that must act.
//!
//! Codes from the EC2 API reference («StateReason»). The code decides; the message is for people.

use crate::error::{Class, classify};
use std::fmt;

/// EC2's reason for the state of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateReason {
    /// EC2's code, such as `Server.SpotInstanceTermination`.
    pub code: String,
    /// EC2's text.
    pub message: String,
}

/// The party that ended an instance. It decides about the blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// EC2, for want of capacity: another place can be tried.
    Capacity,
    /// A limit of the account.
    Quota,
    /// A setting of the pool, the image or the account, which the operator must correct.
    Configuration,
    /// A call to EC2 by a person or a program.
    Call,
    /// EC2, for reasons of its own.
    Provider,
}

impl StateReason {
    /// Returns the party that ended the instance, by the code.
    pub fn ended_by(&self) -> EndedBy {
        match self.code.as_str() {
            "Server.SpotInstanceTermination"
            | "Server.SpotInstanceShutdown"
            | "Server.InsufficientInstanceCapacity" => EndedBy::Capacity,
            "Client.UserInitiatedShutdown" | "Client.UserInitiatedHibernate" => EndedBy::Call,
            code => match code.strip_prefix("Client.") {
                Some(code) if classify(code) == Class::Quota => EndedBy::Quota,
                Some(_) => EndedBy::Configuration,
                None => EndedBy::Provider,
            },
        }
    }

    /// Whether spot took the instance away.
    pub fn is_interruption(&self) -> bool {
        matches!(self.code.as_str(), "Server.SpotInstanceTermination" | "Server.SpotInstanceShutdown")
    }

    /// How the operator corrects the cause.
    pub(crate) fn remedy(&self) -> &'static str {
        match self.code.as_str() {
            "Client.InternalError" => {
                "most often EC2 may not use the KMS key of a volume: look at the key's state and policy, and allow the \
                 broker's role kms:CreateGrant"
            }
            "Client.InstanceInitiatedShutdown" => {
                "the instance powered itself off: look at `setup`, the image and the instance's console output"
            }
            code if code.contains("KMS") => {
                "enable the KMS key of the image's snapshots and volumes, and allow the broker's role kms:CreateGrant"
            }
            code if code.contains("Snapshot") => "set `image` to one whose snapshots exist",
            _ => "correct the pool's settings, the image or the account",
        }
    }
}

/// EC2's message, which begins with the code as a rule.
impl fmt::Display for StateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.starts_with(&self.code) {
            f.write_str(&self.message)
        } else if self.message.is_empty() {
            f.write_str(&self.code)
        } else {
            write!(f, "{}: {}", self.code, self.message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(code: &str, message: &str) -> StateReason {
        StateReason { code: code.into(), message: message.into() }
    }

    #[test]
    fn each_code_has_the_party_that_must_act() {
        for (code, by) in [
            ("Server.SpotInstanceTermination", EndedBy::Capacity),
            ("Server.InsufficientInstanceCapacity", EndedBy::Capacity),
            ("Server.InternalError", EndedBy::Provider),
            ("Server.ScheduledStop", EndedBy::Provider),
            ("Client.InternalError", EndedBy::Configuration),
            ("Client.InvalidKMSKey.InvalidState", EndedBy::Configuration),
            ("Client.InvalidSnapshot.NotFound", EndedBy::Configuration),
            ("Client.InstanceInitiatedShutdown", EndedBy::Configuration),
            ("Client.VolumeLimitExceeded", EndedBy::Quota),
            ("Client.UserInitiatedShutdown", EndedBy::Call),
            ("", EndedBy::Provider),
        ] {
            assert_eq!(reason(code, "").ended_by(), by, "{code}");
        }
        assert!(reason("Client.InvalidKMSKey.InvalidState", "").remedy().contains("KMS key"));
    }

    #[test]
    fn a_reason_names_its_code_once() {
        let text = "Client.InternalError: Client error on launch";
        assert_eq!(reason("Client.InternalError", text).to_string(), text);
        assert_eq!(reason("Server.X", "no power").to_string(), "Server.X: no power");
        assert_eq!(reason("pending", "").to_string(), "pending");
    }
}
