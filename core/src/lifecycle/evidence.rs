//! Evidence by the uses of a resource whose checks pass, beside the base rate of its pool; and the consequences when its
//! failures are improbable. The test itself: `policy/evidence.rs`.

use crate::lifecycle::Consequence;
use crate::policy::evidence::ONE;
use crate::state::outbox::SELF;
use crate::{
    Core, EventKind, Fault, Hold, Lease, LeaseId, Link, Millis, Reason, Record, Resource, ResourceId, Source, Stage,
    Subject, Weight, WorkFailure,
};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// How long the broker itself holds a copy.
const COPY_KEPT: Millis = Millis::secs(86_400);

/// How long a host is set apart the first time; each further time in a row takes twice as long.
const APART: Millis = Millis::secs(1800);
const APART_MOST: Millis = Millis::secs(86_400);

/// A resource on trial is trusted again after this many uses that go well.
const TRIAL: u32 = 3;

impl Core {
    /// The work of a lease went well: that speaks for its resource and for the host under it, and against those on which
    /// the same work failed.
    pub(super) fn note_success(&mut self, lease: &Lease, resource: ResourceId, host: Option<ResourceId>) {
        self.work_went_well(|| lease.spec.work_key());
        let machine = host.unwrap_or(resource);
        let work = self.passed_on(machine, || lease.spec.work_key());
        if let Some(work) = work.filter(|_| lease.spec.work.is_some()) {
            self.confirm_elsewhere(&work, machine);
        }
        for id in [Some(resource), host].into_iter().flatten() {
            self.used_well(id);
            self.stand_trial(id);
            if self.resource(id).is_some_and(|row| row.evidence.repairs + row.evidence.unfit > 0) {
                self.edit_resource(id, |row| (row.evidence.repairs, row.evidence.unfit) = (0, 0));
            }
            if self.resource(id).is_some_and(|row| row.evidence.is_none() && !row.failures.is_empty()) {
                self.drop_failures(id, |failure| failure.cleared);
            }
        }
    }

    /// A use of a resource went well: one that is on trial is trusted again after some of them.
    fn stand_trial(&mut self, id: ResourceId) {
        let Some(left) = self.resource(id).and_then(|row| row.evidence.trial) else { return };
        let left = left.saturating_sub(1);
        self.edit_resource(id, |row| {
            row.evidence.trial = (left > 0).then_some(left);
            if left == 0 {
                row.evidence.apart = 0;
            }
        });
        if left == 0 {
            let text = format!("work went well on it {TRIAL} times: it has all its slots again");
            self.own_event(EventKind::ResourceTrusted, Subject::Resource(id), text);
        }
    }

    /// A resource comes back that was set apart for its uses: with one slot, and out again at the first failure that the
    /// work does not explain.
    pub(super) fn put_on_trial(&mut self, id: ResourceId) {
        self.edit_resource(id, |row| row.evidence.trial = Some(TRIAL));
        let text = format!("it has one slot until work went well on it {TRIAL} times");
        self.own_event(EventKind::ResourceOnTrial, Subject::Resource(id), text);
    }

    /// A lease could not be prepared on it, by its fault.
    pub(crate) fn was_unfit(&mut self, id: ResourceId) {
        self.edit_resource(id, |row| row.evidence.unfit += 1);
    }

    /// Its check passed, and it failed in use too often since work last went well on it: why it is replaced.
    pub(super) fn fails_in_use(&self, id: ResourceId) -> Option<Link> {
        let row = self.resource(id)?;
        let most = self.policy_of(id)?.repairs.max(1);
        let unfit = row.evidence.unfit;
        let text = format!(
            "its checks pass, and {unfit} leases could not be prepared on it since work last went well there: it is replaced at another path"
        );
        (unfit >= most).then(|| self.link(id, Reason::CheckBlind, &text, Source::Check))
    }

    /// Whether it is on trial and a failure counts against it.
    fn has_relapsed(&self, id: ResourceId) -> bool {
        self.resource(id).is_some_and(|row| row.evidence.trial.is_some() && row.failures.iter().any(counts))
    }

    /// A named work passed on a machine: its failures on another one weigh more, unless it failed on several.
    fn confirm_elsewhere(&mut self, work: &Arc<str>, machine: ResourceId) {
        let met = self.machines_of_work(work);
        let (Some(other), 1) = (met.first().copied(), met.len()) else { return };
        if other == machine {
            return;
        }
        for place in self.with_children(other) {
            for lease in self.failures_of(place, work, Weight::Counted) {
                let confirm = |row: &mut Resource, record: &Record| {
                    set_weight(row, lease, Weight::Confirmed);
                    row.evidence.confirm(record);
                };
                self.weigh(place, |uses| uses.confirmed += 1, confirm);
            }
            self.ask_about(place, "work that failed on it passed elsewhere");
        }
    }

