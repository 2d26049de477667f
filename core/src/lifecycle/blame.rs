//! Blame: compared, not guessed. What a check finds explains the failures before it. The same work failing on several
//! resources whose checks pass: the work is to blame. What counts against a resource whose checks pass: `evidence.rs`.

use crate::{
    CauseChain, Core, Ended, EventKind, Fault, Finding, Lease, LeaseId, LeaseState, Link, Outcome, Reason, Resource,
    ResourceId, Source, Stage, Subject, Weight, WorkFailure,
};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    /// A holder reported the outcome of its work: it counts for the resource and for the host under it.
    pub(crate) fn note_work(&mut self, lease: &Lease, how: &Ended) {
        let Ended::Released { outcome, .. } = how else { return };
        if lease.spec.child.is_some() || !matches!(lease.state, LeaseState::Active { .. }) {
            return;
        }
        let Some(assignment) = lease.assignment() else { return };
        let resource = assignment.resource;
        let Some(row) = self.resource(resource) else { return };
        let host = row.parent.and_then(|parent| parent.host);
        match outcome {
            Outcome::Abandoned => {}
            Outcome::Ok => self.note_success(lease, resource, host),
            Outcome::Failed | Outcome::Tainted => {
                let failure = WorkFailure {
                    work: lease.spec.work_key(),
                    lease: lease.id,
                    at: self.now(),
                    cleared: false,
                    weight: Weight::None,
                };
                for id in [Some(resource), host].into_iter().flatten() {
                    let oldest = self.resource(id).filter(|row| row.failures.len() >= Resource::MAX_FAILURES);
                    if let Some(oldest) = oldest.and_then(|row| row.failures.first()).map(|failure| failure.lease) {
                        self.find(oldest, Fault::Undecided, "others failed on its resource before a check ended");
                        self.drop_failures(id, |failure| failure.lease == oldest);
                    }
                    self.edit_resource(id, |row| row.failures.push(failure.clone()));
                }
            }
        }
    }

    /// A lease is broken for what became of its resource: was this work there too often when that happened? Only named work
    /// is blamed, and only for what a check found of the resource itself while nothing else ran on it. A machine that is
    /// lost takes all its leases along and explains that by itself.
    pub(crate) fn work_that_breaks(&mut self, lease: &Lease, cause: &CauseChain) -> Option<Link> {
        let LeaseState::Active { assignment, .. } = &lease.state else { return None };
        let row = self.resource(assignment.resource)?.clone();
        let own = |link: &&Link| link.subject == Subject::Resource(row.id) && link.source == Source::Check;
        let host = row.parent.and_then(|parent| parent.host);
        let stands = host.is_some_and(|host| !self.is_leaving(host));
        let evident = cause
            .iter()
            .filter(own)
            .any(|link| link.reason == Reason::ResourceMangled || (link.reason == Reason::ResourceGone && stands));
        let policy = self.policy_of(assignment.resource)?;
        lease.spec.work.as_ref()?;
        let work = lease.spec.work_key();
        if lease.spec.child.is_some() || !evident || row.slots > 1 || policy.work_after == 0 {
            return None;
        }
        let count = self.lost_under(&work, assignment.resource);
        if (count as u32) < policy.work_after {
            return None;
        }
        let detail = format!("the work {work:?} was there when {count} resources in a row were lost or mangled");
        Some(Link {
            subject: Subject::Lease(lease.id),
            reason: Reason::WorkBlamed,
            detail: Arc::from(detail),
            source: Source::Broker,
            at: self.now(),
        })
    }

    /// A check found the resource unfit: that is what its latest failures are put down to.
    pub(crate) fn blame_resource(&mut self, id: ResourceId, detail: &str) {
        self.judged(self.host_or_itself(id), true);
        let Some(row) = self.resource(id) else { return };
        let leases: Vec<LeaseId> = row.failures.iter().filter(|f| !f.cleared).map(|f| f.lease).collect();
        if row.failures.is_empty() {
            return;
        }
        let detail = format!("a check of {id} found: {detail}");
        for lease in &leases {
            self.find(*lease, Fault::Resource, &detail);
        }
        // Failures that are its fault are no evidence against the host or the work.
        let host = self.resource(id).and_then(|row| row.parent).and_then(|parent| parent.host);
        self.drop_failures(id, |_| true);
        self.edit_resource(id, |row| row.evidence.forget());
        if let Some(host) = host {
            self.drop_failures(host, |failure| leases.contains(&failure.lease));
        }
    }

    /// A check passed: the failures before it are not explained by what it looks at. Compares them.
    pub(crate) fn compare_failures(&mut self, id: ResourceId) {
        let Some(row) = self.resource(id).cloned() else { return };
        let host = row.parent.and_then(|parent| parent.host);
        let fresh: Vec<WorkFailure> = row.failures.iter().filter(|f| !f.cleared).cloned().collect();
        for failure in &fresh {
            self.count_failure(id, host, failure);
            let detail = format!("a check found {id} fit for use; nothing more is known yet");
            self.find(failure.lease, Fault::Undecided, &detail);
        }
        let works: BTreeSet<Arc<str>> =
            fresh.iter().filter(|failure| self.is_named(failure)).map(|failure| failure.work.clone()).collect();
        for work in works {
            self.compare_work(&work, id);
        }
        if !self.consider_apart(id)
            && let Some(host) = host
        {
            self.ask_about(host, "works failed on it in copies whose checks pass");
        }
    }

    /// Whether its holder named the work of a failure. A failure without a name may be of any work.
    pub(crate) fn is_named(&self, failure: &WorkFailure) -> bool {
        self.lease(failure.lease).is_some_and(|lease| lease.spec.work.is_some())
    }

    /// The same work failed on several machines whose checks pass: the work is to blame, and they are cleared.
    fn compare_work(&mut self, work: &Arc<str>, id: ResourceId) {
        let Some(policy) = self.policy_of(id) else { return };
        if policy.work_after == 0 {
            return;
        }
        let met = self.machines_of_work(work);
        if met.is_empty() {
            return;
        }
        // On a farm of two, two are all that can be asked.
        let machines = met.iter().next().and_then(|id| self.resource(*id)).and_then(|row| self.pool_entry(&row.pool));
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
            places.extend(self.entry(id).map(|entry| entry.children.clone()).unwrap_or_default());
        }
        for place in places {
            if let Some(row) = self.resource(place) {
                leases.extend(row.failures.iter().filter(|f| f.work == *work).map(|f| f.lease));
            }
            self.drop_failures(place, |failure| failure.work == *work);
        }
        self.forget_work(work);
        for lease in leases {
            self.find(lease, Fault::Work, &detail);
            self.own_event(EventKind::LeaseWorkBlamed, Subject::Lease(lease), detail.as_str());
        }
    }

    /// Stores the fault of a failure; the strongest finding stays.
    pub(crate) fn find(&mut self, id: LeaseId, fault: Fault, detail: &str) {
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
        if fault > Fault::Undecided {
            self.own_event(EventKind::LeaseFinding, Subject::Lease(id), format!("{}: {detail}", fault.as_str()));
        }
    }

    /// A release after which its resource is checked: the finding is open until then.
    pub(crate) fn open_finding(&self, lease: &Lease, how: &mut Ended) {
        let Some(row) = lease.assignment().and_then(|assignment| self.resource(assignment.resource)) else { return };
        let checked = match row.state.stage() {
            Stage::Ready | Stage::Doubted => row.hold.is_none(),
            Stage::Coming | Stage::Repairing | Stage::Apart | Stage::Draining | Stage::Leaving | Stage::Gone => false,
        };
        if let Ended::Released { outcome: Outcome::Failed | Outcome::Tainted, finding, .. } = how
            && checked
        {
            let detail = Arc::from(format!("a check of {} is under way", row.id));
            *finding = Some(Arc::new(Finding { fault: Fault::Open, detail }));
        }
    }

    /// No check will tell of the failures on a resource any more.
    pub(crate) fn settle_open(&mut self, id: ResourceId, why: &str) {
        let Some(row) = self.resource(id) else { return };
        let open: Vec<LeaseId> = row.failures.iter().filter(|f| !f.cleared).map(|f| f.lease).collect();
        for lease in open {
            let detail = format!("no check of {id} ended since: {why}");
            self.find(lease, Fault::Undecided, &detail);
        }
    }

    pub(crate) fn policy_of(&self, id: ResourceId) -> Option<crate::DoubtPolicy> {
        let row = self.resource(id)?;
        self.pool_entry(&row.pool).map(|pool| pool.config.doubt)
    }
}
