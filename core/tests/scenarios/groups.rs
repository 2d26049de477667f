//! Requests for several at once: all or nothing, and one fate.

use crate::world::{Kind, World, inventory, made_at_will, want, want_by};
use std::sync::Arc;
use wharfinger_core::{
    Blame, Claim, Ended, LeaseId, LeaseRequest, LeaseState, Millis, NoticeKind, Outcome, PoolConfig, Reason, Selector,
    Traits,
};

fn three() -> LeaseRequest {
    want_by(Selector::pool("hosts"), 3)
}

fn three_hosts() -> World {
    World::new(vec![inventory("hosts", &["h1", "h2", "h3"])])
}

#[test]
fn a_group_is_granted_all_or_nothing() {
    let mut w = three_hosts();
    let holder = w.lease("hosts");
    w.all_works();
    let group = w.ask_all(three());
    w.all_works();
    assert_eq!(w.states(&group), ["QUEUED"; 3], "two hosts are free, three are wanted");
    w.release(holder, Outcome::Ok);
    assert_eq!(w.states(&group), ["ACTIVE"; 3]);
}

#[test]
fn younger_singles_do_not_starve_a_group() {
    let mut w = three_hosts();
    let holders = [w.lease("hosts"), w.lease("hosts"), w.lease("hosts")];
    w.all_works();
    let group = w.ask_all(three());
    let singles: Vec<LeaseId> = (0..5).map(|_| w.lease("hosts")).collect();
    for holder in holders {
        assert_eq!(w.states(&singles), ["QUEUED"; 5], "what is free is kept for who came first");
        w.release(holder, Outcome::Ok);
    }
    assert_eq!(w.states(&group), ["ACTIVE"; 3]);
    w.release(group[0], Outcome::Ok);
    assert_eq!(w.states(&group), ["RELEASED"; 3], "released as one");
    assert_eq!(w.states(&singles), ["ACTIVE", "ACTIVE", "ACTIVE", "QUEUED", "QUEUED"]);
}

#[test]
fn a_group_over_two_pools_takes_from_each() {
    let mut w = World::new(vec![inventory("hosts", &["h1"]), made_at_will("boats", 2)]);
    let claim = |pool, count| Claim::of(Selector::pool(pool), count);
    let group = w.ask_all(LeaseRequest { claims: vec![claim("hosts", 1), claim("boats", 2)], ..want("hosts") });
    w.all_works();
    assert_eq!(w.states(&group), ["ACTIVE"; 3]);
    let pools: Vec<_> = group.iter().map(|lease| w.row(*lease).pool.clone().unwrap()).collect();
    assert_eq!(pools, ["hosts".into(), "boats".into(), "boats".into()] as [Arc<str>; 3]);
}

#[test]
fn a_group_is_broken_as_one() {
    let mut w = three_hosts();
    let group = w.ask_all(three());
    w.all_works();
    let lost = w.on(group[1]);
    w.notice(lost, NoticeKind::Gone);
    assert_eq!(w.states(&group), ["BROKEN"; 3]);
    assert_eq!(w.cause(group[0])[0].reason, Reason::GroupBroken);
    assert_eq!(w.cause(group[0]).last().unwrap().reason, Reason::ResourceGone, "down to the root");
    assert!(group.iter().all(|lease| w.last.leases.iter().any(|row| row.id == *lease)), "in one commit");
}

#[test]
fn a_broken_group_is_replaced_as_one() {
    let mut w = three_hosts();
    let group = w.ask_all(LeaseRequest { replace: true, ..three() });
    w.all_works();
    let lost = w.on(group[1]);
    w.notice(lost, NoticeKind::Gone);
    let successors: Vec<LeaseId> = group
        .iter()
        .map(|lease| match w.row(*lease).state {
            LeaseState::Ended { how: Ended::Broken { replacement: Some(id), .. }, .. } => id,
            _ => panic!("{:?}", w.row(*lease).state),
        })
        .collect();
    w.restart();
    w.all_works();
    assert_eq!(w.states(&successors), ["ACTIVE"; 3], "{}", w.explain(successors[0]));
}

#[test]
fn a_group_that_is_abandoned_is_checked_on_each_resource_and_counts_nowhere() {
    let mut w = three_hosts();
    let group = w.ask_all(three());
    w.all_works();
    let hosts: Vec<_> = group.iter().map(|lease| w.on(*lease)).collect();
    w.release(group[0], Outcome::Abandoned);
    assert_eq!(w.states(&group), ["RELEASED", "RELEASED", "RELEASED"]);
    for (lease, host) in group.iter().zip(hosts) {
        let ended = &w.row(*lease).state;
        let LeaseState::Ended { how: Ended::Released { outcome, .. }, .. } = ended else { panic!("{ended:?}") };
        assert_eq!(*outcome, Outcome::Abandoned);
        assert_eq!((w.stands(host), w.resource(host).failures.len()), ("SUSPECT", 0));
    }
}

