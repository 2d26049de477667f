//! The table of leases.

use super::encode::{Access, Id, Int, Interned, Json, Map, Name, StateName, Tenant, Text};
use super::intern::Interner;
use super::json::{EndedJson, absent, chain, links, unknown};
use super::table::wrong;
use super::{Columns, Sink};
use crate::store::StoreError;
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use wharfinger_core::{
    Assignment, Caller, Cleanup, Ended, FailReason, Fault, Finding, Lease, LeaseId, LeaseSpec, LeaseState, Millis, Op,
    Outcome, Pools, ResourceId, Selector, Texts, Timestamp,
};

table! {
    "leases" as LEASE;
    text lease_columns!, lease_places!, lease_update!;
    fn write(lease: Lease, spec: LeaseSpec, selector: Selector, state: StateColumns);
    fn read(lease: Lease, spec: LeaseSpec, selector: SelectorColumns, state: StateColumns);
    id: Id = lease.id;
    revision: Int = lease.revision;
    state: Name = state.name;
    pool: Interned = selector.pool;
    labels: Map = selector.labels;
    holder: Interned = spec.holder;
    principal: Interned = spec.principal;
    request_id: Text = spec.request_id;
    fingerprint: Int = spec.fingerprint;
    priority: Int = spec.priority;
    ttl_ms: Int = spec.ttl;
    wait_until: Int = spec.wait_until;
    expected_ms: Int = spec.expected;
    params: Map = spec.params;
    tags: Map = spec.tags;
    group_id: Id = spec.group;
    group_index: Int = spec.index;
    independent: Int = spec.independent;
    child: Id = spec.child;
    successor: Int = spec.replace;
    replaces: Id = spec.replaces;
    created_at: Int = lease.created_at;
    seq: Int = lease.seq;
    expires_at: Int = lease.expires_at;
    attempts: Int = lease.attempts;
    delays: Int = lease.delays;
    not_before: Int = lease.not_before;
    served_by: Interned = lease.pool;
    avoid: Json = lease.avoid;
    trouble: Text = lease.trouble;
    ends_at: Int = lease.ends_at;
    doubt: Text = lease.doubt;
    resource: Id = state.resource;
    slot: Int = state.slot;
    token: Int = state.token;
    op: Int = state.op;
    since: Int = state.since;
    access: Access = state.access;
    ended_at: Int = state.ended_at;
    ended: Json = state.ended;
    work: Interned = spec.work;
    tenant: Tenant = spec.tenant;
    total_ms: Int = spec.total;
    expires_at_most: Int = lease.expires_at_most;
    session: Id = lease.session;
    holder_doubt: Int = lease.holder_doubt;
}

/// The selector of a lease, as it is read.
#[derive(Default)]
struct SelectorColumns {
    pool: Option<Arc<str>>,
    labels: Arc<Texts>,
}

/// The state of a lease in columns. Which of them have a value depends on the state.
struct StateColumns {
    name: StateName<LeaseState>,
    resource: Option<ResourceId>,
    slot: Option<u32>,
    token: Option<u64>,
    op: Option<Op>,
    since: Option<Timestamp>,
    access: Option<Arc<Texts>>,
    ended_at: Option<Timestamp>,
    ended: Option<EndedJson>,
}

impl StateColumns {
    fn of(state: &LeaseState) -> Self {
        let columns = |name, assignment: Option<&Assignment>| StateColumns {
            name: StateName::new(name),
            resource: assignment.map(|assignment| assignment.resource),
            slot: assignment.map(|assignment| assignment.slot),
            token: assignment.map(|assignment| assignment.token),
            op: None,
            since: None,
            access: None,
            ended_at: None,
            ended: None,
        };
        match state {
            LeaseState::Queued => columns("QUEUED", None),
            LeaseState::Preparing { assignment, op } => {
                StateColumns { op: Some(*op), ..columns("PREPARING", Some(assignment)) }
            }
            LeaseState::Active { assignment, since, access } => StateColumns {
                since: Some(*since),
                access: Some(access.clone()),
                ..columns("ACTIVE", Some(assignment))
            },
            LeaseState::Ended { how, at, cleanup } => StateColumns {
                op: cleanup.as_ref().map(|cleanup| cleanup.op),
                ended_at: Some(*at),
                ended: ended_json(how),
                ..columns(how.as_str(), cleanup.as_ref().map(|cleanup| &cleanup.assignment))
            },
        }
    }

    /// The error names the column and what is wrong with it.
    fn state(self) -> Result<LeaseState, (&'static str, String)> {
        let null = |column| move || (column, "is NULL".to_owned());
        let assignment = match (self.resource, self.slot, self.token) {
            (Some(resource), Some(slot), Some(token)) => Some(Assignment { resource, slot, token }),
            (None, None, None) => None,
            _ => return Err(("token", "goes only together with resource and slot".to_owned())),
        };
        match (self.name.as_str(), assignment) {
            ("QUEUED", None) => Ok(LeaseState::Queued),
            ("PREPARING", Some(assignment)) => {
                Ok(LeaseState::Preparing { assignment, op: self.op.ok_or_else(null("op"))? })
            }
            ("ACTIVE", Some(assignment)) => Ok(LeaseState::Active {
                assignment,
                since: self.since.ok_or_else(null("since"))?,
                access: self.access.unwrap_or_default(),
            }),
            (name @ ("QUEUED" | "PREPARING" | "ACTIVE"), _) => {
                Err(("resource", format!("does not go with state {name}")))
            }
            (name, assignment) => {
                let how = ended(name, self.ended.unwrap_or_default()).map_err(|what| ("ended", what))?;
                let cleanup = match (assignment, self.op) {
                    (Some(assignment), Some(op)) => Some(Cleanup { assignment, op }),
                    (None, None) => None,
                    _ => return Err(("op", "goes only together with resource".to_owned())),
                };
                Ok(LeaseState::Ended { how, at: self.ended_at.ok_or_else(null("ended_at"))?, cleanup })
            }
        }
    }
}

