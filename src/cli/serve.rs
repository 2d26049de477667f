//! `serve`: the broker. The only place that makes adapters, and that knows all parts by name.

use super::check_config::load;
use super::error::Failure;
use super::exit::Exit;
#[cfg(feature = "postgres")]
use super::follow::{Led, Member, Waited};
use super::port::{Serving, bind};
use super::ui::Ui;
use crate::config::{AdapterConfig, Loaded, StoreConfig};
#[cfg(feature = "postgres")]
use crate::engine::Follower;
use crate::engine::{Adapters, EffectLimits, Ended, Engine, EngineConfig, Handle};
use crate::rpc::{AnswerSources, CredentialSources, PoolCredentials, RpcLimits};
use crate::store::{SqliteStore, Store, StoreError, trim_trail};
use crate::telemetry::{self, Format};
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wharfinger_adapter::{Adapter, NoticeSink};
use wharfinger_copies::CopiesAdapter;
use wharfinger_core::{PoolConfig, Traits};
use wharfinger_local::LocalAdapter;
use wharfinger_ssh::{HolderKey, Settings, SshAdapter};

/// `serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The configuration
    #[arg(long, short, value_name = "FILE", env = "WHARFINGER_CONFIG", default_value = "wharfinger.toml")]
    pub(crate) config: PathBuf,
    /// How events are written to standard error; WHARFINGER_LOG chooses which
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    log_format: Format,
}

/// Serves until it is asked to stop.
pub(crate) async fn serve(ui: &Ui, args: &ServeArgs) -> Result<Exit, Failure> {
    let loaded = load(ui, &args.config)?;
    telemetry::init(args.log_format, ui.color_err).map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
    let mut signals = Signals::listen()?;
    // Before the store: a second server on the same port says so before it touches anything.
    let listener = bind(loaded.server.listen).await?;
    let shared = Shared::new();
    let mut running = match loaded.cluster.clone() {
        None => Running::start(loaded, shared, Start::Alone(listener)).await?,
        #[cfg(feature = "postgres")]
        Some(cluster) => {
            // A server that follows answers holders, too.
            set_credentials(&shared.credentials, &loaded.adapters);
            match super::follow::wait(ui, args, loaded, &cluster, listener, shared.sources(), &mut signals).await? {
                Waited::Stopped => return Ok(Exit::Ok),
                Waited::Again => return Ok(Exit::Again),
                Waited::Leads(led) => {
                    let Led { member, loaded, follower, serving } = *led;
                    match Running::start(loaded, shared, Start::Led(member, follower, serving)).await {
                        Ok(running) => running,
                        Err(failure) if failure.exit == Exit::Again => return Ok(Exit::Again),
                        Err(failure) => return Err(failure),
                    }
                }
            }
        }
        #[cfg(not(feature = "postgres"))]
        Some(_) => return Err(Failure::new(Exit::Config, "this wharfinger was built without PostgreSQL")),
    };
    loop {
        let name = tokio::select! {
            told = signals.next() => match told {
                Told::Stop(name) => name,
                Told::Reload => {
                    running.reload(ui, args).await;
                    continue;
                }
            },
            ended = running.failed() => return ended,
        };
        tracing::info!(signal = name, "stopping");
        // Someone who says it twice does not want to wait.
        tokio::select! {
            () = running.stop() => return Ok(Exit::Ok),
            () = signals.stop() => {}
        }
        tracing::warn!("stopped at once; what is durable is not touched by it");
        return Ok(Exit::Command(130));
    }
}

/// What a server is told from outside.
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(Exit::Internal, format!("signals can not be heard: {error}")))
        };
        Ok(Signals {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
            hup: listen(SignalKind::hangup())?,
        })
    }

    /// The next thing that is said.
    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.term.recv() => Told::Stop("SIGTERM"),
            _ = self.int.recv() => Told::Stop("SIGINT"),
            _ = self.hup.recv() => Told::Reload,
        }
    }

    pub(crate) async fn stop(&mut self) {
        while self.next().await == Told::Reload {}
    }
}

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Stop; the signal's name.
    Stop(&'static str),
    /// Read the configuration again.
    Reload,
}

/// An adapter, and what it was made from.
struct Made {
    config: AdapterConfig,
    adapter: MadeAdapter,
}

/// Adapters by kind, where a change of their settings is to be told to them.
#[derive(Clone)]
enum MadeAdapter {
    Ssh(Arc<SshAdapter>),
    #[cfg(feature = "ec2")]
    Ec2(Arc<wharfinger_ec2::Ec2Adapter>),
    Other(Arc<dyn Adapter>),
}

