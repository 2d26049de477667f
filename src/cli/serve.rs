//! `serve`: the broker. It makes all parts and joins them.

use super::check_config::load;
use super::error::Failure;
use super::exit::Exit;
#[cfg(feature = "postgres")]
use super::follow::{Led, Member, Waited};
use super::port::{Bound, Serving, bind};
use super::ui::Ui;
use crate::adapters::{Change, LiveAdapter, Shared};
use crate::auth::Trust;
use crate::config::{AdapterConfig, Loaded, StoreConfig};
#[cfg(feature = "postgres")]
use crate::engine::Follower;
use crate::engine::{Adapters, EffectLimits, Ended, Engine, EngineConfig, Handle, Observed, Observer};
use crate::hooks::{Hooks, Surroundings};
use crate::links::Links;
use crate::rpc::{AnswerSources, ConfigurationStatus, CredentialSources, Quotas, RpcLimits};
use crate::store::{SqliteStore, Store, StoreError, trim_trail};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{self, AuditSettings, Changed, Format, LogSettings};
use crate::traces::{self, Both, Cleaned, Traces};
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wharfinger_adapter::NoticeSink;
use wharfinger_core::PoolConfig;

/// Arguments of `serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "WHARFINGER_CONFIG", default_value = "wharfinger.toml")]
    pub(crate) config: PathBuf,
    /// Format of log events on standard error, in place of [log] format; WHARFINGER_LOG selects them, in place of [log] level
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<Format>,
}

