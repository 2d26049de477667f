//! What is written down of a resource: before a launch the whole request, after it the instance, then the host.
//!
//! A launch is asked for only as it stands in the journal, so that a broker that dies at any point repeats the very same
//! request with the same client token, and EC2 gives the same instance.

use crate::cloud::Launch;
use serde::{Deserialize, Serialize};
use wharfinger_adapter::Failure;

/// The durable note of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub(crate) enum Note {
    /// The request may have been made, or not.
    Launching {
        /// Counts launches for this resource, from 1.
        attempt: u32,
        /// Time at which the request was planned, milliseconds since the epoch.
        since_ms: i64,
        /// Time of the latest request to EC2, stored before the request is made; milliseconds since the epoch. Older
        /// notes lack it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked_ms: Option<i64>,
        /// The request.
        launch: Box<Launch>,
        /// The host key that the instance will show.
        host_key: String,
        /// Refused then, for good, after an answer was lost: it is not asked for any more, and looked for in EC2's lists
        /// until they have had their time. Milliseconds since the epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused_ms: Option<i64>,
    },
    /// There is an instance; it is not proved yet.
    Launched {
        /// Which attempt it was.
        attempt: u32,
        /// When it was known, milliseconds since the epoch.
        since_ms: i64,
        /// What was launched.
        host: Host,
    },
    /// That attempt came to nothing, and nothing is left of it.
    Over {
        /// Which attempt it was.
        attempt: u32,
    },
    /// A proved host.
    Ready {
        /// Which attempt it was.
        attempt: u32,
        /// What was launched.
        host: Host,
        /// What the ssh adapter remembers of it.
        ssh: String,
    },
}

/// An instance of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) instance: String,
    #[serde(rename = "type")]
    pub(crate) instance_type: String,
    pub(crate) zone: String,
    pub(crate) spot: bool,
    /// When it was launched, milliseconds since the epoch.
    pub(crate) launched_ms: i64,
    pub(crate) host_key: String,
}

impl Note {
    /// `None`: nothing was written yet.
    pub(crate) fn read(handle: Option<&str>) -> Result<Option<Self>, Failure> {
        let Some(text) = handle else { return Ok(None) };
        let note = serde_json::from_str(text).map_err(|error| {
            Failure::bug("HANDLE_UNREADABLE", format!("the note of this host can not be read: {error}"))
        })?;
        Ok(Some(note))
    }

    pub(crate) fn text(&self) -> Result<String, Failure> {
        serde_json::to_string(self).map_err(|error| Failure::bug("HANDLE_UNWRITABLE", error.to_string()))
    }

    /// Time of the latest event after which EC2 may have launched an instance for a request without a known outcome. A note
    /// without the time of its latest request was written by an older version, which ended before `began_ms`.
    pub(crate) fn doubtful_since_ms(&self, began_ms: i64) -> Option<i64> {
        let Note::Launching { since_ms, asked_ms, refused_ms, .. } = self else { return None };
        let asked_ms = asked_ms.unwrap_or(began_ms.max(*since_ms));
        Some(refused_ms.map_or(asked_ms, |refused_ms| refused_ms.max(asked_ms)))
    }

    pub(crate) fn host(&self) -> Option<&Host> {
        match self {
            Note::Launched { host, .. } | Note::Ready { host, .. } => Some(host),
            Note::Launching { .. } | Note::Over { .. } => None,
        }
    }
}

/// The client token of an attempt; EC2 takes 64 characters.
pub(crate) fn token(resource: &str, attempt: u32) -> String {
    format!("{resource}-{attempt}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_short_enough_for_ec2() {
        assert!(token("res_01KAV9FT00QVQG00000000001A", u32::MAX).len() <= 64);
    }

    #[test]
    fn what_is_no_note_is_told() {
        assert_eq!(Note::read(None), Ok(None));
        assert_eq!(Note::read(Some("{}")).unwrap_err().reason, "HANDLE_UNREADABLE");
        let over = Note::Over { attempt: 3 };
        assert_eq!(Note::read(Some(&over.text().unwrap())), Ok(Some(over)));
    }
}
