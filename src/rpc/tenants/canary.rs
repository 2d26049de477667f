//! Two tenants on one host, each word of theirs marked: no answer to one has a mark of the other, and secrets are nowhere but in the
//! answers to their owner.

use super::*;
use crate::pb;
use crate::store::dump;
use prost::Message;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use tracing_subscriber::fmt::MakeWriter;
use wharfinger_adapter::Verdict;
use wharfinger_core::{ResourceId, ResourceState};

/// The log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;
    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

/// All that a caller was answered, in the forms in which it may be printed or sent.
#[derive(Default)]
struct Heard(Vec<u8>);

/// Answers to a caller about its own leases, and where it named a lease of another.
#[derive(Default)]
struct Told {
    own: Heard,
    foreign: Heard,
}

impl Heard {
    fn answer<T: Message + std::fmt::Debug>(&mut self, answer: Result<tonic::Response<T>, Status>) -> Option<T> {
        match answer {
            Ok(answer) => {
                let metadata = format!("{:?}", answer.metadata());
                let answer = answer.into_inner();
                self.0.extend(answer.encode_to_vec());
                self.0.extend(format!("{answer:?} {metadata}").into_bytes());
                Some(answer)
            }
            Err(status) => {
                let mut text = String::new();
                let _ = write!(text, "{status:?} {status} {:?}", status.get_error_details());
                self.0.extend(text.into_bytes());
                self.0.extend(status.details());
                None
            }
        }
    }

    fn has(&self, mark: &str) -> bool {
        contains(&self.0, mark)
    }
}

fn contains(bytes: &[u8], mark: &str) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
}

/// A request each word of which has the tenant's mark.
fn marked(mark: &str, n: usize) -> pb::LeaseRequest {
    let pairs = |kind: &str| HashMap::from([(format!("{mark}-{kind}"), format!("{mark}-{kind}-value"))]);
    pb::LeaseRequest {
        request_id: format!("{mark}-request-{n}"),
        holder: format!("{mark}-holder"),
        selector: Some(pb::Selector { pool: "p".into(), ..Default::default() }),
        params: pairs("param"),
        tags: pairs("tag"),
        work: format!("{mark}-work-{n}"),
        wait: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    }
}

/// All that a caller can ask with its own leases, with those of others, and about everything.
async fn drive(
    world: &World,
    by: &Bearer,
    mark: &str,
    (own, foreign): (&[String], &[String]),
    resources: &[String],
    told: &mut Told,
) {
    ask(world, by, mark, own, resources, &mut told.own).await;
    ask(world, by, mark, foreign, resources, &mut told.foreign).await;
}

/// Asks both servers.
async fn ask(world: &World, by: &Bearer, mark: &str, leases: &[String], resources: &[String], heard: &mut Heard) {
    for server in [&world.leader, &world.follower] {
        let (mut api, mut admin) = (server.lease.clone(), server.admin.clone());
        let note = format!("{mark}-note");
        macro_rules! ask {
            ($client:ident . $method:ident ( $message:expr )) => {
                heard.answer($client.$method(by.call($message)).await)
            };
        }
        for id in leases {
            let lease_id = id.clone();
            ask!(api.get(pb::GetRequest { lease_id: lease_id.clone(), min_revision: 0 }));
            ask!(api.explain(pb::ExplainRequest { lease_id: lease_id.clone(), min_revision: 0 }));
            ask!(api.timeline(pb::TimelineRequest { lease_id: lease_id.clone(), ..Default::default() }));
            ask!(api.renew(pb::RenewRequest { lease_id: lease_id.clone(), ..Default::default() }));
            ask!(api.report(pb::ReportRequest { lease_id: lease_id.clone(), note: note.clone(), unreached: true }));
            ask!(admin.events(pb::EventsRequest { lease_id: lease_id.clone(), ..Default::default() }));
            let request = pb::WatchRequest { lease_ids: vec![lease_id], ..Default::default() };
            watched(&mut api, by, request, heard).await;
        }
        for id in resources {
            let resource_id = id.clone();
            ask!(admin.get_resource(pb::GetResourceRequest { resource_id: resource_id.clone(), ..Default::default() }));
            ask!(api.timeline(pb::TimelineRequest { resource_id: resource_id.clone(), ..Default::default() }));
            ask!(api.list(pb::ListRequest { resource_id, ..Default::default() }));
        }
        let every_state = (1..=9).collect();
        ask!(api.list(pb::ListRequest { states: every_state, ..Default::default() }));
        ask!(api.list(pb::ListRequest::default()));
        ask!(api.list_queue(pb::ListQueueRequest::default()));
        ask!(api.list_queue(pb::ListQueueRequest { pool: "p".into(), ..Default::default() }));
        ask!(api.get_server(pb::GetServerRequest {}));
        ask!(api.list_servers(pb::ListServersRequest {}));
        ask!(admin.list_pools(pb::ListPoolsRequest::default()));
        ask!(admin.list_tenants(pb::ListTenantsRequest::default()));
        ask!(admin.get_pool(pb::GetPoolRequest { name: "p".into(), ..Default::default() }));
        ask!(admin.list_resources(pb::ListResourcesRequest::default()));
        ask!(admin.weather(pb::WeatherRequest {}));
        ask!(admin.events(pb::EventsRequest::default()));
        let unknown_pool = pb::Selector { pool: format!("{mark}-pool"), ..Default::default() };
        ask!(api.lease(pb::LeaseRequest { selector: Some(unknown_pool), ..marked(mark, 90) }));
        for request in [
            pb::WatchRequest { include_ended: true, ..Default::default() },
            pb::WatchRequest { pools: vec!["p".into()], include_ended: true, ..Default::default() },
            pb::WatchRequest { from_revision: 1, ..Default::default() },
        ] {
            watched(&mut api, by, request, heard).await;
        }
    }
}

