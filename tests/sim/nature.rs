//! Faults of the resources, notices from the world, and orders of operators.

use crate::adapters::{Condition, Things};
use crate::pools;
use crate::rng::Rng;
use std::sync::Arc;
use wharfinger_core::{
    AdminRequest, AdminVerb, Caller, Core, Input, LeaseId, MachineName, MachineVerb, Millis, Notice, NoticeKind,
    NoticeTarget, ResourceId, Timestamp,
};

/// A fault of some resource. Its notice comes late, twice, or for a stranger.
pub(crate) fn strike(now: Timestamp, core: &Core, things: &mut Things, rng: &mut Rng) -> Vec<(Timestamp, Input)> {
    let mut said = Vec::new();
    things.lighten(now, false);
    let Some(id) = rng.pick(&things.all()) else { return said };
    let Some(row) = core.resource(id) else { return said };
    let say = |target, kind| {
        let (source, detail) = (Arc::from("world"), Arc::from("as it is told"));
        Input::Notice(Notice { pool: row.pool.clone(), target, kind, source, detail })
    };
    let about = NoticeTarget::Resource(id);
    let soon = now.after(Millis(rng.between(1, 300)));
    match rng.below(16) {
        0 | 1 => {
            things.become_so(now, id, Condition::Mangled { repairable: rng.chance(700) });
        }
        2 | 3 => {
            things.become_so(now, id, Condition::Silent);
            let kind = if rng.chance(500) { NoticeKind::ConnectionLost } else { NoticeKind::Silent };
            said.push((soon, say(about, kind)));
        }
        4 => {
            things.become_so(now, id, Condition::Dead);
            let late = now.after(Millis(rng.between(1, 20_000)));
            if row.parent.is_none() {
                said.push((late, say(about.clone(), NoticeKind::Gone)));
                said.push((late.after(Millis(rng.between(0, 9000))), say(about, NoticeKind::Gone)));
            }
        }
        5 if row.parent.is_none() => {
            let end = now.after(Millis::secs(rng.between(1, 30)));
            said.push((soon, say(about.clone(), NoticeKind::Interruption(end))));
            if rng.chance(400) {
                said.push((soon.after(Millis(rng.between(1, 20_000))), say(about, NoticeKind::Cancelled)));
            } else {
                said.push((end.after(Millis(500)), say(about, NoticeKind::Gone)));
            }
        }
        6 => {
            if let Some(item) = &row.item {
                things.switch(now, item, rng.chance(500));
            }
        }
        // The fault was short, or the answer took too long.
        8 if rng.chance(500) => said.push((soon, say(about, NoticeKind::Silent))),
        7 | 8 => said.push((soon, say(about, NoticeKind::ConnectionLost))),
        9 => {
            if things.condition(id) == Some(Condition::Silent) {
                things.become_so(now, id, Condition::Alive);
            }
        }
        // A switch, a zone, or the broker's own cable: a shared part fails.
        11 => {
            let domain = row.labels.get("zone").filter(|_| rng.chance(500));
            let near = |id: &ResourceId| {
                core.resource(*id).is_some_and(|r| domain.is_none_or(|zone| r.labels.get("zone") == Some(zone)))
            };
            let which: std::collections::BTreeSet<ResourceId> = things.launched().into_iter().filter(near).collect();
            for id in &which {
                if let Some(row) = core.resource(*id)
                    && rng.chance(600)
                {
                    let kind = NoticeKind::ConnectionLost;
                    let (source, detail) = (Arc::from("world"), Arc::from("it was reset"));
                    let notice =
                        Notice { pool: row.pool.clone(), target: NoticeTarget::Resource(*id), kind, source, detail };
                    said.push((now.after(Millis(rng.between(1, 2000))), Input::Notice(notice)));
                }
            }
            things.darken(now, now.after(Millis::secs(rng.between(1, 90))), which);
        }
        12 => things.flap(now, id, rng.chance(600)),
        // The notice is about another machine, but names this one.
        13 if row.parent.is_none() => {
            let end = now.after(Millis::secs(rng.between(1, 60)));
            said.push((soon, say(about.clone(), NoticeKind::Maintenance(end))));
            said.push((soon.after(Millis(rng.between(1, 9000))), say(about, NoticeKind::Cancelled)));
        }
        10 => said.push((soon, say(NoticeTarget::Resource(ResourceId::new(99)), NoticeKind::Gone))),
        14 => things.become_so(now, id, Condition::Spoilt),
        _ => said.push((soon, say(about, NoticeKind::AtRisk))),
    }
    said
}

