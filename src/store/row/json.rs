//! The parts of rows that are JSON text. The core has no serde, so each has a mirror struct.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use wharfinger_core::{CauseChain, Link, Reason, Source, Subject, Timestamp};

/// One link of a cause chain.
#[derive(Serialize, Deserialize)]
pub(super) struct LinkJson {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) pool: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) lease: Option<String>,
    pub(super) reason: String,
    pub(super) detail: Arc<str>,
    pub(super) source: String,
    pub(super) at: i64,
}

/// How a lease ended, apart from the name of its state.
#[derive(Serialize, Deserialize, Default)]
pub(super) struct EndedJson {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) note: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) cause: Option<Vec<LinkJson>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) replacement: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) code: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) detail: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) fault: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) finding: Option<Arc<str>>,
}

/// What is to be kept for triage.
#[derive(Serialize, Deserialize)]
pub(super) struct KeepJson {
    pub(super) by: Arc<str>,
    pub(super) reason: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) until: Option<i64>,
}

/// Who says that it may be taken away.
#[derive(Serialize, Deserialize)]
pub(super) struct RiskJson {
    pub(super) source: Arc<str>,
    pub(super) detail: Arc<str>,
}

/// A lease whose work failed.
#[derive(Serialize, Deserialize)]
pub(super) struct FailureJson {
    pub(super) work: Arc<str>,
    pub(super) lease: String,
    pub(super) at: i64,
    pub(super) cleared: bool,
}

/// What only some states of a resource have.
#[derive(Serialize, Deserialize, Default)]
pub(super) struct DetailJson {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) misses: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) first_miss: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) repairs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) deadline: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) dead: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) by: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) reason: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) held: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) until: Option<i64>,
}

pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Option<String> {
    // Only maps with keys that are no strings, and writers that fail, make this an error; neither can happen here, and
    // a NULL where there should be JSON would be refused on load.
    serde_json::to_string(value).ok()
}

pub(super) fn links(chain: &CauseChain) -> Vec<LinkJson> {
    chain
        .iter()
        .map(|link| {
            let (mut pool, mut resource, mut lease) = (None, None, None);
            match &link.subject {
                Subject::Pool(name) => pool = Some(name.clone()),
                Subject::Resource(id) => resource = Some(id.to_string()),
                Subject::Lease(id) => lease = Some(id.to_string()),
            }
            LinkJson {
                pool,
                resource,
                lease,
                reason: link.reason.as_str().to_owned(),
                detail: link.detail.clone(),
                source: link.source.text(),
                at: link.at.0,
            }
        })
        .collect()
}

pub(super) fn chain(links: Vec<LinkJson>) -> Result<CauseChain, String> {
    links
        .into_iter()
        .map(|link| {
            let subject = match (link.pool, link.resource, link.lease) {
                (Some(name), None, None) => Subject::Pool(name),
                (None, Some(id), None) => Subject::Resource(id.parse().map_err(|e| format!("{id:?} is {e}"))?),
                (None, None, Some(id)) => Subject::Lease(id.parse().map_err(|e| format!("{id:?} is {e}"))?),
                _ => return Err("a cause without exactly one subject".to_owned()),
            };
            Ok(Link {
                subject,
                reason: Reason::parse(&link.reason).ok_or_else(|| unknown(&link.reason))?,
                detail: link.detail,
                source: Source::parse(&link.source).ok_or_else(|| unknown(&link.source))?,
                at: Timestamp(link.at),
            })
        })
        .collect()
}

pub(super) fn unknown(text: &str) -> String {
    format!("unknown value {text:?}")
}

pub(super) fn absent(what: &str) -> String {
    format!("{what} is missing")
}
