//! The leases and working copies that a verb of an operator ends, found without giving it.

use super::admin::Object;
use super::reject;
use crate::Core;
use crate::{AdminRequest, LeaseId, LeaseState, MachineVerb, Rejection, RejectionKind, Reply, ResourceId};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;

/// The leases and working copies that a verb ends at once. Of a drain with a deadline: those that it ends if they are
/// there at the deadline as they are now.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Impact {
    /// Leases of clients that end, with those of their groups.
    pub broken: BTreeSet<LeaseId>,
    /// Leases that are being prepared, and go back to their places in the queue.
    pub put_back: BTreeSet<LeaseId>,
    /// Working copies that go with their host.
    pub copies: BTreeSet<ResourceId>,
}

impl Core {
    /// The impact of a request of an operator, and its object as it is; changes nothing.
    ///
    /// # Errors
    /// Those with which the request would be refused.
    pub(crate) fn would(&self, request: &AdminRequest) -> Result<(Impact, Reply), Rejection> {
        let object = self.object(request)?;
        self.must_be_as_seen(&object, request)?;
        Ok((self.impact(&object), self.reply(object)?))
    }

    /// Refuses a verb on an object that got a lease since the operator looked. The refusal names no lease out of view.
    pub(super) fn must_be_as_seen(&self, object: &Object, request: &AdminRequest) -> Result<(), Rejection> {
        let Some(seen) = request.if_revision else { return Ok(()) };
        let mut leases = self.impact(object).broken;
        if let Object::Place(place, _) = object {
            let mut all = Impact::default();
            if let Some(id) = self.target(place) {
                self.add_all_on(&mut all, id);
            }
            leases.extend(all.broken.into_iter().chain(all.put_back));
        }
        let came = leases.iter().filter_map(|id| self.lease(*id));
        let came = came.filter(|lease| lease.assignment().is_some_and(|on| on.token > seen.0));
        let (mut count, mut in_view) = (0_usize, None);
        for lease in came {
            count += 1;
            in_view = in_view.or_else(|| request.caller.sees.sees(lease).then_some(lease.id));
        }
        let whose = match (count, in_view) {
            (0, _) => return Ok(()),
            (1, Some(id)) => format!("{id}"),
            (1, None) => String::from("a lease"),
            (_, Some(id)) => format!("{id} and {} more", count - 1),
            (_, None) => format!("{count} leases"),
        };
        let message = format!(
            "{whose} got a slot after revision {}: look again, and give the revision of the answer that shows it",
            seen.0
        );
        Err(reject(RejectionKind::Precondition, "CHANGED_SINCE", "if_revision", message))
    }

    fn impact(&self, object: &Object) -> Impact {
        let mut impact = Impact::default();
        match object {
            Object::Pool(..) => {}
            Object::Lease(id) => self.add_broken(&mut impact, *id),
            Object::Place(place, verb) => {
                if let Some(id) = self.target(place) {
                    self.add_ended_by(&mut impact, *verb, id);
                }
            }
        }
        // The end of one of its group takes a lease out of the queue.
        let Impact { broken, put_back, .. } = &mut impact;
        put_back.retain(|id| !broken.contains(id));
        impact
    }

    fn add_ended_by(&self, impact: &mut Impact, verb: MachineVerb, id: ResourceId) {
        let apart = match verb {
            MachineVerb::Quarantine => self.can_be_set_apart(id),
            MachineVerb::Hold(_) => self.is_held_at_once(id),
            MachineVerb::Recycle | MachineVerb::ForceDestroy | MachineVerb::Drain(Some(_)) => {
                if !self.is_leaving(id) {
                    self.add_all_on(impact, id);
                }
                false
            }
            MachineVerb::Cordon
            | MachineVerb::Uncordon
            | MachineVerb::Drain(None)
            | MachineVerb::Undrain
            | MachineVerb::Check
            | MachineVerb::Taint
            | MachineVerb::Recover
            | MachineVerb::Note => false,
        };
        if apart {
            let leases = self.live_on(id).into_iter().filter(|lease| !self.is_for_idle_copy(*lease));
            leases.for_each(|lease| self.add_uprooted(impact, lease));
        }
    }

    fn add_all_on(&self, impact: &mut Impact, id: ResourceId) {
        self.live_on(id).into_iter().for_each(|lease| self.add_uprooted(impact, lease));
    }

    /// A lease that loses the resource under it, as [`Core::uproot`] takes it.
    fn add_uprooted(&self, impact: &mut Impact, id: LeaseId) {
        let Some(lease) = self.lease(id) else { return };
        match (&lease.state, lease.spec.child) {
            (LeaseState::Queued | LeaseState::Ended { .. }, _) => {}
            (LeaseState::Active { .. } | LeaseState::Preparing { .. }, Some(child)) => {
                if !self.is_leaving(child) && impact.copies.insert(child) {
                    self.add_all_on(impact, child);
                }
            }
            (LeaseState::Preparing { .. }, None) if !self.is_last_attempt(lease) => {
                impact.put_back.insert(id);
            }
            (LeaseState::Active { .. } | LeaseState::Preparing { .. }, None) => self.add_broken(impact, id),
        }
    }

    /// A lease that ends against its holder's will, with its group.
    fn add_broken(&self, impact: &mut Impact, id: LeaseId) {
        if self.lease(id).is_some_and(|lease| !lease.ended()) {
            impact.broken.insert(id);
            impact.broken.extend(self.companions(id));
        }
    }
}