impl MadeAdapter {
    fn shared(&self) -> Arc<dyn Adapter> {
        match self {
            MadeAdapter::Ssh(adapter) => adapter.clone(),
            #[cfg(feature = "ec2")]
            MadeAdapter::Ec2(adapter) => adapter.clone(),
            MadeAdapter::Other(adapter) => adapter.clone(),
        }
    }
}

/// What adapters of one kind share in this process, and what answers are made from.
#[derive(Clone)]
struct Shared {
    credentials: CredentialSources,
    #[cfg(feature = "ec2")]
    accounts: wharfinger_ec2::Accounts,
}

impl Shared {
    fn new() -> Self {
        Self {
            credentials: CredentialSources::default(),
            #[cfg(feature = "ec2")]
            accounts: wharfinger_ec2::Accounts::aws(),
        }
    }

    fn sources(&self) -> AnswerSources {
        AnswerSources { weather: self.weather(), credentials: self.credentials.clone() }
    }

    /// How it went with what is bought.
    #[cfg(feature = "ec2")]
    fn weather(&self) -> crate::rpc::WeatherSource {
        let accounts = self.accounts.clone();
        Arc::new(move || super::books::weather(&accounts))
    }

    #[cfg(not(feature = "ec2"))]
    #[expect(clippy::unused_self, reason = "there is nothing to tell")]
    fn weather(&self) -> crate::rpc::WeatherSource {
        Arc::new(Vec::new)
    }
}

/// Makes the adapter of a pool.
#[cfg_attr(not(feature = "ec2"), expect(unused_variables, reason = "nothing is shared without it"))]
fn make(pool: &str, config: &AdapterConfig, shared: &Shared) -> Result<MadeAdapter, Failure> {
    let failure = |error: wharfinger_adapter::Failure| Failure::new(Exit::Config, format!("pool {pool:?}: {error}"));
    Ok(match config {
        AdapterConfig::Local(config) => MadeAdapter::Other(Arc::new(LocalAdapter::new(pool.into(), config.clone()))),
        AdapterConfig::Ssh(config) => {
            MadeAdapter::Ssh(Arc::new(SshAdapter::new(pool.into(), config.clone()).map_err(failure)?))
        }
        AdapterConfig::Copies(config) => {
            MadeAdapter::Other(Arc::new(CopiesAdapter::new(pool.into(), config.clone()).map_err(failure)?))
        }
        #[cfg(feature = "ec2")]
        AdapterConfig::Ec2(config) => {
            let config = (**config).clone();
            let adapter = wharfinger_ec2::Ec2Adapter::new(pool.into(), config, &shared.accounts).map_err(failure)?;
            MadeAdapter::Ec2(Arc::new(adapter))
        }
    })
}

/// Where the credentials of the leases of a pool come from.
fn credentials_of(config: &AdapterConfig) -> PoolCredentials {
    let of = |ssh: &wharfinger_ssh::Config| match HolderKey::of(ssh) {
        Some(key) => PoolCredentials::Source(Arc::new(key)),
        None => PoolCredentials::None,
    };
    match config {
        AdapterConfig::Local(_) => PoolCredentials::None,
        AdapterConfig::Ssh(config) => of(config),
        AdapterConfig::Copies(_) => PoolCredentials::OfHost,
        #[cfg(feature = "ec2")]
        AdapterConfig::Ec2(config) => of(&config.ssh),
    }
}

/// Sets the credential sources of all configured pools. Those of other pools stay as they are.
pub(super) fn set_credentials(sources: &CredentialSources, adapters: &BTreeMap<String, AdapterConfig>) {
    for (pool, config) in adapters {
        sources.set(pool.clone(), credentials_of(config));
    }
}

/// A running broker.
struct Running {
    loaded: Loaded,
    made: BTreeMap<String, Made>,
    shared: Shared,
    adapters: Adapters,
    notices: NoticeSink,
    handle: Handle,
    store: Arc<dyn Store>,
    engine: JoinHandle<Ended>,
    engine_stop: CancellationToken,
    serving: Serving,
    #[cfg(feature = "postgres")]
    member: Option<Member>,
}

/// What has begun.
struct Started {
    engine: Engine,
    serving: Serving,
    #[cfg(feature = "postgres")]
    member: Option<Member>,
}

/// How a broker comes to decide.
enum Start {
    /// It is the only one.
    Alone(TcpListener),
    /// It was elected among several, and has followed until now.
    #[cfg(feature = "postgres")]
    Led(Member, Follower, Serving),
}

