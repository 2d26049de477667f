//! The logins of leases on a host: calls of the scripts that `wharfinger host-setup` installs there, and the meaning of their exits.

use crate::authority::Authority;
use crate::error::SshError;
use crate::shell::SshShell;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;
use wharfinger_adapter::login::BY_CERTIFICATE;
use wharfinger_adapter::{Access, Command, Exit, Failure, HolderWork, Output, access, clock};
use wharfinger_host::{fence, reaper};

/// The directory of the scripts.
pub(crate) const LIB: &str = "/usr/local/lib/wharfinger";

pub(crate) const ENTER: &str = include_str!("sh/enter.sh");

pub(crate) const SLOT: &str = include_str!("sh/slot.sh");

/// Runs the installed script as root: by sudo, unless the broker logs in as root.
const AS_ROOT: &str = "[ \"$(id -u)\" = 0 ] || set -- sudo -n \"$@\"; exec \"$@\"";

/// Maximum time of the calls that remove nothing.
const QUICK: Duration = Duration::from_secs(30);

/// Maximum time of the calls that end processes and remove the home of a slot.
const THOROUGH: Duration = Duration::from_secs(600);

/// Maximum difference between the clock of a host and the broker's, in seconds.
const SKEW_MAX: u64 = 30;

/// The logins of one host.
pub(crate) struct Logins<'a> {
    pub(crate) shell: &'a SshShell,
    pub(crate) authority: &'a Authority,
}

/// The lease that is to be let in.
pub(crate) struct Grant<'a> {
    pub(crate) user: &'a str,
    pub(crate) lease: &'a str,
    pub(crate) token: u64,
    pub(crate) seconds: u64,
    pub(crate) fence: &'a str,
    pub(crate) dir: &'a str,
}

