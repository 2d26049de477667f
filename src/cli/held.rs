//! A command in a lease that another process holds: behind the fence, without a retry, a renewal or a release.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::lease::lost_failure;
use super::run::env;
use super::run::login::Login;
use super::run::place::{Place, Printer, ProxyCommand, Work};
use super::run::signals::{Signal, Signals};
use super::run::trace;
use super::text;
use crate::client::{Client, ClientError, Lost, Watched};
use crate::pb;
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use wharfinger_adapter::{Exit as CommandExit, InputSource, ShellError};

/// Minimum time without a word from the server after which the lease is taken for lost; its TTL, if that is longer.
const SILENCE: Duration = Duration::from_secs(60);
/// How long the server may take to decide about a host that was lost under a command.
const DECIDED: Duration = Duration::from_secs(20);
/// How long the news of the end of a lease may take.
const NEWS: Duration = Duration::from_secs(2);
/// Part of the time after a signal that what a killed command left may take.
const AFTER_SIGNAL: Duration = Duration::from_secs(3);

/// How to get there.
#[derive(Args, Clone, Debug)]
pub(crate) struct WayArgs {
    /// Private key to log in to the leased host with; without it the one that comes with the lease, then ~/.ssh/id_ed25519
    #[arg(long, short, value_name = "KEYFILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Run the command that the server names as the way to a host (proxy_command), also if the server is on another machine
    #[arg(long, env = "WHARFINGER_ALLOW_PROXY_COMMAND")]
    pub(crate) allow_proxy_command: bool,
}

/// An active lease of another process.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) client: Client,
    pub(crate) lease: Arc<pb::Lease>,
}

/// How a command in it ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Exit(CommandExit),
    /// The host has no such program, or no such directory.
    NotStarted(String),
    /// The lease is over, and the command dead.
    Lost(Lost),
    /// The host is not reached from here.
    Unreached(String),
    Interrupted(Signal),
}

/// A command in a lease.
pub(crate) struct Job<'a> {
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) input: Option<Arc<dyn InputSource>>,
    /// Directory, relative to the leased tree.
    pub(crate) chdir: Option<&'a str>,
    pub(crate) timeout: Option<Duration>,
}

/// Whether the work is to blame for the end of a lease.
pub(crate) fn is_works(lost: &Lost) -> bool {
    super::run::is_the_works_fault(lost.lease())
}

impl Held {
    /// Looks the lease up. The inner error: it is over.
    pub(crate) async fn open(context: &Context, client: Client, id: &str) -> Result<Result<Self, Lost>, Failure> {
        let lease = match client.get(id).await {
            Ok(lease) => Arc::new(lease),
            Err(error) => return Err(context.failure(error)),
        };
        if lease.is_over() {
            return Ok(Err(Lost::Ended(lease)));
        }
        if !lease.may_work() {
            let failure = Failure::new(Exit::BadData, format!("lease {id} is {}", text::lease_state(&lease)));
            return Err(failure.remedy("wait until it is ACTIVE: wharfinger lease --wait, or wharfinger watch"));
        }
        Ok(Ok(Self { client, lease }))
    }

