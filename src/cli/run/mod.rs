//! `run` and `exec --local`: lease, run a command, release with the right outcome; if the lease breaks, kill the command
//! and run it again elsewhere.
//!
//! A command that fails is not always to blame. Before its lease is released the failure is reported, and the broker
//! checks the resource: if it finds it mangled the lease breaks, and the command runs again elsewhere, as if the break had
//! come first. Whose fault it was is told, if the broker knows soon enough.

pub(crate) mod env;
mod here;
mod input;
mod land;
pub(crate) mod login;
pub(crate) mod place;
pub(crate) mod signals;
pub(crate) mod trace;
mod unsettled;
mod wait;

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::lease::{Outcome, lost_failure};
use super::select::{Wanted, pair, time};
use super::text;
use crate::client::{Client, ClientError, LeaseGuard, LeaseStatus, Lost, Watched};
use crate::pb;
use clap::Args;
use input::Input;
use login::{Login, Renewal, SshFiles};
use place::{Place, Printer, ProxyCommand, Work};
use signals::{Signal, Signals};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use unsettled::Unsettled;
use wait::Waited;
use wharfinger_adapter::{COMMAND_BYTES_MAX, ShellError};
use wharfinger_copies::LandRequest;

/// How long the watch may lag behind what another call has told us.
const NEWS: Duration = Duration::from_secs(2);
/// The reason of a cause that blames the work.
const WORK_BLAMED: &str = "WORK_BLAMED";
/// How long we wait to be told whose fault a failure was.
const FINDING: Duration = Duration::from_secs(10);

/// What `run` and `exec` share.
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
    /// What a failure of the command says about the resource
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
    /// Say nothing of the lease's life; errors only
    #[arg(long, short)]
    quiet: bool,
    /// What to run, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `run`.
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
    land: land::LandArgs,
}

/// `exec`.
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
    check_command(&args.common)?;
    let input = if args.no_input { None } else { Input::stdin() };
    let proxy = if args.allow_proxy_command || context.is_here() { ProxyCommand::Run } else { ProxyCommand::Refuse };
    attempts(context, args.common, Where::There { identity: args.identity, proxy, input }, Some(args.land)).await
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
    attempts(context, args.common, Where::Here, None).await
}

enum Where {
    There { identity: Option<PathBuf>, proxy: ProxyCommand, input: Option<Input> },
    Here,
}

/// How one attempt ended, with its lease already ended too.
enum Attempt {
    /// Nothing more to do.
    Done(Exit),
    /// The lease or its host was lost, and another may do.
    Again,
    /// The resource could not be reached from here, and another may be. `unsettled`: its lease, if the command ran there.
    Elsewhere { avoid: String, why: String, unsettled: Option<Unsettled> },
}

async fn attempts(
    context: &Context,
    args: Common,
    place: Where,
    land: Option<land::LandArgs>,
) -> Result<Exit, Failure> {
    let mut unsettled = Vec::new();
    let ended = try_all(context, args, place, land, &mut unsettled).await;
    // One who wants us to stop does not wait for a verdict.
    let patient = !matches!(ended, Ok(Exit::Command(code)) if code > 128);
    for lease in unsettled {
        lease.finish(patient).await;
    }
    ended
}

