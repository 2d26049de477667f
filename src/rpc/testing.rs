//! For the tests of this layer: sample leases, and an engine with set answers.

use crate::client::{Client, ClientOptions};
use crate::engine::{self, Adapters, EffectLimits, EngineConfig, Handle, Message, Observed, SubmitError, WatchHub};
use crate::rpc::{AnswerSources, CredentialSources, PoolCredentials, RpcLimits, ServeError, serve};
use crate::store::{Changes, CommitError, Epoch, EventQuery, MemoryStore, Store, StoreError, StoredEvent};
use async_trait::async_trait;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use wharfinger_core::{
    Assignment, Batch, Brake, DoubtPolicy, Ended, Input, Isolation, Labels, Lease, LeaseId, LeaseSpec, LeaseState,
    Limits, Millis, Outcome, PoolConfig, Reply, ResourceId, Revision, Selector, Snapshot, Timeouts, Timestamp, Traits,
};
use wharfinger_fake::Fake;

/// A lease in line for pool `p`, of holder `h`.
pub(crate) fn queued(id: u128, revision: u64) -> Lease {
    let spec = LeaseSpec {
        principal: "local".into(),
        holder: "h".into(),
        ..LeaseSpec::new("r", "default".into(), Arc::new(Selector::pool("p")), Millis(60_500))
    };
    Lease { revision: Revision(revision), ..Lease::queued(LeaseId::new(id), spec, Timestamp(1_500), revision) }
}

/// One that has a slot, with a secret.
pub(crate) fn active(id: u128, revision: u64) -> Lease {
    let access = [("address", "10.0.0.1"), ("private_key", "secret")];
    let access = access.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    Lease {
        state: LeaseState::Active {
            assignment: Assignment { resource: ResourceId::new(9), slot: 3, token: revision },
            since: Timestamp(2_000),
            access: Arc::new(access),
        },
        pool: Some("p".into()),
        expires_at: Some(Timestamp(62_500)),
        ..queued(id, revision)
    }
}

/// One that its holder ended.
pub(crate) fn released(id: u128, revision: u64) -> Lease {
    ended(id, revision, Ended::Released { outcome: Outcome::Failed, note: "exit 1".into(), finding: None })
}

/// One that has ended so.
pub(crate) fn ended(id: u128, revision: u64, how: Ended) -> Lease {
    Lease { state: LeaseState::Ended { how, at: Timestamp(3_000), cleanup: None }, ..active(id, revision) }
}

/// A server on a port of its own, with an engine that answers inputs by a script and leaves questions open.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) served: JoinHandle<Result<(), ServeError>>,
}

pub(crate) type Script = fn(Input) -> Result<Reply, SubmitError>;

pub(crate) async fn start(limits: RpcLimits, script: Script) -> TestServer {
    let (mailbox, mut messages) = mpsc::channel(64);
    let handle = Handle::new(mailbox, WatchHub::new(Revision(0)), Arc::new(NoStore));
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Some(message) = messages.recv().await {
            match message {
                Message::Input(input, Some(answer)) => drop(answer.send(script(*input))),
                Message::Input(_, None) | Message::Fact(..) => {}
                Message::Read(read) => open.push(read),
                Message::Configure(new) => drop(new.done.send(Ok(()))),
                Message::Refresh(asked) => drop(asked.send(Ok(()))),
            }
        }
    });
    serving(limits, handle).await
}

pub(crate) async fn serving(limits: RpcLimits, handle: Handle) -> TestServer {
    serving_with(limits, handle, &CredentialSources::default()).await
}

async fn serving_with(limits: RpcLimits, handle: Handle, credentials: &CredentialSources) -> TestServer {
    serving_for(limits, handle, AnswerSources { credentials: credentials.clone(), ..AnswerSources::default() }).await
}

pub(crate) async fn serving_for(limits: RpcLimits, handle: Handle, sources: AnswerSources) -> TestServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(serve(listener, handle, limits, sources, shutdown.clone()));
    TestServer { address, shutdown, served }
}

/// Says yes to each lease request and no to everything else.
pub(crate) fn grant(input: Input) -> Result<Reply, SubmitError> {
    match input {
        Input::Lease(request) => {
            let mut lease = active(1, 1);
            Arc::make_mut(&mut lease.spec).holder = request.holder;
            let spec = Arc::make_mut(&mut lease.spec);
            (spec.tenant, spec.principal) = (request.caller.tenant, request.caller.principal);
            Ok(Reply::Leases(vec![Arc::new(lease)]))
        }
        _ => Err(SubmitError::Unavailable("not in this test".into())),
    }
}