/// Serves until a signal stops it.
pub(crate) async fn serve(ui: &Ui, args: &ServeArgs) -> Result<Exit, Failure> {
    let loaded = load(ui, &args.config)?;
    telemetry::init(args.log_format, &loaded.log, ui.color_err)
        .map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
    open_audit(loaded.audit.as_ref())?;
    let mut signals = Signals::listen()?;
    // The port comes before the store: a second server on it fails before it touches anything.
    let sockets = bind(&loaded).await?;
    let parts = Parts::new();
    let mut running = match loaded.cluster.clone() {
        None => Running::start(loaded, parts, Start::Alone(Box::new(sockets))).await?,
        #[cfg(feature = "postgres")]
        Some(cluster) => {
            // A server that follows answers holders, too.
            set_credentials(&parts.credentials, &loaded.adapters);
            set_trust(&parts.trust, &loaded)?;
            parts.quotas.set(loaded.tenants.clone());
            parts.configuration.taken(&loaded.digest, links(&loaded));
            match super::follow::wait(
                ui,
                args,
                loaded,
                &cluster,
                sockets,
                (parts.sources(), &parts.metrics, parts.observer()),
                &mut signals,
            )
            .await?
            {
                Waited::Stopped => return Ok(Exit::Ok),
                Waited::Again => return Ok(Exit::Again),
                Waited::Leads(led) => {
                    let Led { member, loaded, follower, serving } = *led;
                    match Running::start(loaded, parts, Start::Led(Box::new((member, follower, serving)))).await {
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
            request = signals.next() => match request {
                ProcessSignal::Stop(name) => name,
                ProcessSignal::Reload => {
                    running.reload(ui, args).await;
                    continue;
                }
            },
            ended = running.failed() => return ended,
        };
        tracing::info!(signal = name, "stopping");
        // A second signal ends the wait.
        tokio::select! {
            () = running.stop() => return Ok(Exit::Ok),
            () = signals.stop() => {}
        }
        tracing::warn!("stopped at once; everything that was committed stays");
        return Ok(Exit::Command(130));
    }
}

/// The signals that a server handles.
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(Exit::Internal, format!("cannot install signal handlers: {error}")))
        };
        Ok(Signals {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
            hup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> ProcessSignal {
        tokio::select! {
            _ = self.term.recv() => ProcessSignal::Stop("SIGTERM"),
            _ = self.int.recv() => ProcessSignal::Stop("SIGINT"),
            _ = self.hup.recv() => ProcessSignal::Reload,
        }
    }

    /// Waits for the next signal to stop.
    pub(crate) async fn stop(&mut self) {
        while self.next().await == ProcessSignal::Reload {}
    }
}

/// The request that a signal makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessSignal {
    /// Stop the server. The field is the name of the signal.
    Stop(&'static str),
    /// Read the configuration again.
    Reload,
}

/// An adapter and the settings that it was made from.
struct Made {
    config: AdapterConfig,
    adapter: Arc<dyn LiveAdapter>,
}

/// Parts of the process that live as long as it does.
#[derive(Clone)]
struct Parts {
    credentials: CredentialSources,
    adapters: Shared,
    trust: Trust,
    metrics: Metrics,
    quotas: Quotas,
    configuration: ConfigurationStatus,
    cleaned: Cleaned,
}

impl Parts {
    fn new() -> Self {
        Self {
            credentials: CredentialSources::default(),
            adapters: Shared::new(),
            trust: Trust::everyone(),
            metrics: Metrics::new(),
            quotas: Quotas::default(),
            configuration: ConfigurationStatus::default(),
            cleaned: Cleaned::default(),
        }
    }

    /// The observer of the engine: meters, and the times that traces need.
    fn observer(&self) -> Arc<dyn Observer> {
        Arc::new(Both { other: self.metrics.observer(), cleaned: self.cleaned.clone() })
    }

    fn sources(&self) -> AnswerSources {
        let adapters = self.adapters.clone();
        AnswerSources {
            weather: Arc::new(move || adapters.spot_stats()),
            credentials: self.credentials.clone(),
            trust: self.trust.clone(),
            calls: Some(self.metrics.calls()),
            quotas: self.quotas.clone(),
            configuration: self.configuration.clone(),
        }
    }
}

/// The place of an observer, with this one in it.
fn observed(observer: Arc<dyn Observer>) -> Observed {
    let observed = Observed::default();
    observed.set(observer);
    observed
}

/// The screens of the page, by the address by which people reach it.
pub(super) fn links(loaded: &Loaded) -> Links {
    let url = loaded.page.as_ref().and_then(|page| page.url.as_deref());
    Links::new(url.unwrap_or_default())
}

/// The parts of the server that hooks use.
fn surroundings(handle: &Handle, store: &Arc<dyn Store>, parts: &Parts, loaded: &Loaded) -> Surroundings {
    Surroundings {
        handle: handle.clone(),
        store: store.clone(),
        told: parts.metrics.told(),
        links: links(loaded),
        keep_events: loaded.keep_events,
    }
}

/// The parts of the server that traces use.
fn around_traces(handle: &Handle, store: &Arc<dyn Store>, parts: &Parts) -> traces::Surroundings {
    traces::Surroundings {
        handle: handle.clone(),
        store: store.clone(),
        told: parts.metrics.told(),
        cleaned: parts.cleaned.clone(),
    }
}

/// Makes the adapter of a pool.
fn make(pool: &str, config: &AdapterConfig, shared: &Shared) -> Result<Arc<dyn LiveAdapter>, Failure> {
    config.settings().make(pool, shared).map_err(|failure| refused(pool, &failure))
}

/// The settings of a pool, refused by its adapter.
fn refused(pool: &str, failure: &wharfinger_adapter::Failure) -> Failure {
    Failure::new(Exit::Config, format!("pool {pool:?}: {failure}"))
}

/// Knows the callers of a configuration from now on.
pub(super) fn set_trust(trust: &Trust, loaded: &Loaded) -> Result<(), Failure> {
    for warning in loaded.warnings.problems() {
        let line = loaded.warnings.line(warning);
        tracing::warn!(line, remedy = %warning.remedy, "the configuration: {}", warning.message);
    }
    trust.set(loaded.auth.clone()).map_err(|error| Failure::new(Exit::Config, error.to_string()))
}

/// Opens the file of refusals, or opens it again.
pub(super) fn open_audit(settings: Option<&AuditSettings>) -> Result<(), Failure> {
    telemetry::audit_file::set(settings).map_err(|error| {
        let file = settings.map(|settings| settings.file.display().to_string()).unwrap_or_default();
        Failure::new(Exit::Config, format!("[audit] {file} cannot be opened: {error}"))
            .remedy("name a file in a directory where the server may write, and no link")
    })
}

/// Opens the file of refusals again at a reload. If it cannot be opened, the one before stays.
pub(super) fn change_audit(settings: Option<&AuditSettings>) {
    if let Err(failure) = open_audit(settings) {
        tracing::error!("{}; the one before stays", failure.message);
    }
}

/// Takes another filter of the log over.
pub(super) fn change_log(now: &mut LogSettings, next: LogSettings) {
    if now.level == next.level {
        return;
    }
    let level = next.level.as_deref().unwrap_or("info").to_owned();
    now.level = next.level;
    match telemetry::change(now) {
        Changed::Yes => tracing::info!(level, "the filter of the log has changed"),
        Changed::VariableHolds => {
            tracing::warn!(
                level,
                "the filter of the log stays: {} has precedence over [log] level",
                telemetry::VARIABLE
            );
        }
        Changed::No => tracing::warn!(level, "the filter of the log could not be changed, and stays"),
    }
}

/// Sets the credential sources of all configured pools. Those of other pools stay as they are.
pub(super) fn set_credentials(sources: &CredentialSources, adapters: &BTreeMap<String, AdapterConfig>) {
    for (pool, config) in adapters {
        sources.set(pool.clone(), config.settings().credentials());
    }
}

/// A running broker.
struct Running {
    loaded: Loaded,
    made: BTreeMap<String, Made>,
    parts: Parts,
    adapters: Adapters,
    notices: NoticeSink,
    handle: Handle,
    store: Arc<dyn Store>,
    engine: JoinHandle<Ended>,
    engine_stop: CancellationToken,
    hooks: Hooks,
    traces: Traces,
    serving: Serving,
    #[cfg(feature = "postgres")]
    member: Option<Member>,
}

/// The parts that run.
struct Started {
    engine: Engine,
    serving: Serving,
    #[cfg(feature = "postgres")]
    member: Option<Member>,
}

/// The way in which a broker came to lead.
enum Start {
    /// It is the only server.
    Alone(Box<Bound>),
    /// It followed another server, and was elected.
    #[cfg(feature = "postgres")]
    Led(Box<(Member, Follower, Serving)>),
}

impl Running {
    async fn start(mut loaded: Loaded, parts: Parts, start: Start) -> Result<Self, Failure> {
        let mut made = BTreeMap::new();
        let adapters = Adapters::default();
        for (pool, config) in &loaded.adapters {
            let adapter = make(pool, config, &parts.adapters)?;
            adapters.insert(pool.clone(), adapter.adapter());
            made.insert(pool.clone(), Made { config: config.clone(), adapter });
        }
        take_traits(&mut loaded.pools, |pool| made.get(pool));
        set_credentials(&parts.credentials, &loaded.adapters);
        set_trust(&parts.trust, &loaded)?;
        parts.quotas.set(loaded.tenants.clone());
        parts.configuration.taken(&loaded.digest, links(&loaded));
        let store = match &start {
            Start::Alone(_) => open(&loaded.store).await?,
            #[cfg(feature = "postgres")]
            Start::Led(led) => led.0.store(),
        };
        let engine_stop = CancellationToken::new();
        let config = EngineConfig {
            store: store.clone(),
            configuration: loaded.configuration(),
            limits: loaded.limits.clone(),
            adapters: adapters.clone(),
            effects: EffectLimits::default(),
            observed: observed(parts.observer()),
        };
        let started = match start {
            Start::Alone(sockets) => {
                let started = crate::engine::start(config, engine_stop.clone()).await;
                let engine = started.map_err(|error| store_failure(&error))?;
                let limits = RpcLimits {
                    stop_grace: loaded.server.stop_grace,
                    per_address: loaded.server.per_address.clone(),
                    ..RpcLimits::default()
                };
                let (handle, sources) = (engine.handle.clone(), parts.sources());
                let serving = Serving::start(*sockets, &loaded.server, handle, limits, sources, None, &parts.metrics)?;
                Started {
                    engine,
                    serving,
                    #[cfg(feature = "postgres")]
                    member: None,
                }
            }
            #[cfg(feature = "postgres")]
            Start::Led(led) => {
                let (member, follower, mut serving) = *led;
                let lead = member.lead.clone();
                match crate::engine::take_over(follower, config, lead, engine_stop.clone()).await {
                    Ok(engine) => Started { engine, serving, member: Some(member) },
                    // Another server leads, or none can: this one follows again.
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
            attend(&*made.adapter, &notices, &handle);
        }
        // Ends with `engine_stop`.
        tokio::spawn(trim_trail(store.clone(), handle.clock().clone(), loaded.keep_events, engine_stop.clone()));
        let mut hooks = Hooks::default();
        hooks.change(&loaded.hooks, &surroundings(&handle, &store, &parts, &loaded)).await;
        let mut traces = Traces::default();
        traces.change(loaded.traces.as_ref(), &around_traces(&handle, &store, &parts)).await;
        tracing::info!(address = %loaded.server.listen, store = %loaded.store, pools = loaded.pools.len(), "serving");
        Ok(Self {
            loaded,
            made,
            parts,
            adapters,
            notices,
            handle,
            store,
            engine,
            engine_stop,
            hooks,
            traces,
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
                self.parts.metrics.reloaded(false);
                self.parts.configuration.refused(&error.summary());
                return;
            }
        };
        let taken = self.take(loaded).await;
        self.parts.metrics.reloaded(taken.is_ok());
        match taken {
            Ok(()) => tracing::info!(pools = self.loaded.pools.len(), "the configuration was read again"),
            Err(failure) => {
                tracing::error!("the configuration is not taken over: {}; the one before stays", failure.message);
                self.parts.configuration.refused(
                    "the configuration file cannot be taken over: the server's log has the reason; mend it, and reload",
                );
            }
        }
    }

    /// Applies another configuration, all of it or nothing. Everything that may be refused comes first. Adapters change
    /// only after the core's commit, before anything starts under the new configuration.
    async fn take(&mut self, mut loaded: Loaded) -> Result<(), Failure> {
        let mut made: BTreeMap<String, Made> = BTreeMap::new();
        let mut new: Vec<(String, Arc<dyn LiveAdapter>)> = Vec::new();
        let mut changes: Vec<Change> = Vec::new();
        for (pool, config) in &loaded.adapters {
            let known = self.made.get(pool);
            if known.is_some_and(|known| known.config == *config) {
                continue;
            }
            let adapter = match known.and_then(|known| Some((known, known.adapter.change(config)?))) {
                Some((known, change)) => {
                    changes.push(change.map_err(|failure| refused(pool, &failure))?);
                    Arc::clone(&known.adapter)
                }
                None => {
                    let adapter = make(pool, config, &self.parts.adapters)?;
                    new.push((pool.clone(), Arc::clone(&adapter)));
                    adapter
                }
            };
            made.insert(pool.clone(), Made { config: config.clone(), adapter });
        }
        take_traits(&mut loaded.pools, |pool| made.get(pool).or_else(|| self.made.get(pool)));
        self.serving.change_tls(&loaded.server, loaded.page.as_ref())?;
        // The adapter of a pool that left the configuration stays: it drains the rest of the pool.
        let (adapters, notices, handle) = (self.adapters.clone(), self.notices.clone(), self.handle.clone());
        let (credentials, configs) = (self.parts.credentials.clone(), loaded.adapters.clone());
        let change = move || {
            set_credentials(&credentials, &configs);
            for change in changes {
                change();
            }
            for (pool, adapter) in new {
                attend(&*adapter, &notices, &handle);
                adapters.insert(pool, adapter.adapter());
            }
        };
        self.handle
            .configure(loaded.configuration(), change)
            .await
            .map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
        self.made.extend(made);
        set_trust(&self.parts.trust, &loaded)?;
        self.parts.quotas.set(loaded.tenants.clone());
        self.parts.configuration.taken(&loaded.digest, links(&self.loaded));
        for change in self.loaded.needs_restart(&loaded) {
            tracing::warn!("{change} has changed and counts from the next start on");
        }
        self.hooks.change(&loaded.hooks, &surroundings(&self.handle, &self.store, &self.parts, &self.loaded)).await;
        self.loaded.hooks = loaded.hooks;
        let around = around_traces(&self.handle, &self.store, &self.parts);
        self.traces.change(loaded.traces.as_ref(), &around).await;
        self.loaded.traces = loaded.traces;
        change_log(&mut self.loaded.log, loaded.log);
        change_audit(loaded.audit.as_ref());
        self.loaded.pools = loaded.pools;
        self.loaded.tenants = loaded.tenants;
        self.loaded.adapters = loaded.adapters;
        Ok(())
    }

    /// Waits until a part stops that should not. [`Exit::Again`]: the lead is lost, and the server follows again.
    async fn failed(&mut self) -> Result<Exit, Failure> {
        let failure = tokio::select! {
            failure = self.serving.failed() => failure,
            ended = &mut self.engine => match ended {
                Ok(Ended::Deposed | Ended::LeadLost) if self.loaded.cluster.is_some() => {
                    self.serving.stop_soon().await;
                    return Ok(Exit::Again);
                }
                Ok(Ended::Deposed | Ended::LeadLost) => deposed(&self.loaded.store),
                Ok(Ended::Stopped) => Failure::new(Exit::Internal, "the engine stopped; see the log"),
                Err(error) => Failure::new(Exit::Internal, format!("the engine stopped: {error}")),
            },
        };
        Err(failure)
    }

    /// Answers the calls under way, ends the watches, empties the mailbox and closes the store.
    async fn stop(&mut self) {
        self.serving.stop().await;
        self.hooks.stop().await;
        self.traces.stop().await;
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

/// Gives an adapter the channel for its notices, and access to the rows of the broker.
fn attend(live: &dyn LiveAdapter, notices: &NoticeSink, handle: &Handle) {
    live.adapter().subscribe(notices.clone());
    live.attend(handle);
}

/// Sets the traits of each pool to those of its adapter.
fn take_traits<'a>(pools: &mut [PoolConfig], made: impl Fn(&str) -> Option<&'a Made>) {
    for pool in pools {
        if let Some(made) = made(&pool.name) {
            pool.traits = made.adapter.adapter().traits();
        }
    }
}

/// Opens the configured store.
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

/// The failure after another server has taken over the store. Two servers under one supervisor would depose each other
/// for ever, so the exit code asks for no restart.
fn deposed(store: &StoreConfig) -> Failure {
    Failure::new(
        Exit::Config,
        format!("another server has taken over the database {store}; this one must not write to it"),
    )
    .remedy("let one server use a database: stop the other, or give this one a `schema` of its own")
}

pub(crate) fn store_failure(error: &StoreError) -> Failure {
    match error {
        // The message has its own remedy.
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
    use tokio::net::TcpListener;

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
        match Running::start(loaded, Parts::new(), Start::Alone(Box::new(listener.into()))).await {
            Ok(running) => running,
            Err(failure) => panic!("{}", failure.message),
        }
    }

    /// The hosts of each pool in its adapter.
    fn hosts(running: &Running) -> Vec<String> {
        let of = |made: &Made| {
            let live = (&*made.adapter as &dyn std::any::Any).downcast_ref::<crate::adapters::LiveSsh>().unwrap();
            live.0.inventory().into_iter().map(|host| host.name).collect::<Vec<_>>()
        };
        running.made.values().flat_map(of).collect()
    }

    #[tokio::test]
    async fn a_mistake_in_the_second_pool_leaves_the_first_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        key_in(folder.path());
        let mut running = running(two_pools(folder.path(), "one")).await;
        let mut bad = two_pools(folder.path(), "two");
        let second = bad.adapters["b"].downcast::<wharfinger_ssh::Config>().unwrap();
        let second = wharfinger_ssh::Config { connect_timeout_ms: 0, ..second.clone() };
        bad.adapters.insert("b".into(), AdapterConfig::new(crate::adapters::kind("ssh").unwrap(), second));
        let refused = running.take(bad).await.err().map(|failure| failure.message).unwrap_or_default();
        assert!(refused.contains("connect_timeout_ms"), "{refused:?}");
        assert_eq!(hosts(&running), ["one", "one"]);
        // The same file without the mistake is a change again.
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