async fn try_all(
    context: &Context,
    args: Common,
    place: Where,
    land: Option<land::LandArgs>,
    unsettled: &mut Vec<Unsettled>,
) -> Result<Exit, Failure> {
    let mut context = context.clone();
    context.ui.quiet = args.quiet;
    let ui = context.ui;
    let mut signals = Some(Signals::listen()?);
    let mut request = args.wanted.request();
    let first_id = request.request_id.clone();
    // What cannot land is refused before anything runs.
    let land = land.and_then(|land| land.request(&first_id).transpose()).transpose()?;
    let client = context.connect_patient().await?;
    let mut unreached = None;
    let all = u64::from(args.retries) + 1;
    let mut first_lease: Option<String> = None;
    for attempt in 0..=args.retries {
        if attempt > 0 {
            if let Where::There { input: Some(input), .. } = &place
                && !input.is_whole()
            {
                return Err(Failure::new(
                    Exit::Lost,
                    "the lease was lost, and the command's standard input cannot be sent again: it is too long to be kept",
                )
                .remedy("put the input into a file that the command reads, or begin again"));
            }
            // Told from the first, and still the same if all of this is started again with the same id.
            request.request_id = format!("{first_id}-{}", attempt + 1);
            let first = first_lease.as_deref().unwrap_or("lost");
            ui.event(&format!("trying again elsewhere: attempt {} of {all}, the first was {first}", attempt + 1));
            // Told by `why` and `get`, which link the attempts.
            request.tags.insert("attempt".into(), format!("{} of {all}", attempt + 1));
            request.tags.insert("first_attempt".into(), first.into());
        }
        let guard = client.acquire(request.clone()).await.map_err(|error| context.failure(error))?;
        first_lease.get_or_insert_with(|| guard.id().to_string());
        let on = OnceLock::new();
        let one = One { context: &context, client: &client, args: &args, place: &place, land: land.as_ref(), on };
        match one.attempt(guard, &mut signals).await? {
            Attempt::Done(exit) => return Ok(exit),
            Attempt::Again => {}
            Attempt::Elsewhere { avoid, why, unsettled: lease } => {
                unsettled.extend(lease);
                request.avoid.push(avoid);
                unreached = Some(why);
            }
        }
    }
    let times = if args.retries == 0 { "once".into() } else { format!("{} times", u64::from(args.retries) + 1) };
    Err(match unreached {
        Some(why) => Failure::new(Exit::Lost, format!("no leased host could be reached from here, tried {times}: {why}"))
            .remedy("look at this machine's name server, network and proxy; wharfinger events shows whether the server reaches them"),
        None => Failure::new(Exit::Lost, format!("the lease was lost for good: tried {times}"))
            .remedy("wharfinger events shows what happened; --retries N tries more often"),
    })
}

struct One<'a> {
    context: &'a Context,
    client: &'a Client,
    args: &'a Common,
    place: &'a Where,
    land: Option<&'a LandRequest>,
    /// The machine and the resource of the lease, once it is active: an ended lease does not name them.
    on: OnceLock<String>,
}

