//! Columns that are JSON text. The core has no serde, so each has a mirror struct here.
//!
//! The names of the fields are part of the database: they do not change when a type of the core is renamed.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use wharfinger_core::{
    AtRisk, CauseChain, Hold, Link, Note, Program, Provenance, Reason, ResourceId, Source, Subject, Timestamp, Weight,
    WorkFailure,
};

/// A value with a mirror in JSON.
pub(super) trait JsonColumn: Sized {
    /// The mirror.
    type Json: Serialize + DeserializeOwned;
    /// `None` is NULL.
    fn to_json(&self) -> Option<Self::Json>;
    /// The error is what the column holds instead.
    fn from_json(json: Option<Self::Json>) -> Result<Self, String>;
}

/// One link of a cause chain.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct LinkJson {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) pool: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) lease: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) session: Option<String>,
    pub(super) reason: String,
    pub(super) detail: Arc<str>,
    pub(super) source: String,
    pub(super) at: i64,
}

/// The end of a lease, apart from the name of its state.
#[derive(Clone, Serialize, Deserialize, Default)]
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

/// A hold for triage. The column is called `kept`.
#[derive(Serialize, Deserialize)]
pub(super) struct KeepJson {
    pub(super) by: Arc<str>,
    pub(super) reason: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) until: Option<i64>,
}

/// The source of a warning that the resource may be taken away.
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
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) weight: Option<String>,
}

/// A note of an operator.
#[derive(Serialize, Deserialize)]
pub(super) struct NoteJson {
    pub(super) by: Arc<str>,
    pub(super) text: Arc<str>,
    pub(super) at: i64,
}

/// Values that only some states of a resource have.
#[derive(Clone, Serialize, Deserialize, Default)]
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

/// How the caller of a change proved who it is.
#[derive(Serialize, Deserialize)]
pub(super) struct CallerJson {
    pub(super) tenant: Arc<str>,
    pub(super) proof: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) peer: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) via: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) program: Option<Arc<str>>,
    pub(super) roles: Arc<str>,
    pub(super) method: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) trace: Option<Arc<str>>,
}

impl JsonColumn for Option<Arc<Provenance>> {
    type Json = CallerJson;
    fn to_json(&self) -> Option<CallerJson> {
        let Provenance { tenant, proof, peer, via, program, roles, method, trace } =
            Provenance::clone(self.as_deref()?);
        let program = program.map(|program| Arc::from(program.as_str()));
        Some(CallerJson { tenant, proof, peer, via, program, roles, method, trace })
    }
    fn from_json(json: Option<CallerJson>) -> Result<Self, String> {
        Ok(json.map(|CallerJson { tenant, proof, peer, via, program, roles, method, trace }| {
            // A program of a later version is not known here.
            let program = program.as_deref().and_then(Program::parse);
            Arc::new(Provenance { tenant, proof, peer, via, program, roles, method, trace })
        }))
    }
}

impl JsonColumn for Option<EndedJson> {
    type Json = EndedJson;
    fn to_json(&self) -> Option<EndedJson> {
        self.clone()
    }
    fn from_json(json: Option<EndedJson>) -> Result<Self, String> {
        Ok(json)
    }
}

impl JsonColumn for Option<DetailJson> {
    type Json = DetailJson;
    fn to_json(&self) -> Option<DetailJson> {
        self.clone()
    }
    fn from_json(json: Option<DetailJson>) -> Result<Self, String> {
        Ok(json)
    }
}

impl JsonColumn for Vec<ResourceId> {
    type Json = Vec<String>;
    fn to_json(&self) -> Option<Vec<String>> {
        (!self.is_empty()).then(|| self.iter().map(ToString::to_string).collect())
    }
    fn from_json(json: Option<Vec<String>>) -> Result<Self, String> {
        json.unwrap_or_default()
            .iter()
            .map(|text| text.parse().map_err(|error| format!("{text:?} is {error}")))
            .collect()
    }
}

