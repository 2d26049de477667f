//! Servers that follow: they answer reads and watches, pass on what decides, and go on when they take over.

use crate::failover::Farm;
use crate::postgresql::shared;
use crate::proxy::Mode;
use crate::support::{PATIENCE, signal, text};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use wharfinger::pb::lease_service_client::LeaseServiceClient;
use wharfinger::pb::watch_response::Event;
use wharfinger::pb::{GetRequest, LeaseRequest, LeaseState, Outcome, ReleaseRequest, Selector, WatchRequest};

fn request(id: &str, wait: i64) -> LeaseRequest {
    LeaseRequest {
        request_id: id.into(),
        holder: id.into(),
        selector: Some(Selector { pool: "hosts".into(), ..Selector::default() }),
        wait: Some(prost_types::Duration { seconds: wait, nanos: 0 }),
        ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        ..LeaseRequest::default()
    }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// Everything that the command line can say, said to a server that follows.
#[test]
fn every_verb_works_through_a_server_that_follows() {
    let Some(cluster) = shared() else { return };
    let farm = Farm::start(cluster, 3);
    let leader = farm.leader();
    let through = &farm.servers[(leader + 1) % 3];
    let other = &farm.servers[(leader + 2) % 3];
    let lease = through.json(&["lease", "--pool", "hosts", "--ttl", "1h", "--wait", "30s"])["lease"].clone();
    assert_eq!((&lease["state"], &lease["principal"]), (&"ACTIVE".into(), &"local".into()), "{lease}\n{}", farm.logs());
    let (id, resource) = (lease["id"].as_str().unwrap(), lease["resource_id"].as_str().unwrap());
    // A lease that was made through one is there for all.
    for server in [through, other, &farm.servers[leader]] {
        assert_eq!(server.json(&["get", id])["fencing_token"], lease["fencing_token"]);
    }
    let pools = through.json(&["pools"]);
    assert!(pools["pools"][0]["counters"].is_null(), "{pools}");
    assert!(through.cli(&["explain", id]).status.success());
    assert!(through.cli(&["why", id]).status.success());
    assert!(text(&through.cli(&["events", "--lease", id])).contains("lease.active"));
    assert!(through.cli(&["renew", id]).status.success());
    assert!(through.cli(&["cordon", resource, "--reason", "a test"]).status.success());
    other.wait("the cordon to be told", || {
        let told = other.json(&["resource", resource]);
        (told["cordoned_by"] == "local" || told["resource"]["cordoned_by"] == "local").then_some(())
    });
    assert!(through.cli(&["uncordon", resource]).status.success());
    let run = through.cli(&["run", "--pool", "hosts", "--", "echo", "built"]);
    assert!(run.status.success() && text(&run).contains("built"), "{}", text(&run));
    assert!(through.cli(&["release", id]).status.success());
    let refused = through.cli(&["renew", id]);
    assert!(!refused.status.success(), "what the leader refuses is refused: {}", text(&refused));
    // All are well, and one leads.
    let all: Vec<&str> = farm.servers.iter().map(|server| server.address.as_str()).collect();
    let health = |args: &[&str]| {
        let mut command = through.command(args);
        text(&command.env("WHARFINGER_SERVER", all.join(",")).output().unwrap())
    };
    let said = health(&["health"]);
    assert!(said.contains("exit Some(0)"), "{said}");
    // The leader, the begin of its lead, and the distance of the others.
    let said = health(&["--json", "servers"]);
    let (start, end) = (said.find('{').unwrap(), said.rfind('}').unwrap());
    let told: serde_json::Value = serde_json::from_str(&said[start..=end]).unwrap();
    let servers = told["servers"].as_array().unwrap();
    assert_eq!(servers.len(), 3, "{told}");
    for (n, server) in servers.iter().enumerate() {
        assert_eq!(server["state"] == "LEADS", n == leader, "{told}");
        assert_eq!(server["leads_since"].is_string(), n == leader, "{told}");
        assert_eq!(server["epoch"].as_u64().unwrap() > 0, n == leader, "{told}");
        assert!(server["revision"].as_u64().unwrap() > 0 && server["age_ms"].as_u64().unwrap() < 10_000, "{told}");
        assert_eq!(server["configuration"].as_str().unwrap().len(), 16, "{told}");
        assert!(
            n == leader
                || farm.servers[leader]
                    .address
                    .ends_with(server["leader"].as_str().unwrap().rsplit(':').next().unwrap()),
            "{told}"
        );
    }
    // Each server knows the others by their reports.
    for server in &farm.servers {
        let told = server.wait("the reports of all servers", || {
            // It fails until one that leads has reported.
            let output = server.cli(&["--json", "servers", "--known"]);
            let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let all = told["servers"].as_array().cloned().unwrap_or_default();
            let leaders = all.iter().filter(|one| one["state"] == "LEADS" && one["epoch"].as_u64() > Some(0));
            (all.len() == 3 && leaders.count() == 1).then_some(all)
        });
        for one in told {
            assert!(
                one["silent_ms"].as_u64().unwrap() < 15_000
                    && one["leads_since"].is_string() == (one["state"] == "LEADS")
            );
            assert_eq!(one["configuration"].as_str().unwrap().len(), 16, "{one}");
        }
    }
    let said = health(&["servers"]);
    assert!(said.contains("exit Some(0)") || said.contains("different configuration files"), "{said}");
    let said = health(&["--json", "health", "--service", "wharfinger.leader"]);
    assert_eq!(said.matches("\"SERVING\"").count(), 1, "{said}");
    assert_eq!(said.matches("\"NOT_SERVING\"").count(), 2, "{said}");
}

/// Cut off from the database it says what it knows for a while, and then that it knows nothing; it comes back by itself.
#[test]
fn one_that_is_cut_off_from_the_database_says_so() {
    let Some(cluster) = shared() else { return };
    let farm = Farm::start(cluster, 2);
    let leader = farm.leader();
    let follower = 1 - leader;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = farm.servers[follower].address.clone();
    let lease =
        farm.servers[leader].json(&["lease", "--pool", "hosts", "--ttl", "1h", "--wait", "30s"])["lease"].clone();
    let id = lease["id"].as_str().unwrap();
    let get = |min_revision: u64| {
        let request = GetRequest { lease_id: id.into(), min_revision };
        let address = address.clone();
        runtime.block_on(async move {
            let mut api = LeaseServiceClient::connect(address).await.unwrap();
            api.get(request).await.map(tonic::Response::into_inner)
        })
    };
    let told = get(0).unwrap();
    // One that was not reached is waited for, and then refused.
    let begun = Instant::now();
    let behind = get(told.revision + 1000).unwrap_err();
    assert_eq!((behind.code(), reason(&behind).as_str()), (Code::Unavailable, "BEHIND"));
    assert!(begun.elapsed() > Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(20));
    farm.ways[follower].set(Mode::Hold);
    let start = Instant::now();
    loop {
        match get(0) {
            Ok(_) => {}
            Err(status) if reason(&status) == "STALE" => break,
            Err(status) => panic!("{status:?}"),
        }
        assert!(start.elapsed() < PATIENCE, "{}", farm.logs());
        std::thread::sleep(Duration::from_millis(50));
    }
    farm.servers[leader].wait("its health to say so", || {
        let said = farm.servers[follower].cli(&["health"]);
        text(&said).contains("NOT_SERVING").then_some(())
    });
    farm.ways[follower].cut_and(Mode::Pass);
    farm.servers[leader].wait("it to come back", || get(0).is_ok().then_some(()));
    farm.servers[leader]
        .wait("its health to say so", || farm.servers[follower].cli(&["health"]).status.success().then_some(()));
}

/// A watch on the one that follows is the same stream before and after it takes over, and nothing is missing in it.
#[test]
fn a_watch_goes_on_when_its_server_takes_over() {
    let Some(cluster) = shared() else { return };
    let mut farm = Farm::start(cluster, 2);
    let leader = farm.leader();
    let follower = 1 - leader;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = farm.servers[follower].address.clone();
    let watched = runtime.spawn(async move {
        let mut api = LeaseServiceClient::connect(address.clone()).await.unwrap();
        let watch = WatchRequest { include_ended: true, ..WatchRequest::default() };
        let mut stream = api.watch(watch).await.unwrap().into_inner();
        let mut ended = BTreeSet::new();
        let mut revision = 0;
        while ended.len() < 6 {
            let response = stream.message().await.expect("the stream goes on").expect("it does not end");
            assert!(response.revision == 0 || response.revision >= revision, "revisions never go back");
            revision = revision.max(response.revision);
            if let Some(Event::Lease(lease)) = response.event
                && lease.state() == LeaseState::Released
            {
                ended.insert(lease.request_id);
            }
        }
        ended
    });
    // Three through the follower before, three after, when it decides by itself.
    let cycle = |number: u32| {
        let address = farm.servers[follower].address.clone();
        runtime.block_on(async move {
            let mut api = LeaseServiceClient::connect(address).await.unwrap();
            let mut lease = api.lease(request(&format!("w{number}"), 30)).await;
            // Without a leader the answer is to come again.
            while lease.as_ref().is_err_and(|status| status.code() == Code::Unavailable) {
                tokio::time::sleep(Duration::from_millis(100)).await;
                lease = api.lease(request(&format!("w{number}"), 30)).await;
            }
            let id = lease.unwrap().into_inner().lease.unwrap().id;
            api.release(ReleaseRequest { lease_id: id, outcome: Outcome::Ok.into(), ..ReleaseRequest::default() })
                .await
                .unwrap();
        });
    };
    (0..3).for_each(cycle);
    signal(farm.servers[leader].pid(), "KILL");
    (3..6).for_each(cycle);
    let ended =
        runtime.block_on(async { tokio::time::timeout(PATIENCE, watched).await }).expect("all is told").unwrap();
    // Each in its last state, which for an earlier one may be the later change: its slot was cleaned after the next release.
    assert!(ended.iter().eq(["w0", "w1", "w2", "w3", "w4", "w5"]), "{ended:?}");
    assert_eq!(farm.leader(), follower);
    farm.servers[leader].kill();
    assert!(farm.servers[follower].log().contains("serving"), "{}", farm.logs());
    assert!(!farm.servers[follower].log().contains("loading it"), "it went on from what it followed:\n{}", farm.logs());
}

/// The leader is paused with calls that were passed on to it: their callers get an error, and find their leases with the next.
#[test]
fn a_call_that_was_forwarded_to_a_leader_that_hangs_fails_with_unavailable() {
    let Some(cluster) = shared() else { return };
    let farm = Farm::start(cluster, 3);
    let leader = farm.leader();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = farm.servers[(leader + 1) % 3].address.clone();
    // All slots are taken, so the next one waits.
    let lease = |wait: &str| {
        let all = farm.servers[leader].json(&["lease", "--pool", "hosts", "--ttl", "1h", "--wait", wait]);
        let (id, state) = (&all["lease"]["id"], &all["lease"]["state"]);
        (id.as_str().unwrap().to_string(), state.as_str().unwrap().to_string())
    };
    let (first, state) = lease("60s");
    assert_eq!(state, "ACTIVE");
    let mut held = vec![first];
    // The host is there: a lease waits in line only if no slot is left.
    loop {
        let (id, state) = lease("1s");
        if state == "QUEUED" {
            assert!(farm.servers[leader].cli(&["release", &id]).status.success());
            break;
        }
        held.push(id);
    }
    let mut api = runtime.block_on(LeaseServiceClient::connect(address)).unwrap();
    let mut waiting = api.clone();
    let call = runtime.spawn(async move { waiting.lease(request("passed", 300)).await });
    farm.servers[leader].wait("it to be in line", || {
        let all = farm.servers[leader].json(&["ls"]);
        all["leases"].as_array().unwrap().iter().any(|lease| lease["request_id"] == "passed").then_some(())
    });
    let pid = farm.servers[leader].pid();
    signal(pid, "STOP");
    let status = runtime.block_on(async { tokio::time::timeout(PATIENCE, call).await }).unwrap().unwrap().unwrap_err();
    signal(pid, "CONT");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "LEADER_LOST"), "{status:?}");
    let next = farm.leader();
    assert!(farm.servers[next].cli(&["release", &held[0]]).status.success());
    let again = runtime.block_on(api.lease(request("passed", 60))).unwrap().into_inner().lease.unwrap();
    assert_eq!(again.state(), LeaseState::Active);
    let all = farm.servers[next].json(&["ls"]);
    let same = all["leases"].as_array().unwrap().iter().filter(|lease| lease["request_id"] == "passed").count();
    assert_eq!(same, 1, "it was asked for once: {all}");
}
