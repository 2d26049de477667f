//! One attempt: a lease, its command, and the end of both.

use super::env;
use super::files::{Cut, FileArgs};
use super::input::Input;
use super::land;
use super::login::{Login, Renewal, SshFiles};
use super::place::{Place, Printer, Work};
use super::record::{End, Record};
use super::signals::{Signal, Signals};
use super::trace;
use super::unsettled;
use super::wait::{self, Waited};
use super::{Attempt, Common, NEWS, WORK_BLAMED, Where};
use crate::cli::ci::{Level, Log};
use crate::cli::connect::Context;
use crate::cli::error::Failure;
use crate::cli::lease::lost_failure;
use crate::cli::text;
use crate::cli::ui::Ui;
use crate::client::{Client, ClientError, LeaseGuard, LeaseStatus, Lost};
use crate::pb;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use wharfinger_adapter::ShellError;

/// Context of an attempt.
pub(super) struct One<'a> {
    pub(super) context: &'a Context,
    pub(super) client: &'a Client,
    pub(super) args: &'a Common,
    pub(super) place: &'a Where,
    pub(super) land: Option<&'a land::Request>,
    pub(super) files: Option<&'a FileArgs>,
    pub(super) record: &'a Record,
    pub(super) signals: Signals,
    pub(super) log: Log,
    /// Of how many.
    pub(super) number: (u32, u64),
    /// The machine and the resource of the lease, once it is active: an ended lease does not name them.
    pub(super) on: OnceLock<String>,
}