impl Running {
    async fn start(mut loaded: Loaded, shared: Shared, start: Start) -> Result<Self, Failure> {
        let mut made = BTreeMap::new();
        let adapters = Adapters::default();
        for (pool, config) in &loaded.adapters {
            let adapter = make(pool, config, &shared)?;
            adapters.insert(pool.clone(), adapter.shared());
            made.insert(pool.clone(), Made { config: config.clone(), adapter });
        }
        take_traits(&mut loaded.pools, |pool| made.get(pool));
        set_credentials(&shared.credentials, &loaded.adapters);
        let store = match &start {
            Start::Alone(_) => open(&loaded.store).await?,
            #[cfg(feature = "postgres")]
            Start::Led(member, ..) => member.store(),
        };
        let engine_stop = CancellationToken::new();
        let config = EngineConfig {
            store: store.clone(),
            pools: loaded.pools.clone(),
            limits: loaded.limits.clone(),
            adapters: adapters.clone(),
            effects: EffectLimits::default(),
        };
        let started = match start {
            Start::Alone(listener) => {
                let started = crate::engine::start(config, engine_stop.clone()).await;
                let engine = started.map_err(|error| store_failure(&error))?;
                let limits = RpcLimits { stop_grace: loaded.server.stop_grace, ..RpcLimits::default() };
                let serving = Serving::start(listener, engine.handle.clone(), limits, shared.sources());
                Started {
                    engine,
                    serving,
                    #[cfg(feature = "postgres")]
                    member: None,
                }
            }
            #[cfg(feature = "postgres")]
            Start::Led(member, follower, mut serving) => {
                let lead = member.lead.clone();
                match crate::engine::take_over(follower, config, lead, engine_stop.clone()).await {
                    Ok(engine) => Started { engine, serving, member: Some(member) },
                    // Somebody else leads already, or nobody can: it follows again.
                    Err(error @ (StoreError::Deposed { .. } | StoreError::Unavailable(_))) => {
                        tracing::warn!(%error, "the lead is lost before anything was decided");
                        serving.stop_soon().await;
                        return Err(Failure::silent(Exit::Again));
                    }
                    Err(error) => return Err(store_failure(&error)),
                }
            }
        };
        let Engine { handle, notices, task: engine } = started.engine;
        for made in made.values() {
            attend(&made.adapter, &notices, &handle);
        }
        tokio::spawn(trim_trail(store.clone(), handle.clock().clone(), loaded.keep_events, engine_stop.clone()));
        tracing::info!(address = %loaded.server.listen, store = %loaded.store, pools = loaded.pools.len(), "serving");
        Ok(Self {
            loaded,
            made,
            shared,
            adapters,
            notices,
            handle,
            store,
            engine,
            engine_stop,
            serving: started.serving,
            #[cfg(feature = "postgres")]
            member: started.member,
        })
    }

    /// Reads the configuration again. A mistake in it changes nothing.
    async fn reload(&mut self, ui: &Ui, args: &ServeArgs) {
        let loaded = match crate::config::load(&args.config) {
            Ok(loaded) => loaded,
            Err(error) => {
                ui.err(&error.to_string());
                tracing::error!("the configuration is not read again: it has mistakes; the one before stays");
                return;
            }
        };
        match self.take(loaded).await {
            Ok(()) => tracing::info!(pools = self.loaded.pools.len(), "the configuration was read again"),
            Err(failure) => {
                tracing::error!("the configuration is not taken over: {}; the one before stays", failure.message);
            }
        }
    }