impl One<'_> {
    async fn attempt(&self, guard: LeaseGuard, signals: &mut Option<Signals>) -> Result<Attempt, Failure> {
        let ui = self.context.ui;
        let Some(heard) = signals.as_mut() else {
            return Err(Failure::new(Exit::Internal, "a signal came before"));
        };
        let asked = guard.lease();
        ui.event(&format!("lease {} asked for: {}", asked.id, text::selector(asked.selector.as_ref())));
        let lease = match wait::active(self.context, self.client, &guard, heard).await {
            Waited::Active(lease) => lease,
            Waited::Lost(lost) => return self.lost(&lost),
            Waited::Interrupted(signal) => return Ok(self.interrupted(guard, signal, signals).await),
        };
        let on = self.on.get_or_init(|| on_machine(&lease));
        ui.event(&format!("lease {} ACTIVE on {on}{}", lease.id, at_path(&lease)));
        let (place, _renewal) = match self.place_of(&lease).await {
            Ok(place) => place,
            Err(failure) => {
                // Nothing was done there.
                self.release(guard, pb::Outcome::Ok, "the host was not used").await;
                return Err(failure);
            }
        };
        let ended = self.execute(&place, &guard, &lease, heard).await;
        match ended {
            Ended::Lost(lost) => self.lost(&lost),
            Ended::Interrupted(signal) => Ok(self.interrupted(guard, signal, signals).await),
            Ended::Exit(exit) if exit.success() => {
                if let Some(request) = self.land {
                    match land::run(ui, request, &place, &guard, &lease, heard).await {
                        land::Ended::Done => {}
                        land::Ended::Not(failure, tainted) => {
                            let outcome = if tainted { pb::Outcome::Tainted } else { pb::Outcome::Ok };
                            self.release(guard, outcome, &failure.message).await;
                            return Err(failure);
                        }
                        land::Ended::Lost(lost) => return self.lost(&lost),
                        land::Ended::HostLost(text) => {
                            return self.shell_failed(guard, &lease, ShellError::Unreachable(text), signals).await;
                        }
                        land::Ended::Interrupted(signal) => {
                            return Ok(self.interrupted(guard, signal, signals).await);
                        }
                    }
                }
                self.release(guard, pb::Outcome::Ok, "").await;
                Ok(Attempt::Done(Exit::of(&exit)))
            }
            Ended::Exit(exit) => {
                if place.may_be_refused(&exit)
                    && let Some(lost) = self.not_ours(&guard).await
                {
                    return self.lost(&lost);
                }
                let mut said = describe(&exit);
                for hit in place.hits().await {
                    said.push_str(&format!("; {hit}"));
                }
                ui.event(&format!("the command ended with {said}"));
                self.failed(guard, &lease, &said, Exit::of(&exit), signals).await
            }
            Ended::Shell(error) => self.shell_failed(guard, &lease, error, signals).await,
        }
    }

    /// The place of the command, and what keeps its login valid.
    async fn place_of(&self, lease: &pb::Lease) -> Result<(Place, Option<Renewal>), Failure> {
        let Where::There { identity, proxy, .. } = self.place else { return Ok((Place::Here, None)) };
        let identity = identity.as_deref();
        let login = match lease.has_login() {
            true => Some(Login::make(self.context, self.client, lease, identity).await?),
            false => None,
        };
        let place = Place::there(lease, identity, *proxy, login.as_ref())?;
        Ok((place, login.map(|login| login.keep(self.client, |_| ()))))
    }

    /// The files of a login for a command that runs here, named by its variables.
    async fn files_of(
        &self,
        lease: &pb::Lease,
        env: &mut BTreeMap<String, String>,
    ) -> Result<Option<(SshFiles, Renewal)>, Failure> {
        if !lease.has_login() {
            return Ok(None);
        }
        let login = Login::make(self.context, self.client, lease, None).await?;
        let files = SshFiles::for_a_while(&lease.id)?;
        files.write_login(&login)?;
        files.write("config", &files.host_block(&lease.id, &login.way, None, None))?;
        for (variable, name) in [
            (env::KeyFile::VARIABLE, "key"),
            ("WHARFINGER_CERTIFICATE_FILE", "key-cert.pub"),
            ("WHARFINGER_SSH_CONFIG", "config"),
        ] {
            env.insert(variable.into(), files.path(name).display().to_string());
        }
        let renewal = login.keep(self.client, files.certificate_writer());
        Ok(Some((files, renewal)))
    }

    /// Runs the command until it ends, or until it must end. What it left running is dead when this returns.
    async fn execute(&self, place: &Place, guard: &LeaseGuard, lease: &Arc<pb::Lease>, signals: &mut Signals) -> Ended {
        let server = &self.context.server;
        let mut env = match place {
            Place::There { .. } => env::variables(lease, server),
            Place::Here => env::variables_with_access(lease, server),
        };
        let key_file = match place {
            Place::There { .. } => None,
            Place::Here => match env::KeyFile::write(lease) {
                Ok(file) => file,
                Err(error) => {
                    return Ended::Shell(ShellError::File(format!("the lease's key cannot be kept: {error}")));
                }
            },
        };
        if let Some(file) = &key_file {
            env.insert(env::KeyFile::VARIABLE.into(), file.path());
        }
        let _files = match place {
            Place::There { .. } => None,
            Place::Here => match self.files_of(lease, &mut env).await {
                Ok(files) => files,
                Err(failure) => return Ended::Shell(ShellError::File(failure.message)),
            },
        };
        if self.args.scrub_oidc {
            env.extend(crate::cli::token_source::oidc_variables().map(|name| (name, String::new())));
        }
        env.extend(trace::variables(&lease.id));
        env.extend(self.args.env.iter().cloned());
        let input = match self.place {
            Where::There { input, .. } => input.as_ref().map(Input::reader_at_start),
            Where::Here => None,
        };
        let printer = Printer::start();
        let ended = {
            let running = place.execute(Work { argv: self.args.command.clone(), env, input }, &printer);
            tokio::pin!(running);
            let mut status = guard.status();
            let mut told = Told::default();
            loop {
                tokio::select! {
                    // The end of a command that is known comes before the news that its lease is lost.
                    biased;
                    result = &mut running => break match result {
                        Ok(exit) => Ended::Exit(exit),
                        Err(error) => Ended::Shell(error),
                    },
                    signal = signals.recv() => break Ended::Interrupted(signal),
                    changed = status.changed() => {
                        let now = status.borrow_and_update().clone();
                        match (changed, now) {
                            (_, LeaseStatus::Lost(lost)) => break Ended::Lost(lost),
                            (Err(_), _) => break Ended::Lost(Lost::NoContact(guard.lease())),
                            (Ok(()), LeaseStatus::Active(lease) | LeaseStatus::Doubt(lease) | LeaseStatus::EndsAt(lease, _)) => {
                                told.tell(self.context, &lease);
                            }
                            (Ok(()), _) => {}
                        }
                    }
                }
            }
        };
        printer.settle().await;
        ended
    }

    /// The fence on the host may have refused the command: the broker knows whether the lease is still ours. `None`: it is,
    /// and the command has failed by itself.
    async fn not_ours(&self, guard: &LeaseGuard) -> Option<Lost> {
        let ended = match self.client.get(guard.id()).await {
            Ok(lease) => !lease.may_work(),
            Err(ClientError::NotFound(_)) => true,
            // A holder without contact cannot know the outcome; the check that follows a failure asks again.
            Err(_) => false,
        };
        if !ended {
            return None;
        }
        // The news of it is on its way.
        tokio::time::timeout(NEWS, guard.broken()).await.ok()
    }

    /// The lease was lost under the command, which is dead.
    fn lost(&self, lost: &Lost) -> Result<Attempt, Failure> {
        let lease = lost.lease();
        let again = match lost {
            Lost::Ended(lease) => match lease.state() {
                pb::LeaseState::Broken | pb::LeaseState::Expired => true,
                // It will never be, or its holder (who is us, or who says so) has ended it.
                pb::LeaseState::Unspecified
                | pb::LeaseState::Queued
                | pb::LeaseState::Preparing
                | pb::LeaseState::Active
                | pb::LeaseState::Released
                | pb::LeaseState::Cancelled
                | pb::LeaseState::Failed => false,
            },
            // Without an answer.
            _ => true,
        };
        if !again {
            let failure = lost_failure(lost);
            return Err(match lease.state() {
                pb::LeaseState::Released | pb::LeaseState::Cancelled => {
                    failure.remedy("someone else released it; with --request-id, use an id that was not used before")
                }
                _ => failure,
            });
        }
        unsettled::tell(self.context.ui, self.on.get().map_or("", String::as_str), lost);
        if is_the_works_fault(lease) {
            self.context.ui.event("the work is to blame: it is not run again");
            return Ok(Attempt::Done(Exit::Command(1)));
        }
        Ok(Attempt::Again)
    }

    /// We were asked to stop: the command is dead, the resource may be in any state.
    async fn interrupted(&self, guard: LeaseGuard, signal: Signal, signals: &mut Option<Signals>) -> Attempt {
        if let Some(signals) = signals.take() {
            signals.end_on_next();
        }
        let waiting = matches!(*guard.status().borrow(), LeaseStatus::Waiting(_));
        let outcome = if waiting { pb::Outcome::Ok } else { pb::Outcome::Abandoned };
        self.release(guard, outcome, &format!("interrupted by {}", signal.name())).await;
        Attempt::Done(signal.exit())
    }

    /// The command failed. If the resource is to blame, it is run again elsewhere.
    async fn failed(
        &self,
        guard: LeaseGuard,
        lease: &pb::Lease,
        note: &str,
        exit: Exit,
        signals: &mut Option<Signals>,
    ) -> Result<Attempt, Failure> {
        if !self.args.no_check
            && self.args.outcome_on_failure == Outcome::Failed
            && let Some(heard) = signals.as_mut()
        {
            match self.check(&guard, lease, note, heard).await {
                Blamed::Resource(lost) => {
                    let works = is_the_works_fault(lost.lease());
                    return self.lost(&lost).map(|attempt| if works { Attempt::Done(exit) } else { attempt });
                }
                Blamed::Interrupted(signal) => return Ok(self.interrupted(guard, signal, signals).await),
                Blamed::Command { .. } => {}
            }
        }
        let outcome = self.args.outcome_on_failure;
        let released = self.release_and_hold(guard, outcome.into(), note, self.args.hold_on_failure).await;
        if let Some(hold) = self.args.hold_on_failure.filter(|_| released.is_some()) {
            let (id, hold) = (&lease.resource_id, text::span_text(hold));
            self.context.ui.event(&format!("{id} is kept for {hold}: wharfinger ssh {id} opens a shell in it"));
            self.context.ui.event(&format!("wharfinger recover {id} gives it back before, and deletes what is in it"));
        }
        if let Some(released) = released.filter(|_| outcome == Outcome::Failed) {
            self.tell_finding(&released, signals.as_mut()).await;
        }
        Ok(Attempt::Done(exit))
    }

    /// Says whose fault the failure was, if that is known soon: the check after the release tells.
    async fn tell_finding(&self, lease: &pb::Lease, signals: Option<&mut Signals>) {
        let interrupted = async {
            match signals {
                Some(signals) => {
                    signals.recv().await;
                }
                None => std::future::pending().await,
            }
        };
        let found = tokio::select! {
            biased;
            () = interrupted => None,
            found = tokio::time::timeout(FINDING, self.finding(lease)) => found.ok().flatten(),
        };
        if let Some(found) = found
            && matches!(found.fault(), pb::finding::Fault::Resource | pb::finding::Fault::Work)
        {
            self.context.ui.event(&format!("whose fault: {}", text::finding(&found)));
        }
    }

    /// What the check after the release found; `None`: there is no such check. The watch of the lease tells it.
    async fn finding(&self, released: &pb::Lease) -> Option<pb::Finding> {
        let open = |found: &pb::Finding| found.fault() == pb::finding::Fault::Open;
        let told = released.finding.clone()?;
        if !open(&told) {
            return Some(told);
        }
        let request = pb::WatchRequest { lease_ids: vec![released.id.clone()], ..pb::WatchRequest::default() };
        let mut watch = self.client.watch(request);
        loop {
            if let Watched::Lease(lease) = watch.next().await.ok()? {
                let found = lease.finding?;
                if !open(&found) {
                    return Some(found);
                }
            }
        }
    }

    /// Reports the failure, so that the broker checks the resource, and waits for what comes of it.
    async fn check(&self, guard: &LeaseGuard, lease: &pb::Lease, note: &str, signals: &mut Signals) -> Blamed {
        let mut spinner = self.context.ui.spinner();
        spinner.turn(&format!("checking {} before the command is blamed", lease.resource_id));
        let mut status = guard.status();
        let look = async {
            let told = guard.report(&format!("the command ended with {note}")).await?;
            // The doubt and its end are on the lease. Without a doubt there is no check to wait for.
            let mut checked = false;
            if told.doubt.is_some() {
                let settled = |status: &LeaseStatus| match status {
                    LeaseStatus::Active(lease) | LeaseStatus::Doubt(lease) | LeaseStatus::EndsAt(lease, _) => {
                        lease.revision > told.revision && lease.doubt.is_none()
                    }
                    _ => false,
                };
                checked = status.wait_for(settled).await.is_ok();
            }
            Ok::<_, ClientError>(checked)
        };
        let blamed = tokio::select! {
            biased;
            lost = guard.broken() => Blamed::Resource(lost),
            signal = signals.recv() => Blamed::Interrupted(signal),
            looked = tokio::time::timeout(self.args.check_for, look) => match looked {
                Ok(Ok(true)) => Blamed::Command { healthy: Some(lease.resource_id.clone()) },
                Ok(Ok(false) | Err(_)) | Err(_) => Blamed::Command { healthy: None },
            },
        };
        drop(spinner);
        if let Blamed::Command { healthy: Some(id) } = &blamed {
            self.context.ui.event(&format!("{id} was checked and is healthy: the failure is the command's own"));
        }
        blamed
    }

    /// The command could not be started, or its end is not known.
    async fn shell_failed(
        &self,
        guard: LeaseGuard,
        lease: &pb::Lease,
        error: ShellError,
        signals: &mut Option<Signals>,
    ) -> Result<Attempt, Failure> {
        let text = error.to_string();
        match error {
            ShellError::NotReached(_) | ShellError::WrongHost(_) => {
                Ok(self.unreached(guard, lease, &text, pb::Outcome::Ok).await)
            }
            // It may have run, and may run on. The server decides whether its host is lost.
            ShellError::Unreachable(_) => Ok(self.host_lost(guard, lease, &text).await),
            ShellError::Refused(_) if self.has_the_leases_key(lease) => {
                Ok(self.unreached(guard, lease, &text, pb::Outcome::Ok).await)
            }
            ShellError::Refused(_) => {
                self.release(guard, pb::Outcome::Ok, "the host refused the holder's own key").await;
                Err(place::refused(&error))
            }
            ShellError::Closed(_) => {
                self.release(guard, pb::Outcome::Failed, &text).await;
                Err(Failure::new(Exit::Lost, text)
                    .remedy("raise ChannelTimeout in the host's sshd_config, or let the command print now and then"))
            }
            ShellError::NotStarted(_) | ShellError::File(_) => {
                // No such program, which is the caller's; or no such directory, which is the resource's.
                self.context.ui.warn(&text);
                self.failed(guard, lease, &text, Exit::NotFound, signals).await
            }
        }
    }

    /// Whether the key that was refused is the one that came with the lease: then its pool is to be mended, not the caller.
    fn has_the_leases_key(&self, lease: &pb::Lease) -> bool {
        let named = matches!(self.place, Where::There { identity: Some(_), .. });
        lease.has_login() || !named && lease.private_key().is_some()
    }

    /// The host was lost under the command. The lease is kept until the server has decided, and the command runs elsewhere.
    async fn host_lost(&self, guard: LeaseGuard, lease: &pb::Lease, why: &str) -> Attempt {
        let ui = self.context.ui;
        let on = on_machine(lease);
        ui.event(&format!("{on} was lost while the command ran: {why}"));
        if let Err(error) = guard.report_unreached(why).await {
            ui.warn(&format!("the report did not reach the server: {error}"));
        }
        let seen = format!("the host was lost while the command ran: {why}");
        let unsettled = Some(Unsettled::keep(ui, guard, on, seen));
        Attempt::Elsewhere { avoid: lease.resource_id.clone(), why: why.to_string(), unsettled }
    }

    /// The host could not be reached from here. The server decides whether the host is at fault, and meanwhile the command
    /// runs elsewhere.
    async fn unreached(&self, guard: LeaseGuard, lease: &pb::Lease, why: &str, outcome: pb::Outcome) -> Attempt {
        let ui = self.context.ui;
        ui.event(&format!("not reached from here: {why}"));
        if let Err(error) = guard.report_unreached(why).await {
            ui.warn(&format!("the report did not reach the server: {error}"));
        }
        self.release(guard, outcome, why).await;
        Attempt::Elsewhere { avoid: lease.resource_id.clone(), why: why.to_string(), unsettled: None }
    }

    /// Releases. A release that fails is printed and is no error: the lease then ends by its TTL.
    async fn release(&self, guard: LeaseGuard, outcome: pb::Outcome, note: &str) {
        self.release_and_hold(guard, outcome, note, None).await;
    }

    /// Releases, and has the resource kept. Returns the lease if both worked; what cannot be held is released all the same.
    async fn release_and_hold(
        &self,
        guard: LeaseGuard,
        outcome: pb::Outcome,
        note: &str,
        hold: Option<Duration>,
    ) -> Option<pb::Lease> {
        let ui = self.context.ui;
        let id = guard.id().to_string();
        let mut answer = guard.release_and_hold(outcome, note, hold).await;
        let mut whole = true;
        if let (Some(_), Err(error @ ClientError::Request(_))) = (hold, &answer) {
            ui.warn(&format!("the resource is not kept: {error}"));
            whole = false;
            answer = self.client.release(&id, outcome, note).await.map(|answer| answer.lease.unwrap_or_default());
        }
        match answer {
            Ok(lease) => {
                ui.event(&format!("lease {id} {}: {}", text::lease_state(&lease), text::outcome(outcome)));
                return whole.then_some(lease);
            }
            // It ended in the same moment in another way.
            Err(ClientError::State(_) | ClientError::NotFound(_)) => {}
            Err(error) => ui.warn(&format!("lease {id} was not released and ends by its TTL: {error}")),
        }
        None
    }
}

