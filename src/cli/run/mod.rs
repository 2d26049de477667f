//! `run` and `exec --local`: lease, run a command, release with the right outcome; if the lease breaks, kill the command
//! and run it again elsewhere.
//!
//! A command that fails is not always to blame. Before its lease is released the failure is reported, and the broker
//! checks the resource: if it finds it mangled the lease breaks, and the command runs again elsewhere, as if the break had
//! come first. The fault is printed, if the broker knows it soon enough.

mod attempt;
mod blame;
mod contract;
pub(crate) mod env;
mod files;
mod here;
pub(crate) mod input;
mod land;
pub(crate) mod login;
pub(crate) mod place;
mod record;
pub(crate) mod signals;
pub(crate) mod trace;
mod transfer;
mod unsettled;
pub(crate) mod wait;

use super::ci::{Claim, Level, Log, Product};
use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::lease::Outcome;
use super::select::{Wanted, pair, time};
use super::ui::Ui;
use crate::client::Client;
use crate::pb;
use attempt::One;
pub(crate) use attempt::is_the_works_fault;
use clap::Args;
use contract::Contract;
use files::FileArgs;
use input::Input;
use place::ProxyCommand;
use record::{End, Record};
use signals::{Signal, Signals};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;
use unsettled::Unsettled;
use wharfinger_adapter::COMMAND_BYTES_MAX;

/// How long the watch may lag behind what another call has told us.
const NEWS: Duration = Duration::from_secs(2);
/// The reason of a cause that blames the work.
const WORK_BLAMED: &str = "WORK_BLAMED";
/// How long we wait to be told whose fault a failure was.
const FINDING: Duration = Duration::from_secs(10);

/// Arguments that `run` and `exec` share.
#[derive(Args, Debug)]
pub(crate) struct Common {
    #[command(flatten)]
    wanted: Wanted,
    /// Run it again at most N times when the lease breaks
    #[arg(long, value_name = "N", default_value_t = 2)]
    retries: u32,
    /// Variable for the command; may be repeated
    #[arg(long = "env", short, value_name = "KEY=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Meaning of a failure of the command for the resource
    #[arg(long, value_enum, value_name = "OUTCOME", default_value_t = Outcome::Failed)]
    outcome_on_failure: Outcome,
    /// Take a failure for the command's own, without a check of the resource
    #[arg(long)]
    no_check: bool,
    /// Keep the resource as a failed command left it for so long, to be looked at; the pool has a limit
    #[arg(long, value_name = "TIME", value_parser = time)]
    hold_on_failure: Option<Duration>,
    /// Take it for the command's own if that check takes longer
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "2m", conflicts_with = "no_check")]
    check_for: Duration,
    /// Give the command none of the variables with which GitHub Actions issues tokens; it never gets WHARFINGER_AUTH_*
    #[arg(long)]
    scrub_oidc: bool,
    #[command(flatten)]
    contract: Contract,
    /// Say nothing of the lease's life; errors, and the line between two attempts
    #[arg(long, short)]
    quiet: bool,
    /// Command to run, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    common: Common,
    /// Private key to log in to the leased host with; without it the one that comes with the lease, then ~/.ssh/id_ed25519
    #[arg(long, short, value_name = "KEYFILE")]
    identity: Option<PathBuf>,
    /// Run the command that the server names as the way to a host (proxy_command), also if the server is on another machine
    #[arg(long, env = "WHARFINGER_ALLOW_PROXY_COMMAND")]
    allow_proxy_command: bool,
    /// Give the command an empty standard input; without it, one that is no terminal is passed on
    #[arg(long, short = 'n')]
    no_input: bool,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    land: land::LandArgs,
}

/// Arguments of `exec`.
#[derive(Args, Debug)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    common: Common,
    /// Run it on this machine (run does it on the leased host)
    #[arg(long, required = true)]
    local: bool,
}

/// Runs a command on the leased host.
pub(crate) async fn run(context: &Context, args: RunArgs) -> Result<Exit, Failure> {
    let input = if args.no_input { None } else { Input::stdin() };
    let proxy = if args.allow_proxy_command || context.is_here() { ProxyCommand::Run } else { ProxyCommand::Refuse };
    let place = Where::There { identity: args.identity, proxy, input };
    recorded(context, args.common, place, Some(args.files), Some(args.land)).await
}

/// Room for the variables of a lease, in bytes.
const LEASE_BYTES: usize = 64 << 10;