/// Hears a watch until it has told its beginning, or is refused.
async fn watched(api: &mut LeaseServiceClient<Channel>, by: &Bearer, request: pb::WatchRequest, heard: &mut Heard) {
    let answer = api.watch(by.call(request)).await;
    let mut stream = match answer {
        Ok(stream) => stream.into_inner(),
        Err(status) => {
            heard.answer::<pb::WatchResponse>(Err(status));
            return;
        }
    };
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                let synced = matches!(&message.event, Some(pb::watch_response::Event::Bookmark(mark)) if mark.synced);
                heard.answer(Ok(tonic::Response::new(message)));
                if synced {
                    return;
                }
            }
            Ok(None) => return,
            Err(status) => {
                heard.answer::<pb::WatchResponse>(Err(status));
                return;
            }
        }
    }
}

const MARKS: [&str; 2] = ["canary-a", "canary-b"];

/// Each file of the database.
fn files(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        all.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    all
}

#[tokio::test]
async fn no_mark_of_one_tenant_is_in_an_answer_to_another_and_no_secret_in_any_log_or_file() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let all = |tenant, agent, reader| {
        [
            Who::new(tenant, agent, &[BuiltIn::Agent]),
            Who::new(tenant, reader, &[BuiltIn::Agent, BuiltIn::Reader, BuiltIn::Lead]),
        ]
    };
    let mut callers = Vec::new();
    callers.extend(all("canary-a", "canary-a-agent", "canary-a-lead"));
    callers.extend(all("canary-b", "canary-b-agent", "canary-b-lead"));
    callers.push(Who::new("ops", "ops-admin", &[BuiltIn::Admin]));
    // One host for all, so that what one does there concerns the others.
    let (world, bearers) = world(1, 16, &callers).await;
    let agents = [&bearers[0], &bearers[2]];
    let mut leases: Vec<Vec<String>> = vec![Vec::new(), Vec::new()];
    let mut resources = Vec::new();
    let mut told = [Heard::default(), Heard::default()];
    for (tenant, (by, mark)) in agents.iter().zip(MARKS).enumerate() {
        for n in 0..5 {
            let mut api = world.follower.lease.clone();
            let answer = api.lease(by.call(marked(mark, n))).await;
            let lease = told[tenant].answer(answer).unwrap().lease.unwrap();
            assert_eq!(lease.private_key(), Some(SECRET), "its owner gets the key: {lease:?}");
            assert!(!format!("{lease:?}").contains(SECRET), "Debug prints no secret");
            leases[tenant].push(lease.id);
            resources.push(lease.resource_id);
        }
    }
    resources.dedup();
    assert_eq!(resources.len(), 1, "all are on one host");

    // Ends of all kinds, with notes, while the other tenant works there: failures that are compared, a hold, a report.
    for (tenant, (by, mark)) in agents.iter().zip(MARKS).enumerate() {
        let mut api = world.leader.lease.clone();
        let note = format!("{mark}-note");
        let report = pb::ReportRequest { lease_id: leases[tenant][0].clone(), note: note.clone(), unreached: false };
        told[tenant].answer(api.report(by.call(report)).await);
        for (n, outcome) in [(1, pb::Outcome::Failed), (2, pb::Outcome::Abandoned)] {
            let hold = (n == 1).then_some(prost_types::Duration { seconds: 60, nanos: 0 });
            let lease_id = leases[tenant][n].clone();
            let release = pb::ReleaseRequest { lease_id, outcome: outcome.into(), note: note.clone(), hold };
            told[tenant].answer(api.release(by.call(release)).await);
        }
    }
    let everything: Vec<String> = leases.concat();
    let mut heard: [Told; 5] = Default::default();
    let asks = async |heard: &mut [Told; 5]| {
        for (n, by) in bearers.iter().enumerate() {
            let mark = MARKS.get(n / 2).copied().unwrap_or("canary-ops");
            let (own, foreign): (&[String], &[String]) =
                if n < 4 { (&leases[n / 2], &leases[1 - n / 2]) } else { (&everything, &[]) };
            drive(&world, by, mark, (own, foreign), &resources, &mut heard[n]).await;
        }
    };
    asks(&mut heard).await;
    // Earlier reports of holders are settled: only the tenant's report is the cause of the rest.
    let host: ResourceId = resources[0].parse().unwrap();
    let settled = async || {
        let state = world.handle.read(move |core, _| core.resource(host).map(|row| row.state.clone())).await.unwrap();
        state == Some(ResourceState::Ready)
    };
    while !settled().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The host is found unfit after a tenant called it so: every lease there breaks, with a chain of causes.
    let mangled = Verdict::Mangled { repairable: false, reason: "NO_DISK", detail: "the disk is gone".into() };
    world.fake.set_truth(&resources[0], mangled);
    let lease_id = leases[1][3].clone();
    let tainted =
        pb::ReleaseRequest { lease_id, outcome: pb::Outcome::Tainted.into(), note: "canary-b-note".into(), hold: None };
    told[1].answer(world.leader.lease.clone().release(agents[1].call(tainted)).await);
    let left = leases[0][4].clone();
    let broken = loop {
        let get = pb::GetRequest { lease_id: left.clone(), min_revision: 0 };
        let lease = world.leader.lease.clone().get(agents[0].call(get)).await.unwrap().into_inner().lease.unwrap();
        if lease.state() == pb::LeaseState::Broken {
            break lease;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    // Others use the host, so that the word of one is a reason for a check and no more.
    assert!(broken.causes.iter().any(|cause| cause.reason == "HOLDER_FAILED"), "{broken:?}");
    world.follows.handle.refresh().await.unwrap();
    asks(&mut heard).await;

    let silent = |what: &str, heard: &Heard, mark: &str| {
        if let Some(at) = heard.0.windows(mark.len()).position(|window| window == mark.as_bytes()) {
            let near = &heard.0[at.saturating_sub(300)..(at + 100).min(heard.0.len())];
            panic!("{what} hears of {mark}: {}", String::from_utf8_lossy(near));
        }
    };
    for tenant in 0..2 {
        let (own, other) = (MARKS[tenant], MARKS[1 - tenant]);
        let (agent, lead) = (&heard[2 * tenant], &heard[2 * tenant + 1]);
        for (what, heard) in [("the holder", &told[tenant]), ("the agent", &agent.own), ("the lead", &lead.own)] {
            assert!(heard.has(own), "{what} of {own} hears of its own");
            silent(&format!("{what} of {own}"), heard, other);
            for foreign in &leases[1 - tenant] {
                silent(&format!("{what} of {own}"), heard, foreign);
            }
        }
        for (what, refused) in [("the agent", &agent.foreign), ("the lead", &lead.foreign)] {
            silent(&format!("{what} of {own}, asking for what is not its own,"), refused, other);
        }
    }
    for mark in MARKS.iter().copied().chain(everything.iter().map(String::as_str)) {
        assert!(heard[4].own.has(mark), "an operator hears of {mark}");
    }

    // Secrets: in the answers to the owner that name the lease, and nowhere else.
    assert!(heard[0].own.has(SECRET) && heard[2].own.has(SECRET), "the owner asks for its own lease");
    for (n, who) in [(1, "a lead"), (3, "a lead"), (4, "an operator")] {
        assert!(!heard[n].own.has(SECRET), "{who} is no owner");
    }
    for told in &heard {
        assert!(!told.foreign.has(SECRET), "a lease of another has no key");
    }
    let mut dumped = Vec::new();
    dump(&world.store, &mut dumped).await.unwrap();
    let core = world.handle.read(|core, _| format!("{:?}", core.leases(None).collect::<Vec<_>>())).await.unwrap();
    let logged = log.0.lock().unwrap().clone();
    let mut secrets = world.tokens.clone();
    secrets.push(SECRET.into());
    for secret in &secrets {
        for (what, bytes) in [
            ("the log", &logged),
            ("the database", &files(world.folder.path())),
            ("a dump", &dumped),
            ("the core", &core.clone().into_bytes()),
        ] {
            assert!(!bytes.is_empty() && !contains(bytes, secret), "{what} holds a secret");
        }
    }
    for mark in MARKS {
        assert!(contains(&dumped, mark), "a dump holds what it must: {mark}");
    }
}
