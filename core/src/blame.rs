//! Blame: compared, not guessed. Different work failing in a row on one resource whose checks pass: the check is blind.
//! The same work failing on several resources whose checks pass: the work is to blame.

use crate::machine::Core;
use crate::pending::SELF;
use crate::{
    CauseChain, Ended, Fault, Finding, Keep, Lease, LeaseId, LeaseState, Link, Millis, Outcome, Reason, Resource,
    ResourceId, ResourceState, Source, Subject, WorkFailure,
};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// How long a copy is kept that nobody asked for.
const COPY_KEPT: Millis = Millis::secs(86_400);

/// Works that are remembered for what was lost under them; beyond it, all are forgotten.
const WORKS_MAX: usize = 10_000;

impl Core {
    /// A holder said how its work went: counted for the resource and for the host that it lies on.
    pub(crate) fn note_work(&mut self, lease: &Lease, how: &Ended) {
        let Ended::Released { outcome, .. } = how else { return };
        if lease.spec.child.is_some() || !matches!(lease.state, LeaseState::Active { .. }) {
            return;
        }
        let Some(hold) = lease.hold() else { return };
        let Some(row) = self.resource(hold.resource).cloned() else { return };
        let host = row.parent.and_then(|parent| parent.host);
        if *outcome == Outcome::Ok && !self.lost_under.is_empty() {
            self.lost_under.remove(&lease.spec.work_key());
        }
        let failure = match outcome {
            Outcome::Abandoned => return,
            Outcome::Ok => None,
            Outcome::Failed | Outcome::Tainted => {
                Some(WorkFailure { work: lease.spec.work_key(), lease: lease.id, at: self.now, cleared: false })
            }
        };
        for id in [Some(hold.resource), host].into_iter().flatten() {
            let empty = self.resource(id).is_none_or(|row| row.failures.is_empty());
            match &failure {
                None if empty => {}
                None => self.drop_failures(id, |_| true),
                Some(failure) => {
                    let oldest = self.resource(id).filter(|row| row.failures.len() >= Resource::MAX_FAILURES);
                    if let Some(oldest) = oldest.and_then(|row| row.failures.first()).map(|failure| failure.lease) {
                        self.drop_failures(id, |failure| failure.lease == oldest);
                    }
                    self.edit_resource(id, |row| row.failures.push(failure.clone()));
                }
            }
        }
    }

    /// A lease is broken for what became of its resource: was this work there too often when that happened?
    pub(crate) fn work_that_breaks(&mut self, lease: &Lease, cause: &CauseChain) -> Option<Link> {
        let LeaseState::Active { hold, .. } = &lease.state else { return None };
        let evident = [Reason::ResourceMangled, Reason::ResourceUnreachable, Reason::ResourceGone];
        let found = cause.iter().any(|link| evident.contains(&link.reason) && link.source == Source::Check);
        let policy = self.policy_of(hold.resource)?;
        if lease.spec.child.is_some() || !found || policy.work_after == 0 {
            return None;
        }
        if self.lost_under.len() >= WORKS_MAX {
            self.lost_under.clear();
        }
        let work = lease.spec.work_key();
        let met = self.lost_under.entry(work.clone()).or_default();
        met.insert(hold.resource);
        if (met.len() as u32) < policy.work_after {
            return None;
        }
        let count = met.len();
        let detail = format!("the work {work:?} was there when {count} resources in a row were lost or mangled");
        Some(Link {
            subject: Subject::Lease(lease.id),
            reason: Reason::WorkBlamed,
            detail: Arc::from(detail),
            source: Source::Broker,
            at: self.now,
        })
    }

    /// A check found the resource unfit: that is what its latest failures are put down to.
    pub(crate) fn blame_resource(&mut self, id: ResourceId, detail: &str) {
        let Some(row) = self.resource(id) else { return };
        let leases: Vec<LeaseId> = row.failures.iter().filter(|f| !f.cleared).map(|f| f.lease).collect();
        if row.failures.is_empty() {
            return;
        }
        let detail = format!("a check of {id} found: {detail}");
        for lease in &leases {
            self.find(*lease, Fault::Resource, &detail);
        }
        // What is known to be its fault says nothing of the host's or the work's.
        let host = row_host(self.resource(id));
        self.drop_failures(id, |_| true);
        if let Some(host) = host {
            self.drop_failures(host, |failure| leases.contains(&failure.lease));
        }
    }

