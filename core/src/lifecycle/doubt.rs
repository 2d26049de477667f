//! Doubt: which resource is suspect, when it is checked, and what evidence ends a lease.
//!
//! Suspicion and its event are one commit. Waiters stay in the queue. Silence is no verdict: only misses in a row
//! over some time, or a verdict, end anything.

use crate::Core;
use crate::lifecycle::Consequence;
use crate::policy::brake::Evidence;
use crate::state::outbox::{Call, SELF};
use crate::state::tables::{Liveness, Login};
use crate::{
    Blame, CallFailure, CauseChain, EventKind, LeaseId, LeaseState, Link, Millis, Op, Reason, ResourceId,
    ResourceState, Source, Stage, Subject, Timestamp, Verdict,
};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    /// Puts a READY resource in doubt and starts its check. One that drains or is being made is looked after already.
    /// `missed`: the reason is a probe without an answer, which counts as the first miss.
    pub(crate) fn suspect(&mut self, id: ResourceId, cause: CauseChain, missed: bool) {
        let Some(row) = self.resource(id).cloned() else { return };
        match row.state.stage() {
            Stage::Ready => {}
            Stage::Doubted => return self.doubt_again(id, cause),
            Stage::Draining => return self.schedule_probe(id, true),
            Stage::Coming | Stage::Repairing | Stage::Apart | Stage::Leaving | Stage::Gone => return,
        }
        let now = self.now();
        let detail =
            cause.first().map_or_else(String::new, |link| format!("{}: {}", link.reason.as_str(), link.detail));
        self.edit_resource(id, |row| {
            row.state = ResourceState::Suspect {
                since: now,
                cause,
                op: None,
                retry_at: None,
                misses: u32::from(missed),
                first_miss: missed.then_some(now),
                repairs: 0,
                held: None,
            };
            row.trouble = Some(Arc::from(detail.as_str()));
        });
        self.own_event(EventKind::ResourceSuspect, Subject::Resource(id), detail.as_str());
        self.count(&row.pool, |counters| counters.doubts += 1);
        self.edit_liveness(id, |liveness| *liveness = Liveness::default());
        for lease in self.live_below(id) {
            self.edit_lease(lease, |lease| lease.doubt = Some(Arc::from(detail.as_str())));
        }
        self.then(Consequence::Check(id));
        if missed {
            self.ask_peers(id);
        }
    }

    /// Adds a reason to a doubt that exists already. A check under way began before this reason, so its healthy answer
    /// does not clear it: one more check follows it. A tainted resource is repaired even if that check passes.
    fn doubt_again(&mut self, id: ResourceId, cause: CauseChain) {
        let Some(reason) = cause.first().map(|link| link.reason) else { return };
        let Some(ResourceState::Suspect { op, retry_at, .. }) = self.resource(id).map(|row| &row.state) else { return };
        let (under_way, retries_later) = (op.is_some(), retry_at.is_some());
        let left_behind = matches!(
            reason,
            Reason::HolderFailed
                | Reason::HolderTainted
                | Reason::HolderAbandoned
                | Reason::HolderReported
                | Reason::HolderExpired
                | Reason::LeaseBroken
                | Reason::PrepareFailed
                | Reason::CleanFailed
        );
        if reason == Reason::HolderTainted {
            self.edit_resource(id, |row| {
                if let ResourceState::Suspect { cause: before, .. } = &mut row.state {
                    *before = cause;
                }
            });
        }
        if !under_way && (left_behind || (reason == Reason::Operator && retries_later)) {
            self.then(Consequence::Check(id));
        } else if left_behind {
            self.set_recheck(id, true);
        }
    }

    /// Active leases of clients on it and on what lies on it.
    pub(crate) fn live_below(&self, id: ResourceId) -> Vec<LeaseId> {
        let mut found = Vec::new();
        for lease in self.live_on(id) {
            let Some(row) = self.lease(lease) else { continue };
            match row.spec.child {
                Some(child) => found.extend(self.live_below(child)),
                None if matches!(row.state, LeaseState::Active { .. }) => found.push(lease),
                None => {}
            }
        }
        found
    }

    /// Whether a lease of a client is live on it, or on what lies on it.
    pub(crate) fn has_work(&self, id: ResourceId) -> bool {
        let works = |lease: &LeaseId| {
            self.lease(*lease).is_some_and(|row| row.spec.child.is_none_or(|child| self.has_work(child)))
        };
        self.live_on(id).iter().any(works)
    }

    /// Starts the check of a suspect resource; that of a working copy waits until its slot has been cleaned.
    pub(crate) fn start_check(&mut self, id: ResourceId) {
        let Some(row) = self.resource(id).cloned() else { return };
        if !matches!(row.state, ResourceState::Suspect { op: None, .. }) {
            return;
        }
        self.set_recheck(id, false);
        let cleaning = row.parent.is_some()
            && self.unclean_on(id).iter().any(|lease| {
                self.lease(*lease)
                    .is_some_and(|l| matches!(l.state, LeaseState::Ended { cleanup: Some(c), .. } if c.op != Op(0)))
            });
        if cleaning {
            // The end of the clean-up starts it; a time that has passed would come again and again meanwhile.
            self.edit_resource(id, |row| {
                if let ResourceState::Suspect { retry_at, .. } = &mut row.state {
                    *retry_at = None;
                }
            });
            return;
        }
        let fresh = self.next_op();
        self.edit_resource(id, |row| {
            if let ResourceState::Suspect { op, retry_at, .. } = &mut row.state {
                *op = Some(fresh);
                *retry_at = None;
            }
        });
        self.call(Call::Resource(id, fresh));
    }

    /// A check of a suspect resource came back.
    pub(crate) fn checked(&mut self, id: ResourceId, result: Result<Verdict, CallFailure>) {
        let Some(row) = self.resource(id).cloned() else { return };
        let ResourceState::Suspect { cause, misses, first_miss, repairs, .. } = &row.state else { return };
        let Some(pool) = self.pool_entry(&row.pool) else { return };
        let config = pool.config.clone();
        match result {
            Ok(Verdict::Healthy) if self.entry(&id).is_some_and(|entry| entry.recheck) => {
                self.heard_from(id);
                self.edit_resource(id, |row| {
                    if let ResourceState::Suspect { op, misses, first_miss, held, .. } = &mut row.state {
                        (*op, *misses, *first_miss, *held) = (None, 0, None, None);
                    }
                });
                self.then(Consequence::Check(id));
            }
            Ok(Verdict::Healthy) => {
                let tainted = cause.iter().any(|link| link.reason == Reason::HolderTainted);
                if tainted && *repairs == 0 {
                    self.repair_or_replace(id, cause.clone(), true, *repairs);
                } else if let Some(link) = self.fails_in_use(id) {
                    self.replace_unfit(id, link);
                } else {
                    self.clear(id);
                }
            }
            Ok(Verdict::Mangled { repairable, reason, detail }) => {
                let detail = reported(reason, &detail);
                if let Some(why) = self.held_back(id, Evidence::Check) {
                    self.hold_back(id, &why, &detail, (0, None));
                    return;
                }
                self.blame_resource(id, &detail);
                let mut chain = alloc::vec![self.link(id, Reason::ResourceMangled, &detail, Source::Check)];
                chain.extend(cause.iter().cloned());
                self.repair_or_replace(id, chain, repairable, *repairs);
            }
            Ok(Verdict::Unreachable { reason, detail }) => {
                let detail = reported(reason, &detail);
                let retry_at = Some(self.now().after(config.doubt.retry_interval));
                let host = row.parent.and_then(|parent| parent.host);
                let count_since = self.misses_count_since(id);
                let counted = first_miss.filter(|at| *at >= count_since);
                let misses = if counted.is_some() { *misses + 1 } else { 1 };
                let first = counted.unwrap_or(self.now());
                // A copy that does not answer is no evidence against the copy: its host is checked.
                let lost =
                    host.is_none() && misses >= config.doubt.misses && self.now().since(first) >= config.doubt.over;
                let lost = lost && !self.too_early(id, first);
                if lost {
                    let span = self.now().since(first);
                    let text = format!("no answer {misses} times in a row over {span}; the last: {detail}");
                    if let Some(why) = self.held_back(id, Evidence::Silence) {
                        self.hold_back(id, &why, &text, (misses, Some(first)));
                        return;
                    }
                    self.blame_resource(id, &text);
                    let mut chain = alloc::vec![self.link(id, Reason::ResourceUnreachable, &text, Source::Check)];
                    chain.extend(cause.iter().cloned());
                    self.then(Consequence::lose(id, chain));
                    return;
                }
                self.edit_resource(id, |row| {
                    if let ResourceState::Suspect { op, retry_at: at, misses: m, first_miss: f, held, .. } =
                        &mut row.state
                    {
                        *op = None;
                        *at = retry_at;
                        *m = misses;
                        *f = Some(first);
                        if misses == 1 {
                            *held = None;
                        }
                    }
                    row.trouble = Some(detail.clone());
                });
                if misses == 1 {
                    self.ask_peers(id);
                }
                if let Some(host) = host {
                    let text = format!("{id} on it does not answer: {detail}");
                    let link = self.link(host, Reason::ProbeMissed, &text, Source::Check);
                    self.then(Consequence::doubt(host, link));
                }
            }
            Ok(Verdict::Gone { reason, detail }) => {
                let detail = reported(reason, &detail);
                self.blame_resource(id, &detail);
                let mut chain = alloc::vec![self.link(id, Reason::ResourceGone, &detail, Source::Check)];
                chain.extend(cause.iter().cloned());
                self.then(Consequence::lose(id, chain));
            }
            Err(failure) => {
                let wait =
                    config.doubt.retry_interval.max(Millis::secs(1)).max(failure.retry_after.unwrap_or(Millis::ZERO));
                let retry_at = Some(self.now().after(wait));
                let text = format!("the check could not be carried out: {}: {}", failure.reason, failure.message);
                self.edit_resource(id, |row| {
                    if let ResourceState::Suspect { op, retry_at: at, misses, first_miss, held, .. } = &mut row.state {
                        *op = None;
                        *held = None;
                        *at = retry_at;
                        // It answered, or was not asked: there are no misses in a row.
                        *misses = 0;
                        *first_miss = None;
                    }
                    row.trouble = Some(Arc::from(text.as_str()));
                });
                if row.trouble.as_deref() != Some(text.as_str()) {
                    self.own_event(EventKind::ResourceNoVerdict, Subject::Resource(id), text);
                }
            }
        }
    }

    /// Evidence is there and not acted upon: the resource stays in doubt, its leases live, and it is asked again.
    pub(crate) fn hold_back(&mut self, id: ResourceId, why: &Arc<str>, found: &str, misses: (u32, Option<Timestamp>)) {
        let Some(row) = self.resource(id).cloned() else { return };
        let ResourceState::Suspect { held: before, .. } = &row.state else { return };
        let first = before.is_none();
        let Some(pool) = self.pool_entry(&row.pool) else { return };
        let policy = pool.config.doubt;
        let dry = policy.dry_run;
        // Not as often as when the answer decides something, but soon enough that the brake's end is used.
        let wait = policy.retry_interval.max(policy.probe_interval.min(Millis::secs(5))).max(Millis::secs(1));
        let retry = Some(self.now().after(wait));
        self.edit_resource(id, |row| {
            if let ResourceState::Suspect { op, retry_at, misses: m, first_miss, held, .. } = &mut row.state {
                *op = None;
                *retry_at = retry;
                *m = misses.0;
                *first_miss = misses.1;
                *held = Some(why.clone());
            }
            row.trouble = Some(Arc::from(format!("{found}; held: {why}")));
        });
        if first {
            let kind = if dry { EventKind::ResourceWouldEnd } else { EventKind::ResourceHeldBack };
            self.own_event(kind, Subject::Resource(id), format!("{found}; {why}"));
            let leases = self.live_below(id).len() as u64;
            self.count(&row.pool, |counters| {
                if dry {
                    counters.would_end += 1;
                    counters.would_break += leases;
                } else {
                    counters.held += 1;
                }
            });
        }
    }

    pub(crate) fn link(&self, id: ResourceId, reason: Reason, detail: &str, source: Source) -> Link {
        Link { subject: Subject::Resource(id), reason, detail: Arc::from(detail), source, at: self.now() }
    }

    /// It was checked and is fit for use.
    fn clear(&mut self, id: ResourceId) {
        let below = self.live_below(id);
        let now = self.now();
        self.heard_from(id);
        self.judged(self.host_or_itself(id), false);
        self.edit_resource(id, |row| {
            row.state = ResourceState::Ready;
            row.trouble = None;
            row.ready_at = row.ready_at.or(Some(now));
        });
        self.own_event(EventKind::ResourceCleared, Subject::Resource(id), "a check found it fit for use");
        if let Some(pool) = self.resource(id).map(|row| row.pool.clone()) {
            self.count(&pool, |counters| counters.cleared += 1);
        }
        for lease in below {
            self.edit_lease(lease, |lease| lease.doubt = None);
            if self.lease(lease).and_then(|row| row.assignment()).is_some_and(|on| on.resource == id) {
                self.answer_report(lease);
            }
        }
        if self.resource(id).is_some_and(|row| row.hold.is_some()) {
            // Its holders are gone and it is to be kept as they left it.
            self.then(Consequence::SettleHold(id));
        } else {
            self.then(Consequence::CleanAgain(id));
        }
        self.then(Consequence::CompareFailures(id));
        self.then(Consequence::FollowConfiguration(id));
        self.then(Consequence::Vacated(id));
        self.schedule_probe(id, false);
    }

    /// Its checks pass and it fails in use, again and again: it is replaced, and those who work on it may finish. When many of
    /// a failure domain do so at once, the brake holds it back.
    fn replace_unfit(&mut self, id: ResourceId, link: Link) {
        if let Some(why) = self.held_back(id, Evidence::Check) {
            self.hold_back(id, &why, &link.detail, (0, None));
            return;
        }
        self.heard_from(id);
        self.settle_open(id, "its resource is replaced");
        self.own_event(EventKind::ResourceUnfit, Subject::Resource(id), &*link.detail);
        for lease in self.live_below(id) {
            self.edit_lease(lease, |lease| lease.doubt = None);
        }
        self.then(Consequence::Drain { resource: id, cause: alloc::vec![link], deadline: None });
    }

    /// It answers but is not fit for use: its leases are broken; it is repaired if that is worth a try, else replaced.
    pub(crate) fn repair_or_replace(&mut self, id: ResourceId, chain: CauseChain, repairable: bool, repairs: u32) {
        let Some(row) = self.resource(id).cloned() else { return };
        let Some(pool) = self.pool_entry(&row.pool) else { return };
        let config = pool.config.clone();
        let actor: Arc<str> = Arc::from(SELF);
        let only_tainted = !chain.iter().any(|link| link.reason == Reason::ResourceMangled);
        // A check that passes is no use that went well: repairs count until then.
        if repairable && config.traits.repairs && row.evidence.repairs < config.doubt.repairs {
            let op = self.next_op();
            let detail = chain.first().map_or_else(String::new, |link| String::from(&*link.detail));
            self.edit_resource(id, |row| {
                row.state = ResourceState::Repairing { op, cause: chain.clone(), repairs: repairs + 1 };
                row.evidence.repairs += 1;
                row.trouble = Some(Arc::from(detail.as_str()));
            });
            self.own_event(EventKind::ResourceRepairing, Subject::Resource(id), detail);
            self.count(&row.pool, |counters| counters.repairs += 1);
            // After the state, so that slots are cleaned when there is something to clean again.
            if !only_tainted {
                for lease in self.live_on(id) {
                    self.then(Consequence::Uproot { lease, cause: chain.clone(), actor: actor.clone() });
                }
            }
            self.call(Call::Resource(id, op));
        } else if only_tainted {
            // A check found nothing: those who work on it may finish.
            self.then(Consequence::Drain { resource: id, cause: chain, deadline: None });
        } else {
            self.then(Consequence::remove(id, chain));
        }
    }

    /// A repair came back: a check verifies it.
    pub(crate) fn repaired(&mut self, id: ResourceId, result: Result<(), CallFailure>) {
        let Some(row) = self.resource(id).cloned() else { return };
        let ResourceState::Repairing { cause, repairs, .. } = &row.state else { return };
        match result {
            Ok(()) => {
                let (now, cause, repairs) = (self.now(), cause.clone(), *repairs);
                self.edit_resource(id, |row| {
                    row.state = ResourceState::Suspect {
                        since: now,
                        cause,
                        op: None,
                        retry_at: None,
                        misses: 0,
                        first_miss: None,
                        repairs,
                        held: None,
                    };
                });
                self.own_event(EventKind::ResourceRepaired, Subject::Resource(id), "a check follows");
                self.then(Consequence::Check(id));
            }
            Err(failure) => {
                let text = format!("the repair failed: {}: {}", failure.reason, failure.message);
                let mut chain = alloc::vec![self.link(id, Reason::ResourceMangled, &text, Source::Adapter)];
                chain.extend(cause.iter().cloned());
                self.own_event(EventKind::ResourceRepairFailed, Subject::Resource(id), text);
                self.then(Consequence::remove(id, chain));
            }
        }
    }

    /// When the next probe starts: at once, or after the interval, spread by the resource's id.
    pub(crate) fn schedule_probe(&mut self, id: ResourceId, soon: bool) {
        let Some(entry) = self.entry(&id) else { return };
        if entry.liveness.login == Login::Wanted && !entry.liveness.in_flight {
            let now = self.now();
            self.edit_liveness(id, |liveness| liveness.next = Some(now));
            self.probe_due(id);
            return;
        }
        let Some(pool) = self.pool_entry(&entry.row.pool) else { return };
        let policy = pool.config.doubt;
        let quick = entry.liveness.misses > 0 || (soon && entry.row.state.stage() == Stage::Draining);
        // One that drains has no other check: in doubt it is asked, though its pool does not probe while all is well.
        if !quick && (!pool.config.traits.probes || policy.probe_interval == Millis::ZERO) {
            return;
        }
        // An unused copy is checked when it is needed; its host is probed anyway.
        if entry.row.parent.is_some() && self.live_on(id).is_empty() {
            return;
        }
        let span = if quick { policy.retry_interval } else { policy.probe_interval };
        // A tenth either way, so that a farm that started at once is not probed at once.
        let jitter = (id.value() as u64 ^ (id.value() >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44;
        let jitter = jitter as i64 % (span.0 / 5).max(1) - span.0 / 10;
        // After a restart all would come at once: the first probe comes anywhere within the interval.
        let spread = if soon && !quick { (jitter + span.0 / 10) * 5 - span.0 / 10 * 10 } else { jitter };
        let next = self.now().after(Millis((span.0 + spread).max(1)));
        self.edit_liveness(id, |liveness| {
            if !liveness.in_flight {
                liveness.next = Some(next);
            }
        });
        self.arm_resource(id);
    }

    pub(crate) fn probe_due(&mut self, id: ResourceId) {
        let now = self.now();
        // A probe's answer carries no number, and it is not stored. The next one would be taken by the next change, and
        // the engine would take that change's call for this one.
        let op = Op(0);
        let Some(entry) = self.entry(&id) else { return };
        if entry.liveness.in_flight || entry.liveness.next.is_none_or(|at| at > now) {
            return;
        }
        // A copy that is being prepared or cleaned is in no state that a probe knows.
        let unused = entry.row.parent.is_some() && !self.is_worked_on(id);
        self.edit_liveness(id, |liveness| {
            liveness.next = None;
            liveness.in_flight |= !unused;
            if !unused && liveness.login == Login::Wanted {
                liveness.login = Login::UnderWay;
            }
        });
        if !unused {
            self.call(Call::Probe(id, op));
        }
    }

    /// Whether a lease on it is active.
    fn is_worked_on(&self, id: ResourceId) -> bool {
        let active = |id| self.lease(id).is_some_and(|row| matches!(row.state, LeaseState::Active { .. }));
        self.live_on(id).into_iter().any(active)
    }

    /// Probes a resource at once by a new login. A resource in doubt has a check under way, which makes a new login too.
    pub(crate) fn probe_by_new_login(&mut self, id: ResourceId) {
        let Some(entry) = self.entry(&id) else { return };
        match entry.row.state.stage() {
            Stage::Ready | Stage::Draining => {}
            Stage::Coming | Stage::Doubted | Stage::Repairing | Stage::Apart | Stage::Leaving | Stage::Gone => return,
        }
        let (now, in_flight) = (self.now(), entry.liveness.in_flight);
        // The answer of a probe under way schedules the next one.
        self.edit_liveness(id, |liveness| {
            liveness.login = Login::Wanted;
            if !in_flight {
                liveness.next = Some(now);
            }
        });
        if !in_flight {
            self.probe_due(id);
            self.arm_resource(id);
        }
    }

    /// A probe came back.
    pub(crate) fn probed(&mut self, id: ResourceId, result: Result<Verdict, CallFailure>) {
        let Some(row) = self.resource(id).cloned() else { return };
        let mut by_new_login = false;
        self.edit_liveness(id, |liveness| {
            liveness.in_flight = false;
            by_new_login = liveness.login == Login::UnderWay;
            if by_new_login {
                liveness.login = Login::No;
            }
        });
        let ready = match row.state.stage() {
            Stage::Ready => true,
            Stage::Draining => false,
            Stage::Coming | Stage::Doubted | Stage::Repairing | Stage::Apart | Stage::Leaving | Stage::Gone => return,
        };
        match result {
            Ok(Verdict::Healthy) => {
                self.heard_from(id);
                if self.entry(&id).is_some_and(|entry| entry.liveness.misses > 0) {
                    self.edit_liveness(id, |liveness| (liveness.misses, liveness.first_miss) = (0, None));
                    self.reindex(id);
                }
            }
            // Holders cannot get in. No verdict on the host, and no new leases until a login works.
            Err(failure)
                if by_new_login && ready && matches!(failure.blame, Blame::Configuration | Blame::Resource) =>
            {
                let text =
                    format!("a holder could not get in, nor could the server: {}: {}", failure.reason, failure.message);
                let link = self.link(id, Reason::HolderReported, &text, Source::Check);
                self.then(Consequence::doubt(id, link));
                return;
            }
            // No verdict; asked again.
            Err(_) => {}
            Ok(Verdict::Gone { reason, detail }) => {
                let detail = reported(reason, &detail);
                let link = self.link(id, Reason::ResourceGone, &detail, Source::Check);
                self.then(Consequence::lose(id, alloc::vec![link]));
                return;
            }
            Ok(Verdict::Mangled { reason, detail, .. }) => {
                // The lease of a copy may have ended while the probe ran: the probe saw the clean-up.
                if ready && (row.parent.is_none() || self.is_worked_on(id)) {
                    let detail = reported(reason, &detail);
                    let link = self.link(id, Reason::ResourceMangled, &detail, Source::Check);
                    self.then(Consequence::doubt(id, link));
                    return;
                }
            }
            Ok(Verdict::Unreachable { reason, detail }) => {
                if ready {
                    let detail = reported(reason, &detail);
                    let link = self.link(id, Reason::ProbeMissed, &detail, Source::Check);
                    self.then(Consequence::Doubt { resource: id, cause: alloc::vec![link], missed: true });
                    return;
                }
                let now = self.now();
                let policy = match self.pool_entry(&row.pool) {
                    Some(pool) => pool.config.doubt,
                    None => return,
                };
                let count_since = self.misses_count_since(id);
                let (mut misses, mut first) = (0, now);
                self.edit_liveness(id, |liveness| {
                    if liveness.first_miss.is_none_or(|at| at < count_since) {
                        (liveness.misses, liveness.first_miss) = (0, Some(now));
                    }
                    liveness.misses += 1;
                    (misses, first) = (liveness.misses, liveness.first_miss.unwrap_or(now));
                });
                self.reindex(id);
                if misses == 1 {
                    self.ask_peers(id);
                }
                if misses >= policy.misses
                    && now.since(first) >= policy.over
                    && !self.too_early(id, first)
                    && self.held_back(id, Evidence::Silence).is_none()
                {
                    let text = format!("no answer {misses} times in a row; the last: {detail}");
                    let link = self.link(id, Reason::ResourceUnreachable, &text, Source::Check);
                    self.then(Consequence::lose(id, alloc::vec![link]));
                    return;
                }
            }
        }
        self.schedule_probe(id, false);
    }
}

/// The text of a verdict in causes and events: its stable reason and its detail.
fn reported(reason: &str, detail: &str) -> Arc<str> {
    Arc::from(format!("{reason}: {detail}"))
}