/// Writes a lease, in the order of [`LEASE`].
pub(in crate::store) fn encode_lease(lease: &Lease, sink: &mut impl Sink) {
    let selector = columns_of(&lease.spec.selector);
    write(lease, &lease.spec, &selector, &StateColumns::of(&lease.state), sink);
}

/// The selector as it is stored. A set of pools stands in the column of the pool, as patterns each behind a comma. No pool has
/// such a name, so that a server of an older version grants nothing for it.
fn columns_of(selector: &Selector) -> Cow<'_, Selector> {
    match &selector.among {
        Pools::Matching(patterns) if selector.pool.is_none() => {
            let text = patterns.iter().fold(String::new(), |text, pattern| text + "," + pattern);
            Cow::Owned(Selector { pool: Some(Arc::from(text)), ..selector.clone() })
        }
        Pools::All | Pools::Matching(_) => Cow::Borrowed(selector),
    }
}

/// A lease whose values are all replaced when it is read.
static BLANK: LazyLock<Lease> = LazyLock::new(|| {
    let spec = LeaseSpec {
        principal: Arc::from(""),
        ..LeaseSpec::new("", Arc::from(Caller::DEFAULT_TENANT), Arc::default(), Millis::ZERO)
    };
    Lease::queued(LeaseId::new(1), spec, Timestamp(0), 0)
});

/// Reads a lease whose columns are those of [`LEASE`].
pub(in crate::store) fn decode_lease(row: &impl Columns, interner: &mut Interner) -> Result<Lease, StoreError> {
    let mut lease = BLANK.clone();
    let mut spec = LeaseSpec::clone(&lease.spec);
    let mut selector = SelectorColumns::default();
    let mut state = StateColumns::of(&LeaseState::Queued);
    read(&mut lease, &mut spec, &mut selector, &mut state, row, interner)?;
    spec.selector = interner.selector(selector.pool.as_deref(), selector.labels);
    lease.spec = Arc::new(spec);
    lease.state = state.state().map_err(|(column, what)| wrong("leases", row, column, &what))?;
    Ok(lease)
}

fn ended_json(how: &Ended) -> Option<EndedJson> {
    match how {
        Ended::Expired | Ended::Cancelled => None,
        Ended::Released { outcome, note, finding } => Some(EndedJson {
            outcome: Some(outcome.as_str().to_owned()),
            note: Some(note.clone()),
            fault: finding.as_ref().map(|found| found.fault.as_str().to_owned()),
            finding: finding.as_ref().map(|found| found.detail.clone()),
            ..EndedJson::default()
        }),
        Ended::Broken { cause, replacement } => Some(EndedJson {
            cause: Some(links(cause)),
            replacement: replacement.map(|id| id.to_string()),
            ..EndedJson::default()
        }),
        Ended::Failed { reason, code, detail } => Some(EndedJson {
            reason: Some(reason.as_str().to_owned()),
            code: Some(code.clone()),
            detail: Some(detail.clone()),
            ..EndedJson::default()
        }),
    }
}

fn ended(state: &str, parts: EndedJson) -> Result<Ended, String> {
    match state {
        "EXPIRED" => Ok(Ended::Expired),
        "CANCELLED" => Ok(Ended::Cancelled),
        "RELEASED" => {
            let outcome = parts.outcome.ok_or_else(|| absent("outcome"))?;
            let outcome = Outcome::ALL.into_iter().find(|o| o.as_str() == outcome).ok_or_else(|| unknown(&outcome))?;
            let finding = match (parts.fault, parts.finding) {
                (Some(fault), Some(detail)) => {
                    let known = Fault::ALL;
                    let fault = known.into_iter().find(|f| f.as_str() == fault).ok_or_else(|| unknown(&fault))?;
                    Some(Arc::new(Finding { fault, detail }))
                }
                (None, None) => None,
                _ => return Err(absent("half of a finding")),
            };
            Ok(Ended::Released { outcome, note: parts.note.ok_or_else(|| absent("note"))?, finding })
        }
        "BROKEN" => Ok(Ended::Broken {
            cause: chain(parts.cause.ok_or_else(|| absent("cause"))?)?,
            replacement: match parts.replacement {
                Some(id) => Some(id.parse().map_err(|e| format!("{id:?} is {e}"))?),
                None => None,
            },
        }),
        "FAILED" => {
            let reason = parts.reason.ok_or_else(|| absent("reason"))?;
            let reason = [FailReason::WaitDeadline, FailReason::Request, FailReason::BudgetSpent, FailReason::Group]
                .into_iter()
                .find(|r| r.as_str() == reason)
                .ok_or_else(|| unknown(&reason))?;
            Ok(Ended::Failed {
                reason,
                code: parts.code.ok_or_else(|| absent("code"))?,
                detail: parts.detail.ok_or_else(|| absent("detail"))?,
            })
        }
        other => Err(unknown(other)),
    }
}
