//! The record of a run: its attempts, how it ended, and whose fault that was. It is the result file of docs/ci.md.

use super::WORK_BLAMED;
use super::contract::Contract;
use super::signals::Signal;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::text;
use crate::cli::ui::Ui;
use crate::client::Lost;
use crate::pb;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::time::Instant;
use wharfinger_adapter::{Exit as CommandExit, access};

/// Version of the result file.
const VERSION: u32 = 1;
/// Maximum length of a text in the result file, in bytes.
const TEXT_BYTES_MAX: usize = 4096;
/// Maximum number of paths in `fetched`.
const FETCHED_MAX: usize = 10_000;

/// How a run ended, unless by a failure of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The command ended like this, or was ended by `--timeout`.
    Command(CommandExit),
    /// The host has no such program.
    NotStarted,
    /// The work is to blame for what became of its resources. With the end of the command, if it has one.
    Blamed(Option<CommandExit>),
    /// A signal asked us to stop.
    Cancelled(Signal),
}

/// Party at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Work,
    Resource,
    Undecided,
    Open,
    Request,
    Service,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::None => "NONE",
            Fault::Work => "WORK",
            Fault::Resource => "RESOURCE",
            Fault::Undecided => "UNDECIDED",
            Fault::Open => "OPEN",
            Fault::Request => "REQUEST",
            Fault::Service => "SERVICE",
        }
    }

    /// Whether the same may end otherwise, through no merit of the work.
    fn retry(self) -> bool {
        matches!(self, Fault::Resource | Fault::Service)
    }
}

/// Two clocks at once: one for readers, one for differences.
type Time = (SystemTime, Instant);

fn now() -> Time {
    (crate::clock::wall(), Instant::now())
}

/// One lease that was asked for.
#[derive(Debug)]
struct Attempt {
    lease: String,
    resource: Option<String>,
    machine: Option<String>,
    pool: Option<String>,
    commit: Option<String>,
    asked: Time,
    active: Option<Time>,
    over: Option<Time>,
    state: pb::LeaseState,
    outcome: Option<pb::Outcome>,
    exit: Option<CommandExit>,
    causes: Vec<pb::Cause>,
    finding: Option<pb::Finding>,
    why: String,
    /// The host was not reached from here.
    unreached: bool,
}

/// Shared by everything that learns something about a run.
#[derive(Clone, Debug)]
pub(super) struct Record(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    ui: Ui,
    file: Option<PathBuf>,
    contract: Contract,
    request_id: String,
    holder: String,
    work: String,
    ci: Option<&'static str>,
    started: Time,
    attempts: Vec<Attempt>,
    fetched: Vec<String>,
    fetch_error: Option<String>,
    done: bool,
}

impl Record {
    /// The record of a run that begins. Removes an older result file.
    ///
    /// # Errors
    /// The result file could not be written (`BadData`).
    pub(super) fn begin(
        ui: Ui,
        contract: &Contract,
        request: &pb::LeaseRequest,
        ci: Option<&'static str>,
    ) -> Result<Self, Failure> {
        if let Some(path) = &contract.result {
            prepare(path).map_err(|why| {
                Failure::new(Exit::BadData, format!("the result file {} cannot be written: {why}", path.display()))
                    .remedy("name a file in a directory that is there and that this user may write")
            })?;
        }
        let state = State {
            ui,
            file: contract.result.clone(),
            contract: contract.clone(),
            request_id: request.request_id.clone(),
            holder: request.holder.clone(),
            work: request.work.clone(),
            ci,
            started: now(),
            attempts: Vec::new(),
            fetched: Vec::new(),
            fetch_error: None,
            done: false,
        };
        Ok(Self(Arc::new(Mutex::new(state))))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, lease: &str, change: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = self.lock().attempts.iter_mut().rev().find(|attempt| attempt.lease == lease) {
            change(attempt);
        }
    }

    /// A lease was asked for. The same one again, by its request id, is the same attempt.
    pub(super) fn asked(&self, lease: &pb::Lease) {
        let mut state = self.lock();
        if state.attempts.iter().any(|attempt| attempt.lease == lease.id) {
            return;
        }
        state.attempts.push(Attempt {
            lease: lease.id.clone(),
            resource: None,
            machine: None,
            pool: None,
            commit: None,
            asked: now(),
            active: None,
            over: None,
            state: lease.state(),
            outcome: None,
            exit: None,
            causes: Vec::new(),
            finding: None,
            why: String::new(),
            unreached: false,
        });
    }

