//! From columns to the core's types. What this version can't read is an error that names table, row and column.

use super::json::{DetailJson, EndedJson, FailureJson, KeepJson, LinkJson, RiskJson, absent, chain, unknown};
use super::{Columns, EVENT, LEASE, POOL, RESOURCE, Shared, corrupt};
use crate::store::{StoreError, StoredEvent};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use wharfinger_adapter::access::CREDENTIALS;
use wharfinger_core::{
    Assignment, AtRisk, Cleanup, Cordon, Ended, FailReason, Fault, Finding, Hold, IdError, Lease, LeaseSpec,
    LeaseState, Millis, Op, Outcome, Parent, PoolRow, Resource, ResourceId, ResourceState, Revision, Texts, Timestamp,
    WorkFailure,
};

/// Walks a row from left to right; the names are for messages, and checked against the list in debug builds.
struct Take<'r, C: Columns> {
    table: &'static str,
    names: &'static [&'static str],
    row: &'r C,
    next: usize,
}

impl<'r, C: Columns> Take<'r, C> {
    fn new(table: &'static str, names: &'static [&'static str], row: &'r C) -> Self {
        Take { table, names, row, next: 0 }
    }

    fn wrong(&self, column: &str, what: &str) -> StoreError {
        let id = self.row.text(0).ok().flatten().unwrap_or("?");
        corrupt(self.table, id, column, what)
    }

    fn step(&mut self, column: &'static str) -> usize {
        let index = self.next;
        debug_assert_eq!(self.names.get(index), Some(&column), "column order of {}", self.table);
        self.next += 1;
        index
    }

    fn text(&mut self, column: &'static str) -> Result<Option<&'r str>, StoreError> {
        let index = self.step(column);
        self.row.text(index).map_err(|e| self.wrong(column, &e))
    }

    fn int(&mut self, column: &'static str) -> Result<Option<i64>, StoreError> {
        let index = self.step(column);
        self.row.int(index).map_err(|e| self.wrong(column, &e))
    }

    fn need_text(&mut self, column: &'static str) -> Result<&'r str, StoreError> {
        self.text(column)?.ok_or_else(|| self.wrong(column, "is NULL"))
    }

    fn need_int(&mut self, column: &'static str) -> Result<i64, StoreError> {
        self.int(column)?.ok_or_else(|| self.wrong(column, "is NULL"))
    }

    fn small<T: TryFrom<i64>>(&mut self, column: &'static str) -> Result<T, StoreError> {
        let value = self.need_int(column)?;
        T::try_from(value).map_err(|_| self.wrong(column, &format!("{value} is out of range")))
    }

    fn maybe_small<T: TryFrom<i64>>(&mut self, column: &'static str) -> Result<Option<T>, StoreError> {
        let Some(value) = self.int(column)? else { return Ok(None) };
        T::try_from(value).map(Some).map_err(|_| self.wrong(column, &format!("{value} is out of range")))
    }

    fn number(&mut self, column: &'static str) -> Result<u64, StoreError> {
        self.need_int(column).map(i64::cast_unsigned)
    }

    fn flag(&mut self, column: &'static str) -> Result<bool, StoreError> {
        match self.need_int(column)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.wrong(column, &format!("{other} is neither 0 nor 1"))),
        }
    }

    fn time(&mut self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.int(column)?.map(Timestamp))
    }

    fn op(&mut self, column: &'static str) -> Result<Option<Op>, StoreError> {
        Ok(self.int(column)?.map(|n| Op(n.cast_unsigned())))
    }

    fn id<T: FromStr<Err = IdError>>(&mut self, column: &'static str) -> Result<Option<T>, StoreError> {
        let Some(text) = self.text(column)? else { return Ok(None) };
        text.parse().map(Some).map_err(|e| self.wrong(column, &format!("{text:?} is {e}")))
    }

    fn arc(&mut self, column: &'static str) -> Result<Option<Arc<str>>, StoreError> {
        Ok(self.text(column)?.map(Arc::from))
    }

    fn json<T: for<'d> Deserialize<'d>>(&mut self, column: &'static str) -> Result<Option<T>, StoreError> {
        let Some(text) = self.text(column)? else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|e| self.wrong(column, &format!("is not the JSON expected: {e}")))
    }

    fn cordon(&mut self, by: &'static str, reason: &'static str) -> Result<Option<Cordon>, StoreError> {
        match (self.arc(by)?, self.arc(reason)?) {
            (Some(by), Some(reason)) => Ok(Some(Cordon { by, reason })),
            (None, None) => Ok(None),
            _ => Err(self.wrong(reason, "goes only together with the column before it")),
        }
    }
}

