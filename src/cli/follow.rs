//! One of several servers: it follows until it leads, and begins anew when it no longer does.

use super::error::Failure;
use super::exit::Exit;
use super::port::{Bound, Serving};
use super::serve::{
    ProcessSignal, ServeArgs, Signals, change_audit, change_log, links, set_credentials, set_trust, store_failure,
};
use super::ui::Ui;
use crate::config::{Cluster, ClusterTls, Loaded, StoreConfig};
use crate::engine::{FollowConfig, Follower, LeaderInfo, Leadership, Observer};
use crate::random::random;
use crate::rpc::{AnswerSources, Peers, RpcLimits, report_server};
use crate::store::{Candidate, Election, Lead, Leader, PostgresSettings, PostgresStore, Store, StoreError, Term};
use crate::telemetry::metrics::Metrics;
use std::sync::Arc;
use tokio_util::task::AbortOnDropHandle;

/// A server that leads, as one of several.
pub(crate) struct Member {
    store: PostgresStore,
    who: Candidate,
    pub(crate) lead: Lead,
    /// Ends with this server, or with its lead.
    _reports: AbortOnDropHandle<()>,
}

impl Member {
    /// Lets another lead at once. Nothing may be answered any more.
    pub(crate) async fn resign(&self) {
        self.store.resign(&self.who, &self.lead).await;
        tracing::info!(epoch = self.lead.epoch().0, "the lead is given back");
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }
}

/// The result of the wait. The configuration may have been read again meanwhile.
pub(crate) enum Waited {
    /// It leads. What it followed and the port go on.
    Leads(Box<Led>),
    /// It was asked to stop.
    Stopped,
    /// It has to begin anew.
    Again,
}

/// One that leads now, with what it had while it followed.
pub(crate) struct Led {
    pub(crate) member: Member,
    pub(crate) loaded: Loaded,
    pub(crate) follower: Follower,
    pub(super) serving: Serving,
}

