use super::*;
use crate::rpc::testing;
use wharfinger_core::{
    AtRisk, Evidence, LeaseId, Link, Parent, Reading, Reason, Resource, ResourceId, Source, Traits, Weight,
};

fn link(subject: Subject, reason: Reason) -> Link {
    Link { subject, reason, detail: "why".into(), source: Source::Operator("ann".into()), at: Timestamp(-1) }
}

fn seen(resource: Resource, leases: Vec<Arc<Lease>>) -> SeenResource {
    let in_cleaning = leases.iter().filter(|lease| lease.ended()).count();
    SeenResource { resource: Arc::new(resource), in_use: leases.len(), in_cleaning, leases }
}

#[test]
fn an_active_lease_message_has_its_slot_and_no_secrets() {
    let core = testing::active(7, 42);
    let told = lease(&core, &Scope::All, Reading::default());
    assert_eq!(told.state(), pb::LeaseState::Active);
    assert_eq!((told.revision, told.slot, told.fencing_token), (42, 3, 42));
    assert_eq!(told.resource_id, ResourceId::new(9).to_string());
    assert_eq!(told.ttl, Some(prost_types::Duration { seconds: 60, nanos: 500_000_000 }));
    assert_eq!(told.created_at, Some(prost_types::Timestamp { seconds: 1, nanos: 500_000_000 }));
    assert_eq!(told.access_pairs().keys().collect::<Vec<_>>(), ["address"]);
    assert_eq!(told.credentials, None);
}

#[test]
fn each_end_is_sent_with_its_details() {
    let told = |how| lease(&testing::ended(1, 2, how), &Scope::All, Reading::default());

    let released = lease(&testing::released(1, 2), &Scope::All, Reading::default());
    assert_eq!((released.state(), released.outcome()), (pb::LeaseState::Released, pb::Outcome::Failed));
    assert_eq!((released.note.as_str(), released.cleaning, released.access), ("exit 1", false, None));

    let cause = vec![
        link(Subject::Lease(LeaseId::new(1)), Reason::ParentGone),
        link(Subject::Pool("linux".into()), Reason::Operator),
    ];
    let broken = told(Ended::Broken { cause, replacement: Some(LeaseId::new(5)) });
    assert_eq!((broken.state(), broken.replacement_id), (pb::LeaseState::Broken, LeaseId::new(5).to_string()));
    let [near, root] = &broken.causes[..] else { panic!() };
    assert_eq!((near.subject.clone(), near.reason.as_str()), (LeaseId::new(1).to_string(), "PARENT_GONE"));
    assert_eq!((root.subject.as_str(), root.source.as_str()), ("pool linux", "operator:ann"));
    assert_eq!(root.at, Some(prost_types::Timestamp { seconds: -1, nanos: 999_000_000 }));

    let reason = FailReason::Request;
    let failed = told(Ended::Failed { reason, code: "NO_SUCH_REF".into(), detail: "no branch x".into() });
    assert_eq!((failed.state(), failed.fail_reason()), (pb::LeaseState::Failed, pb::FailReason::Request));
    assert_eq!((failed.fail_code.as_str(), failed.fail_detail.as_str()), ("NO_SUCH_REF", "no branch x"));
    assert_eq!(told(Ended::Expired).state(), pb::LeaseState::Expired);
    assert_eq!(told(Ended::Cancelled).state(), pb::LeaseState::Cancelled);
}