    /// Takes another configuration, all of it or nothing: what may be refused comes first, and adapters change only after
    /// the core's commit, before anything starts under the new configuration.
    async fn take(&mut self, mut loaded: Loaded) -> Result<(), Failure> {
        let mut fresh = Vec::new();
        let mut changed = Vec::new();
        for (pool, config) in &loaded.adapters {
            match (self.made.get(pool), config) {
                (Some(made), _) if made.config == *config => {}
                (Some(Made { adapter: MadeAdapter::Ssh(adapter), .. }), AdapterConfig::Ssh(settings)) => {
                    let settings = Settings::read(settings.clone())
                        .map_err(|error| Failure::new(Exit::Config, format!("pool {pool:?}: {error}")))?;
                    changed.push((pool.clone(), config.clone(), adapter.clone(), settings));
                }
                (Some(_) | None, _) => fresh.push((pool.clone(), config.clone(), make(pool, config, &self.shared)?)),
            }
        }
        let new: Vec<(String, MadeAdapter)> =
            fresh.iter().map(|(pool, _, adapter)| (pool.clone(), adapter.clone())).collect();
        let mut adopted = Vec::new();
        for (pool, config, adapter, settings) in changed {
            adopted.push((adapter.clone(), settings));
            fresh.push((pool, config, MadeAdapter::Ssh(adapter)));
        }
        let made: BTreeMap<String, Made> =
            fresh.into_iter().map(|(pool, config, adapter)| (pool, Made { config, adapter })).collect();
        take_traits(&mut loaded.pools, |pool| made.get(pool).or_else(|| self.made.get(pool)));
        // The adapter of a pool that is no longer configured stays: what is left of the pool drains by it.
        let (adapters, notices, handle) = (self.adapters.clone(), self.notices.clone(), self.handle.clone());
        let (credentials, configs) = (self.shared.credentials.clone(), loaded.adapters.clone());
        let change = move || {
            set_credentials(&credentials, &configs);
            for (adapter, settings) in adopted {
                adapter.adopt(settings);
            }
            for (pool, adapter) in new {
                attend(&adapter, &notices, &handle);
                adapters.insert(pool, adapter.shared());
            }
        };
        self.handle
            .configure(loaded.pools.clone(), change)
            .await
            .map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
        self.made.extend(made);
        for change in self.loaded.needs_restart(&loaded) {
            tracing::warn!("{change} has changed and counts from the next start on");
        }
        self.loaded.pools = loaded.pools;
        self.loaded.adapters = loaded.adapters;
        Ok(())
    }

    /// Waits until a part ends that should not. [`Exit::Again`]: the lead is lost, and it is to follow.
    async fn failed(&mut self) -> Result<Exit, Failure> {
        let failure = tokio::select! {
            failure = self.serving.failed() => failure,
            ended = &mut self.engine => match ended {
                Ok(Ended::Deposed | Ended::LeadLost) if self.loaded.cluster.is_some() => {
                    self.serving.stop_soon().await;
                    return Ok(Exit::Again);
                }
                Ok(Ended::Deposed | Ended::LeadLost) => deposed(&self.loaded.store),
                Ok(Ended::Stopped) => Failure::new(Exit::Internal, "the engine has ended: its last words are in the log"),
                Err(error) => Failure::new(Exit::Internal, format!("the engine has ended: {error}")),
            },
        };
        Err(failure)
    }

    /// Calls under way are answered, watches are ended, what is in the mailbox is done, the store is closed.
    async fn stop(&mut self) {
        self.serving.stop().await;
        self.engine_stop.cancel();
        if let Err(error) = (&mut self.engine).await {
            tracing::error!(%error, "the engine's task ended badly");
        }
        #[cfg(feature = "postgres")]
        if let Some(member) = &self.member {
            member.resign().await;
        }
        self.store.close().await;
        tracing::info!("stopped");
    }
}

/// Lets an adapter report, and ask what the broker knows.
#[cfg_attr(not(feature = "ec2"), expect(unused_variables, reason = "nobody asks without it"))]
fn attend(adapter: &MadeAdapter, notices: &NoticeSink, handle: &Handle) {
    adapter.shared().subscribe(notices.clone());
    #[cfg(feature = "ec2")]
    if let MadeAdapter::Ec2(adapter) = adapter {
        adapter.attend(Arc::new(super::books::Books(handle.clone())));
    }
}

/// Sets the traits of each pool to those of its adapter.
fn take_traits<'a>(pools: &mut [PoolConfig], made: impl Fn(&str) -> Option<&'a Made>) {
    for pool in pools {
        if let Some(made) = made(&pool.name) {
            let said = made.adapter.shared().traits();
            pool.traits =
                Traits { prepares: said.prepares, cleans: said.cleans, repairs: said.repairs, probes: said.probes };
        }
    }
}

/// Opens the store, whichever it is.
pub(crate) async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, Failure> {
    let opened: Result<Arc<dyn Store>, StoreError> = match config {
        StoreConfig::Sqlite(path) => SqliteStore::open(path).await.map(|store| Arc::new(store) as Arc<dyn Store>),
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(settings) => {
            crate::store::PostgresStore::open(settings).await.map(|store| Arc::new(store) as Arc<dyn Store>)
        }
        #[cfg(not(feature = "postgres"))]
        StoreConfig::Postgres(_) => {
            Err(StoreError::Configuration("this wharfinger was built without PostgreSQL".into()))
        }
    };
    opened.map_err(|error| store_failure(&error))
}

/// Another server writes to our store. Two that are started by the same supervisor would depose each other for ever, so
/// this is not worth another start until somebody has looked at it.
fn deposed(store: &StoreConfig) -> Failure {
    Failure::new(
        Exit::Config,
        format!("another server has taken over the database {store}, and this one must not write to it any more"),
    )
    .remedy("let one server use a database: stop the other, or give this one a `schema` of its own")
}