    /// A check passed after this failure: it counts against the resource and its host, as far as the work does not explain
    /// it.
    pub(super) fn count_failure(&mut self, id: ResourceId, host: Option<ResourceId>, failure: &WorkFailure) {
        let (work, named) = (&failure.work, self.is_named(failure));
        let machine = host.unwrap_or(id);
        let mut others = self.machines_of_work(work);
        others.remove(&machine);
        let passed = self.passed_elsewhere(work, machine);
        for place in [Some(id), host].into_iter().flatten() {
            let Some(row) = self.resource(place) else { continue };
            let known = row.failures.iter().filter(|f| f.work == *work && f.lease != failure.lease && f.cleared);
            // The same work again says nothing new, unless it passed elsewhere meanwhile.
            let again = known.map(|f| f.at).max().is_some_and(|at| passed.is_none_or(|passed| passed <= at));
            let weight = match (named, others.is_empty(), passed) {
                _ if again => Weight::None,
                (true, false, None) => Weight::Excused,
                (true, true, Some(_)) => Weight::Confirmed,
                (true, false, Some(_)) | (true, true, None) | (false, _, _) => Weight::Counted,
            };
            self.edit_resource(place, |row| {
                set_weight(row, failure.lease, weight);
                row.failures.iter_mut().filter(|f| f.lease == failure.lease).for_each(|f| f.cleared = true);
            });
            match weight {
                Weight::None | Weight::Excused => {}
                Weight::Counted => self.weigh(place, |uses| uses.bad += 1, |row, record| row.evidence.bad(record)),
                Weight::Confirmed => {
                    self.weigh(place, |uses| uses.bad += 1, |row, record| row.evidence.bad(record));
                    self.weigh(place, |uses| uses.confirmed += 1, |row, record| row.evidence.confirm(record));
                }
            }
        }
        if named && passed.is_none() {
            let places: Vec<ResourceId> = others.into_iter().flat_map(|other| self.with_children(other)).collect();
            for place in places {
                for lease in self.failures_of(place, work, Weight::Counted) {
                    self.excuse(place, lease);
                }
            }
        }
        self.add_machine_of_work(work, machine);
    }

    /// A failure that was counted against a resource counts no more.
    fn excuse(&mut self, id: ResourceId, lease: LeaseId) {
        let excuse = |row: &mut Resource, record: &Record| {
            set_weight(row, lease, Weight::Excused);
            row.evidence.excuse(record);
        };
        self.weigh(id, |uses| uses.bad = uses.bad.saturating_sub(1), excuse);
    }

    fn with_children(&self, id: ResourceId) -> Vec<ResourceId> {
        let mut all = alloc::vec![id];
        all.extend(self.children(id));
        all
    }

    fn failures_of(&self, id: ResourceId, work: &str, weight: Weight) -> Vec<LeaseId> {
        let failures = self.resource(id).map(|row| row.failures.as_slice()).unwrap_or_default();
        failures.iter().filter(|f| *f.work == *work && f.weight == weight).map(|f| f.lease).collect()
    }

    /// Whether all that counts against a resource comes from one of several tenants, and half of it would be too little: a
    /// tenant alone needs twice as many failures.
    fn is_accused_by_one(&self, id: ResourceId) -> bool {
        let Some(row) = self.resource(id).filter(|row| row.evidence.trial.is_none()) else { return false };
        let Some(pool) = self.pool_entry(&row.pool).filter(|_| !self.tenants().is_empty()) else { return false };
        let against = row.failures.iter().filter(|failure| counts(failure)).map(|failure| failure.lease);
        let mut tenants = against.map(|lease| self.lease(lease).map(|lease| &lease.spec.tenant));
        let first = tenants.next().flatten();
        if first.is_none() || !tenants.all(|tenant| tenant == first) {
            return false;
        }
        !row.evidence.convicts_by_part(2, &pool.record, pool.config.doubt.false_alarm, |rates| rates.judged)
    }

    /// Whether the failures on a resource are improbable beside those of the others, by the rates of this kind.
    fn convicted(&self, id: ResourceId, learned: bool) -> bool {
        let Some(row) = self.resource(id) else { return false };
        let Some(pool) = self.pool_entry(&row.pool) else { return false };
        let choose = |rates: crate::policy::evidence::Rates| if learned { rates.learned } else { rates.judged };
        row.evidence.convicts(&pool.record, pool.config.doubt.false_alarm, choose)
    }

    /// Has a resource checked whose failures are improbable; what follows is decided when the check passes.
    pub(super) fn ask_about(&mut self, id: ResourceId, why: &str) {
        let ready = self.resource(id).is_some_and(|row| row.state.stage() == Stage::Ready && row.hold.is_none());
        if ready && (self.convicted(id, false) || self.has_relapsed(id)) {
            let link = self.link(id, Reason::HolderFailed, why, Source::Broker);
            self.then(Consequence::doubt(id, link));
        }
    }