impl Logins<'_> {
    fn host(&self) -> &str {
        &self.shell.connection.endpoint.name
    }

    async fn call(&self, limit: Duration, verb: &str, words: &[&str]) -> Result<Output, Failure> {
        let slot = format!("{LIB}/slot");
        let argv = ["/bin/sh", "-c", AS_ROOT, "wharfinger-slot", &slot, verb].into_iter().chain(words.iter().copied());
        let command = Command::new(argv).timeout(limit);
        let output = self.shell.run_kept(&command).await.map_err(|error: SshError| Failure::from(error))?;
        let (host, said) = (self.host(), output.complaint());
        match output.exit {
            Exit::Code(0) => Ok(output),
            Exit::Code(fence::REFUSED) => Err(Failure::provider(
                "FENCED",
                format!(
                    "host {host}: the user belongs to token {said}, which is later: another broker, or a later state of this one, \
                     has leased the slot since; look for a second broker with the same hosts"
                ),
            )),
            Exit::Code(3) => Err(Failure::resource(
                "PROCESSES_LEFT",
                format!("host {host}: {said}; look at them on the host, or restart it"),
            )),
            Exit::Code(5) => Err(Failure::resource(
                "LOGINS_NOT_WRITTEN",
                format!("host {host}: {said}; look at the disk and its permissions"),
            )),
            Exit::Code(2) => Err(Failure::bug("LOGINS", format!("host {host}: {verb}: {said}"))),
            Exit::TimedOut => Err(Failure::resource(
                "LOGINS_HANG",
                format!("host {host}: {LIB}/slot {verb} takes more than {limit:?}; look at its disk and processes"),
            )),
            _ => Err(self.not_set_up(&said)),
        }
    }

    fn not_set_up(&self, why: &str) -> Failure {
        let host = self.host();
        let text = format!(
            "host {host} is not set up for logins by certificate: {why}; run the output of `wharfinger host-setup` as root there"
        );
        Failure::configuration("HOST_NOT_SET_UP", text)
    }

    /// Checks that the host has these scripts, the users, and the time.
    ///
    /// # Errors
    /// `HOST_NOT_SET_UP` (configuration); `CLOCK_SKEW` (resource).
    pub(crate) async fn examine(&self) -> Result<Vec<String>, Failure> {
        let before = wall_s();
        let text = self.call(QUICK, "version", &[]).await?.text();
        let after = wall_s();
        let values: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        for (name, content) in [("enter", ENTER), ("slot", SLOT)] {
            if values.get(name).copied() != Some(&*sha256(content)) {
                return Err(self.not_set_up(&format!("{LIB}/{name} is that of another version")));
            }
        }
        let users: Vec<&str> = values.get("users").map(|users| users.split(' ').collect()).unwrap_or_default();
        let canary = self.authority.canary();
        if !users.contains(&&*canary) {
            return Err(self.not_set_up(&format!("it has no user {canary}")));
        }
        let now: u64 = values.get("now").and_then(|now| now.parse().ok()).unwrap_or_default();
        if now.saturating_add(SKEW_MAX) < before || now > after.saturating_add(SKEW_MAX) {
            let host = self.host();
            let text = format!(
                "the clock of host {host} is {} s away from the broker's, and certificates have times; let a time service set it",
                now.abs_diff(after)
            );
            return Err(Failure::resource("CLOCK_SKEW", text));
        }
        Ok(users.into_iter().filter(|user| self.authority.is_slot_user(user)).map(String::from).collect())
    }

    /// Lets the lease of a slot in. Returns what its access gains.
    pub(crate) async fn let_in(&self, work: &HolderWork, fence: &str, dir: &str) -> Result<Access, Failure> {
        let user = self.authority.user_of(work.slot);
        let seconds = self.authority.lease_max_ms / 1000;
        let dir =
            self.grant(&Grant { user: &user, lease: &work.lease, token: work.token, seconds, fence, dir }).await?;
        let pairs = [(access::LOGIN, BY_CERTIFICATE.to_string()), (access::USER, user), (access::PATH, dir)];
        Ok(pairs.map(|(key, value)| (key.to_string(), value)).into())
    }

    /// Lets the lease of a slot in no longer, and ends its sessions. Returns the number of processes that it ended.
    pub(crate) async fn shut_out(&self, work: &HolderWork) -> Result<u32, Failure> {
        self.revoke(&self.authority.user_of(work.slot), &work.lease, work.token).await
    }

    /// Lets a lease in. Returns the directory in which it works.
    pub(crate) async fn grant(&self, grant: &Grant<'_>) -> Result<String, Failure> {
        let Grant { user, lease, token, seconds, fence, dir } = grant;
        let (number, options) = (reaper::number(lease).to_string(), self.authority.options());
        let (token, seconds) = (token.to_string(), seconds.to_string());
        let words = [*user, lease, &token, &number, &seconds, &options, fence, dir];
        let text = self.call(THOROUGH, "grant", &words).await?.text();
        let said = text.lines().find_map(|line| line.strip_prefix("dir="));
        said.map(String::from).ok_or_else(|| Failure::bug("LOGINS", format!("grant answered {text:?}")))
    }

    /// Lets a lease in no longer, and ends all that runs as the user of its slot. Returns the number of processes that it ended.
    pub(crate) async fn revoke(&self, user: &str, lease: &str, token: u64) -> Result<u32, Failure> {
        let text = self.call(THOROUGH, "revoke", &[user, lease, &token.to_string()]).await?.text();
        Ok(text.lines().find_map(|line| line.strip_prefix("ended=")?.parse().ok()).unwrap_or(0))
    }

    /// Takes all leases from the users of slots.
    pub(crate) async fn sweep(&self, users: &[String]) -> Result<(), Failure> {
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        self.call(THOROUGH, "sweep", &users).await.map(drop)
    }
}

/// The wall clock in seconds.
pub(crate) fn wall_s() -> u64 {
    u64::try_from(clock::wall_ms() / 1000).unwrap_or(0)
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