/// Rows of older versions (in a dump, or written by an older server while this one starts) may hold credentials.
fn without_credentials(access: Arc<Texts>) -> Arc<Texts> {
    if !CREDENTIALS.iter().any(|key| access.contains_key(*key)) {
        return access;
    }
    let mut access = Arc::unwrap_or_clone(access);
    CREDENTIALS.iter().for_each(|key| drop(access.remove(*key)));
    Arc::new(access)
}

/// Reads a lease whose columns are those of [`LEASE`].
pub(in crate::store) fn take_lease(row: &impl Columns, shared: &mut Shared) -> Result<Lease, StoreError> {
    let mut take = Take::new("leases", &LEASE, row);
    let id = take.id("id")?.ok_or_else(|| take.wrong("id", "is NULL"))?;
    let revision = Revision(take.number("revision")?);
    let state_name = take.need_text("state")?;
    let pool = take.text("pool")?;
    let labels = take.text("labels")?;
    let labels = shared.map(labels).map_err(|e| take.wrong("labels", &e))?;
    let selector = shared.selector(pool, labels);
    let holder = shared.text(take.need_text("holder")?);
    let principal = shared.text(take.need_text("principal")?);
    let request_id = Arc::from(take.need_text("request_id")?);
    let fingerprint = take.number("fingerprint")?;
    let priority = take.small("priority")?;
    let ttl = Millis(take.need_int("ttl_ms")?);
    let wait_until = take.time("wait_until")?;
    let expected = take.int("expected_ms")?.map(Millis);
    let params = take.text("params")?;
    let params = shared.map(params).map_err(|e| take.wrong("params", &e))?;
    let tags = take.text("tags")?;
    let tags = shared.map(tags).map_err(|e| take.wrong("tags", &e))?;
    let mut spec = LeaseSpec {
        request_id,
        fingerprint,
        principal,
        holder,
        selector,
        priority,
        ttl,
        wait_until,
        expected,
        params,
        tags,
        group: take.id("group_id")?,
        index: take.small("group_index")?,
        independent: take.flag("independent")?,
        child: take.id("child")?,
        replace: take.flag("successor")?,
        replaces: take.id("replaces")?,
        work: None,
    };
    let created_at = Timestamp(take.need_int("created_at")?);
    let seq = take.number("seq")?;
    let expires_at = take.time("expires_at")?;
    let attempts = take.small("attempts")?;
    let delays = take.small("delays")?;
    let not_before = take.time("not_before")?;
    let served_by = take.text("served_by")?.map(|name| shared.text(name));
    let avoid = take.json::<Vec<String>>("avoid")?.unwrap_or_default();
    let avoid = avoid
        .iter()
        .map(|text| text.parse())
        .collect::<Result<Vec<ResourceId>, _>>()
        .map_err(|e| take.wrong("avoid", &e.to_string()))?;
    let trouble = take.arc("trouble")?;
    let ends_at = take.time("ends_at")?;
    let doubt = take.arc("doubt")?;
    let resource: Option<ResourceId> = take.id("resource")?;
    let slot: Option<u32> = take.maybe_small("slot")?;
    let token = take.int("token")?;
    let op = take.op("op")?;
    let since = take.time("since")?;
    let access = take.text("access")?;
    let ended_at = take.time("ended_at")?;
    let ended = take.json::<EndedJson>("ended")?;
    spec.work = take.text("work")?.map(|work| shared.text(work));

    let assignment = match (resource, slot, token) {
        (Some(resource), Some(slot), Some(token)) => Some(Assignment { resource, slot, token: token.cast_unsigned() }),
        (None, None, None) => None,
        _ => return Err(take.wrong("token", "goes only together with resource and slot")),
    };
    let state = match (state_name, assignment) {
        ("QUEUED", None) => LeaseState::Queued,
        ("PREPARING", Some(assignment)) => {
            LeaseState::Preparing { assignment, op: op.ok_or_else(|| take.wrong("op", "is NULL"))? }
        }
        ("ACTIVE", Some(assignment)) => LeaseState::Active {
            assignment,
            since: since.ok_or_else(|| take.wrong("since", "is NULL"))?,
            access: without_credentials(shared.map(access).map_err(|e| take.wrong("access", &e))?),
        },
        ("QUEUED" | "PREPARING" | "ACTIVE", _) => {
            return Err(take.wrong("resource", &format!("does not go with state {state_name}")));
        }
        (name, assignment) => {
            if !ENDED.contains(&name) {
                return Err(take.wrong("state", &unknown(name)));
            }
            let how = ended_how(name, ended.unwrap_or_default()).map_err(|e| take.wrong("ended", &e))?;
            let cleanup = match (assignment, op) {
                (Some(assignment), Some(op)) => Some(Cleanup { assignment, op }),
                (None, None) => None,
                _ => return Err(take.wrong("op", "goes only together with resource")),
            };
            LeaseState::Ended { how, at: ended_at.ok_or_else(|| take.wrong("ended_at", "is NULL"))?, cleanup }
        }
    };
    Ok(Lease {
        id,
        revision,
        spec: Arc::new(spec),
        state,
        created_at,
        seq,
        expires_at,
        attempts,
        delays,
        not_before,
        pool: served_by,
        avoid,
        trouble,
        ends_at,
        doubt,
    })
}