    /// Its check passed, yet more work fails on it than chance explains: it is kept for triage, unless that would take away
    /// more of the pool than the brake allows. Returns whether it is kept.
    pub(super) fn consider_apart(&mut self, id: ResourceId) -> bool {
        if !self.convicted(id, false) && !self.has_relapsed(id) {
            self.consider_common_cause(id);
            return false;
        }
        if self.is_accused_by_one(id) {
            return false;
        }
        let Some(row) = self.resource(id).cloned() else { return false };
        let Some(pool) = self.pool_entry(&row.pool) else { return false };
        let why = self.evidence_text(&row, &pool.record);
        let (share, dry) = (pool.config.brake.share.min(50), pool.config.doubt.dry_run);
        let (mut all, mut kept) = (0u32, 0u32);
        for other in pool.members.iter().filter_map(|id| self.resource(*id)) {
            match other.state.stage() {
                Stage::Apart => kept += 1,
                Stage::Ready | Stage::Doubted => kept += u32::from(other.hold.is_some()),
                Stage::Coming | Stage::Repairing | Stage::Draining | Stage::Leaving | Stage::Gone => continue,
            }
            all += 1;
        }
        let refused = if dry {
            Some(String::from("it would be kept for triage, but dry_run is set"))
        } else {
            ((kept + 1) * 100 > share * all)
                .then(|| format!("it stays in service: {kept} of {all} are kept already: look for what they share"))
        };
        let leases: Vec<LeaseId> = row.failures.iter().filter(|f| counts(f)).map(|f| f.lease).collect();
        if let Some(reason) = refused {
            self.own_event(EventKind::ResourceCheckBlind, Subject::Resource(id), format!("{why}; {reason}"));
            self.settle_open(id, &reason);
            self.drop_failures(id, |_| true);
            self.edit_resource(id, |row| {
                row.trouble = Some(Arc::from(format!("{why}; {reason}")));
                row.evidence.forget();
            });
            return false;
        }
        for lease in &leases {
            self.find(*lease, Fault::Resource, &why);
        }
        if let Some(host) = row.parent.and_then(|parent| parent.host) {
            // The copy explains them, so they are no evidence against its host.
            for lease in &leases {
                let at_host = self.resource(host).into_iter().flat_map(|row| &row.failures);
                if at_host.filter(|f| counts(f)).any(|failure| failure.lease == *lease) {
                    self.excuse(host, *lease);
                }
            }
            self.drop_failures(host, |failure| leases.contains(&failure.lease));
        }
        let by: Arc<str> = Arc::from(SELF);
        let reason = format!("{}: {why}", Reason::CheckBlind.as_str());
        // A copy keeps its host from leaving; it is kept for a day at most and then made anew. A host comes back on trial.
        let span = match row.parent {
            Some(_) => COPY_KEPT,
            None => Millis(APART.0 << row.evidence.apart.min(10)).min(APART_MOST),
        };
        self.edit_resource(id, |row| {
            row.evidence.apart += 1;
            row.evidence.trial = None;
        });
        let hold = Hold { by: by.clone(), reason: Arc::from(reason), until: Some(self.now().after(span)) };
        self.then(Consequence::Hold { resource: id, hold, actor: by });
        true
    }

    /// More work fails on a resource than it used to on the others, and now it fails on them too: then something that they
    /// share is wrong, which is reported once.
    fn consider_common_cause(&mut self, id: ResourceId) {
        if !self.convicted(id, true) {
            return;
        }
        let Some(row) = self.resource(id).filter(|row| !row.evidence.said).cloned() else { return };
        let Some(record) = self.record_of(&row.pool) else { return };
        let text = format!(
            "{}; it stays in service: work fails alike on the others now: look for what they share",
            self.evidence_text(&row, &record)
        );
        self.edit_resource(id, |row| {
            row.evidence.said = true;
            row.trouble = Some(Arc::from(text.as_str()));
        });
        self.own_event(EventKind::ResourceCheckBlind, Subject::Resource(id), text);
    }

    /// The evidence against a resource in words.
    fn evidence_text(&self, row: &Resource, record: &Record) -> String {
        let (run, (all, _)) = (row.evidence.run, row.evidence.rates(record));
        let mut text = format!(
            "{} of its last {} uses failed though its check passes, of which {} passed elsewhere; of the uses of the others {} % fail",
            run.bad,
            run.bad + run.good,
            row.evidence.confirmed.bad,
            (all.judged * 100 + ONE / 2) / ONE,
        );
        for (n, failure) in row.failures.iter().filter(|f| counts(f)).enumerate() {
            text.push_str(if n == 0 { "; the latest: " } else { ", " });
            text.push_str(&format!("{:?} ({})", failure.work, failure.lease));
        }
        text
    }
}

/// Whether a failure counts against its resource.
fn counts(failure: &WorkFailure) -> bool {
    match failure.weight {
        Weight::None | Weight::Excused => false,
        Weight::Counted | Weight::Confirmed => true,
    }
}

fn set_weight(row: &mut Resource, lease: LeaseId, weight: Weight) {
    row.failures.iter_mut().filter(|failure| failure.lease == lease).for_each(|failure| failure.weight = weight);
}
