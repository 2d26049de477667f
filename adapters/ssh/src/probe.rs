//! The two questions, and what the answers mean.

use crate::connection::Connection;
use crate::error::{Kind, SshError};
use crate::key::fingerprint;
use crate::shell::{SshShell, quick};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use wharfinger_adapter::proof::{self, Needs};
use wharfinger_adapter::{Command, Exit, Failure, Verdict};

/// How much longer than a connection the proving script may take: it starts a dozen processes.
const PROOF_TIMES: u32 = 4;

/// What is known of the host from the time when it was made ready.
pub(crate) struct Known<'a> {
    pub(crate) boot_id: &'a str,
    /// SHA256 fingerprint of the host key.
    pub(crate) host_key: &'a str,
}

/// How long the proving script may take.
pub(crate) fn proof_limit(connection: &Connection) -> Duration {
    connection.endpoint.limits.connect.saturating_mul(PROOF_TIMES)
}

/// One tiny command over the kept connection: does it answer, and is it still the same boot?
pub(crate) async fn probe(connection: &Arc<Connection>, known: &Known<'_>) -> Result<Verdict, Failure> {
    match ask_boot_id(connection).await {
        Ok(boot_id) => Ok(compare(connection, &boot_id, known)),
        Err(error) => verdict(connection, error, known),
    }
}

/// The thorough question. What a connection that was already there says by its silence is asked again over a new one.
pub(crate) async fn check(shell: &SshShell, needs: &Needs, known: &Known<'_>) -> Result<Verdict, Failure> {
    let connection = &shell.connection;
    let host = &connection.endpoint.name;
    if connection.has_kept().await
        && let Err(error) = ask_boot_id(connection).await
    {
        tracing::debug!(host, "the kept connection is no use ({}); a new one is made", error.message);
        connection.close().await;
    }
    // First the question that costs nothing, so that a host that hangs is told from one whose disk hangs.
    match ask_boot_id(connection).await {
        Ok(boot_id) => {
            if let gone @ Verdict::Gone { .. } = compare(connection, &boot_id, known) {
                return Ok(gone);
            }
        }
        Err(error) => return verdict(connection, error, known),
    }
    let limit = proof_limit(connection);
    match shell.run_kept(&proof::facts_command(&needs.scratch, false, limit)).await {
        Ok(output) if output.exit == Exit::TimedOut => Ok(Verdict::Mangled {
            repairable: false,
            reason: "CHECK_HANGS",
            detail: format!("host {host} answers, but looking at its disk and tools takes more than {limit:?}"),
        }),
        Ok(output) => Ok(proof::examine(host, &proof::read_facts(&output)?, known.boot_id, needs)),
        Err(error) => verdict(connection, error, known),
    }
}

/// Asks for the boot id, within the connect time-out, the making of a connection included.
async fn ask_boot_id(connection: &Arc<Connection>) -> Result<String, SshError> {
    let limit = connection.endpoint.limits.connect;
    let command = Command::new(["cat", "/proc/sys/kernel/random/boot_id"]);
    // Not on the clock: a question that waits for another one's answer has not been asked yet.
    let _turn = connection.probes.acquire().await;
    let ask = async {
        let stood = connection.has_kept().await;
        match quick(connection, connection.kept().await?, command.clone()).await {
            // It broke before we came, and nobody had noticed yet. What a new one says is worth more.
            Err(SshError { kind: Kind::Lost, .. }) if stood => {
                quick(connection, connection.kept().await?, command).await
            }
            result => result,
        }
    };
    match timeout(limit, ask).await {
        Ok(Ok(output)) if output.exit.success() => Ok(output.text()),
        // No such file: a kernel without boot ids answers all the same.
        Ok(Ok(_)) => Ok(String::new()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(SshError::new(
            Kind::Timeout,
            format!("host {} does not answer within {} ms", connection.endpoint.name, limit.as_millis()),
        )),
    }
}

/// The host answers, with the key that the inventory pins: is it the one that was made ready?
fn compare(connection: &Connection, boot_id: &str, known: &Known<'_>) -> Verdict {
    let host = &connection.endpoint.name;
    let pinned = fingerprint(&connection.endpoint.host_key);
    let compared = !boot_id.is_empty() && !known.boot_id.is_empty();
    // The inventory may pin another key by now. The same boot is the same machine all the same (the operator pinned
    // another of its keys); without that proof, it was replaced and the operator has said so.
    if pinned != known.host_key && (!compared || boot_id != known.boot_id) {
        return Verdict::Gone {
            reason: "HOST_REPLACED",
            detail: format!("host {host} had key {} when it was made ready, and has {pinned} now", known.host_key),
        };
    }
    if compared && boot_id != known.boot_id {
        return Verdict::Gone {
            reason: "REBOOTED",
            detail: format!("host {host} has boot id {boot_id}, and had {} when it was made ready", known.boot_id),
        };
    }
    Verdict::Healthy
}

/// What a failed question says of the host; `Err` if it says nothing.
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