const ENDED: [&str; 5] = ["RELEASED", "EXPIRED", "BROKEN", "CANCELLED", "FAILED"];

fn ended_how(state: &str, parts: EndedJson) -> Result<Ended, String> {
    match state {
        "EXPIRED" => Ok(Ended::Expired),
        "CANCELLED" => Ok(Ended::Cancelled),
        "RELEASED" => {
            let outcome = parts.outcome.ok_or_else(|| absent("outcome"))?;
            let outcome = [Outcome::Ok, Outcome::Failed, Outcome::Tainted]
                .into_iter()
                .find(|o| o.as_str() == outcome)
                .ok_or_else(|| unknown(&outcome))?;
            let finding = match (parts.fault, parts.finding) {
                (Some(fault), Some(detail)) => {
                    let known = [Fault::Undecided, Fault::Resource, Fault::Work];
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

/// Reads a resource whose columns are those of [`RESOURCE`].
pub(in crate::store) fn take_resource(row: &impl Columns, shared: &mut Shared) -> Result<Resource, StoreError> {
    let mut take = Take::new("resources", &RESOURCE, row);
    let id = take.id("id")?.ok_or_else(|| take.wrong("id", "is NULL"))?;
    let revision = Revision(take.number("revision")?);
    let state_name = take.need_text("state")?;
    let pool = shared.text(take.need_text("pool")?);
    let item = take.arc("item")?;
    let labels = take.json("labels")?.unwrap_or_default();
    let slots = take.small("slots")?;
    let parent = match (take.id("parent_lease")?, take.id("parent_host")?) {
        (Some(lease), host) => Some(Parent { lease, host }),
        (None, None) => None,
        (None, Some(_)) => return Err(take.wrong("parent_host", "goes only together with parent_lease")),
    };
    let cordoned = take.cordon("cordoned_by", "cordon_reason")?;
    let created_at = Timestamp(take.need_int("created_at")?);
    let ready_at = take.time("ready_at")?;
    let idle_since = take.time("idle_since")?;
    let uses = take.small("uses")?;
    let handle = take.arc("handle")?;
    let access = take.text("access")?;
    let access = without_credentials(shared.map(access).map_err(|e| take.wrong("access", &e))?);
    let ends_at = take.time("ends_at")?;
    let trouble = take.arc("trouble")?;
    let op = take.op("op")?;
    let attempt: Option<u32> = take.maybe_small("attempt")?;
    let retry_at = take.time("retry_at")?;
    let since = take.time("since")?;
    let cause = take.json::<Vec<LinkJson>>("cause")?;
    let cause = cause.map(chain).transpose().map_err(|e| take.wrong("cause", &e))?;
    let detail = take.json::<DetailJson>("detail")?.unwrap_or_default();
    let found = take.json("found")?.unwrap_or_default();
    let at_risk = take.json::<RiskJson>("at_risk")?.map(|r| AtRisk { source: r.source, detail: r.detail });
    let hold = take.json::<KeepJson>("kept")?;
    let hold = hold.map(|hold| Hold { by: hold.by, reason: hold.reason, until: hold.until.map(Timestamp) });
    let failures = take.json::<Vec<FailureJson>>("failures")?.unwrap_or_default();
    let failures = failures.into_iter().map(failure).collect::<Result<Vec<_>, _>>();
    let failures = failures.map_err(|e| take.wrong("failures", &e))?;
    let announced = take.json::<BTreeMap<Arc<str>, i64>>("announced")?.unwrap_or_default();
    let announced = announced.into_iter().map(|(source, at)| (source, Timestamp(at))).collect();

    let need = |column: &str| take.wrong(column, "is NULL");
    let part = |name: &str| take.wrong("detail", &absent(name));
    let state = match state_name {
        "READY" => ResourceState::Ready,
        "PROVISIONING" => {
            ResourceState::Provisioning { op, attempt: attempt.ok_or_else(|| need("attempt"))?, retry_at }
        }
        "SUSPECT" => ResourceState::Suspect {
            since: since.ok_or_else(|| need("since"))?,
            cause: cause.ok_or_else(|| need("cause"))?,
            op,
            retry_at,
            misses: detail.misses.ok_or_else(|| part("misses"))?,
            first_miss: detail.first_miss.map(Timestamp),
            repairs: detail.repairs.ok_or_else(|| part("repairs"))?,
            held: detail.held,
        },
        "REPAIRING" => ResourceState::Repairing {
            op: op.ok_or_else(|| need("op"))?,
            cause: cause.ok_or_else(|| need("cause"))?,
            repairs: detail.repairs.ok_or_else(|| part("repairs"))?,
        },
        "QUARANTINED" => ResourceState::Quarantined {
            cordon: Cordon {
                by: detail.by.ok_or_else(|| part("by"))?,
                reason: detail.reason.ok_or_else(|| part("reason"))?,
            },
            since: since.ok_or_else(|| need("since"))?,
            until: detail.until.map(Timestamp),
        },
        "DRAINING" => ResourceState::Draining {
            cause: cause.ok_or_else(|| need("cause"))?,
            deadline: detail.deadline.map(Timestamp),
        },
        "DESTROYING" => ResourceState::Destroying {
            op,
            attempt: attempt.ok_or_else(|| need("attempt"))?,
            retry_at,
            cause: cause.ok_or_else(|| need("cause"))?,
            dead: detail.dead.ok_or_else(|| part("dead"))?,
        },
        "ORPHANED" => ResourceState::Orphaned {
            op,
            attempt: attempt.ok_or_else(|| need("attempt"))?,
            retry_at,
            cause: cause.ok_or_else(|| need("cause"))?,
        },
        "GONE" => {
            ResourceState::Gone { at: since.ok_or_else(|| need("since"))?, cause: cause.ok_or_else(|| need("cause"))? }
        }
        other => return Err(take.wrong("state", &unknown(other))),
    };
    Ok(Resource {
        id,
        revision,
        pool,
        item,
        labels,
        slots,
        parent,
        state,
        cordoned,
        created_at,
        ready_at,
        idle_since,
        uses,
        handle,
        access,
        ends_at,
        trouble,
        found,
        at_risk,
        hold,
        failures,
        announced,
    })
}

fn failure(json: FailureJson) -> Result<WorkFailure, String> {
    let lease = json.lease.parse().map_err(|e| format!("{:?} is {e}", json.lease))?;
    Ok(WorkFailure { work: json.work, lease, at: Timestamp(json.at), cleared: json.cleared })
}

/// Reads what an operator said of a pool.
pub(in crate::store) fn take_pool(row: &impl Columns) -> Result<PoolRow, StoreError> {
    let mut take = Take::new("pools", &POOL, row);
    Ok(PoolRow {
        name: Arc::from(take.need_text("name")?),
        revision: Revision(take.number("revision")?),
        cordoned: take.cordon("cordoned_by", "cordon_reason")?,
    })
}

/// Reads an entry of the audit trail.
pub(in crate::store) fn take_event(row: &impl Columns) -> Result<StoredEvent, StoreError> {
    let mut take = Take::new("events", &EVENT, row);
    let revision = take.number("revision")?;
    Ok(StoredEvent {
        revision,
        ordinal: take.number("ordinal")?,
        at_unix_ms: take.need_int("at")?,
        kind: take.need_text("kind")?.to_owned(),
        actor: take.need_text("actor")?.to_owned(),
        subject: take.need_text("subject")?.to_owned(),
        pool: take.text("pool")?.map(str::to_owned),
        resource: take.id("resource")?,
        lease: take.id("lease")?,
        detail: take.need_text("detail")?.to_owned(),
    })
}