    /// The holder may work.
    pub(super) fn active(&self, lease: &pb::Lease) {
        let some = |value: &str| (!value.is_empty()).then(|| value.to_string());
        let machine = text::machine(lease.access.as_ref());
        self.of(&lease.id, |attempt| {
            attempt.active = Some(now());
            attempt.state = lease.state();
            attempt.resource = some(&lease.resource_id);
            attempt.pool = some(&lease.pool);
            attempt.machine = (machine != "-").then_some(machine);
            attempt.commit = lease.access_pairs().get(access::COMMIT).and_then(|commit| some(commit));
        });
    }

    /// The command ended.
    pub(super) fn command(&self, lease: &str, exit: &CommandExit, said: &str) {
        self.of(lease, |attempt| {
            attempt.over.get_or_insert_with(now);
            attempt.exit = Some(exit.clone());
            attempt.why = format!("the command ended with {said}");
        });
    }

    /// The attempt ended in another way.
    pub(super) fn ended(&self, lease: &str, why: &str) {
        self.of(lease, |attempt| {
            attempt.over.get_or_insert_with(now);
            attempt.why = why.to_string();
        });
    }

    /// The host was not reached from here.
    pub(super) fn unreached(&self, lease: &str, why: &str) {
        self.of(lease, |attempt| {
            attempt.over.get_or_insert_with(now);
            attempt.unreached = true;
            attempt.why = why.to_string();
        });
    }

    /// The lease is over, through no act of ours.
    pub(super) fn lost(&self, lost: &Lost) {
        let lease = lost.lease();
        let why = match text::why(lease) {
            why if why.is_empty() => lost.to_string(),
            why => why,
        };
        self.of(&lease.id, |attempt| {
            attempt.over.get_or_insert_with(now);
            attempt.state = lease.state();
            attempt.causes.clone_from(&lease.causes);
            attempt.why = why;
        });
    }

    /// The lease was released.
    pub(super) fn released(&self, lease: &pb::Lease) {
        self.of(&lease.id, |attempt| {
            attempt.over.get_or_insert_with(now);
            attempt.state = lease.state();
            if lease.state() == pb::LeaseState::Released {
                attempt.outcome = Some(lease.outcome());
            }
            attempt.finding.clone_from(&lease.finding);
        });
    }

    /// A check found this.
    pub(super) fn found(&self, lease: &str, finding: &pb::Finding) {
        self.of(lease, |attempt| attempt.finding = Some(finding.clone()));
    }

    /// Paths of files that were brought here, and the reason for those that were not.
    pub(super) fn fetched(&self, paths: Vec<String>, error: Option<String>) {
        let mut state = self.lock();
        state.fetched = paths;
        state.fetch_error = error;
    }

    /// The reason why files were not brought here.
    pub(super) fn fetch_failed(&self, why: &str) {
        self.lock().fetch_error = Some(why.to_string());
    }

    /// How the last attempt ended, in words.
    pub(super) fn last_end(&self) -> String {
        self.lock().attempts.last().map(|attempt| attempt.why.clone()).unwrap_or_default()
    }

    /// The request goes by another id.
    pub(super) fn asks_by(&self, request_id: &str) {
        self.lock().request_id = request_id.to_string();
    }

    /// The fault of an end, as the title and the text of an annotation. `None`: nothing failed.
    pub(super) fn annotation(&self, ended: &Result<End, Failure>) -> Option<(String, String)> {
        let state = self.lock();
        let (fault, detail) = state.fault(ended);
        if fault == Fault::None {
            return None;
        }
        let why = state.attempts.last();
        let story = why.map(|attempt| format!("{}; wharfinger why {}", attempt.why, attempt.lease)).unwrap_or_default();
        let parts = [detail, story].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        Some((format!("whose fault: {}", fault.name()), parts.join("; ")))
    }

    /// Writes the result file, and returns the exit code or the failure with it.
    pub(super) fn finish(&self, ended: Result<End, Failure>) -> Result<Exit, Failure> {
        let mut state = self.lock();
        let exit = state.contract.exit(&ended);
        state.write(&ended, exit);
        drop(state);
        ended.map(|_| exit).map_err(|failure| Failure { exit, ..failure })
    }

    /// Writes the result file before the process ends at once, unless it is written.
    pub(super) fn cut_short(&self, signal: Signal) {
        self.lock().write(&Ok(End::Cancelled(signal)), signal.exit());
    }
}