/// Follows until it leads.
pub(crate) async fn wait(
    ui: &Ui,
    args: &ServeArgs,
    mut loaded: Loaded,
    cluster: &Cluster,
    listener: Bound,
    (sources, metrics, observer): (AnswerSources, &Metrics, Arc<dyn Observer>),
    signals: &mut Signals,
) -> Result<Waited, Failure> {
    let StoreConfig::Postgres(settings) = loaded.store.clone() else {
        return Err(Failure::new(Exit::Config, "[cluster] needs engine = \"postgres\" in [store]"));
    };
    let who = candidate(cluster);
    let mut campaign = Campaign::new(&settings)?;
    let config = FollowConfig {
        store: Arc::new(campaign.store.clone()),
        configuration: loaded.configuration(),
        limits: loaded.limits.clone(),
        max_age: cluster.max_age,
    };
    let mut follower = crate::engine::follow(config);
    let leadership = follower.handle.leadership().clone();
    let limits = RpcLimits {
        stop_grace: loaded.server.stop_grace,
        per_address: loaded.server.per_address.clone(),
        forward: cluster.forward,
        ..RpcLimits::default()
    };
    let peers = cluster.tls.as_ref().map(peers).transpose()?;
    follower.handle.observed().set(observer);
    let handle = follower.handle.clone();
    let mut serving = Serving::start(listener, &loaded.server, handle, limits, sources.clone(), peers, metrics)?;
    let reports = report_server(follower.handle.clone(), sources.configuration.clone(), who.address.clone());
    let reports = AbortOnDropHandle::new(tokio::spawn(reports));
    let mut said = String::new();
    loop {
        reap();
        let pause = match campaign.try_once(&who, &follower).await {
            Ok(Election::Won(lead)) => {
                follow(&leadership, None);
                tracing::info!(epoch = lead.epoch().0, "this server leads");
                let member = Member { store: campaign.store, who, lead, _reports: reports };
                return Ok(Waited::Leads(Box::new(Led { member, loaded, follower, serving })));
            }
            Ok(Election::Lost(leader)) => {
                said.clear();
                let pause = Term::next_look(Ok(leader.as_ref().map(|leader: &Leader| leader.left)));
                follow(&leadership, leader);
                pause
            }
            // A fault of the configuration does not end by waiting.
            Err(error @ (StoreError::Configuration(_) | StoreError::Corrupt(_))) => return Err(store_failure(&error)),
            Err(error) => {
                follow(&leadership, None);
                // Once, as long as it is the same.
                if said != error.to_string() {
                    said = error.to_string();
                    tracing::warn!(%error, "the database does not answer; trying again");
                }
                Term::next_look(Err(()))
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            told = signals.next() => match told {
                ProcessSignal::Stop(signal) => {
                    tracing::info!(signal, "stopping");
                    // Someone who says it twice does not want to wait.
                    tokio::select! {
                        () = serving.stop() => {}
                        () = signals.stop() => {}
                    }
                    follower.stop().await;
                    return Ok(Waited::Stopped);
                }
                ProcessSignal::Reload => {
                    let problem = reload(ui, args, &mut loaded);
                    metrics.reloaded(problem.is_none());
                    set_credentials(&sources.credentials, &loaded.adapters);
                    set_trust(&sources.trust, &loaded)?;
                    sources.quotas.set(loaded.tenants.clone());
                    match problem {
                        None => sources.configuration.taken(&loaded.digest, links(&loaded)),
                        Some(problem) => sources.configuration.refused(&problem),
                    }
                    follower.configure(loaded.configuration());
                }
            },
            () = follower.failed() => {
                serving.stop_soon().await;
                return Ok(Waited::Again);
            }
            failure = serving.failed() => return Err(failure),
        }
    }
}

/// The other servers of the cluster.
fn peers(tls: &ClusterTls) -> Result<Peers, Failure> {
    let loaded = Peers::load(tls.settings.clone(), tls.peers.clone());
    loaded.map_err(|problem| Failure::new(Exit::Config, format!("[cluster.tls] {problem}")))
}

fn candidate(cluster: &Cluster) -> Candidate {
    let random = random() as u32;
    Candidate {
        holder: format!("{} pid {} {random:08x}", cluster.advertise, std::process::id()),
        address: cluster.advertise.clone(),
        ttl: cluster.lead,
    }
}

fn follow(leadership: &Leadership, leader: Option<Leader>) {
    let leader = leader
        .map(|leader| LeaderInfo { address: leader.address.into(), forwarding_key: leader.forwarding_key.into() });
    if leadership.follow(leader) {
        match leadership.leader() {
            Some(leader) => tracing::info!(leader = &*leader, "another server leads"),
            None => tracing::info!("nobody leads that is known"),
        }
    }
}

/// For when it leads. Returns the summary of the mistakes, if the configuration has some.
fn reload(ui: &Ui, args: &ServeArgs, loaded: &mut Loaded) -> Option<String> {
    match crate::config::load(&args.config) {
        Ok(again) => {
            for change in loaded.needs_restart(&again) {
                tracing::warn!("{change} has changed and counts from the next start on");
            }
            change_log(&mut loaded.log, again.log);
            change_audit(again.audit.as_ref());
            loaded.hooks = again.hooks;
            loaded.digest = again.digest;
            loaded.traces = again.traces;
            loaded.pools = again.pools;
            loaded.tenants = again.tenants;
            loaded.adapters = again.adapters;
            tracing::info!("the configuration was read again; what it says of adapters counts when this server leads");
            None
        }
        Err(error) => {
            ui.err(&error.to_string());
            tracing::error!("the configuration is not read again: it has mistakes; the one before stays");
            Some(error.summary())
        }
    }
}

/// A server that began anew has children of its former life. They were killed, and must be reaped. It has none of its
/// own while it follows.
fn reap() {
    while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
}

/// The attempts to lead.
struct Campaign {
    store: PostgresStore,
    open: bool,
}

impl Campaign {
    fn new(settings: &PostgresSettings) -> Result<Self, Failure> {
        let store = PostgresStore::new(settings).map_err(|error| store_failure(&error))?;
        Ok(Campaign { store, open: false })
    }

    async fn try_once(&mut self, who: &Candidate, follower: &Follower) -> Result<Election, StoreError> {
        if !self.open {
            self.store.bring_up().await?;
            self.open = true;
            follower.begin();
        }
        self.store.campaign(who).await
    }
}
