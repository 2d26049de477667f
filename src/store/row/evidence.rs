//! JSON columns of what uses and losses say: of a resource, of its machine, and of its pool.

use super::json::JsonColumn;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use wharfinger_core::{Evidence, Losses, Record, Run, Timestamp, Uses};

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Serialize, Deserialize, Default, PartialEq)]
pub(super) struct UsesJson {
    #[serde(skip_serializing_if = "is_zero", default)]
    good: u64,
    #[serde(skip_serializing_if = "is_zero", default)]
    bad: u64,
    #[serde(skip_serializing_if = "is_zero", default)]
    confirmed: u64,
}

impl From<Uses> for UsesJson {
    fn from(Uses { good, bad, confirmed }: Uses) -> Self {
        Self { good, bad, confirmed }
    }
}

impl From<UsesJson> for Uses {
    fn from(UsesJson { good, bad, confirmed }: UsesJson) -> Self {
        Self { good, bad, confirmed }
    }
}

#[derive(Serialize, Deserialize, Default, PartialEq)]
pub(super) struct RunJson {
    #[serde(skip_serializing_if = "is_zero", default)]
    good: u64,
    #[serde(skip_serializing_if = "is_zero", default)]
    bad: u64,
    #[serde(skip_serializing_if = "is_default", default)]
    since: UsesJson,
}

impl From<Run> for RunJson {
    fn from(Run { good, bad, since }: Run) -> Self {
        Self { good, bad, since: since.into() }
    }
}

impl From<RunJson> for Run {
    fn from(RunJson { good, bad, since }: RunJson) -> Self {
        Self { good, bad, since: since.into() }
    }
}

/// The evidence that the uses of a resource give.
#[derive(Serialize, Deserialize)]
pub(super) struct EvidenceJson {
    #[serde(skip_serializing_if = "is_default", default)]
    recent: UsesJson,
    #[serde(skip_serializing_if = "is_default", default)]
    halvings: u32,
    #[serde(skip_serializing_if = "is_default", default)]
    run: RunJson,
    #[serde(skip_serializing_if = "is_default", default)]
    confirmed: RunJson,
    #[serde(skip_serializing_if = "is_default", default)]
    said: bool,
    #[serde(skip_serializing_if = "is_default", default)]
    apart: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    trial: Option<u32>,
    #[serde(skip_serializing_if = "is_default", default)]
    repairs: u32,
    #[serde(skip_serializing_if = "is_default", default)]
    unfit: u32,
}

impl JsonColumn for Evidence {
    type Json = EvidenceJson;
    fn to_json(&self) -> Option<EvidenceJson> {
        let Evidence { recent, halvings, run, confirmed, said, apart, trial, repairs, unfit } = *self;
        (*self != Evidence::default()).then(|| EvidenceJson {
            recent: recent.into(),
            halvings,
            run: run.into(),
            confirmed: confirmed.into(),
            said,
            apart,
            trial,
            repairs,
            unfit,
        })
    }
    fn from_json(json: Option<EvidenceJson>) -> Result<Self, String> {
        let Some(EvidenceJson { recent, halvings, run, confirmed, said, apart, trial, repairs, unfit }) = json else {
            return Ok(Self::default());
        };
        Ok(Evidence {
            recent: recent.into(),
            halvings,
            run: run.into(),
            confirmed: confirmed.into(),
            said,
            apart,
            trial,
            repairs,
            unfit,
        })
    }
}

/// How the uses of a pool went.
#[derive(Serialize, Deserialize)]
pub(super) struct RecordJson {
    ever: UsesJson,
    recent: UsesJson,
    #[serde(skip_serializing_if = "is_default", default)]
    halvings: u32,
}

impl JsonColumn for Record {
    type Json = RecordJson;
    fn to_json(&self) -> Option<RecordJson> {
        let Record { ever, recent, halvings } = *self;
        (*self != Record::default()).then(|| RecordJson { ever: ever.into(), recent: recent.into(), halvings })
    }
    fn from_json(json: Option<RecordJson>) -> Result<Self, String> {
        let record =
            |json: RecordJson| Record { ever: json.ever.into(), recent: json.recent.into(), halvings: json.halvings };
        Ok(json.map(record).unwrap_or_default())
    }
}

/// Losses one soon after the other.
#[derive(Serialize, Deserialize)]
pub(super) struct LossesJson {
    count: u32,
    since: i64,
    last: i64,
    again_at: i64,
    why: Arc<str>,
}

impl JsonColumn for Option<Losses> {
    type Json = LossesJson;
    fn to_json(&self) -> Option<LossesJson> {
        self.as_ref().map(|losses| LossesJson {
            count: losses.count,
            since: losses.since.0,
            last: losses.last.0,
            again_at: losses.again_at.0,
            why: losses.why.clone(),
        })
    }
    fn from_json(json: Option<LossesJson>) -> Result<Self, String> {
        let losses = |LossesJson { count, since, last, again_at, why }| Losses {
            count,
            since: Timestamp(since),
            last: Timestamp(last),
            again_at: Timestamp(again_at),
            why,
        };
        Ok(json.map(losses))
    }
}