impl State {
    fn write(&mut self, ended: &Result<End, Failure>, exit: Exit) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let Some(path) = self.file.clone() else { return };
        let document = self.json(ended, exit);
        if let Err(error) = write(&path, &format!("{document:#}\n")) {
            self.ui.warn(&format!("the result file {} was not written: {error}", path.display()));
        }
    }

    /// Party at fault, with the evidence in words.
    fn fault(&self, ended: &Result<End, Failure>) -> (Fault, String) {
        let last = self.attempts.last();
        match ended {
            Ok(End::Cancelled(_)) => (Fault::None, String::new()),
            Ok(End::Command(exit)) if exit.success() => (Fault::None, String::new()),
            Ok(End::Command(_) | End::NotStarted) => last.map_or((Fault::Undecided, String::new()), Attempt::finding),
            Ok(End::Blamed(_)) => {
                let root = last.and_then(|attempt| attempt.causes.last());
                (Fault::Work, root.map(text::cause_short).unwrap_or_default())
            }
            Err(failure) => match failure.exit {
                Exit::Lost => last.map_or((Fault::Service, failure.message.clone()), Attempt::loss),
                Exit::Unavailable => (Fault::Service, failure.message.clone()),
                _ => (Fault::Request, failure.message.clone()),
            },
        }
    }

    fn json(&self, ended: &Result<End, Failure>, exit: Exit) -> Value {
        let last = self.attempts.last();
        let (fault, detail) = self.fault(ended);
        // Its owner ended the lease: another try is the owner's to ask for.
        let retry = fault.retry();
        let (code, signal) = last.map_or((None, None), |attempt| code_and_signal(attempt.exit.as_ref()));
        let (name, signal) = match ended {
            Ok(End::Command(CommandExit::TimedOut)) => ("timeout", signal),
            Ok(End::Command(_) | End::NotStarted) => ("command", signal),
            Ok(End::Blamed(_)) => ("blamed", signal),
            Ok(End::Cancelled(signal)) => ("cancelled", signal.name().strip_prefix("SIG").map(String::from)),
            Err(failure) => match failure.exit {
                Exit::Lost => ("lost", signal),
                Exit::Unavailable => ("failed", signal),
                _ => ("refused", signal),
            },
        };
        let code = if matches!(ended, Ok(End::NotStarted)) { Some(i32::from(Exit::NotFound.code())) } else { code };
        let error = ended.as_ref().err().map(|failure| {
            json!({
                "message": clean(&failure.message),
                "reason": failure.reason,
                "details": failure.details.iter().map(|detail| clean(detail)).collect::<Vec<_>>(),
                "remedy": failure.remedy.as_deref().map(clean),
            })
        });
        let of_last = |field: fn(&Attempt) -> &Option<String>| last.and_then(|attempt| field(attempt).clone());
        let attempts: Vec<Value> = self.attempts.iter().enumerate().map(|(at, attempt)| attempt.json(at + 1)).collect();
        json!({
            "version": VERSION,
            "ended": name,
            "exits_with": exit.code(),
            "exit_code": code,
            "signal": signal,
            "fault": fault.name(),
            "fault_detail": clean(&detail),
            "retry": retry,
            "request_id": self.request_id,
            "holder": clean(&self.holder),
            "work": clean(&self.work),
            "ci": self.ci,
            "started_at": moment(self.started.0),
            "ended_at": moment(now().0),
            "lease": last.map(|attempt| attempt.lease.clone()),
            "resource": of_last(|attempt| &attempt.resource),
            "machine": of_last(|attempt| &attempt.machine),
            "pool": of_last(|attempt| &attempt.pool),
            "commit": of_last(|attempt| &attempt.commit),
            "attempts": attempts,
            "fetched": self.fetched.iter().take(FETCHED_MAX).collect::<Vec<_>>(),
            "fetch_error": self.fetch_error.as_deref().map(clean),
            "error": error,
            "why": last.map(|attempt| format!("wharfinger why {}", attempt.lease)),
        })
    }
}

impl Attempt {
    /// Party at fault for a command that failed.
    fn finding(&self) -> (Fault, String) {
        let Some(finding) = &self.finding else { return (Fault::Undecided, "the resource was not checked".into()) };
        let fault = match finding.fault() {
            pb::finding::Fault::Resource => Fault::Resource,
            pb::finding::Fault::Work => Fault::Work,
            pb::finding::Fault::Open => Fault::Open,
            pb::finding::Fault::Undecided | pb::finding::Fault::Unspecified => Fault::Undecided,
        };
        (fault, finding.detail.clone())
    }

