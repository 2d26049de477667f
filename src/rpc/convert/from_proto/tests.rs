use super::*;
use wharfinger_core::{AdminRequest, AdminVerb, MachineName, MachineVerb};

fn who() -> Caller {
    Caller::sole_tenant("local")
}

fn wanted() -> pb::LeaseRequest {
    pb::LeaseRequest {
        request_id: "build-17".into(),
        selector: Some(pb::Selector { pool: "linux".into(), ..pb::Selector::default() }),
        ..pb::LeaseRequest::default()
    }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// `field: description` of each problem.
fn problems<T>(result: Result<T, RpcError>) -> Vec<String> {
    match result {
        Ok(_) => Vec::new(),
        Err(RpcError::Invalid(problems)) => {
            problems.into_iter().map(|p| format!("{}: {}", p.field, p.description)).collect()
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn a_small_request_becomes_one_claim() {
    let request = pb::LeaseRequest { wait: seconds(2), ttl: seconds(60), ..wanted() };
    let (lease, wait) = lease(&request, who()).unwrap();
    assert_eq!(wait, Duration::from_secs(2));
    assert_eq!((lease.ttl, lease.queue_for), (Some(Millis::secs(60)), None));
    let [claim] = &lease.claims[..] else { panic!() };
    assert_eq!((claim.count, claim.selector.pool.as_deref()), (1, Some("linux")));
}

#[test]
fn claims_keep_their_order_and_counts() {
    let selector = |pool: &str| Some(pb::Selector { pool: pool.into(), ..pb::Selector::default() });
    let claims = vec![
        pb::Claim { selector: selector("a"), count: 3, ..pb::Claim::default() },
        pb::Claim { selector: selector("b"), ..pb::Claim::default() },
    ];
    let request = pb::LeaseRequest { selector: None, claims, ..wanted() };
    let lease = lease(&request, who()).unwrap().0;
    let told: Vec<_> = lease.claims.iter().map(|c| (c.selector.pool.as_deref(), c.count)).collect();
    assert_eq!(told, [(Some("a"), 3), (Some("b"), 1)]);
}

#[test]
fn all_problems_of_a_request_are_reported_at_once_with_their_paths() {
    let labels = [("os".to_owned(), "x".repeat(257)), (String::new(), "v".into())].into();
    let claim = pb::Claim {
        selector: Some(pb::Selector { pool: String::new(), labels }),
        count: 65,
        params: [("script".to_owned(), "line\nline\u{7}".to_owned())].into(),
    };
    let request = pb::LeaseRequest {
        request_id: "two words".into(),
        holder: "h".repeat(1025),
        selector: Some(pb::Selector::default()),
        count: 2,
        claims: vec![pb::Claim::default(), claim],
        priority: 101,
        ttl: seconds(0),
        wait: seconds(601),
        queue_for: seconds(-5),
        no_queue: true,
        expected_duration: seconds(366 * 24 * 3600),
        work: "w".repeat(257),
        ..pb::LeaseRequest::default()
    };
    assert_eq!(
        problems(lease(&request, who())),
        [
            "request_id: must be 1 to 128 visible ASCII characters, without spaces",
            "priority: must be from -100 to 100; got 101",
            "queue_for: excludes no_queue; set one of them",
            "holder: has 1025 bytes; at most 1024 are kept",
            "claims: exclude selector: put it into the claims",
            "count: belongs to selector; each claim has its own",
            "claims[0].selector: is required: name a pool, labels, or both",
            "claims[1].count: must be from 0 to 64; got 65",
            "claims[1].selector.labels[]: the key must have 1 to 63 bytes, without spaces",
            "claims[1].selector.labels[os]: has 257 bytes; at most 256 are kept",
            "claims[1].params[script]: has the control character \\u{7}; remove it",
            "ttl: must be more than 0 and at most 365 days; got 0s",
            "queue_for: must be more than 0 and at most 365 days; got -5s",
            "expected_duration: must be more than 0 and at most 365 days; got 31622400s",
            "work: has 257 bytes; at most 256 are kept",
            "wait: must be from 0 to 10 minutes; for longer, call again or watch; got 601s",
        ]
    );
}

#[test]
fn an_absent_field_stays_absent() {
    let empty = pb::LeaseRequest::default();
    assert_eq!(
        problems(lease(&empty, who())),
        [
            "request_id: is required: choose one for each request, and use it again when you repeat the request",
            "selector: is required: name a pool, labels, or both (or give claims)",
        ]
    );
    let anything = pb::LeaseRequest { selector: Some(pb::Selector::default()), ..wanted() };
    assert_eq!(problems(lease(&anything, who())), ["selector: is empty: name a pool, labels, or both"]);
}

#[test]
fn a_ttl_of_ten_years_and_a_broken_duration_are_refused() {
    let ten_years = pb::LeaseRequest { ttl: seconds(10 * 365 * 24 * 3600), ..wanted() };
    assert_eq!(problems(lease(&ten_years, who())), ["ttl: must be more than 0 and at most 365 days; got 315360000s"]);
    let broken = Some(prost_types::Duration { seconds: 1, nanos: -1 });
    let request = pb::LeaseRequest { ttl: broken, ..wanted() };
    assert_eq!(
        problems(lease(&request, who())),
        ["ttl: is not a valid duration: seconds and nanos must have the same sign, nanos below one second"]
    );
}

#[test]
fn a_release_takes_the_known_outcomes() {
    let id = "lse_01JDEFG7T1000000000000002A".to_owned();
    let request =
        |outcome| pb::ReleaseRequest { lease_id: id.clone(), outcome, note: "two\nlines".into(), hold: seconds(60) };
    let known = [Outcome::Abandoned, Outcome::Ok, Outcome::Failed, Outcome::Tainted, Outcome::Abandoned];
    for (told, outcome) in (0..).zip(known) {
        let (_, input) = release(&request(told), who()).unwrap();
        let Input::Release { outcome: found, hold, .. } = input else { panic!() };
        assert_eq!((found, hold), (outcome, Some(Millis::secs(60))));
    }
    let at_once = pb::ReleaseRequest { hold: seconds(0), ..request(2) };
    assert_eq!(problems(release(&at_once, who())), ["hold: must be more than 0 and at most 365 days; got 0s"]);
    assert_eq!(problems(release(&request(9), who())), ["outcome: 9 is unknown; use OK, FAILED, TAINTED or ABANDONED"]);
    let both = pb::ReleaseRequest { lease_id: "x".into(), outcome: 9, ..pb::ReleaseRequest::default() };
    assert_eq!(problems(release(&both, who())).len(), 2);
}

#[test]
fn a_watch_has_bounds() {
    let request = pb::WatchRequest {
        lease_ids: vec!["lse_01JDEFG7T1000000000000002A".into(), "lse_1".into()],
        pools: vec![String::new(); 1001],
        bookmark_interval: Some(prost_types::Duration { seconds: 0, nanos: 99_000_000 }),
        ..pb::WatchRequest::default()
    };
    let told = problems(watch(&request, who()));
    assert!(told[0].starts_with("lease_ids[1]: \"lse_1\" is not a lease id"), "{told:?}");
    assert_eq!(
        told[1..],
        [
            "pools: has 1001 values; at most 1000 are taken",
            "bookmark_interval: must be from 100 ms to 60 s; got 0.099s"
        ]
    );
    let everything = watch(&pb::WatchRequest::default(), who()).unwrap();
    assert_eq!((everything.from, everything.bookmarks), (Revision(0), Duration::from_secs(5)));
    assert_eq!(everything.owner, None, "no lease is named, so none is sent with its credentials");
    let named = pb::WatchRequest { lease_ids: vec![LeaseId::new(1).to_string()], ..pb::WatchRequest::default() };
    assert_eq!(watch(&named, who()).unwrap().owner, Some(who()));
}

#[test]
fn a_page_has_a_size_and_a_token_of_this_server() {
    let request = pb::ListRequest {
        states: vec![3, 0, 99],
        page_size: 1001,
        page_token: "res_01JDEFG7T1000000000000002A".into(),
        ..pb::ListRequest::default()
    };
    assert_eq!(
        problems(list(&request, Scope::All)),
        [
            "states[1]: 0 is no state of a lease",
            "states[2]: 99 is no state of a lease",
            "page_token: \"res_01JDEFG7T1000000000000002A\" is not a page token of this list: pass next_page_token of the page before",
            "page_size: must be from 0 to 1000; got 1001",
        ]
    );
    assert_eq!(list(&pb::ListRequest::default(), Scope::All).unwrap().size, 100);
    assert_eq!(list_resources(&pb::ListResourcesRequest { page_size: 7, ..Default::default() }).unwrap().size, 7);
}

#[test]
fn a_cordon_takes_a_resource_or_a_pool_and_what_takes_from_a_holder_needs_a_reason() {
    let id = "res_01JDEFG7T1000000000000002A".to_owned();
    let one = pb::CordonRequest { resource_id: id.clone(), ..pb::CordonRequest::default() };
    let pool = pb::CordonRequest { pool: "linux".into(), ..pb::CordonRequest::default() };
    let both = pb::CordonRequest { pool: "linux".into(), ..one.clone() };
    let cordon = |request: &_| on_resource_or_pool(request, who(), MachineVerb::Cordon, AdminVerb::CordonPool);

    assert_eq!(cordon(&pool).unwrap().target, Target::Pool("linux".into()));
    assert_eq!(cordon(&one).unwrap().target, Target::Resource(id.parse().unwrap()));
    assert_eq!(problems(cordon(&both)), ["pool: excludes resource_id; name one of them"]);
    let seen = pb::CordonRequest { if_revision: 7, ..pool.clone() };
    assert_eq!(problems(cordon(&seen)), ["if_revision: excludes pool: a command on a pool ends no lease"]);
    assert_eq!(problems(cordon(&pb::CordonRequest::default())), ["resource_id: is required, or a machine"]);
    let machine = |machine: &str| pb::CordonRequest { machine: machine.into(), ..pb::CordonRequest::default() };
    let name = |pool: Option<&str>| Target::Machine(MachineName { pool: pool.map(Arc::from), item: "b-1".into() });
    assert_eq!(cordon(&machine("linux/b-1")).unwrap().target, name(Some("linux")));
    assert_eq!(cordon(&machine("b-1")).unwrap().target, name(None));
    for wrong in ["/b-1", "linux/", "a/b/c"] {
        let told = problems(cordon(&machine(wrong)));
        assert_eq!(told, [format!("machine: {wrong:?} is no machine: write POOL/ITEM, or the item alone")]);
    }
    let both = pb::CordonRequest { resource_id: id.clone(), ..machine("b-1") };
    assert_eq!(problems(cordon(&both)), ["machine: excludes resource_id; name one of them"]);
    let check = pb::CheckRequest { resource_id: id.clone(), ..pb::CheckRequest::default() };
    assert_eq!(on_resource(&check, who(), MachineVerb::Check).unwrap().target, Target::Resource(id.parse().unwrap()));

    let reason = "reason: is required: it takes a resource or a lease from its holder, who gets the reason";
    let quarantine = pb::QuarantineRequest { resource_id: id.clone(), ..pb::QuarantineRequest::default() };
    assert_eq!(problems(on_resource(&quarantine, who(), MachineVerb::Quarantine)), [reason]);
    let only = pb::QuarantineRequest { validate_only: true, if_revision: 7, ..quarantine };
    let command = on_resource(&only, who(), MachineVerb::Quarantine).unwrap();
    assert_eq!((command.validate_only, command.request.if_revision), (true, Some(Revision(7))));
    let destroy = pb::ForceDestroyRequest { resource_id: id, ..pb::ForceDestroyRequest::default() };
    assert_eq!(problems(on_resource(&destroy, who(), MachineVerb::ForceDestroy)), [reason]);
    let told = problems(break_lease(
        &pb::BreakRequest { lease_id: "x".into(), reason: " ".into(), ..pb::BreakRequest::default() },
        who(),
    ));
    assert!(told[0].starts_with("lease_id: \"x\" is not a lease id") && told[1] == reason, "{told:?}");
}

#[test]
fn a_note_is_of_a_resource_or_a_machine_and_may_be_empty() {
    let id = "res_01JDEFG7T1000000000000002A".to_owned();
    let request = pb::NoteRequest { resource_id: id.clone(), text: "loud\nfan".into(), ..pb::NoteRequest::default() };
    let command = note(&request, who()).unwrap();
    assert_eq!(command.target, Target::Resource(id.parse().unwrap()));
    assert_eq!((&*command.request.reason, command.request.verb), ("loud\nfan", AdminVerb::Note(id.parse().unwrap())));
    let removed = pb::NoteRequest { machine: "linux/b-1".into(), validate_only: true, ..pb::NoteRequest::default() };
    let command = note(&removed, who()).unwrap();
    assert!(command.validate_only && command.request.reason.is_empty(), "{command:?}");
    let long = pb::NoteRequest { text: "x".repeat(4097), ..request.clone() };
    assert!(problems(note(&long, who()))[0].starts_with("text: "));
    let control = pb::NoteRequest { text: "a\u{1b}[2Jb".into(), ..request.clone() };
    assert!(problems(note(&control, who()))[0].starts_with("text: "));
    let both = pb::NoteRequest { machine: "b-1".into(), ..request };
    assert_eq!(problems(note(&both, who())), ["machine: excludes resource_id; name one of them"]);
}

#[test]
fn a_page_token_of_the_history_is_of_this_server() {
    let request = |token: &str| pb::EventsRequest { page_token: token.into(), ..pb::EventsRequest::default() };
    for wrong in ["x", "1", "0.1", "1.x", "-1.1", "1.-1", "1.1.1", "1.99999"] {
        let told = problems(events(&request(wrong)));
        assert!(told.len() == 1 && told[0].starts_with("page_token: "), "{wrong}: {told:?}");
    }
    let page = events(&request("7.2")).unwrap();
    assert_eq!((page.query().after, page.query().to, page.query().limit), (Revision(6), None, 103));
    let page = events(&pb::EventsRequest { newest_first: true, ..request("7.2") }).unwrap();
    assert_eq!((page.query().after, page.query().to), (Revision(0), Some(Revision(7))));
}

#[test]
fn a_hold_and_a_timeline_are_of_a_lease_or_of_a_resource() {
    let (lease_id, resource_id) =
        ("lse_01JDEFG7T1000000000000002A".to_owned(), "res_01JDEFG7T1000000000000002A".to_owned());
    let of_resource =
        pb::HoldRequest { resource_id: resource_id.clone(), hold: seconds(7200), ..pb::HoldRequest::default() };
    let Command { target, request, .. } = hold(&of_resource, who()).unwrap();
    assert_eq!(target, Target::Resource(resource_id.parse().unwrap()));
    let AdminRequest { verb: AdminVerb::Hold(_, span), .. } = request else { panic!("{request:?}") };
    assert_eq!(span, Millis::secs(7200));
    let of_lease = pb::HoldRequest { lease_id: lease_id.clone(), resource_id: String::new(), ..of_resource.clone() };
    assert_eq!(hold(&of_lease, who()).unwrap().target, Target::OfLease(lease_id.parse().unwrap()));
    let both = pb::HoldRequest { resource_id: resource_id.clone(), hold: None, ..of_lease };
    let reason = pb::HoldRequest { reason: "r".repeat(4097), hold: seconds(-1), ..of_resource };
    assert_eq!(
        problems(hold(&both, who())),
        ["lease_id: excludes resource_id; name one of them", "hold: is required: the time to keep the resource"]
    );
    assert_eq!(
        problems(hold(&reason, who())),
        ["reason: has 4097 bytes; at most 4096 are kept", "hold: must be more than 0 and at most 365 days; got -1s"]
    );

    let asked =
        pb::TimelineRequest { lease_id: lease_id.clone(), resource_id, limit: 1001, ..pb::TimelineRequest::default() };
    assert_eq!(
        problems(timeline(&asked)),
        ["lease_id: excludes resource_id; name one of them", "limit: must be from 0 to 1000; got 1001"]
    );
    assert_eq!(problems(timeline(&pb::TimelineRequest::default())), ["resource_id: is required, or a lease_id"]);
    let one = pb::TimelineRequest { lease_id: lease_id.clone(), ..pb::TimelineRequest::default() };
    assert_eq!(timeline(&one).unwrap(), (About::Lease(lease_id.parse().unwrap()), 100));
}

#[test]
fn a_report_has_a_lease_and_a_note() {
    let request = pb::ReportRequest { lease_id: "lse_1".into(), note: "n".repeat(4097), ..Default::default() };
    let told = problems(report(&request, who()));
    assert!(told[0].starts_with("lease_id: \"lse_1\" is not a lease id"), "{told:?}");
    assert_eq!(told[1..], ["note: has 4097 bytes; at most 4096 are kept"]);
}