/// Refuses a command that no host could start before anything is leased: it is the caller's mistake.
fn check_command(args: &Common) -> Result<(), Failure> {
    let command = wharfinger_adapter::Command {
        argv: args.command.clone(),
        env: args.env.iter().cloned().collect(),
        ..wharfinger_adapter::Command::default()
    };
    command.check_within(COMMAND_BYTES_MAX - LEASE_BYTES).map_err(|why| Failure::new(Exit::BadData, why))
}

/// Runs a command here.
pub(crate) async fn exec(context: &Context, args: ExecArgs) -> Result<Exit, Failure> {
    recorded(context, args.common, Where::Here, None, None).await
}

impl Common {
    /// Writes the result file of a run that cannot begin, and returns its failure.
    fn refused(&self, ui: Ui, failure: Failure) -> Failure {
        let request = self.wanted.request();
        match Record::begin(ui, &self.contract, &request, None) {
            Ok(record) => record.finish(Err(failure.clone())).err().unwrap_or(failure),
            Err(_) => failure,
        }
    }
}

impl RunArgs {
    /// As [`Common::refused`].
    pub(crate) fn refused(&self, ui: Ui, failure: Failure) -> Failure {
        self.common.refused(ui, failure)
    }
}

impl ExecArgs {
    /// As [`Common::refused`].
    pub(crate) fn refused(&self, ui: Ui, failure: Failure) -> Failure {
        self.common.refused(ui, failure)
    }
}

enum Where {
    There { identity: Option<PathBuf>, proxy: ProxyCommand, input: Option<Input> },
    Here,
}

/// How one attempt ended, with its lease already ended too.
enum Attempt {
    /// Nothing more to do.
    Done(End),
    /// The lease or its host was lost, and another may do.
    Again,
    /// The resource could not be reached from here, and another may be. `unsettled`: its lease, if the command ran there.
    Elsewhere { avoid: String, why: String, unsettled: Option<Unsettled> },
}

/// Runs, and writes the result file whatever happens.
async fn recorded(
    context: &Context,
    args: Common,
    place: Where,
    files: Option<FileArgs>,
    land: Option<land::LandArgs>,
) -> Result<Exit, Failure> {
    let mut context = context.clone();
    context.ui.quiet = args.quiet;
    let mut request = args.wanted.request();
    let job = args.contract.job();
    let product = job.as_ref().ok().and_then(Option::as_ref).map(|job| job.product);
    let log = Log::new(product);
    context.ui.reader_obeys = log.has_commands();
    let claim = match &job {
        Ok(Some(job)) => args.wanted.fill(&mut request, job, &args.command),
        Ok(None) | Err(_) => None,
    };
    let record = Record::begin(context.ui, &args.contract, &request, product.map(Product::name))?;
    let at_last = record.clone();
    let signals = Signals::listen_with(Some(args.contract.cancel_grace), move |signal| at_last.cut_short(signal));
    let ended = match job.and(signals) {
        Ok(signals) => {
            let (context, args, place, files, record) = (&context, &args, &place, files.as_ref(), &record);
            Run { context, args, place, files, record, log, signals }.to_its_end(request, claim, land).await
        }
        Err(failure) => Err(failure),
    };
    if let Some((title, text)) = record.annotation(&ended)
        && let Some(line) = log.annotation(Level::Error, &title, &text)
    {
        context.ui.raw(&line);
    }
    record.finish(ended)
}

/// All attempts of one command.
struct Run<'a> {
    context: &'a Context,
    args: &'a Common,
    place: &'a Where,
    files: Option<&'a FileArgs>,
    record: &'a Record,
    log: Log,
    signals: Signals,
}

/// The outcome of a step that a signal may cut short.
enum Step<T> {
    Went(T),
    Cancelled(Signal),
}