impl One<'_> {
    pub(super) async fn run(&self, guard: LeaseGuard) -> Result<Attempt, Failure> {
        let ui = self.context.ui;
        let mut heard = self.signals.clone();
        let asked = guard.lease();
        self.record.asked(&asked);
        let waiting = self.section("wait", "waiting for a host", true);
        ui.event(&format!("lease {} asked for: {}", asked.id, text::selector(asked.selector.as_ref())));
        let lease = match wait::active(self.context, self.client, &guard, &mut heard).await {
            Waited::Active(lease) => lease,
            Waited::Lost(lost) => return self.lost(&lost),
            Waited::Interrupted(signal) => return Ok(self.interrupted(guard, signal).await),
        };
        let on = self.on.get_or_init(|| on_machine(&lease));
        self.record.active(&lease);
        drop(waiting);
        ui.event(&format!("lease {} ACTIVE on {on}{}", lease.id, at_path(&lease)));
        let (place, _renewal) = match self.place_of(&lease).await {
            Ok(place) => place,
            Err(failure) => {
                // Nothing was done there.
                self.release(guard, pb::Outcome::Ok, "the host was not used").await;
                return Err(failure);
            }
        };
        if let Some(files) = self.files
            && let Err(cut) = files.put(&self.transfer(&place, &guard, &lease)).await
        {
            return self.not_put(guard, &lease, cut).await;
        }
        let running = self.section("run", &format!("on {on}"), false);
        let ended = self.execute(&place, &guard, &lease, &mut heard).await;
        drop(running);
        match ended {
            Ended::Lost(lost) => self.lost(&lost),
            Ended::Interrupted(signal) => Ok(self.interrupted(guard, signal).await),
            Ended::Exit(exit) if exit.success() => {
                self.record.command(&lease.id, &exit, &describe(&exit));
                let brought = match self.fetch(&place, &guard, &lease, true).await {
                    Ok(brought) => brought,
                    Err(Cut::Here(why) | Cut::There(why)) => {
                        self.release(guard, pb::Outcome::Ok, "the files were not fetched").await;
                        return Err(self.not_fetched(&why));
                    }
                    Err(cut) => return self.cut(guard, &lease, cut).await,
                };
                if let Some(request) = self.land {
                    match land::run(ui, request, &place, &guard, &lease, &mut heard).await {
                        land::Ended::Done => {}
                        land::Ended::Not(failure, tainted) => {
                            let outcome = if tainted { pb::Outcome::Tainted } else { pb::Outcome::Ok };
                            self.release(guard, outcome, &failure.message).await;
                            return Err(failure);
                        }
                        land::Ended::Lost(lost) => return self.lost(&lost),
                        land::Ended::HostLost(text) => {
                            return self.shell_failed(guard, &lease, ShellError::Unreachable(text)).await;
                        }
                        land::Ended::Interrupted(signal) => {
                            return Ok(self.interrupted(guard, signal).await);
                        }
                    }
                }
                let fault = brought.and_then(|brought| self.place_files(brought));
                self.release(guard, pb::Outcome::Ok, "").await;
                match fault {
                    Some(why) => Err(self.not_fetched(&why)),
                    None => Ok(Attempt::Done(End::Command(exit))),
                }
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
                self.record.command(&lease.id, &exit, &said);
                let brought = match self.fetch(&place, &guard, &lease, false).await {
                    Ok(brought) => brought,
                    Err(Cut::Here(why) | Cut::There(why)) => {
                        self.context.ui.warn(&format!("the files were not fetched: {why}"));
                        self.record.fetched(Vec::new(), Some(why));
                        None
                    }
                    Err(cut) => return self.cut(guard, &lease, cut).await,
                };
                let ended = self.failed(guard, &lease, &said, End::Command(exit)).await?;
                // The files of an attempt that does not count have no place.
                if matches!(ended, Attempt::Done(End::Command(_)))
                    && let Some(brought) = brought
                    && let Some(why) = self.place_files(brought)
                {
                    self.context.ui.warn(&format!("not all files were fetched: {why}"));
                }
                Ok(ended)
            }
            Ended::Shell(error) => self.shell_failed(guard, &lease, error).await,
        }
    }

    /// A section of the log of a CI product, until it is dropped.
    fn section(&self, part: &str, title: &str, folded: bool) -> Section {
        let (number, all) = self.number;
        let section =
            Section { ui: self.context.ui, log: self.log, name: format!("wharfinger_{number}_{part}"), folded };
        let title = format!("wharfinger: attempt {number} of {all}: {title}");
        section.print(self.log.open(&section.name, &title, folded, now_s()));
        section
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
            let limit = async {
                match self.args.contract.timeout {
                    Some(limit) => tokio::time::sleep(limit).await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(limit);
            loop {
                tokio::select! {
                    // The end of a command that is known comes before the news that its lease is lost.
                    biased;
                    result = &mut running => break match result {
                        Ok(exit) => Ended::Exit(exit),
                        Err(error) => Ended::Shell(error),
                    },
                    signal = signals.recv() => break Ended::Interrupted(signal),
                    () = &mut limit => break Ended::Exit(wharfinger_adapter::Exit::TimedOut),
                    changed = status.changed() => {
                        let now = status.borrow_and_update().clone();
                        match (changed, now) {
                            (_, LeaseStatus::Lost(lost)) => break Ended::Lost(lost),
                            (Err(_), _) => break Ended::Lost(Lost::NoContact(guard.lease())),
                            (Ok(()), LeaseStatus::Active(lease) | LeaseStatus::Doubt(lease) | LeaseStatus::EndsAt(lease, _)) => {
                                told.tell(self.context, self.log, &lease);
                            }
                            (Ok(()), _) => {}
                        }
                    }
                }
            }
        };
        match &ended {
            // Some of the time is left for the release.
            Ended::Interrupted(_) => printer.settle_within(self.args.contract.cancel_grace.mul_f32(0.6)).await,
            _ => printer.settle().await,
        }
        ended
    }

    /// The fence on the host may have refused the command: the broker knows whether the lease is still ours. `None`: it is,
    /// and the command has failed by itself.
    pub(super) async fn not_ours(&self, guard: &LeaseGuard) -> Option<Lost> {
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
    pub(super) fn lost(&self, lost: &Lost) -> Result<Attempt, Failure> {
        self.record.lost(lost);
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
            return Ok(Attempt::Done(End::Blamed(None)));
        }
        Ok(Attempt::Again)
    }

    /// We were asked to stop: the command is dead, the resource may be in any state.
    pub(super) async fn interrupted(&self, guard: LeaseGuard, signal: Signal) -> Attempt {
        let waiting = matches!(*guard.status().borrow(), LeaseStatus::Waiting(_));
        let outcome = if waiting { pb::Outcome::Ok } else { pb::Outcome::Abandoned };
        let why = format!("interrupted by {}", signal.name());
        self.record.ended(guard.id(), &why);
        self.release(guard, outcome, &why).await;
        Attempt::Done(End::Cancelled(signal))
    }

    /// Releases. A release that fails is printed and is no error: the lease then ends by its TTL.
    pub(super) async fn release(&self, guard: LeaseGuard, outcome: pb::Outcome, note: &str) {
        self.release_and_hold(guard, outcome, note, None).await;
    }

    /// Releases, and has the resource kept. Returns the lease if both worked; what cannot be held is released all the same.
    pub(super) async fn release_and_hold(
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
                self.record.released(&lease);
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

/// Closes its section when it is dropped.
struct Section {
    ui: Ui,
    log: Log,
    name: String,
    folded: bool,
}

impl Section {
    fn print(&self, line: Option<String>) {
        if let Some(line) = line {
            self.ui.raw(&line);
        }
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        self.print(self.log.close(&self.name, self.folded, now_s()));
    }
}

/// Seconds since the Unix epoch.
fn now_s() -> u64 {
    crate::clock::wall().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How the command ended.
enum Ended {
    Exit(wharfinger_adapter::Exit),
    Shell(ShellError),
    Lost(Lost),
    Interrupted(Signal),
}

/// Messages about a lease that were printed while its command runs.
#[derive(Default)]
struct Told {
    doubt: String,
    ends_at: Option<prost_types::Timestamp>,
}

impl Told {
    fn tell(&mut self, context: &Context, log: Log, lease: &pb::Lease) {
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
                Some(at) => {
                    let said = format!("lease {}: {} ends in {}", lease.id, lease.resource_id, text::until(Some(at)));
                    context.ui.event(&said);
                    if let Some(line) = log.annotation(Level::Warning, "the host will be gone", &said) {
                        context.ui.raw(&line);
                    }
                }
                None => context.ui.event(&format!("lease {}: {} does not end after all", lease.id, lease.resource_id)),
            }
            self.ends_at = lease.ends_at;
        }
    }
}

/// Whether a lease broke for its work, which was there when several resources were lost or mangled.
pub(crate) fn is_the_works_fault(lease: &pb::Lease) -> bool {
    lease.causes.last().is_some_and(|cause| cause.reason == WORK_BLAMED)
}

/// The resource, with its machine where it has a name.
pub(super) fn on_machine(lease: &pb::Lease) -> String {
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