/// The whole broker: a pool `p` of a fake adapter over a store in memory.
pub(crate) struct Broker {
    pub(crate) server: TestServer,
    pub(crate) fake: Fake,
    pub(crate) store: MemoryStore,
    pub(crate) handle: Handle,
    pub(crate) credentials: CredentialSources,
    _engine: DropGuard,
}

/// A broker with this number of resources and of slots on each.
pub(crate) async fn broker(max: u32, slots: u32) -> Broker {
    const ALL: Traits = Traits { prepares: true, cleans: false, repairs: false, probes: false };
    let fake = Fake::new("p", ALL);
    let (store, adapters, stop) = (MemoryStore::new(), Adapters::default(), CancellationToken::new());
    adapters.insert("p", Arc::new(fake.clone()));
    let pool = pool_config(max, slots, ALL);
    let config = EngineConfig {
        store: Arc::new(store.clone()),
        configuration: vec![pool].into(),
        limits: Limits::default(),
        adapters,
        effects: EffectLimits::default(),
        observed: Observed::default(),
    };
    let engine = engine::start(config, stop.clone()).await.unwrap();
    let credentials = CredentialSources::default();
    credentials.set("p", PoolCredentials::None);
    let server = serving_with(RpcLimits::default(), engine.handle.clone(), &credentials).await;
    Broker { server, fake, store, handle: engine.handle, credentials, _engine: stop.drop_guard() }
}

/// A pool `p` of this number of resources and of slots on each.
pub(crate) fn pool_config(max: u32, slots: u32, traits: Traits) -> PoolConfig {
    PoolConfig {
        name: "p".into(),
        adapter: "fake".into(),
        labels: Labels::new(),
        enabled: true,
        disabled_reason: None,
        on: Vec::new(),
        inventory: None,
        min_ready: 0,
        max,
        max_per_parent: None,
        slots,
        idle: None,
        max_age: None,
        max_uses: None,
        traits,
        doubt: DoubtPolicy::default(),
        default_ttl: Millis::secs(60),
        max_ttl: Millis::secs(3600),
        attempts: 5,
        brake: Brake::default(),
        domain: None,
        drain: None,
        max_hold: Millis::secs(86_400),
        isolation: Isolation::None,
        reuse_across_tenants: true,
        timeouts: Timeouts::default(),
    }
}

impl Broker {
    pub(crate) async fn client(&self) -> Client {
        Client::connect_with(&self.server.address.to_string(), ClientOptions::default()).await.unwrap()
    }
}

/// A server that follows this broker.
pub(crate) async fn follower(broker: &Broker, limits: RpcLimits) -> (TestServer, engine::Follower) {
    let config = engine::FollowConfig {
        store: Arc::new(broker.store.clone()),
        configuration: vec![pool_config(1, 1, Traits { prepares: true, cleans: false, repairs: false, probes: false })]
            .into(),
        limits: Limits::default(),
        max_age: std::time::Duration::from_secs(10),
    };
    let follower = engine::follow(config);
    follower.begin();
    follower.handle.refresh().await.unwrap();
    let server = serving_with(limits, follower.handle.clone(), &broker.credentials).await;
    (server, follower)
}

/// Where a test's server is, to those who follow.
pub(crate) fn leading(server: &TestServer) -> Option<engine::LeaderInfo> {
    leading_with(server, "")
}

/// The same, with the key of its lead.
pub(crate) fn leading_with(server: &TestServer, key: &str) -> Option<engine::LeaderInfo> {
    Some(engine::LeaderInfo { address: format!("http://{}", server.address).into(), forwarding_key: key.into() })
}

struct NoStore;

#[async_trait]
impl Store for NoStore {
    async fn acquire(&self) -> Result<Epoch, StoreError> {
        Err(unavailable())
    }
    async fn load(&self) -> Result<Snapshot, StoreError> {
        Err(unavailable())
    }
    async fn commit(&self, _batch: &Batch, _epoch: Epoch) -> Result<(), CommitError> {
        Err(CommitError::NotCommitted(unavailable()))
    }
    async fn changes_since(&self, _after: Revision, _limit: usize) -> Result<Changes, StoreError> {
        Err(unavailable())
    }
    async fn events(&self, _query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError> {
        Err(unavailable())
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("there is no store in this test".into())
}