#[test]
fn a_resource_message_has_its_holders_and_no_secrets() {
    let access = [("private_key".into(), "secret".into()), ("user".into(), "ci".into())].into();
    let core = Resource {
        id: ResourceId::new(9),
        revision: Revision(3),
        pool: "copies".into(),
        item: None,
        labels: Default::default(),
        slots: 4,
        parent: Some(Parent { lease: LeaseId::new(2), host: None }),
        state: ResourceState::Suspect {
            since: Timestamp(0),
            cause: vec![link(Subject::Resource(ResourceId::new(9)), Reason::ProbeMissed)],
            op: None,
            retry_at: Some(Timestamp(5_000)),
            misses: 2,
            first_miss: None,
            repairs: 0,
            held: Some("the brake is on".into()),
        },
        cordoned: Some(Cordon { by: "ann".into(), reason: "triage".into() }),
        created_at: Timestamp(0),
        ready_at: None,
        idle_since: None,
        uses: 1,
        handle: None,
        access: Arc::new(access),
        ends_at: None,
        trouble: None,
        found: Default::default(),
        at_risk: Some(AtRisk { source: "sqs".into(), detail: "a rebalance".into() }),
        hold: Some(Hold { by: "bob".into(), reason: "looks odd".into(), until: Some(Timestamp(9_000)) }),
        announced: Default::default(),
        failures: vec![WorkFailure {
            work: "job".into(),
            lease: LeaseId::new(3),
            at: Timestamp(1_000),
            cleared: true,
            weight: Weight::Counted,
        }],
        evidence: Evidence::default(),
        last_tenant: None,
        held_for: None,
        note: None,
    };
    let told = resource(&seen(core.clone(), vec![Arc::new(testing::active(7, 1))]), &Scope::All, Reading::default());
    assert_eq!(told.state(), pb::ResourceState::Suspect);
    assert_eq!((told.slots_in_use, told.lease_ids.clone()), (1, vec![LeaseId::new(7).to_string()]));
    assert_eq!(told.access_pairs().keys().collect::<Vec<_>>(), ["user"]);
    assert_eq!((told.misses, told.causes[0].reason.as_str()), (2, "PROBE_MISSED"));
    assert_eq!((told.parent_lease_id, told.parent_id), (LeaseId::new(2).to_string(), String::new()));
    assert_eq!((told.cordoned, told.cordoned_by.as_str(), told.cordon_reason.as_str()), (true, "ann", "triage"));
    assert_eq!((told.held.as_str(), told.at_risk.as_str()), ("the brake is on", "a rebalance (sqs)"));
    assert_eq!((told.kept_by.as_str(), told.kept_reason.as_str()), ("bob", "looks odd"));
    assert_eq!(told.kept_until, Some(prost_types::Timestamp { seconds: 9, nanos: 0 }));
    let [failure] = &told.failures[..] else { panic!("{:?}", told.failures) };
    assert_eq!((failure.work.as_str(), failure.lease_id.clone()), ("job", LeaseId::new(3).to_string()));
    assert!(failure.cleared);

    // Kept is not the same as cordoned: one ends by itself, the other is an operator's to end.
    let quarantined = Resource {
        state: ResourceState::Quarantined {
            cordon: Cordon { by: "eve".into(), reason: "evidence".into() },
            since: Timestamp(0),
            until: None,
        },
        cordoned: None,
        hold: None,
        ..core
    };
    let told = resource(&seen(quarantined, Vec::new()), &Scope::All, Reading::default());
    assert_eq!((told.cordoned, told.kept_by.as_str(), told.kept_reason.as_str()), (false, "eve", "evidence"));
    assert_eq!(told.kept_until, None);
}

#[test]
fn a_finding_names_the_fault() {
    for (fault, told) in [
        (Fault::Open, pb::finding::Fault::Open),
        (Fault::Undecided, pb::finding::Fault::Undecided),
        (Fault::Resource, pb::finding::Fault::Resource),
        (Fault::Work, pb::finding::Fault::Work),
    ] {
        let finding = Some(Arc::new(Finding { fault, detail: "evidence".into() }));
        let how = Ended::Released { outcome: Outcome::Failed, note: "".into(), finding };
        let found = lease(&testing::ended(1, 2, how), &Scope::All, Reading::default()).finding.unwrap();
        assert_eq!((found.fault(), found.detail.as_str()), (told, "evidence"));
    }
}

