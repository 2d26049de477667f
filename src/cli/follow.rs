//! One of several servers: it stands by until it leads, and begins anew when it no longer does.

use super::error::Failure;
use super::exit::Exit;
use super::serve::{ServeArgs, Signals, Told, store_failure};
use super::ui::Ui;
use crate::config::{Cluster, Loaded, StoreConfig};
use crate::rpc::{RpcLimits, ServeError, stand_by};
use crate::store::{Candidate, Election, Lead, Leader, PostgresSettings, PostgresStore, Store, StoreError};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often one that stands by looks whether it could lead: a small question, and what a hand-over takes.
const LOOK: Duration = Duration::from_millis(200);
/// While the database does not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A server that leads, as one of several.
pub(crate) struct Member {
    store: PostgresStore,
    who: Candidate,
    pub(crate) lead: Lead,
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

/// What became of the wait. The configuration may have been read again meanwhile.
pub(crate) enum Waited {
    /// It leads. The port that refuses is up until the token is cancelled, so that nobody is turned away without a word
    /// while the state is loaded.
    Leads(Box<Member>, Box<Loaded>, Refusing),
    /// It was asked to stop.
    Stopped,
}

/// The port while nothing is served.
pub(crate) struct Refusing {
    stop: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
    leader: watch::Sender<Option<String>>,
}

impl Refusing {
    fn start(listener: TcpListener, limits: RpcLimits) -> Self {
        let (leader, known) = watch::channel(None);
        let stop = CancellationToken::new();
        let task = tokio::spawn(stand_by(listener, known, limits, stop.clone()));
        Refusing { stop, task, leader }
    }

    fn tell(&self, leader: Option<String>) {
        self.leader.send_if_modified(|told| {
            let other = *told != leader;
            if other {
                match &leader {
                    Some(leader) => tracing::info!(leader, "standing by"),
                    None => tracing::info!("standing by; nobody leads"),
                }
                *told = leader;
            }
            other
        });
    }

    /// Ends it; the port itself stays open.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        if let Ok(Err(error)) = self.task.await {
            tracing::warn!(%error, "the port of a server that stands by ended badly");
        }
    }
}

/// Stands by until it leads.
pub(crate) async fn wait(
    ui: &Ui,
    args: &ServeArgs,
    mut loaded: Loaded,
    cluster: &Cluster,
    listener: TcpListener,
    signals: &mut Signals,
) -> Result<Waited, Failure> {
    let StoreConfig::Postgres(settings) = loaded.store.clone() else {
        return Err(Failure::new(Exit::Config, "[cluster] needs engine = \"postgres\" in [store]"));
    };
    let who = Candidate {
        holder: format!(
            "{} pid {} {:08x}",
            cluster.advertise,
            std::process::id(),
            RandomState::new().hash_one(0) as u32
        ),
        address: cluster.advertise.clone(),
        ttl: cluster.lead,
    };
    let limits = RpcLimits { stop_grace: loaded.server.stop_grace, ..RpcLimits::default() };
    let refusing = Refusing::start(listener, limits);
    let mut store = None;
    let mut said = String::new();
    loop {
        reap();
        let pause = match try_once(&settings, &who, &mut store).await {
            Ok(Election::Won(lead)) => {
                refusing.tell(None);
                let Some(store) = store else { continue };
                tracing::info!(epoch = lead.epoch().0, "this server leads");
                return Ok(Waited::Leads(Box::new(Member { store, who, lead }), Box::new(loaded), refusing));
            }
            Ok(Election::Lost(leader)) => {
                said.clear();
                let pause = leader.as_ref().map_or(LOOK, |leader: &Leader| leader.left.min(LOOK)).max(LOOK / 10);
                refusing.tell(leader.map(|leader| leader.address));
                pause
            }
            // What the configuration is to blame for does not get better by waiting.
            Err(error @ (StoreError::Configuration(_) | StoreError::Corrupt(_))) => return Err(store_failure(&error)),
            Err(error) => {
                refusing.tell(None);
                // Once, as long as it is the same.
                if said != error.to_string() {
                    said = error.to_string();
                    tracing::warn!(%error, "standing by; the database does not answer");
                }
                LOOK_AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            told = signals.next() => match told {
                Told::Stop(signal) => {
                    tracing::info!(signal, "stopping");
                    refusing.end().await;
                    return Ok(Waited::Stopped);
                }
                Told::Reload => reload(ui, args, &mut loaded),
            },
        }
    }
}

/// For when it leads.
fn reload(ui: &Ui, args: &ServeArgs, loaded: &mut Loaded) {
    match crate::config::load(&args.config) {
        Ok(again) => {
            for change in loaded.needs_restart(&again) {
                tracing::warn!("{change} has changed and counts from the next start on");
            }
            loaded.pools = again.pools;
            loaded.adapters = again.adapters;
            tracing::info!("the configuration was read again, and counts when this server leads");
        }
        Err(error) => {
            ui.err(&error.to_string());
            tracing::error!("the configuration is not read again: it has mistakes; the one before stays");
        }
    }
}

/// A server that began anew has children of its former life. They were killed; somebody has to take note. It has none of its
/// own while it stands by.
fn reap() {
    while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
}

async fn try_once(
    settings: &PostgresSettings,
    who: &Candidate,
    store: &mut Option<PostgresStore>,
) -> Result<Election, StoreError> {
    let opened = match store {
        Some(opened) => opened,
        None => store.insert(PostgresStore::open(settings).await?),
    };
    opened.campaign(who).await
}
