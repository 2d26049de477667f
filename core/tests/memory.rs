//! The memory of a live lease, in bytes that the core asks the allocator for. The benchmark `load -- --leases` measures the resident
//! memory, with all that the allocator adds.

use cap::Cap;
use std::alloc::System;
use std::sync::Arc;
use wharfinger_core::{
    Batch, Caller, Claim, Core, Input, LeaseRequest, Limits, Made, PoolConfig, Selector, Snapshot, Texts, Timestamp,
    Work,
};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Leases whose memory is measured.
const LEASES: usize = 20_000;
/// Maximum number of bytes for each, by the budget of docs/scale.md. Its request id and its holder are 49 of them.
const MOST: usize = 1_024;

#[test]
fn a_live_lease_fits_into_its_budget() {
    let (now, empty) = (Timestamp(1_800_000_000_000), HEAP.allocated());
    let pool = PoolConfig { slots: LEASES as u32 * 2, ..PoolConfig::named("bench") };
    let mut core = Core::recover(Snapshot::default(), vec![pool.clone()], Limits::default(), now);
    make_all(&mut core, now);
    // The texts that leases share.
    lease(&mut core, 0, now);
    drop(core.take_batch());

    let before = HEAP.allocated();
    for n in 1..=LEASES {
        lease(&mut core, n, now);
        if n % 256 == 0 {
            drop(core.take_batch());
        }
    }
    drop(core.take_batch());
    let grown = (HEAP.allocated() - before) / LEASES;

    let snapshot = core.snapshot();
    drop(core);
    let core = Core::recover(snapshot, vec![pool], Limits::default(), now);
    let recovered = (HEAP.allocated() - empty) / LEASES;
    drop(core);
    println!("{grown} bytes for a lease that came while serving, {recovered} for one that was loaded");
    assert!(grown <= MOST, "{grown} bytes, at most {MOST}");
    assert!(recovered <= MOST, "{recovered} bytes, at most {MOST}");
}

fn lease(core: &mut Core, n: usize, now: Timestamp) {
    let none = Arc::new(Texts::new());
    let request = LeaseRequest {
        request_id: Arc::from(format!("build-{n:08}")),
        caller: Caller::sole_tenant("local"),
        holder: Arc::from(format!("https://ci.example.org/job/{n:08}")),
        claims: vec![Claim { selector: Arc::new(Selector::pool("bench")), count: 1, params: none.clone() }],
        priority: 0,
        ttl: None,
        queue_for: None,
        no_queue: false,
        expected: None,
        tags: none,
        independent: false,
        replace: false,
        work: None,
        avoid: Vec::new(),
        total: None,
        session: None,
    };
    core.step(now, Input::Lease(request)).expect("a slot is free");
}

/// Makes all resources that the core asks for.
fn make_all(core: &mut Core, now: Timestamp) {
    // A pool without waiting requests makes its floor; the first request has the one resource made.
    lease(core, usize::MAX, now);
    loop {
        let Batch { effects, .. } = core.take_batch();
        let calls: Vec<Input> = effects
            .into_iter()
            .filter(|effect| matches!(effect.work, Work::Provision(_)))
            .map(|effect| Input::Provisioned {
                resource: effect.resource.id,
                op: effect.op,
                result: Ok(Made::default()),
            })
            .collect();
        if calls.is_empty() {
            return;
        }
        for input in calls {
            core.step(now, input).expect("it is made");
        }
    }
}