#[test]
fn a_pool_tells_its_brakes_and_what_it_counted() {
    let traits = Traits { prepares: false, cleans: false, repairs: false, probes: true };
    let mut config = testing::pool_config(3, 1, traits);
    (config.domain, config.doubt.dry_run) = (Some("zone".into()), true);
    config.disabled_reason = Some("the rack moves".into());
    let view = PoolView {
        cleaning: 1,
        config: Arc::new(config),
        configured: true,
        cordoned: None,
        by_state: [("READY", 2), ("GONE", 3)].into(),
        free_slots: 2,
        leases: 0,
        waiting: 0,
        items: Vec::new(),
        losses: Some(Losses {
            count: 3,
            since: Timestamp(1_000),
            last: Timestamp(3_000),
            again_at: Timestamp(5_000),
            why: "RESOURCE_GONE: it flaps".into(),
        }),
        trouble: None,
        brakes: vec![
            BrakeView {
                domain: "a".into(),
                members: 8,
                troubled: 5,
                held: Some((Timestamp(7_000), "a common cause".into())),
            },
            BrakeView { domain: "b".into(), members: 8, troubled: 1, held: None },
        ],
        counters: PoolCounters {
            doubts: 1,
            cleared: 2,
            repairs: 3,
            lost: 4,
            broken: 5,
            held: 6,
            would_end: 7,
            would_break: 8,
        },
    };
    let told = pool(&view, Reading::default());
    assert_eq!((told.domain.as_str(), told.dry_run), ("zone", true));
    let counts: Vec<_> = told.resources.iter().map(|one| (one.state(), one.count)).collect();
    assert_eq!(counts, [(pb::ResourceState::Gone, 3), (pb::ResourceState::Ready, 2)]);
    let [on, off] = &told.brakes[..] else { panic!("{told:?}") };
    assert_eq!((on.domain.as_str(), on.members, on.troubled, on.why.as_str()), ("a", 8, 5, "a common cause"));
    assert_eq!(on.held_since, Some(prost_types::Timestamp { seconds: 7, nanos: 0 }));
    assert_eq!((off.held_since, off.troubled, off.why.as_str()), (None, 1, ""));
    let (losses, at) = (told.losses.unwrap(), |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 }));
    assert_eq!((losses.count, losses.why.as_str()), (3, "RESOURCE_GONE: it flaps"));
    assert_eq!((losses.since, losses.last_at, losses.again_at), (at(1), at(3), at(5)));
    assert_eq!(told.disabled_reason, "the rack moves");
    let c = told.counters.unwrap();
    let counted = [c.doubts, c.cleared, c.repairs, c.lost, c.broken, c.held, c.would_end, c.would_break];
    assert_eq!(counted, [1, 2, 3, 4, 5, 6, 7, 8]);
}

/// The keys of adapters and the fields of the API name the same things; a state of the core has its name in the API.
#[test]
fn every_key_of_an_adapter_survives_and_no_credential_does() {
    use wharfinger_adapter::access as key;
    let public = [
        key::ADDRESS,
        key::PORT,
        key::USER,
        key::HOST_KEY,
        key::PROXY_COMMAND,
        key::PATH,
        key::ROOT,
        key::COMMIT,
        key::BASE,
        key::REPOSITORY,
        key::WARMTH,
        key::CHANGED,
        key::SPARSE,
        key::DEPTH,
        key::FENCE,
        key::BOOT_ID,
    ];
    let mut texts: Texts = public.iter().map(|key| (Arc::from(*key), Arc::from("1"))).collect();
    texts.insert(key::TRANSPORT.into(), "ssh".into());
    texts.insert("commit.lib".into(), "c0ffee".into());
    let wanted: Vec<String> = texts.keys().map(ToString::to_string).collect();
    texts.insert(key::PRIVATE_KEY.into(), "s3cr3t".into());
    let told = access(&texts);
    assert_eq!(told.pairs().into_keys().collect::<Vec<_>>(), wanted);
    let more = [key::CHANGED, "commit.lib", key::DEPTH, key::SPARSE, key::WARMTH];
    assert_eq!(told.more.keys().map(String::as_str).collect::<BTreeSet<_>>(), more.into());
    assert!(!format!("{told:?}").contains("s3cr3t"));
    let credentials = credentials(wharfinger_adapter::Credentials::private_key("s3cr3t".into()));
    assert_eq!(credentials.private_key, "s3cr3t");
    assert!(!format!("{credentials:?}").contains("s3cr3t"));
}
