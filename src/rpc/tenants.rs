//! Tests with several tenants: one table of all methods, callers and servers, and a world in which each tenant's words are
//! marked.
//!
//! The callers are bearers of tokens that the tests make and give to [`crate::auth::Trust::tokens`]. There is no other way to
//! name a caller, in a test or elsewhere (ADR 37).

#[cfg(feature = "cli")]
mod canary;
mod forwarded;
mod frames;
mod golden;
mod listing;
mod rules;
mod work;

use crate::auth::{self, BuiltIn, NewToken, Role, Roles, Rule, RuleScope, StaticToken, Trust, Verbs};
use crate::engine::{self, Adapters, EffectLimits, EngineConfig, Follower, Handle, Observed};
use crate::pb::admin_service_client::AdminServiceClient;
use crate::pb::lease_service_client::LeaseServiceClient;
use crate::pb::trust_service_client::TrustServiceClient;
use crate::rpc::testing::{TestServer, leading_with, pool_config, serving_for};
use crate::rpc::{AnswerSources, CredentialSources, PoolCredentials, RpcLimits};
use crate::store::SqliteStore;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_types::StatusExt;
use wharfinger_adapter::{CredentialSource, Credentials, Failure};
use wharfinger_core::{Limits, PoolConfig, Pools, Traits};
use wharfinger_fake::Fake;

/// The key with which followers seal calls for the leader.
const KEY: &str = "the key of this lead";
/// The private key that holders of the pool get.
const SECRET: &str = "MARKED-SECRET-KEY";

/// A caller: a tenant, the id of its token, its roles.
#[derive(Clone, Copy, Debug)]
struct Who {
    tenant: &'static str,
    id: &'static str,
    roles: &'static [BuiltIn],
    /// The rule of a role of its own: verbs, pools, scope.
    rule: Option<(&'static [&'static str], &'static [&'static str], RuleScope)>,
}

impl Who {
    const fn new(tenant: &'static str, id: &'static str, roles: &'static [BuiltIn]) -> Self {
        Self { tenant, id, roles, rule: None }
    }

    fn given(&self) -> Roles {
        let own = self.rule.map(|(verbs, pools, scope)| {
            let verbs = verbs.iter().map(|verb| Verbs::parse(verb).unwrap()).fold(Verbs::default(), Verbs::and);
            let pools = Pools::matching(pools.iter().copied());
            let rules = vec![Rule { verbs, pools, scope, limits: auth::Limits::default() }];
            Arc::new(Role { name: self.id.into(), rules })
        });
        Roles::of(self.roles).and(&own.into_iter().collect())
    }
}

/// A bearer of a token.
#[derive(Clone)]
struct Bearer(Option<MetadataValue<tonic::metadata::Ascii>>);

impl Bearer {
    /// A call by this caller.
    fn call<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        request
    }
}

/// Hands out the same key each time.
struct OneKey;

#[async_trait]
impl CredentialSource for OneKey {
    async fn read(&self) -> Result<Credentials, Failure> {
        Ok(Credentials::private_key(SECRET.into()))
    }
}

/// A server, with the clients for it.
struct Server {
    lease: LeaseServiceClient<Channel>,
    admin: AdminServiceClient<Channel>,
    trust: TrustServiceClient<Channel>,
    server: TestServer,
}

impl Server {
    async fn over(server: TestServer) -> Self {
        let address = format!("http://{}", server.address);
        let lease = LeaseServiceClient::connect(address.clone()).await.unwrap();
        let admin = AdminServiceClient::connect(address.clone()).await.unwrap();
        let trust = TrustServiceClient::connect(address).await.unwrap();
        Self { lease, admin, trust, server }
    }
}

/// A leader and a follower over one database, which know the same callers.
struct World {
    folder: tempfile::TempDir,
    store: SqliteStore,
    handle: Handle,
    fake: Fake,
    leader: Server,
    follower: Server,
    follows: Follower,
    /// The tokens' texts.
    tokens: Vec<String>,
    /// The callers that both servers know, and as they knew them at first.
    trust: Trust,
    known: Vec<StaticToken>,
    _engine: DropGuard,
}

const TRAITS: Traits = Traits { prepares: true, cleans: false, repairs: false, probes: false };

/// A world with a pool `p` with at most this number of resources and slots, and the bearer of each of these callers.
async fn world(max: u32, slots: u32, callers: &[Who]) -> (World, Vec<Bearer>) {
    let known = callers.iter().map(|who| (who.tenant, who.id, who.given())).collect();
    world_of(vec![pool_config(max, slots, TRAITS)], known).await
}

/// The same with these pools, and callers by tenant, id and roles.
async fn world_of(pools: Vec<PoolConfig>, callers: Vec<(&str, &str, Roles)>) -> (World, Vec<Bearer>) {
    let (mut known, mut bearers, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    for (tenant, id, roles) in callers {
        let new = NewToken::make(id).unwrap();
        let sha256 = vec![new.sha256];
        known.push(StaticToken { id: id.into(), sha256, tenant: tenant.into(), roles, expires: None });
        bearers.push(Bearer(Some(format!("Bearer {}", new.text).parse().unwrap())));
        tokens.push(new.text);
    }
    let trust = Trust::tokens(known.clone()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("w.db")).await.unwrap();
    let (adapters, stop) = (Adapters::default(), CancellationToken::new());
    let fake = Fake::new(&*pools[0].name, TRAITS);
    adapters.insert(&*pools[0].name, Arc::new(fake.clone()));
    for pool in &pools[1..] {
        adapters.insert(&*pool.name, Arc::new(Fake::new(&*pool.name, TRAITS)));
    }
    let config = EngineConfig {
        store: Arc::new(store.clone()),
        configuration: pools.clone().into(),
        limits: Limits::default(),
        adapters,
        effects: EffectLimits::default(),
        observed: Observed::default(),
    };
    let engine = engine::start(config, stop.clone()).await.unwrap();
    engine.handle.leadership().lead(KEY);
    let credentials = CredentialSources::default();
    credentials.set("p", PoolCredentials::Source(Arc::new(OneKey)));
    let sources = AnswerSources { credentials, trust: trust.clone(), ..AnswerSources::default() };
    let leader = serving_for(RpcLimits::default(), engine.handle.clone(), sources.clone()).await;
    let max_age = Duration::from_secs(60);
    let follows = engine::follow(engine::FollowConfig {
        store: Arc::new(store.clone()),
        configuration: pools.into(),
        limits: Limits::default(),
        max_age,
    });
    follows.begin();
    follows.handle.refresh().await.unwrap();
    follows.handle.leadership().follow(leading_with(&leader, KEY));
    let follower = serving_for(RpcLimits::default(), follows.handle.clone(), sources).await;
    let world = World {
        folder,
        store,
        handle: engine.handle,
        fake,
        leader: Server::over(leader).await,
        follower: Server::over(follower).await,
        follows,
        tokens,
        trust,
        known,
        _engine: stop.drop_guard(),
    };
    (world, bearers)
}

/// `OK`, or the code and the reason of a refusal.
fn outcome<T>(result: Result<T, Status>) -> String {
    match result {
        Ok(_) => "OK".to_owned(),
        Err(status) => {
            let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
            format!("{:?} {reason}", status.code())
        }
    }
}