    /// Runs a command there until it ends, or until it must end. What it left running is dead when this returns.
    pub(crate) async fn run(
        &self,
        context: &Context,
        way: &WayArgs,
        job: Job<'_>,
        signals: &mut Signals,
    ) -> Result<Ended, Failure> {
        let login = match self.lease.has_login() {
            true => Some(Login::make(context, &self.client, &self.lease, way.identity.as_deref()).await?),
            false => None,
        };
        let proxy = if way.allow_proxy_command || context.is_here() { ProxyCommand::Run } else { ProxyCommand::Refuse };
        let mut place = Place::there(&self.lease, way.identity.as_deref(), proxy, login.as_ref())?;
        if let Some(folder) = job.chdir {
            place.go_to(folder);
        }
        let _renewal = login.map(|login| login.keep(&self.client, |_| ()));
        let mut env = env::variables(&self.lease, &context.server);
        env.extend(trace::variables(&self.lease.id));
        env.extend(job.env);
        let printer = Printer::start();
        let ended = {
            let running = place.execute(Work { argv: job.argv, env, input: job.input }, &printer);
            let limit = async {
                match job.timeout {
                    Some(limit) => tokio::time::sleep(limit).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ended = running => ended.map(Ended::Exit),
                signal = signals.recv() => Ok(Ended::Interrupted(signal)),
                lost = self.over() => Ok(Ended::Lost(lost)),
                () = limit => Ok(Ended::Exit(CommandExit::TimedOut)),
            }
        };
        match &ended {
            Ok(Ended::Interrupted(_)) => printer.settle_within(AFTER_SIGNAL).await,
            _ => printer.settle().await,
        }
        Ok(match ended {
            Ok(Ended::Exit(exit)) if place.may_be_refused(&exit) => match self.is_over_now().await {
                Some(lost) => Ended::Lost(lost),
                None => Ended::Exit(exit),
            },
            Ok(ended) => ended,
            Err(error) => self.not_run(error).await,
        })
    }

    /// The command did not run, or its end is not known.
    async fn not_run(&self, error: ShellError) -> Ended {
        let why = error.to_string();
        match error {
            ShellError::NotStarted(_) | ShellError::File(_) => Ended::NotStarted(why),
            ShellError::Closed(_) | ShellError::Refused(_) => Ended::Unreached(why),
            ShellError::NotReached(_) | ShellError::WrongHost(_) | ShellError::Unreachable(_) => {
                // The server decides whether the host is lost.
                let _ = self.client.report_unreached(&self.lease.id, &why).await;
                match tokio::time::timeout(DECIDED, self.over()).await {
                    Ok(lost) => Ended::Lost(lost),
                    Err(_) => Ended::Unreached(why),
                }
            }
        }
    }

    /// The fence may have refused the command: the server knows whether the lease is over.
    async fn is_over_now(&self) -> Option<Lost> {
        match self.client.get(&self.lease.id).await {
            Ok(lease) if lease.may_work() => None,
            Ok(_) => tokio::time::timeout(NEWS, self.over()).await.ok(),
            Err(ClientError::NotFound(_)) => Some(Lost::Forgotten(self.lease.clone())),
            Err(_) => None,
        }
    }

    /// Waits for the end of the lease.
    pub(crate) async fn over(&self) -> Lost {
        let ttl = self.lease.ttl.and_then(|ttl| Duration::try_from(ttl).ok()).unwrap_or_default();
        let request = || pb::WatchRequest { lease_ids: vec![self.lease.id.clone()], ..pb::WatchRequest::default() };
        let mut watch = self.client.watch(request());
        loop {
            match tokio::time::timeout(ttl.max(SILENCE), watch.next()).await {
                Ok(Ok(Watched::Lease(lease))) if lease.is_over() => return Lost::Ended(Arc::new(*lease)),
                Ok(Ok(_)) => {}
                Ok(Err(ClientError::NotFound(_))) => return Lost::Forgotten(self.lease.clone()),
                Ok(Err(_)) => {
                    tokio::time::sleep(NEWS).await;
                    watch = self.client.watch(request());
                }
                Err(_) => return Lost::NoContact(self.lease.clone()),
            }
        }
    }

    /// Reports that the work failed, and waits for what the check finds. `Some`: the lease broke.
    pub(crate) async fn check(&self, note: &str, limit: Duration) -> Option<Lost> {
        let checked = async {
            let Ok(told) = self.client.report(&self.lease.id, note).await else { return None };
            if told.is_over() {
                return Some(Lost::Ended(Arc::new(told)));
            }
            told.doubt.as_ref()?;
            let request = pb::WatchRequest { lease_ids: vec![self.lease.id.clone()], ..pb::WatchRequest::default() };
            let mut watch = self.client.watch(request);
            loop {
                if let Watched::Lease(lease) = watch.next().await.ok()? {
                    if lease.is_over() {
                        return Some(Lost::Ended(Arc::new(*lease)));
                    }
                    if lease.revision > told.revision && lease.doubt.is_none() {
                        return None;
                    }
                }
            }
        };
        tokio::time::timeout(limit, checked).await.ok().flatten()
    }
}

/// A lease that is lost, with the exit code for it.
pub(crate) fn lost(lost: &Lost, exit: Option<u8>) -> Failure {
    let failure = lost_failure(lost);
    Failure { exit: exit.map_or(Exit::Lost, Exit::Command), ..failure }
}