impl Run<'_> {
    async fn to_its_end(
        &self,
        request: pb::LeaseRequest,
        claim: Option<Claim>,
        land: Option<land::LandArgs>,
    ) -> Result<End, Failure> {
        check_command(self.args)?;
        self.files.map_or(Ok(()), FileArgs::check)?;
        // Work that cannot land is refused before anything runs.
        let land = land.and_then(|land| land.request(&request.request_id).transpose()).transpose()?;
        let mut signals = self.signals.clone();
        let client = tokio::select! {
            biased;
            signal = signals.recv() => return Ok(End::Cancelled(signal)),
            client = self.context.connect_patient() => client?,
        };
        let mut unsettled = Vec::new();
        let ended = self.try_all(&client, request, claim, land.as_ref(), &mut unsettled).await;
        // One who wants us to stop does not wait for a verdict.
        let patient = !self.signals.is_heard();
        for lease in unsettled {
            lease.finish(patient).await;
        }
        ended
    }

    async fn try_all(
        &self,
        client: &Client,
        mut request: pb::LeaseRequest,
        mut claim: Option<Claim>,
        land: Option<&land::Request>,
        unsettled: &mut Vec<Unsettled>,
    ) -> Result<End, Failure> {
        let (context, args) = (self.context, self.args);
        let mut first_id = request.request_id.clone();
        let mut unreached = None;
        let all = u64::from(args.retries) + 1;
        let mut first_lease: Option<String> = None;
        for attempt in 0..=args.retries {
            if attempt > 0 {
                if let Where::There { input: Some(input), .. } = self.place
                    && !input.is_whole()
                {
                    return Err(Failure::new(
                        Exit::Lost,
                        "the lease was lost, and the command's standard input cannot be sent again: it is too long to be kept",
                    )
                    .remedy("put the input into a file that the command reads, or begin again"));
                }
                // Sent with the first attempt, and still the same if all of this is started again with the same id.
                request.request_id = format!("{first_id}-{}", attempt + 1);
                let first = first_lease.as_deref().unwrap_or("lost");
                context.ui.always(&between(attempt, all, first, &self.record.last_end()));
                // `why` and `get` print it, and so link the attempts.
                request.tags.insert("attempt".into(), format!("{} of {all}", attempt + 1));
                request.tags.insert("first_attempt".into(), first.into());
            }
            let guard = loop {
                let guard = match self.ask(client, &request).await? {
                    Step::Went(guard) => guard,
                    Step::Cancelled(signal) => return Ok(End::Cancelled(signal)),
                };
                // An earlier command of the same job had this id, and its lease is over.
                let Some(claim) = claim.as_mut().filter(|_| attempt == 0 && guard.lease().is_over()) else {
                    break guard;
                };
                if !claim.advance() {
                    break guard;
                }
                first_id = claim.id();
                request.request_id.clone_from(&first_id);
                self.record.asks_by(&first_id);
            };
            let id = guard.id().to_string();
            first_lease.get_or_insert_with(|| id.clone());
            let one = One {
                context,
                client,
                args,
                place: self.place,
                land,
                files: self.files,
                record: self.record,
                signals: self.signals.clone(),
                log: self.log,
                number: (attempt + 1, all),
                on: OnceLock::new(),
            };
            match one.run(guard).await? {
                Attempt::Done(end) => return Ok(end),
                Attempt::Again => {
                    if let Some(link) = context.link(client, |page| page.lease(&id)).await {
                        context.ui.event(&format!("the lease that was lost: {link}"));
                    }
                }
                Attempt::Elsewhere { avoid, why, unsettled: lease } => {
                    unsettled.extend(lease);
                    request.avoid.push(avoid);
                    unreached = Some(why);
                }
            }
        }
        let times = if args.retries == 0 { "once".into() } else { format!("{all} times") };
        Err(match unreached {
            Some(why) => Failure::new(Exit::Lost, format!("no leased host could be reached from here, tried {times}: {why}"))
                .remedy("look at this machine's name server, network and proxy; wharfinger events shows whether the server reaches them"),
            None => Failure::new(Exit::Lost, format!("the lease was lost for good: tried {times}"))
                .remedy("wharfinger events shows what happened; --retries N tries more often"),
        })
    }

    /// Asks for the lease. One that was asked for when a signal came is given back: it would wait in line for no one.
    async fn ask(
        &self,
        client: &Client,
        request: &pb::LeaseRequest,
    ) -> Result<Step<crate::client::LeaseGuard>, Failure> {
        let mut signals = self.signals.clone();
        let asking = client.acquire(request.clone());
        tokio::pin!(asking);
        let signal = tokio::select! {
            biased;
            guard = &mut asking => {
                return guard.map(Step::Went).map_err(|error| self.context.failure(error));
            }
            signal = signals.recv() => signal,
        };
        if let Ok(guard) = asking.await {
            self.record.asked(&guard.lease());
            if let Ok(lease) = guard.release(pb::Outcome::Ok, &format!("interrupted by {}", signal.name())).await {
                self.record.released(&lease);
            }
        }
        Ok(Step::Cancelled(signal))
    }
}

/// The line between two attempts. A reader of the log must not take the end of the one for that of the command.
fn between(ended: u32, all: u64, first: &str, why: &str) -> String {
    let why = if why.is_empty() { "its lease was lost" } else { why };
    format!(
        "---- attempt {ended} of {all} ended: {why}. What is above this line does not count. trying again elsewhere: attempt {} of {all}, the first was {first} ----",
        ended + 1
    )
}
