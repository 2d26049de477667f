//! A lease with a marked secret goes through everything that answers, stores, follows and logs. The mark may be found in the
//! answers to its own principal that name the lease, and nowhere else.

use async_trait::async_trait;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tracing_subscriber::fmt::MakeWriter;
use wharfinger::engine::{self, Adapters, EffectLimits, EngineConfig, FollowConfig, Handle, Observed};
use wharfinger::pb::admin_service_client::AdminServiceClient;
use wharfinger::pb::lease_service_client::LeaseServiceClient;
use wharfinger::pb::{self, watch_response};
use wharfinger::rpc::{self, AnswerSources, CredentialSources, PoolCredentials, RpcLimits};
use wharfinger::store::{SqliteStore, Store, dump};
use wharfinger_adapter::{
    Adapter, CleanJob, CredentialSource, Credentials, Failure, PrepareJob, Prepared, ProvisionJob, Provisioned,
    ResourceJob, Shell, Verdict, access,
};
use wharfinger_core::{Brake, DoubtPolicy, Isolation, Labels, Limits, Millis, PoolConfig, Revision, Timeouts, Traits};
use wharfinger_fake::Fake;

const MARK: &str = "MARKED-a61f-SECRET";

/// A fake host whose adapter breaks the contract: its answers hold the secret.
struct Leaky(Fake);

fn leaked(mut access: wharfinger_adapter::Access) -> wharfinger_adapter::Access {
    access.insert(access::PRIVATE_KEY.into(), MARK.into());
    access
}

#[async_trait]
impl Adapter for Leaky {
    fn traits(&self) -> Traits {
        self.0.traits()
    }
    async fn provision(&self, job: &ProvisionJob) -> Result<Provisioned, Failure> {
        let made = self.0.provision(job).await?;
        Ok(Provisioned { access: leaked(made.access), ..made })
    }
    async fn prepare(&self, job: &PrepareJob) -> Result<Prepared, Failure> {
        let made = self.0.prepare(job).await?;
        Ok(Prepared { access: leaked(made.access), ..made })
    }
    async fn clean(&self, job: &CleanJob) -> Result<(), Failure> {
        self.0.clean(job).await
    }
    async fn check(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        self.0.check(job).await
    }
    async fn repair(&self, job: &ResourceJob) -> Result<(), Failure> {
        self.0.repair(job).await
    }
    async fn destroy(&self, job: &ResourceJob) -> Result<(), Failure> {
        self.0.destroy(job).await
    }
    async fn shell(&self, job: &ResourceJob) -> Result<Arc<dyn Shell>, Failure> {
        self.0.shell(job).await
    }
}

/// A key file, that may be gone.
#[derive(Clone, Default)]
struct KeyFile {
    gone: Arc<Mutex<bool>>,
}

#[async_trait]
impl CredentialSource for KeyFile {
    async fn read(&self) -> Result<Credentials, Failure> {
        if *self.gone.lock().unwrap() {
            return Err(Failure::configuration("HOLDER_KEY_UNUSABLE", "/etc/keys/holder: no such file"));
        }
        Ok(Credentials::private_key(MARK.into()))
    }
}

fn pool(name: &str, on: &[&str]) -> PoolConfig {
    PoolConfig {
        name: Arc::from(name),
        adapter: Arc::from("fake"),
        labels: Labels::new(),
        enabled: true,
        disabled_reason: None,
        on: on.iter().map(|name| Arc::from(*name)).collect(),
        inventory: None,
        min_ready: 0,
        max: 4,
        max_per_parent: None,
        slots: 1,
        idle: None,
        max_age: None,
        max_uses: None,
        traits: Traits { prepares: true, cleans: true, repairs: false, probes: false },
        doubt: DoubtPolicy::default(),
        default_ttl: Millis::secs(60),
        max_ttl: Millis::secs(3600),
        attempts: 5,
        brake: Brake::default(),
        domain: None,
        drain: None,
        max_hold: Millis::ZERO,
        isolation: Isolation::None,
        reuse_across_tenants: true,
        timeouts: Timeouts::default(),
    }
}

