//! The two questions, and what the answers mean.
//!
//! A probe is a ping over the kept connection: no process, no login shell, one packet each way. A session cannot outlive
//! a reboot or move to another machine, so that a pong proves the boot and the key that were proved when the connection
//! was made. One probe in twelve runs a command all the same, so that a host that cannot fork any more is found.
//!
//! A check also makes a new login, with the key that holders get, since holders make one for each command and the kept
//! connection outlives every change of authorized_keys, /run/nologin and accounts.
//!
//! A packet that is lost makes TCP wait 0.2 s, then 0.4, 0.8 and so on: a connection that has bad luck is silent for seconds
//! on a host that is well. Another connection has luck of its own. So when the kept one's answer is late by what is known of
//! this host (`answers.rs`), a new one is made beside it, and whichever answers first proves life. The attempt at the new one goes on
//! when the time is over (`connection.rs`), so that the next question finds it further on its way.
//!
//! A host that answers a ping or shows its pinned key within the time is alive: a command or a login that takes longer is
//! no miss, and no verdict either.

use crate::authority::Authority;
use crate::canary;
use crate::connection::{Connection, Live};
use crate::error::{Kind, SshError};
use crate::key::fingerprint;
use crate::logins::Logins;
use crate::shell::{SshShell, quick};
use crate::timeout::{counted, patiently};
use russh::keys::PrivateKey;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use wharfinger_adapter::{Command, Exit, Failure, Output, Verdict};
use wharfinger_host::check::{self, Boot, Needs};

/// How much longer than a connection the proving script may take: it starts a dozen processes.
const PROOF_TIMES: u32 = 2;

/// Facts of the host from the time when it was made ready.
pub(crate) struct Known<'a> {
    pub(crate) boot: Boot,
    /// SHA256 fingerprint of the host key.
    pub(crate) host_key: &'a str,
}

/// How long the proving script may take.
pub(crate) fn proof_limit(connection: &Connection) -> Duration {
    connection.endpoint.limits.connect.saturating_mul(PROOF_TIMES)
}

/// Does it answer, and is it still the same boot?
pub(crate) async fn probe(connection: &Arc<Connection>, known: &Known<'_>) -> Result<Verdict, Failure> {
    match ask(connection, connection.thorough_is_due()).await {
        Ok(boot) => Ok(compare(connection, &boot, known)),
        Err(error) => verdict(connection, error, known),
    }
}

/// The thorough question.
///
/// `login`: how holders log in.
pub(crate) async fn check(
    shell: &SshShell,
    needs: &Needs,
    known: &Known<'_>,
    login: HolderLogin,
) -> Result<Verdict, Failure> {
    let connection = &shell.connection;
    let host = &connection.endpoint.name;
    // First the question that costs nothing: it distinguishes a host that hangs from one whose disk hangs.
    match ask(connection, true).await {
        Ok(boot) => {
            if let gone @ Verdict::Gone { .. } = compare(connection, &boot, known) {
                return Ok(gone);
            }
        }
        Err(error) => return verdict(connection, error, known),
    }
    let limit = proof_limit(connection);
    let command = check::facts_command(needs, false, limit);
    let proved = tokio::select! {
        proved = shell.run_kept(&command) => proved,
        error = until_silent(connection) => Err(error),
    };
    match proved {
        // Its packets come late, so that the time says nothing of its disk.
        Ok(output)
            if output.exit == Exit::TimedOut && connection.silence().missed > connection.endpoint.limits.answer =>
        {
            let text = format!("the answers of host {host} are often late, and the check takes more than {limit:?}");
            Err(Failure::resource("CHECK_SLOW", text))
        }
        Ok(output) if output.exit == Exit::TimedOut => Ok(Verdict::Mangled {
            repairable: false,
            reason: "CHECK_HANGS",
            detail: format!("host {host} answers, but looking at its disk and tools takes more than {limit:?}"),
        }),
        Ok(output) => match check::examine(host, &check::read_facts(&output)?, &known.boot, needs) {
            Verdict::Healthy => log_in_anew(connection, login).await,
            other => Ok(other),
        },
        // It has just answered. Whether it still does, is asked before this is called silence.
        Err(error) if error.unreachable_reason().is_some() => match ask(connection, false).await {
            Ok(boot) => match compare(connection, &boot, known) {
                gone @ Verdict::Gone { .. } => Ok(gone),
                _ => Err(Failure::resource("CHECK_CUT_OFF", format!("the check was cut off: {}", error.message))),
            },
            Err(silent) => verdict(connection, silent, known),
        },
        Err(error) => verdict(connection, error, known),
    }
}

