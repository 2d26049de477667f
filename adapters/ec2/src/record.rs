//! The stored record of a resource: first the launch request, then the instance, then the host.
//!
//! Only a stored request is made. A broker that died at any point repeats it with the same client token, and EC2 returns the same
//! instance.

use crate::cloud::Launch;
use serde::{Deserialize, Serialize};
use wharfinger_adapter::Failure;

/// The record of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub(crate) enum Record {
    /// The request may have launched an instance.
    Launching {
        /// Number of the launch of this resource, from 1.
        attempt: u32,
        /// Time at which the request was planned, milliseconds since the epoch.
        since_ms: i64,
        /// Time of the latest request to EC2, stored before the request is made; milliseconds since the epoch. Older records lack it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked_ms: Option<i64>,
        /// The request.
        launch: Box<Launch>,
        /// The public host key of the instance.
        host_key: String,
        /// The stage of `host_key` at the launch: `Bootstrap` if the first boot makes another one. Records of older versions lack it,
        /// and their instances make none.
        #[serde(default, skip_serializing_if = "KeyStage::is_last")]
        key_stage: KeyStage,
        /// Time at which EC2 refused the request after a lost answer, milliseconds since the epoch. The request is not repeated; EC2's
        /// lists show its outcome.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused_ms: Option<i64>,
    },
    /// The instance was launched and is not a host yet.
    Launched {
        /// Number of the launch.
        attempt: u32,
        /// Time at which the launch was known, milliseconds since the epoch.
        since_ms: i64,
        /// The instance.
        host: Host,
    },
    /// The launch failed, or its instance has ended.
    Over {
        /// Number of the launch.
        attempt: u32,
    },
    /// The instance is a host.
    Ready {
        /// Number of the launch.
        attempt: u32,
        /// The instance.
        host: Host,
        /// Handle of the ssh adapter.
        ssh: String,
    },
}

/// An instance of the deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) instance: String,
    #[serde(rename = "type")]
    pub(crate) instance_type: String,
    pub(crate) zone: String,
    pub(crate) spot: bool,
    /// Time of its launch, milliseconds since the epoch.
    pub(crate) launched_ms: i64,
    /// The public key that the host shows.
    pub(crate) host_key: String,
    /// The stage of `host_key`. Hosts of older versions keep the key of their user data.
    #[serde(default, skip_serializing_if = "KeyStage::is_last")]
    pub(crate) key_stage: KeyStage,
}

/// The stage of an instance's host key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyStage {
    /// The key is the only one that counts.
    #[default]
    Last,
    /// The key is that of the user data, for the first login.
    Bootstrap,
    /// The key is that of the user data, and the instance was, or will be, asked to use this one. Both count until a login with this one.
    Next(String),
}

impl KeyStage {
    fn is_last(&self) -> bool {
        *self == KeyStage::Last
    }
}

impl Record {
    /// Parses a record. `None`: nothing is stored.
    pub(crate) fn read(handle: Option<&str>) -> Result<Option<Self>, Failure> {
        let Some(text) = handle else { return Ok(None) };
        let note = serde_json::from_str(text).map_err(|error| {
            Failure::bug("HANDLE_UNREADABLE", format!("cannot parse the record of the host: {error}"))
        })?;
        Ok(Some(note))
    }

    pub(crate) fn text(&self) -> Result<String, Failure> {
        serde_json::to_string(self).map_err(|error| Failure::bug("HANDLE_UNWRITABLE", error.to_string()))
    }

    /// Time of the latest event that may have launched an instance, for a request without a known outcome. A record without the time of its
    /// latest request is from an older version, which ended before `began_ms`.
    pub(crate) fn doubtful_since_ms(&self, began_ms: i64) -> Option<i64> {
        let Record::Launching { since_ms, asked_ms, refused_ms, .. } = self else { return None };
        let asked_ms = asked_ms.unwrap_or(began_ms.max(*since_ms));
        Some(refused_ms.map_or(asked_ms, |refused_ms| refused_ms.max(asked_ms)))
    }

    pub(crate) fn host(&self) -> Option<&Host> {
        match self {
            Record::Launched { host, .. } | Record::Ready { host, .. } => Some(host),
            Record::Launching { .. } | Record::Over { .. } => None,
        }
    }
}

/// Returns the client token of an attempt, of at most 64 characters.
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
    fn text_that_is_not_a_record_is_refused() {
        assert_eq!(Record::read(None), Ok(None));
        assert_eq!(Record::read(Some("{}")).unwrap_err().reason, "HANDLE_UNREADABLE");
        let over = Record::Over { attempt: 3 };
        assert_eq!(Record::read(Some(&over.text().unwrap())), Ok(Some(over)));
    }
}