/// A server, to be called by two principals.
struct Server {
    address: String,
    _stop: tokio_util::sync::DropGuard,
}

const OWNER: bool = true;
const OTHER: bool = false;

impl Server {
    async fn start(handle: Handle, sources: &CredentialSources) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let sources = AnswerSources { credentials: sources.clone(), ..AnswerSources::default() };
        tokio::spawn(rpc::serve(listener, handle, RpcLimits::default(), sources, stop.clone()));
        Self { address, _stop: stop.drop_guard() }
    }

    async fn calls(&self) -> LeaseServiceClient<Channel> {
        LeaseServiceClient::connect(self.address.clone()).await.unwrap()
    }

    async fn get(&self, owner: bool, id: &str) -> pb::Lease {
        self.get_since(owner, id, 0).await
    }

    /// Not older than this revision: a server that follows waits for it.
    async fn get_since(&self, owner: bool, id: &str, min_revision: u64) -> pb::Lease {
        let request = pb::GetRequest { lease_id: id.into(), min_revision };
        self.calls().await.get(from(owner, request)).await.unwrap().into_inner().lease.unwrap()
    }

    /// The first lease that this watch sends.
    async fn watched(&self, owner: bool, request: pb::WatchRequest, id: &str) -> pb::Lease {
        let mut stream = self.calls().await.watch(from(owner, request)).await.unwrap().into_inner();
        loop {
            let message = stream.message().await.unwrap().expect("the watch goes on");
            assert!(!format!("{message:?}").contains(MARK), "Debug of a message prints no secret");
            match message.event {
                Some(watch_response::Event::Lease(lease)) if lease.id == id => return lease,
                Some(_) | None => {}
            }
        }
    }
}

/// A call of the lease's own principal, or of another one.
fn from<T>(owner: bool, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if owner == OTHER {
        // A call that is passed on without a proof has no name.
        request.metadata_mut().insert("wharfinger-passed", "1".parse().unwrap());
        request.metadata_mut().insert("wharfinger-caller", "anonymous".parse().unwrap());
    }
    request
}

fn key(lease: &pb::Lease) -> Option<&str> {
    assert!(!format!("{lease:?}").contains(MARK), "Debug of a lease prints no secret");
    assert!(!lease.access_pairs().contains_key(access::PRIVATE_KEY), "a key is a credential");
    lease.private_key()
}

fn wanted(id: &str, pool: &str) -> pb::LeaseRequest {
    pb::LeaseRequest {
        request_id: id.into(),
        holder: "ann".into(),
        selector: Some(pb::Selector { pool: pool.into(), ..pb::Selector::default() }),
        wait: Duration::from_secs(60).try_into().ok(),
        ..pb::LeaseRequest::default()
    }
}

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

fn clean(what: &str, bytes: &[u8]) {
    assert!(!bytes.is_empty(), "{what} holds something");
    assert!(!bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes()), "{what} holds the secret");
}

/// Each file of the database: the data, the log, the index of the log.
fn clean_files(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        if !bytes.is_empty() {
            clean(&path.display().to_string(), &bytes);
        }
    }
}

struct World {
    folder: tempfile::TempDir,
    store: SqliteStore,
    handle: Handle,
    sources: CredentialSources,
    file: KeyFile,
    leader: Server,
    follower: Server,
    _follows: engine::Follower,
    _engine: tokio_util::sync::DropGuard,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("w.db")).await.unwrap();
    let traits = Traits { prepares: true, cleans: true, repairs: false, probes: false };
    let (adapters, pools) = (Adapters::default(), vec![pool("hosts", &[]), pool("copies", &["hosts"])]);
    for pool in &pools {
        adapters.insert(pool.name.to_string(), Arc::new(Leaky(Fake::new(&*pool.name, traits))));
    }
    let stop = CancellationToken::new();
    let config = EngineConfig {
        store: Arc::new(store.clone()),
        configuration: pools.clone().into(),
        limits: Limits::default(),
        adapters,
        effects: EffectLimits::default(),
        observed: Observed::default(),
    };
    let engine = engine::start(config, stop.clone()).await.unwrap();
    let (sources, file) = (CredentialSources::default(), KeyFile::default());
    sources.set("hosts", PoolCredentials::Source(Arc::new(file.clone())));
    sources.set("copies", PoolCredentials::OfHost);
    let max_age = Duration::from_secs(60);
    let follows = engine::follow(FollowConfig {
        store: Arc::new(store.clone()),
        configuration: pools.into(),
        limits: Limits::default(),
        max_age,
    });
    follows.begin();
    follows.handle.refresh().await.unwrap();
    let leader = Server::start(engine.handle.clone(), &sources).await;
    let follower = Server::start(follows.handle.clone(), &sources).await;
    let handle = engine.handle.clone();
    World { folder, store, handle, sources, file, leader, follower, _follows: follows, _engine: stop.drop_guard() }
}