/// How holders log in.
pub(crate) enum HolderLogin {
    /// With keys of their own: the broker's stands for them.
    Own,
    /// With the key of the pool.
    Key(Arc<PrivateKey>),
    /// With certificates of this authority.
    Certificate(Box<Authority>),
}

/// Logs in as holders do. The host has just answered, so that a login that fails is no evidence of its death.
pub(crate) async fn log_in_anew(connection: &Arc<Connection>, login: HolderLogin) -> Result<Verdict, Failure> {
    let key = match login {
        HolderLogin::Own => None,
        HolderLogin::Key(key) => Some(key),
        HolderLogin::Certificate(authority) => {
            let shell = SshShell { connection: Arc::clone(connection) };
            let logins = Logins { shell: &shell, authority: &authority };
            return match canary::prove(&logins).await {
                Ok(()) => Ok(Verdict::Healthy),
                Err(failure) if failure.reason == "UNREACHABLE" => {
                    Err(Failure::resource("NO_NEW_LOGIN", format!("a new login failed: {}", failure.message)))
                }
                Err(failure) => Err(failure),
            };
        }
    };
    match connection.try_login(key).await {
        Ok(()) => Ok(Verdict::Healthy),
        Err(error) if error.unreachable_reason().is_some() => {
            Err(Failure::resource("NO_NEW_LOGIN", format!("a new login failed: {}", error.message)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Runs a command on a host that answers now, and as long as it does: a black hole is noticed as soon as a probe would.
pub(crate) async fn run_while_it_answers(shell: &SshShell, command: &Command) -> Result<Output, SshError> {
    ask(&shell.connection, false).await?;
    tokio::select! {
        output = shell.run_kept(command) => output,
        error = until_silent(&shell.connection) => Err(error),
    }
}

/// Comes back when the host stops answering while a long command runs there.
async fn until_silent(connection: &Arc<Connection>) -> SshError {
    loop {
        sleep(connection.endpoint.limits.answer).await;
        if let Err(error) = ask(connection, false).await
            && error.unreachable_reason().is_some()
        {
            return error;
        }
    }
}

/// Which boot answers? Over the kept connection, and over a new one if that has nothing to say for a third of the time.
async fn ask(connection: &Arc<Connection>, thorough: bool) -> Result<Boot, SshError> {
    // The question under way goes to the same host, over the same connections: its silence is ours, too. Where it ends with a sign of
    // life, ours begins anew.
    let came = Instant::now();
    let (_turn, waited) = counted(connection.silence().missed, connection.probes.acquire()).await;
    let (silence, begun) = (connection.silence(), Instant::now());
    let waited = if connection.is_alive_since(came) { Duration::ZERO } else { waited };
    let silence = silence.missed.saturating_sub(waited).max(silence.missed / 3);
    let mut said = None;
    {
        let answer = first_answer(connection, thorough, &mut said);
        tokio::pin!(answer);
        if let Some(answer) = patiently(silence, &mut answer).await {
            return answer;
        }
        if connection.is_alive_since(begun) {
            // It is there. A login or a command has the time of the configuration.
            let limit = connection.endpoint.limits.answer;
            return match patiently(limit.saturating_sub(silence), &mut answer).await {
                Some(answer) => answer,
                None => Err(connection.slow(limit.max(silence))),
            };
        }
    }
    Err(said.unwrap_or_else(|| {
        let within = (waited + silence).as_millis();
        let text = format!("{} does not answer within {within} ms", connection.endpoint.place());
        SshError::new(Kind::Timeout, text)
    }))
}

/// `said`: what the new connection came to, if the kept one is still being waited for.
async fn first_answer(
    connection: &Arc<Connection>,
    thorough: bool,
    said: &mut Option<SshError>,
) -> Result<Boot, SshError> {
    let Some(live) = connection.open_kept() else { return ask_new(connection, false).await };
    let kept = question(connection, &live, thorough);
    tokio::pin!(kept);
    // One that still owes the last answer is not waited for alone again.
    if !live.owes() {
        match patiently(connection.silence().late, &mut kept).await {
            // It broke before this question, unnoticed. The answer over a new one is worth more.
            Some(Err(error)) if error.unreachable_reason().is_some() => {
                live.set_owes(true);
                return ask_new(connection, live.is_open()).await;
            }
            Some(answer) => return answer,
            None => live.set_owes(true),
        }
    }
    let fresh = ask_new(connection, true);
    tokio::pin!(fresh);
    tokio::select! {
        biased;
        answer = &mut kept => match answer {
            Err(error) if error.unreachable_reason().is_some() => fresh.await,
            answer => answer,
        },
        answer = &mut fresh => match answer {
            Err(error) => {
                *said = Some(error);
                kept.await
            }
            answer => answer,
        },
    }
}

/// Makes a connection (`beside`: although the kept one is open) and asks over it; again, while there is time, if the
/// attempt that stood has just run out.
async fn ask_new(connection: &Arc<Connection>, beside: bool) -> Result<Boot, SshError> {
    loop {
        match if beside { connection.fresh().await } else { connection.kept().await } {
            Ok(live) => return question(connection, &live, true).await,
            Err(error) if error.kind == Kind::Timeout => {
                tracing::trace!(host = connection.endpoint.name, "dialling again: {}", error.message);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Asks over this connection: a command, or a ping where the boot behind it is known.
async fn question(connection: &Arc<Connection>, live: &Arc<Live>, thorough: bool) -> Result<Boot, SshError> {
    let begun = Instant::now();
    if !live.ping().await {
        let text = format!("the connection to {} was lost: {}", connection.endpoint.place(), live.reason());
        return Err(SshError::new(Kind::Lost, text));
    }
    connection.answered(begun);
    if !thorough && let Some(boot) = live.boot() {
        live.set_owes(false);
        return Ok(boot.clone());
    }
    let output = quick(connection, Arc::clone(live), check::boot_command()).await?;
    live.set_owes(false);
    let boot = check::read_boot(&output);
    // A kernel without boot ids answers all the same. It proves nothing, so that it is asked each time.
    if !boot.id.is_empty() {
        live.proved(boot.clone());
    }
    Ok(boot)
}

/// The host answers, with the key that the inventory pins: is it the one that was made ready?
fn compare(connection: &Connection, boot: &Boot, known: &Known<'_>) -> Verdict {
    let host = &connection.endpoint.name;
    let pinned = fingerprint(&connection.endpoint.host_key);
    let compared = !boot.id.is_empty() && !known.boot.id.is_empty();
    // The inventory may pin another key by now. The same boot is the same machine all the same (the operator pinned
    // another of its keys). Without that proof, the machine was replaced, and the operator knows.
    if pinned != known.host_key && (!compared || boot.id != known.boot.id) {
        return Verdict::Gone {
            reason: "HOST_REPLACED",
            detail: format!("host {host} had key {} when it was made ready, and has {pinned} now", known.host_key),
        };
    }
    check::compare_boots(host, boot, &known.boot).unwrap_or(Verdict::Healthy)
}

/// The verdict that follows from a failed question; `Err` if none does.
fn verdict(connection: &Connection, error: SshError, known: &Known<'_>) -> Result<Verdict, Failure> {
    if let Some(reason) = error.unreachable_reason() {
        return Ok(Verdict::Unreachable { reason, detail: error.message });
    }
    match &error.kind {
        // It has the key that it always had: the host is the same, and the configuration is wrong.
        Kind::WrongHost { got: Some(got) } if got == known.host_key => Err(error.into()),
        Kind::WrongHost { .. } => Ok(Verdict::Gone { reason: "HOST_REPLACED", detail: error.message }),
        Kind::NotStarted => {
            tracing::debug!(host = connection.endpoint.name, "{}", error.message);
            Ok(Verdict::Mangled { repairable: false, reason: "COMMANDS_FAIL", detail: error.message })
        }
        _ => Err(error.into()),
    }
}