/// How the command ended.
enum Ended {
    Exit(wharfinger_adapter::Exit),
    Shell(ShellError),
    Lost(Lost),
    Interrupted(Signal),
}

/// Who is to blame for a failure.
enum Blamed {
    /// The command; `healthy`: the resource, if its check said so.
    Command {
        healthy: Option<String>,
    },
    Resource(Lost),
    Interrupted(Signal),
}

/// What has been told of a lease while its command runs.
#[derive(Default)]
struct Told {
    doubt: String,
    ends_at: Option<prost_types::Timestamp>,
}

impl Told {
    fn tell(&mut self, context: &Context, lease: &pb::Lease) {
        if lease.doubt_detail() != self.doubt {
            if lease.doubt.is_none() {
                context.ui.event(&format!("lease {}: {} is out of doubt", lease.id, lease.resource_id));
            } else {
                context.ui.event(&format!(
                    "lease {}: {} is in doubt: {}",
                    lease.id,
                    lease.resource_id,
                    text::one_line(lease.doubt_detail())
                ));
            }
            lease.doubt_detail().clone_into(&mut self.doubt);
        }
        if lease.ends_at != self.ends_at {
            match &lease.ends_at {
                Some(at) => context.ui.event(&format!(
                    "lease {}: {} ends in {}",
                    lease.id,
                    lease.resource_id,
                    text::until(Some(at))
                )),
                None => context.ui.event(&format!("lease {}: {} does not end after all", lease.id, lease.resource_id)),
            }
            self.ends_at = lease.ends_at;
        }
    }
}

/// Whether a lease broke for its work, which was there when several resources were lost or mangled.
fn is_the_works_fault(lease: &pb::Lease) -> bool {
    lease.causes.last().is_some_and(|cause| cause.reason == WORK_BLAMED)
}

/// The resource, with its machine where it has a name.
fn on_machine(lease: &pb::Lease) -> String {
    let machine = text::machine(lease.access.as_ref());
    if machine == "-" { lease.resource_id.clone() } else { format!("{machine} ({})", lease.resource_id) }
}

fn at_path(lease: &pb::Lease) -> String {
    let path = lease.access.as_ref().map(|access| access.path.as_str()).unwrap_or_default();
    if path.is_empty() { String::new() } else { format!(" in {path}") }
}

fn describe(exit: &wharfinger_adapter::Exit) -> String {
    match exit {
        wharfinger_adapter::Exit::Code(code) => format!("exit code {code}"),
        wharfinger_adapter::Exit::Signal(name) => format!("signal {name}"),
        wharfinger_adapter::Exit::TimedOut => "a time-out".into(),
    }
}