#[tokio::test]
async fn a_secret_is_in_the_answers_to_its_owner_and_nowhere_else() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let world = world().await;
    let (leader, follower) = (&world.leader, &world.follower);
    let mut calls = leader.calls().await;
    let mut admin = AdminServiceClient::connect(leader.address.clone()).await.unwrap();

    // A host, and a copy, whose credentials are those of its host.
    for (request, pool) in [("a", "hosts"), ("b", "copies")] {
        let lease = calls.lease(from(OWNER, wanted(request, pool))).await.unwrap().into_inner().lease.unwrap();
        assert_eq!((lease.state(), key(&lease)), (pb::LeaseState::Active, Some(MARK)), "{lease:?}");
        let id = &lease.id;
        let named = pb::WatchRequest { lease_ids: vec![id.clone()], ..pb::WatchRequest::default() };
        let unnamed = [
            pb::WatchRequest::default(),
            pb::WatchRequest { holders: vec!["ann".into()], ..pb::WatchRequest::default() },
            pb::WatchRequest { pools: vec![pool.into()], ..pb::WatchRequest::default() },
            pb::WatchRequest { from_revision: 1, ..pb::WatchRequest::default() },
        ];
        for server in [leader, follower] {
            assert_eq!(key(&server.get_since(OWNER, id, lease.revision).await), Some(MARK));
            assert_eq!(key(&server.get(OTHER, id).await), None);
            assert_eq!(key(&server.watched(OWNER, named.clone(), id).await), Some(MARK));
            assert_eq!(key(&server.watched(OTHER, named.clone(), id).await), None);
            for request in &unnamed {
                for owner in [OWNER, OTHER] {
                    assert_eq!(key(&server.watched(owner, request.clone(), id).await), None, "{request:?}");
                }
            }
        }
        // A change, not the state: it follows a renewal.
        let resumed = pb::WatchRequest { from_revision: lease.revision, ..named.clone() };
        let renew = || pb::RenewRequest { lease_id: id.clone(), ..Default::default() };
        let renewed = calls.renew(from(OWNER, renew())).await.unwrap().into_inner().lease.unwrap();
        assert_eq!(key(&renewed), Some(MARK));
        assert_eq!(key(&leader.watched(OWNER, resumed.clone(), id).await), Some(MARK));
        assert_eq!(key(&leader.watched(OTHER, resumed, id).await), None);
        if let Ok(answer) = calls.renew(from(OTHER, renew())).await {
            assert_eq!(key(&answer.into_inner().lease.unwrap()), None);
        }

        // All other answers, in every form in which they could be printed or sent.
        let mut others = String::new();
        let list = calls.list(from(OWNER, pb::ListRequest::default())).await.unwrap().into_inner();
        assert!(
            list.leases.iter().any(|lease| lease.id == *id) && list.leases.iter().all(|lease| key(lease).is_none())
        );
        let explain = pb::ExplainRequest { lease_id: id.clone(), ..pb::ExplainRequest::default() };
        let explained = calls.explain(from(OWNER, explain)).await.unwrap().into_inner();
        assert_eq!(key(explained.lease.as_ref().unwrap()), None);
        let timeline = pb::TimelineRequest { lease_id: id.clone(), ..pb::TimelineRequest::default() };
        write!(others, "{:?}", calls.timeline(from(OWNER, timeline)).await.unwrap().into_inner()).unwrap();
        let events = pb::EventsRequest { lease_id: id.clone(), page_size: 100, ..pb::EventsRequest::default() };
        write!(others, "{:?}", admin.events(from(OWNER, events)).await.unwrap().into_inner()).unwrap();
        let resource =
            pb::GetResourceRequest { resource_id: lease.resource_id.clone(), ..pb::GetResourceRequest::default() };
        let resource = admin.get_resource(from(OWNER, resource)).await.unwrap().into_inner();
        write!(others, "{resource:?}").unwrap();
        let all = admin.list_resources(from(OWNER, pb::ListResourcesRequest::default())).await.unwrap().into_inner();
        write!(others, "{all:?} {explained:?} {list:?}").unwrap();
        clean("an answer", others.as_bytes());
        let report = pb::ReportRequest { lease_id: id.clone(), ..pb::ReportRequest::default() };
        let reported = calls.report(from(OWNER, report)).await.unwrap().into_inner().lease.unwrap();
        assert_eq!(key(&reported), None);
        // The same request again is the same lease, to its owner alone.
        match calls.lease(from(OTHER, wanted(request, pool))).await {
            Ok(answer) => {
                let other = answer.into_inner().lease.unwrap();
                assert!(other.id != *id || key(&other).is_none());
            }
            Err(status) => assert_ne!(status.code(), Code::Unknown, "{status}"),
        }
    }

    // The rows of the core, of the store, and of followers.
    let held = world.handle.read(|core, _| format!("{:?}", core.leases(None).collect::<Vec<_>>())).await.unwrap();
    clean("the core", held.as_bytes());
    clean_files(world.folder.path());
    let feed = world.store.changes_since(Revision(0), 1000).await.unwrap();
    clean("the feed", format!("{:?} {:?}", feed.leases, feed.resources).as_bytes());
    let mut dumped = Vec::new();
    dump(&world.store, &mut dumped).await.unwrap();
    clean("a dump", &dumped);

    // An end: the message carries the lease without credentials.
    for lease in calls.list(pb::ListRequest::default()).await.unwrap().into_inner().leases {
        let release =
            pb::ReleaseRequest { lease_id: lease.id.clone(), outcome: pb::Outcome::Ok.into(), ..Default::default() };
        if let Ok(answer) = calls.release(from(OWNER, release)).await {
            assert_eq!(key(&answer.into_inner().lease.unwrap()), None);
            assert_eq!(key(&leader.get(OWNER, &lease.id).await), None);
        }
    }
    clean_files(world.folder.path());
    clean("the log", &log.0.lock().unwrap());
}