pub(crate) fn store_failure(error: &StoreError) -> Failure {
    match error {
        // It says itself what to do.
        StoreError::Configuration(_) => Failure::new(Exit::Config, error.to_string()),
        StoreError::Unavailable(_) => Failure::new(Exit::Unavailable, error.to_string()),
        StoreError::Deposed { .. } => Failure::new(Exit::Config, error.to_string())
            .remedy("let one server use a database: stop the other, or give this one a `schema` of its own"),
        StoreError::Corrupt(_) | StoreError::Compacted { .. } => Failure::new(Exit::Internal, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A file can be checked where no adapter can be made, so the configuration says what each adapter will say.
    #[test]
    fn the_configuration_knows_the_adapters_traits() {
        let source = r#"
            [[pool]]
            name = "here"
            adapter = "local"
            [[pool]]
            name = "work"
            adapter = "copies"
            on = "here"
            copies.repository = "/srv/a.git"
        "#;
        let loaded = crate::config::parse(Path::new("/srv/w/wharfinger.toml"), source).unwrap();
        for pool in &loaded.pools {
            let said = make(&pool.name, &loaded.adapters[&*pool.name], &Shared::new()).unwrap().shared().traits();
            let known = pool.traits;
            assert_eq!(
                (known.prepares, known.cleans, known.repairs, known.probes),
                (said.prepares, said.cleans, said.repairs, said.probes),
                "{}",
                pool.name
            );
        }
    }

    /// Two pools of ssh machines, each with this one host.
    fn two_pools(folder: &Path, host: &str) -> Loaded {
        let pool = |name: &str| {
            let public = wharfinger_ssh::public_of(&folder.join("key")).unwrap();
            format!(
                r#"
                [[pool]]
                name = "{name}"
                adapter = "ssh"
                [pool.ssh]
                user = "build"
                key = "key"
                [[pool.ssh.host]]
                name = "{host}"
                address = "127.0.0.1"
                enabled = false
                host_key = "{public}"
                "#
            )
        };
        let source = pool("a") + &pool("b");
        crate::config::parse(&folder.join("wharfinger.toml"), &source).unwrap()
    }

    fn key_in(folder: &Path) {
        use std::os::unix::fs::PermissionsExt;
        let file = folder.join("key");
        std::fs::write(&file, wharfinger_ssh::host_key().unwrap().private).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    async fn running(loaded: Loaded) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        match Running::start(loaded, Shared::new(), Start::Alone(listener)).await {
            Ok(running) => running,
            Err(failure) => panic!("{}", failure.message),
        }
    }

    /// The hosts of each pool, as its adapter knows them.
    fn hosts(running: &Running) -> Vec<String> {
        let of = |made: &Made| match &made.adapter {
            MadeAdapter::Ssh(adapter) => adapter.inventory().into_iter().map(|host| host.name).collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        running.made.values().flat_map(of).collect()
    }

    #[tokio::test]
    async fn a_mistake_in_the_second_pool_leaves_the_first_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        key_in(folder.path());
        let mut running = running(two_pools(folder.path(), "one")).await;
        let mut bad = two_pools(folder.path(), "two");
        let Some(AdapterConfig::Ssh(second)) = bad.adapters.get_mut("b") else { panic!("an ssh pool") };
        second.connect_timeout_ms = 0;
        let refused = running.take(bad).await.err().map(|failure| failure.message).unwrap_or_default();
        assert!(refused.contains("connect_timeout_ms"), "{refused:?}");
        assert_eq!(hosts(&running), ["one", "one"]);
        // The same file without the mistake is not taken for what is known already.
        assert!(running.take(two_pools(folder.path(), "two")).await.is_ok());
        assert_eq!(hosts(&running), ["two", "two"]);
        running.stop().await;
    }

    #[tokio::test]
    async fn a_configuration_that_the_core_does_not_take_changes_no_adapter() {
        let folder = tempfile::tempdir().unwrap();
        key_in(folder.path());
        let mut running = running(two_pools(folder.path(), "one")).await;
        running.engine_stop.cancel();
        (&mut running.engine).await.unwrap();
        for _ in 0..2 {
            let refused = running.take(two_pools(folder.path(), "two")).await;
            assert!(refused.is_err_and(|failure| failure.exit == Exit::Unavailable), "also when it is tried again");
            assert_eq!(hosts(&running), ["one", "one"]);
        }
        running.serving.stop().await;
        running.store.close().await;
    }
}
