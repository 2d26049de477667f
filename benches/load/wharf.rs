//! Wharfinger itself: engine, store, gRPC, over a fake pool whose leases need no preparation.

use crate::meter::{Figure, Plan, connect, measure};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use wharfinger::engine::{self, Adapters, EffectLimits, EngineConfig, Observed};
use wharfinger::pb::lease_service_client::LeaseServiceClient;
use wharfinger::pb::{LeaseRequest, LeaseState, Outcome, ReleaseRequest, Selector};
use wharfinger::rpc::{self, RpcLimits};
use wharfinger::store::{SqliteStore, Store};
use wharfinger_adapter::Traits;
use wharfinger_core::{DoubtPolicy, Isolation, Labels, Limits, Millis, PoolConfig, Timeouts};
use wharfinger_fake::Fake;
use wharfinger_tls::ServerTls;

static REQUESTS: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Wharf {
    address: String,
    handle: engine::Handle,
    stop: CancellationToken,
    _stop: tokio_util::sync::DropGuard,
}

impl Wharf {
    pub(crate) async fn start(database: &Path) -> Self {
        Self::with(database, 1).await
    }

    /// With this number of resources.
    pub(crate) async fn with(database: &Path, resources: u32) -> Self {
        Self::over(Arc::new(SqliteStore::open(database).await.expect("a fresh database")), resources).await
    }

    /// On any store.
    pub(crate) async fn over(store: Arc<dyn Store>, resources: u32) -> Self {
        let traits = Traits { prepares: false, cleans: false, repairs: false, probes: false };
        let adapters = Adapters::default();
        adapters.insert("bench", Arc::new(Fake::new("bench", traits)));
        let stop = CancellationToken::new();
        let config = EngineConfig {
            store,
            configuration: vec![pool(resources)].into(),
            limits: Limits::default(),
            adapters,
            effects: EffectLimits::default(),
            observed: Observed::default(),
        };
        let engine = engine::start(config, stop.clone()).await.expect("the engine starts");
        let mut wharf =
            Self { address: String::new(), handle: engine.handle, stop: stop.clone(), _stop: stop.drop_guard() };
        wharf.address = format!("http://{}", wharf.another_port(None, rpc::AnswerSources::default()).await);
        let mut client = LeaseServiceClient::connect(wharf.address.clone()).await.expect("the server listens");
        lease(&mut client, true).await;
        wharf
    }

    /// Serves the same engine on another port, and returns its address.
    pub(crate) async fn another_port(&self, tls: Option<Arc<ServerTls>>, sources: rpc::AnswerSources) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let port = match tls {
            Some(tls) => rpc::Port::with_tls(listener, tls),
            None => rpc::Port::from(listener),
        };
        tokio::spawn(rpc::serve(port, self.handle.clone(), RpcLimits::default(), sources, self.stop.clone()));
        address
    }

    /// The address of the port without TLS.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) async fn lease(&self, plan: Plan) -> Figure {
        let clients = self.clients(plan).await;
        measure(plan, clients, |mut client| async move {
            lease(&mut client, false).await;
        })
        .await
    }

    pub(crate) async fn cycle(&self, plan: Plan) -> Figure {
        let clients = self.clients(plan).await;
        measure(plan, clients, |mut client| async move {
            let lease_id = lease(&mut client, false).await;
            client
                .release(ReleaseRequest { lease_id, outcome: Outcome::Ok.into(), ..ReleaseRequest::default() })
                .await
                .expect("it is released");
        })
        .await
    }

    async fn clients(&self, plan: Plan) -> Vec<LeaseServiceClient<Channel>> {
        connect(&self.address, plan.connections).await.into_iter().map(LeaseServiceClient::new).collect()
    }
}

/// The request of one lease.
pub(crate) fn wanted(wait: bool) -> LeaseRequest {
    LeaseRequest {
        request_id: format!("bench-{}", REQUESTS.fetch_add(1, Ordering::Relaxed)),
        holder: "bench".into(),
        selector: Some(Selector { pool: "bench".into(), ..Selector::default() }),
        wait: wait.then_some(prost_types::Duration { seconds: 10, nanos: 0 }),
        ..LeaseRequest::default()
    }
}

/// One durable lease.
async fn lease(client: &mut LeaseServiceClient<Channel>, wait: bool) -> String {
    let lease = client.lease(wanted(wait)).await.expect("a lease").into_inner().lease.expect("the answer has a lease");
    assert_eq!(lease.state(), LeaseState::Active, "each lease is granted at once");
    lease.id
}

/// A pool of this number of resources, with room for all.
pub(crate) fn pool(resources: u32) -> PoolConfig {
    PoolConfig {
        name: Arc::from("bench"),
        adapter: Arc::from("fake"),
        labels: Labels::new(),
        enabled: true,
        disabled_reason: None,
        on: Vec::new(),
        inventory: None,
        min_ready: resources,
        max: resources,
        max_per_parent: None,
        slots: 10_000_000 / resources,
        idle: None,
        max_age: None,
        max_uses: None,
        traits: Traits { prepares: false, cleans: false, repairs: false, probes: false },
        doubt: DoubtPolicy::default(),
        default_ttl: Millis::secs(3600),
        max_ttl: Millis::secs(3600),
        attempts: 5,
        brake: wharfinger_core::Brake::default(),
        domain: None,
        drain: None,
        max_hold: Millis::ZERO,
        isolation: Isolation::None,
        reuse_across_tenants: true,
        timeouts: Timeouts::default(),
    }
}