    /// Party at fault for a lease that was lost for good.
    fn loss(&self) -> (Fault, String) {
        let root = self.causes.last().map_or("", |cause| cause.reason.as_str());
        let fault = match self.state {
            pb::LeaseState::Broken if root == WORK_BLAMED => Fault::Work,
            pb::LeaseState::Broken if ORDERED.contains(&root) => Fault::Service,
            pb::LeaseState::Broken => Fault::Resource,
            // No resource could be made ready for it.
            pb::LeaseState::Failed => Fault::Resource,
            // Someone else ended it.
            pb::LeaseState::Released | pb::LeaseState::Cancelled if !self.unreached && self.outcome.is_none() => {
                Fault::None
            }
            _ => Fault::Service,
        };
        (fault, self.why.clone())
    }

    fn json(&self, number: usize) -> Value {
        let millis = |from: Option<Time>, to: Option<Time>| {
            from.zip(to).map(|((_, from), (_, to))| {
                u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
            })
        };
        let causes: Vec<Value> = self
            .causes
            .iter()
            .map(|cause| {
                json!({
                    "subject": clean(&cause.subject),
                    "reason": clean(&cause.reason),
                    "detail": clean(&cause.detail),
                    "source": clean(&cause.source),
                    "at": cause.at.as_ref().and_then(text::rfc3339),
                })
            })
            .collect();
        let (code, signal) = code_and_signal(self.exit.as_ref());
        let finding = self
            .finding
            .as_ref()
            .map(|found| json!({ "fault": text::fault(found.fault()), "detail": clean(&found.detail) }));
        json!({
            "attempt": number,
            "lease": self.lease,
            "resource": self.resource,
            "machine": self.machine,
            "pool": self.pool,
            "asked_at": moment(self.asked.0),
            "active_at": self.active.map(|(at, _)| moment(at)),
            "ended_at": self.over.map(|(at, _)| moment(at)),
            "waited_ms": millis(Some(self.asked), self.active),
            "ran_ms": millis(self.active, self.over),
            "state": text::state_of_lease(self.state),
            "outcome": self.outcome.map(text::outcome),
            "exit_code": code,
            "signal": signal,
            "causes": causes,
            "finding": finding,
            "why_ended": clean(&self.why),
        })
    }
}

/// Reasons of breaks that an operator or the configuration ordered: nothing was wrong with the resource.
const ORDERED: [&str; 3] = ["OPERATOR", "POLICY", "DISABLED"];

fn code_and_signal(exit: Option<&CommandExit>) -> (Option<i32>, Option<String>) {
    match exit {
        Some(CommandExit::Code(code)) => (Some(*code), None),
        Some(CommandExit::Signal(name)) => (None, Some(name.clone())),
        Some(CommandExit::TimedOut) | None => (None, None),
    }
}

/// RFC 3339 in UTC, to the millisecond.
fn moment(at: SystemTime) -> String {
    format!("{:.3}", jiff::Timestamp::try_from(at).unwrap_or_default())
}

/// A text of others: one line, without control characters, of limited length.
fn clean(text: &str) -> String {
    let mut line = text::one_line(text);
    let mut end = TEXT_BYTES_MAX.min(line.len());
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line
}

/// Sees that the file can be written, and removes one of an earlier run.
fn prepare(path: &Path) -> Result<(), String> {
    match std::fs::symlink_metadata(path) {
        Ok(about) if about.is_file() || about.is_symlink() => {
            std::fs::remove_file(path).map_err(|error| error.to_string())?;
        }
        Ok(_) => return Err("something that is no file has this name".into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.to_string()),
    }
    let aside = aside(path).ok_or("it has no name")?;
    std::fs::File::create_new(&aside).map_err(|error| error.to_string())?;
    std::fs::remove_file(&aside).map_err(|error| error.to_string())
}

/// A name beside the file, of this process alone.
fn aside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    Some(path.with_file_name(format!(".{name}.{}.new", std::process::id())))
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let aside = aside(path).ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut file = std::fs::File::create_new(&aside)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| std::fs::rename(&aside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
    written
}

#[cfg(test)]
mod tests;
