//! The target of a request: a resource, a machine, a lease or a pool.

use crate::rpc::validate::{Lines, MAX_VALUE, Problems, quoted};
use std::sync::Arc;
use wharfinger_core::{AdminVerb, LeaseId, MachineName, MachineVerb, ResourceId};

/// Target of an operator's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Resource(ResourceId),
    Machine(MachineName),
    /// Resource that this lease is on.
    OfLease(LeaseId),
    Lease(LeaseId),
    Pool(Arc<str>),
}

/// A resource or a machine.
pub(super) enum Place {
    Resource(ResourceId),
    Machine(MachineName),
}

impl Place {
    pub(super) fn verb(&self, verb: MachineVerb) -> AdminVerb {
        match self {
            Place::Resource(id) => AdminVerb::on(*id, verb),
            Place::Machine(name) => AdminVerb::OnMachine(name.clone(), verb),
        }
    }
}

impl From<Place> for Target {
    fn from(place: Place) -> Self {
        match place {
            Place::Resource(id) => Target::Resource(id),
            Place::Machine(name) => Target::Machine(name),
        }
    }
}

/// The resource or the machine of a request, of which it names one.
pub(super) fn resource_or_machine(p: &mut Problems, resource: &str, machine: &str) -> Option<Place> {
    match (resource.is_empty(), machine.is_empty()) {
        (true, true) => {
            p.add("resource_id", "is required, or a machine");
            None
        }
        (false, false) => {
            p.add("machine", "excludes resource_id; name one of them");
            None
        }
        (false, true) => p.id("resource_id", resource).map(Place::Resource),
        (true, false) => name_of(p, machine).map(Place::Machine),
    }
}

fn name_of(p: &mut Problems, text: &str) -> Option<MachineName> {
    let text = p.text("machine", text, MAX_VALUE, Lines::One);
    let name = MachineName::parse(&text);
    if name.is_none() {
        p.add("machine", format!("{} is no machine: write POOL/ITEM, or the item alone", quoted(&text)));
    }
    name
}

/// A lease or a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    Lease(LeaseId),
    Resource(ResourceId),
}

/// The lease or the resource of a request, of which it names one.
pub(super) fn one_of(p: &mut Problems, lease: &str, resource: &str) -> Option<About> {
    match (lease.is_empty(), resource.is_empty()) {
        (true, true) => {
            p.add("resource_id", "is required, or a lease_id");
            None
        }
        (false, false) => {
            p.add("lease_id", "excludes resource_id; name one of them");
            None
        }
        (false, true) => p.id("lease_id", lease).map(About::Lease),
        (true, false) => p.id("resource_id", resource).map(About::Resource),
    }
}