#[tokio::test]
async fn a_key_file_that_is_gone_leaves_the_lease_valid_and_the_answer_says_why_it_has_no_key() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let world = world().await;
    let mut calls = world.leader.calls().await;
    *world.file.gone.lock().unwrap() = true;
    let lease = calls.lease(wanted("a", "copies")).await.unwrap().into_inner().lease.unwrap();
    assert_eq!(lease.state(), pb::LeaseState::Active);
    for server in [&world.leader, &world.follower] {
        let lease = server.get_since(OWNER, &lease.id, lease.revision).await;
        let missing = lease.missing_credentials.as_ref().expect("a reason");
        assert_eq!((key(&lease), missing.reason.as_str()), (None, "HOLDER_KEY_UNUSABLE"));
        assert!(missing.detail.contains("pool hosts") && !missing.detail.contains("/etc"), "{missing:?}");
        assert_eq!(server.get(OTHER, &lease.id).await.missing_credentials, None);
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("/etc/keys/holder").count(), 1, "a failure is logged once: {text}");

    // The file is back: the same lease has its key at the next answer.
    *world.file.gone.lock().unwrap() = false;
    let again = world.leader.get(OWNER, &lease.id).await;
    assert_eq!((key(&again), &again.missing_credentials), (Some(MARK), &None));
    // A reload that takes the key away counts at once.
    world.sources.set("hosts", PoolCredentials::None);
    let without = world.leader.get(OWNER, &lease.id).await;
    assert_eq!((key(&without), &without.missing_credentials), (None, &None));
}