    /// A check passed: the failures before it are not explained by what it looks at. Compares them.
    pub(crate) fn compare_failures(&mut self, id: ResourceId) {
        let Some(row) = self.resource(id).cloned() else { return };
        if row.failures.is_empty() {
            return;
        }
        let host = row.parent.and_then(|parent| parent.host);
        let fresh: Vec<WorkFailure> = row.failures.iter().filter(|f| !f.cleared).cloned().collect();
        if !fresh.is_empty() {
            for at in [Some(id), host].into_iter().flatten() {
                self.edit_resource(at, |row| {
                    for failure in &mut row.failures {
                        failure.cleared |= fresh.iter().any(|f| f.lease == failure.lease);
                    }
                });
            }
            for failure in &fresh {
                self.by_work.entry(failure.work.clone()).or_default().insert(host.unwrap_or(id));
                let detail = format!("a check found {id} fit for use; nothing more is known yet");
                self.find(failure.lease, Fault::Undecided, &detail);
            }
            let works: BTreeSet<Arc<str>> = fresh.iter().map(|failure| failure.work.clone()).collect();
            for work in works {
                self.compare_work(&work, id);
            }
        }
        if self.consider_blind(id) {
            return;
        }
        if let Some(host) = host
            && self.different_works(host).is_some()
            && self.resource(host).is_some_and(|row| matches!(row.state, ResourceState::Ready) && row.keep.is_none())
        {
            let text = "different works failed on it in a row, in copies whose checks pass";
            let link = self.link(host, Reason::HolderFailed, text, Source::Broker);
            self.suspect(host, alloc::vec![link]);
        }
    }

    /// The same work failed on several machines whose checks pass: the work is to blame, and they are cleared.
    fn compare_work(&mut self, work: &Arc<str>, id: ResourceId) {
        let Some(policy) = self.policy_of(id) else { return };
        if policy.work_after == 0 {
            return;
        }
        let Some(met) = self.by_work.get(work).cloned() else { return };
        // On a farm of two, two are all that can be asked.
        let machines = met.iter().next().and_then(|id| self.resource(*id)).and_then(|row| self.pools.get(&row.pool));
        let machines = machines.map_or(1, |pool| pool.total.capacity);
        if (met.len() as u32) < policy.work_after.min(machines).max(2) {
            return;
        }
        let mut named = String::new();
        for (n, id) in met.iter().enumerate() {
            named.push_str(if n == 0 { "" } else { ", " });
            named.push_str(&id.to_string());
        }
        let detail = format!("the work {work:?} failed on {} machines whose checks pass: {named}", met.len());
        let mut leases: BTreeSet<LeaseId> = BTreeSet::new();
        let mut places: BTreeSet<ResourceId> = met.clone();
        for id in &met {
            places.extend(self.resources.get(id).map(|entry| entry.children.clone()).unwrap_or_default());
        }
        for place in places {
            if let Some(row) = self.resource(place) {
                leases.extend(row.failures.iter().filter(|f| f.work == *work).map(|f| f.lease));
            }
            self.drop_failures(place, |failure| failure.work == *work);
        }
        self.by_work.remove(work);
        for lease in leases {
            self.find(lease, Fault::Work, &detail);
            self.own_event("lease.work-blamed", Subject::Lease(lease), detail.as_str());
        }
    }

    /// The different works that failed on it in a row with passed checks, if they are enough to call its check blind.
    fn different_works(&self, id: ResourceId) -> Option<Vec<WorkFailure>> {
        let after = self.policy_of(id)?.blind_after;
        let row = self.resource(id)?;
        let mut works: BTreeSet<&Arc<str>> = BTreeSet::new();
        let mut met = Vec::new();
        for failure in row.failures.iter().filter(|failure| failure.cleared) {
            if works.insert(&failure.work) {
                met.push(failure.clone());
            }
        }
        (after > 0 && works.len() as u32 >= after).then_some(met)
    }