#[test]
fn independent_members_go_their_own_ways() {
    let mut w = three_hosts();
    let group = w.ask_all(LeaseRequest { independent: true, ..three() });
    w.all_works();
    let lost = w.on(group[1]);
    w.notice(lost, NoticeKind::Gone);
    assert_eq!(w.states(&group), ["ACTIVE", "BROKEN", "ACTIVE"]);
    w.release(group[0], Outcome::Ok);
    assert_eq!(w.states(&group), ["RELEASED", "BROKEN", "ACTIVE"]);
    w.renew(group[2]).unwrap();
    w.pass(Millis::secs(61));
    assert_eq!(w.state(group[2]), "EXPIRED");
}

#[test]
fn an_independent_member_that_leaves_the_line_leaves_the_others_in_it() {
    let mut w = three_hosts();
    let holders = [w.lease("hosts"), w.lease("hosts"), w.lease("hosts")];
    w.all_works();
    let group = w.ask_all(LeaseRequest { independent: true, ..three() });
    let behind = w.lease("hosts");
    w.release(group[0], Outcome::Ok);
    assert_eq!(w.states(&group), ["CANCELLED", "QUEUED", "QUEUED"]);
    w.restart();
    w.release(holders[0], Outcome::Ok);
    w.release(holders[1], Outcome::Ok);
    assert_eq!(w.states(&group), ["CANCELLED", "ACTIVE", "ACTIVE"]);
    assert_eq!(w.state(behind), "QUEUED");
}

#[test]
fn a_group_expires_and_is_renewed_as_one() {
    let mut w = three_hosts();
    let group = w.ask_all(three());
    w.all_works();
    w.pass(Millis::secs(50));
    w.renew(group[1]).unwrap();
    w.pass(Millis::secs(50));
    assert_eq!(w.states(&group), ["ACTIVE"; 3]);
    w.pass(Millis::secs(11));
    assert_eq!(w.states(&group), ["EXPIRED"; 3]);
}

#[test]
fn a_member_whose_request_is_at_fault_fails_the_group_and_taints_nothing() {
    let traits = Traits { prepares: true, cleans: false, repairs: false, probes: false };
    let mut w = World::new(vec![PoolConfig { traits, ..inventory("hosts", &["h1", "h2", "h3"]) }]);
    let group = w.ask_all(three());
    while w.waits_for(Kind::Provision) > 0 {
        w.works(Kind::Provision);
    }
    w.works(Kind::Prepare);
    w.fails(Kind::Prepare, Blame::Request);
    assert_eq!(w.states(&group), ["FAILED"; 3]);
    w.all_works();
    assert!(w.resources_of("hosts").iter().all(|id| w.stands(*id) == "READY"));
}

#[test]
fn a_member_that_meets_a_dud_goes_back_alone_and_the_group_is_not_lost() {
    let traits = Traits { prepares: true, cleans: false, repairs: false, probes: false };
    let mut w = World::new(vec![PoolConfig { traits, ..inventory("hosts", &["h1", "h2", "h3"]) }]);
    let group = w.ask_all(three());
    while w.waits_for(Kind::Provision) > 0 {
        w.works(Kind::Provision);
    }
    w.fails(Kind::Prepare, Blame::Resource);
    assert_eq!(w.states(&group), ["QUEUED", "PREPARING", "PREPARING"]);
    w.restart();
    w.all_works();
    assert_eq!(w.states(&group), ["ACTIVE"; 3]);
}

#[test]
fn a_group_that_the_configuration_can_no_longer_meet_does_not_block_the_others() {
    let mut w = three_hosts();
    let holders = [w.lease("hosts"), w.lease("hosts"), w.lease("hosts")];
    w.all_works();
    let group = w.ask_all(three());
    let single = w.lease("hosts");
    w.configure(vec![inventory("hosts", &["h1"])]);
    for holder in holders {
        w.release(holder, Outcome::Ok);
    }
    w.all_works();
    assert_eq!(w.states(&group), ["QUEUED"; 3], "it waits for a new configuration");
    assert_eq!(w.state(single), "ACTIVE", "{}", w.explain(single));
}