/// An order of an operator, sensible or not.
pub(crate) fn command(core: &Core, rng: &mut Rng) -> Input {
    let resources: Vec<ResourceId> = core.resources(None).map(|row| row.id).collect();
    let leases: Vec<LeaseId> = core.leases(None).map(|row| row.id).collect();
    let pool: Arc<str> = Arc::from(rng.pick(&[pools::HOSTS, pools::BOATS, pools::RED, pools::BLUE]).expect("some"));
    let id = rng.pick(&resources).unwrap_or(ResourceId::new(1));
    // The order names a machine: the resource that stands for it may be gone.
    let item = core.resource(id).and_then(|row| row.item.clone().map(|item| (row.pool.clone(), item)));
    if let Some((pool, item)) = item.filter(|_| rng.chance(300)) {
        let verb = match rng.below(9) {
            0 | 1 => MachineVerb::Cordon,
            2 => MachineVerb::Uncordon,
            3 => MachineVerb::Drain(rng.chance(500).then(|| Millis::secs(rng.between(1, 30)))),
            4 => MachineVerb::Undrain,
            5 => MachineVerb::Hold(Millis::secs(rng.between(1, 30))),
            6 => MachineVerb::Quarantine,
            7 => MachineVerb::Note,
            _ => MachineVerb::Recover,
        };
        return said(AdminVerb::OnMachine(MachineName { pool: Some(pool), item }, verb));
    }
    let verb = match rng.below(17) {
        0 => AdminVerb::CordonPool(pool),
        1 | 2 => AdminVerb::UncordonPool(pool),
        3 => AdminVerb::Cordon(id),
        4 | 5 => AdminVerb::Uncordon(id),
        6 => AdminVerb::Drain(id, rng.chance(500).then(|| Millis::secs(rng.between(1, 30)))),
        7 => AdminVerb::Check(id),
        8 => AdminVerb::Taint(id),
        9 => AdminVerb::Quarantine(id),
        10 => AdminVerb::Recover(id),
        11 => AdminVerb::Recycle(id),
        12 => AdminVerb::ForceDestroy(id),
        13 => AdminVerb::Hold(id, Millis::secs(rng.between(0, 30))),
        14 => AdminVerb::HoldLease(rng.pick(&leases).unwrap_or(LeaseId::new(1)), Millis::secs(rng.between(1, 30))),
        15 => AdminVerb::Note(id),
        _ => AdminVerb::Break(rng.pick(&leases).unwrap_or(LeaseId::new(1))),
    };
    said(verb)
}

/// Undoes all orders of operators.
pub(crate) fn undo(core: &Core) -> Vec<Input> {
    let mut inputs = Vec::new();
    for pool in core.pools() {
        inputs.push(said(AdminVerb::UncordonPool(pool.config.name.clone())));
    }
    for machine in core.machines() {
        let name = || MachineName::from(machine.key.clone());
        inputs.push(said(AdminVerb::OnMachine(name(), MachineVerb::Uncordon)));
        inputs.push(said(AdminVerb::OnMachine(name(), MachineVerb::Recover)));
    }
    for row in core.resources(None) {
        inputs.push(said(AdminVerb::Uncordon(row.id)));
        inputs.push(said(AdminVerb::Recover(row.id)));
    }
    inputs
}

fn said(verb: AdminVerb) -> Input {
    Input::Admin(AdminRequest {
        caller: Caller::sole_tenant("op"),
        reason: Arc::from("because"),
        verb,
        if_revision: None,
    })
}