    /// Its check passed, yet different works keep failing on it: it is kept for triage, unless that would take away
    /// half of what there is or the others fare no better: then something else is wrong, and that is said.
    fn consider_blind(&mut self, id: ResourceId) -> bool {
        let Some(met) = self.different_works(id) else { return false };
        let Some(row) = self.resource(id).cloned() else { return false };
        let Some(pool) = self.pools.get(&row.pool) else { return false };
        let mut named = String::new();
        for (n, failure) in met.iter().enumerate() {
            named.push_str(if n == 0 { "" } else { ", " });
            named.push_str(&format!("{:?} ({})", failure.work, failure.lease));
        }
        let why = format!("{} different works failed on it in a row though its check passes: {named}", met.len());
        let share = pool.config.brake.share.min(50);
        let dry = pool.config.doubt.dry_run;
        let (mut all, mut kept, mut failing) = (0u32, 0u32, 0u32);
        for other in pool.members.iter().filter_map(|id| self.resource(*id)) {
            match &other.state {
                ResourceState::Quarantined { .. } => kept += 1,
                ResourceState::Ready | ResourceState::Suspect { .. } => {
                    kept += u32::from(other.keep.is_some());
                    failing += u32::from(other.id != id && other.failures.len() + 1 >= met.len());
                }
                _ => continue,
            }
            all += 1;
        }
        let too_many = (kept + 1) * 100 > share * all || failing * 100 > share * all;
        if dry || too_many {
            let reason = if dry {
                String::from("it would be kept for triage, but dry_run is set")
            } else {
                format!(
                    "it stays in service: {kept} of {all} are kept already, {failing} more fail alike: look for what they share"
                )
            };
            self.own_event("resource.check-blind", Subject::Resource(id), format!("{why}; {reason}"));
            let host = row_host(Some(&row));
            self.drop_failures(id, |_| true);
            self.edit_resource(id, |row| row.trouble = Some(Arc::from(format!("{why}; {reason}"))));
            let leases: Vec<LeaseId> = met.iter().map(|failure| failure.lease).collect();
            if let Some(host) = host {
                self.drop_failures(host, |failure| leases.contains(&failure.lease));
            }
            return false;
        }
        for failure in &met {
            self.find(failure.lease, Fault::Resource, &why);
        }
        let leases: Vec<LeaseId> = met.iter().map(|failure| failure.lease).collect();
        if let Some(host) = row_host(Some(&row)) {
            // The copy explains them, so they say nothing of its host.
            self.drop_failures(host, |failure| leases.contains(&failure.lease));
        }
        let by: Arc<str> = Arc::from(SELF);
        let reason = format!("{}: {why}", Reason::CheckBlind.as_str());
        // A copy keeps its host from leaving; it is kept for a day at most and then made anew.
        let until = row.parent.map(|_| self.now.after(COPY_KEPT));
        self.keep(id, Keep { by: by.clone(), reason: Arc::from(reason), until }, &by);
        true
    }

    /// What is known of whose fault a failure was; the strongest word stays.
    fn find(&mut self, id: LeaseId, fault: Fault, detail: &str) {
        let known = match self.lease(id).map(|lease| &lease.state) {
            Some(LeaseState::Ended { how: Ended::Released { finding, .. }, .. }) => finding.as_ref().map(|f| f.fault),
            _ => return,
        };
        if known.is_some_and(|known| known >= fault) {
            return;
        }
        self.edit_lease(id, |lease| {
            if let LeaseState::Ended { how: Ended::Released { finding, .. }, .. } = &mut lease.state {
                *finding = Some(Arc::new(Finding { fault, detail: Arc::from(detail) }));
            }
        });
        if fault != Fault::Undecided {
            self.own_event("lease.finding", Subject::Lease(id), format!("{}: {detail}", fault.as_str()));
        }
    }

    /// Forgets failures, and that these works failed here.
    pub(crate) fn drop_failures(&mut self, id: ResourceId, which: impl Fn(&WorkFailure) -> bool) {
        let Some(row) = self.resource(id) else { return };
        let (gone, still): (Vec<_>, Vec<_>) = row.failures.iter().cloned().partition(|failure| which(failure));
        if gone.is_empty() {
            return;
        }
        for failure in gone {
            if still.iter().any(|other| other.work == failure.work && other.cleared) {
                continue;
            }
            if let Some(met) = self.by_work.get_mut(&failure.work) {
                met.remove(&id);
                if met.is_empty() {
                    self.by_work.remove(&failure.work);
                }
            }
        }
        self.edit_resource(id, |row| row.failures = still);
    }

    /// As stored, after a restart.
    pub(crate) fn remember_work(&mut self, id: ResourceId) {
        let Some(row) = self.resource(id) else { return };
        if row.parent.is_some() {
            return;
        }
        let works: Vec<Arc<str>> = row.failures.iter().filter(|f| f.cleared).map(|f| f.work.clone()).collect();
        for work in works {
            self.by_work.entry(work).or_default().insert(id);
        }
    }

    fn policy_of(&self, id: ResourceId) -> Option<crate::DoubtPolicy> {
        let row = self.resource(id)?;
        self.pools.get(&row.pool).map(|pool| pool.config.doubt)
    }
}

fn row_host(row: Option<&Arc<Resource>>) -> Option<ResourceId> {
    row.and_then(|row| row.parent).and_then(|parent| parent.host)
}