impl JsonColumn for Vec<WorkFailure> {
    type Json = Vec<FailureJson>;
    fn to_json(&self) -> Option<Vec<FailureJson>> {
        let mirror = |failure: &WorkFailure| FailureJson {
            work: failure.work.clone(),
            lease: failure.lease.to_string(),
            at: failure.at.0,
            cleared: failure.cleared,
            weight: (failure.weight != Weight::None).then(|| failure.weight.as_str().to_owned()),
        };
        (!self.is_empty()).then(|| self.iter().map(mirror).collect())
    }
    fn from_json(json: Option<Vec<FailureJson>>) -> Result<Self, String> {
        let failure = |json: FailureJson| {
            let lease = json.lease.parse().map_err(|error| format!("{:?} is {error}", json.lease))?;
            let weight = match &json.weight {
                Some(name) => Weight::ALL.into_iter().find(|one| one.as_str() == name).ok_or_else(|| unknown(name))?,
                None => Weight::None,
            };
            Ok(WorkFailure { work: json.work, lease, at: Timestamp(json.at), cleared: json.cleared, weight })
        };
        json.unwrap_or_default().into_iter().map(failure).collect()
    }
}

impl JsonColumn for BTreeMap<Arc<str>, Timestamp> {
    type Json = BTreeMap<Arc<str>, i64>;
    fn to_json(&self) -> Option<BTreeMap<Arc<str>, i64>> {
        (!self.is_empty()).then(|| self.iter().map(|(key, at)| (key.clone(), at.0)).collect())
    }
    fn from_json(json: Option<BTreeMap<Arc<str>, i64>>) -> Result<Self, String> {
        Ok(json.unwrap_or_default().into_iter().map(|(key, at)| (key, Timestamp(at))).collect())
    }
}

impl JsonColumn for Option<AtRisk> {
    type Json = RiskJson;
    fn to_json(&self) -> Option<RiskJson> {
        self.as_ref().map(|risk| RiskJson { source: risk.source.clone(), detail: risk.detail.clone() })
    }
    fn from_json(json: Option<RiskJson>) -> Result<Self, String> {
        Ok(json.map(|risk| AtRisk { source: risk.source, detail: risk.detail }))
    }
}

impl JsonColumn for Option<Hold> {
    type Json = KeepJson;
    fn to_json(&self) -> Option<KeepJson> {
        self.as_ref().map(|hold| KeepJson {
            by: hold.by.clone(),
            reason: hold.reason.clone(),
            until: hold.until.map(|until| until.0),
        })
    }
    fn from_json(json: Option<KeepJson>) -> Result<Self, String> {
        Ok(json.map(|hold| Hold { by: hold.by, reason: hold.reason, until: hold.until.map(Timestamp) }))
    }
}

impl JsonColumn for Option<Note> {
    type Json = NoteJson;
    fn to_json(&self) -> Option<NoteJson> {
        self.as_ref().map(|note| NoteJson { by: note.by.clone(), text: note.text.clone(), at: note.at.0 })
    }
    fn from_json(json: Option<NoteJson>) -> Result<Self, String> {
        Ok(json.map(|note| Note { by: note.by, text: note.text, at: Timestamp(note.at) }))
    }
}

impl JsonColumn for Option<CauseChain> {
    type Json = Vec<LinkJson>;
    fn to_json(&self) -> Option<Vec<LinkJson>> {
        self.as_ref().map(links)
    }
    fn from_json(json: Option<Vec<LinkJson>>) -> Result<Self, String> {
        json.map(chain).transpose()
    }
}

pub(super) fn links(chain: &CauseChain) -> Vec<LinkJson> {
    chain
        .iter()
        .map(|link| {
            let (mut pool, mut resource, mut lease, mut session) = (None, None, None, None);
            match &link.subject {
                Subject::Pool(name) => pool = Some(name.clone()),
                Subject::Resource(id) => resource = Some(id.to_string()),
                Subject::Lease(id) => lease = Some(id.to_string()),
                Subject::Session(id) => session = Some(id.to_string()),
            }
            LinkJson {
                pool,
                resource,
                lease,
                session,
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
            let subject = match (link.pool, link.resource, link.lease, link.session) {
                (Some(name), None, None, None) => Subject::Pool(name),
                (None, Some(id), None, None) => Subject::Resource(id.parse().map_err(|e| format!("{id:?} is {e}"))?),
                (None, None, Some(id), None) => Subject::Lease(id.parse().map_err(|e| format!("{id:?} is {e}"))?),
                (None, None, None, Some(id)) => Subject::Session(id.parse().map_err(|e| format!("{id:?} is {e}"))?),
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
