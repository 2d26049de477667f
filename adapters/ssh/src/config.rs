//! The settings of a pool of kind `ssh`: the inventory.

use crate::authority::Authority;
use crate::endpoint::{Limits, Watch};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use wharfinger_adapter::Traits;
use wharfinger_host::containment::Containment;

/// Settings of one pool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// User to log in as, for hosts that name none.
    #[serde(default)]
    pub user: Option<String>,
    /// File of the private key to log in with (OpenSSH format, no passphrase), for hosts that name none.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Port, for hosts that name none.
    #[serde(default = "default_port")]
    pub port: u16,
    /// File of a private key that is handed to holders; without it they use what they have. Read at each lease.
    #[serde(default)]
    pub holder_key: Option<PathBuf>,
    /// Holders log in with certificates that this authority signs.
    #[serde(default)]
    pub ca: Option<Authority>,
    /// Absolute directory on the hosts for scratch directories.
    #[serde(default = "default_work_dir")]
    pub work_dir: String,
    /// Time for TCP, key exchange and login together, in milliseconds. Every `answer_timeout_ms` within it a further
    /// attempt (up to three) starts beside those that stand.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// How long a probe, or the first question of a check, may take before it is a miss, in milliseconds. After a third
    /// of it without an answer over the kept connection a new connection is tried beside it, and the first answer of
    /// either counts. A host whose answers are known has limits of its own: half of this if it always answers at once,
    /// at most three times this if its answers are often late.
    #[serde(default = "default_answer_timeout_ms")]
    pub answer_timeout_ms: u64,
    /// From one ping to the next on a host with leases, in milliseconds; 0: such a host is asked no more often than others,
    /// and each question waits for `answer_timeout_ms`.
    /// A host that answers in a millisecond and misses one is in doubt after a sixth of `answer_timeout_ms`.
    #[serde(default = "default_pulse_interval_ms")]
    pub pulse_interval_ms: u64,
    /// After this long without a word from the host we ask whether it is there, in milliseconds. Probes notice a dead
    /// host long before; this ends connections without probes.
    #[serde(default = "default_keepalive_interval_ms")]
    pub keepalive_interval_ms: u64,
    /// Number of questions in a row without an answer that ends the connection. With the interval this must be well above what
    /// TCP needs to get through a network that loses packets (eight tries take 25 seconds).
    #[serde(default = "default_keepalive_max")]
    pub keepalive_max: usize,
    /// Free space that the file system of `work_dir` must have, in MiB.
    #[serde(default = "default_min_free_disk_mb")]
    pub min_free_disk_mb: u64,
    /// Commands at once on the kept connection. Three more sessions are kept back, for probes, for kills and for the watch
    /// on the host, so that this plus three must not pass MaxSessions of the host's sshd (OpenSSH's default: 10).
    #[serde(default = "default_max_sessions")]
    pub max_sessions: usize,
    /// Command whose standard input and output carry the connection; `%h`, `%p` and `%%` are filled in.
    #[serde(default)]
    pub proxy_command: Option<String>,
    /// Whether the hosts are watched for what their owners announce there: a small loop on each host, over its kept
    /// connection.
    #[serde(default = "default_watch")]
    pub watch: bool,
    /// File on the hosts whose one line announces what will become of the host (see
    /// [`wharfinger_host::announce`]); empty: none.
    #[serde(default = "default_notice_file")]
    pub notice_file: String,
    /// Where systemd notes a shutdown that was asked for with a time; empty: not looked at.
    #[serde(default = "default_shutdown_file")]
    pub shutdown_file: String,
    /// Shell command that is run on the hosts again and again; it prints such a line, or nothing. One that fails, or that
    /// takes more than ten seconds, has said nothing.
    #[serde(default)]
    pub notice_command: Option<String>,
    /// From the end of one run of `notice_command` to the next, in milliseconds.
    #[serde(default = "default_notice_interval_ms")]
    pub notice_interval_ms: u64,
    /// How that command is called as a source of notices. For adapters that bring a command of their own.
    #[serde(skip, default = "default_notice_source")]
    pub notice_source: &'static str,
    /// From the pool's own table: `require_containment` and `[pool.limits]`.
    #[serde(skip)]
    pub containment: Containment,
    /// The inventory; in TOML: `[[pool.host]]`.
    #[serde(default, rename = "host")]
    pub hosts: Vec<Host>,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name in the inventory; unique in the pool.
    pub name: String,
    /// Host name or address.
    pub address: String,
    /// Port, if not the pool's.
    #[serde(default)]
    pub port: Option<u16>,
    /// User, if not the pool's.
    #[serde(default)]
    pub user: Option<String>,
    /// Private key file, if not the pool's.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The machine's public key (`ssh-ed25519 AAAA…`): the only one that is accepted.
    pub host_key: String,
    /// Added to the resource's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How many leases at once, if not the pool's.
    #[serde(default)]
    pub slots: Option<u32>,
    /// `false`: no new leases; live ones run to their end.
    #[serde(default = "default_enabled")]
    pub enabled: bool,
    /// Why it is not enabled, for those who look at the pool.
    #[serde(default)]
    pub disabled_reason: Option<String>,
    /// Proxy command, if not the pool's.
    #[serde(default)]
    pub proxy_command: Option<String>,
}

fn default_port() -> u16 {
    22
}

fn default_work_dir() -> String {
    "/var/tmp/wharfinger".to_string()
}

fn default_connect_timeout_ms() -> u64 {
    10_000
}

fn default_answer_timeout_ms() -> u64 {
    3000
}

fn default_pulse_interval_ms() -> u64 {
    500
}

fn default_keepalive_interval_ms() -> u64 {
    15_000
}

fn default_keepalive_max() -> usize {
    3
}

fn default_min_free_disk_mb() -> u64 {
    512
}

fn default_max_sessions() -> usize {
    7
}

fn default_watch() -> bool {
    true
}

fn default_notice_file() -> String {
    "/run/wharfinger/notice".to_string()
}

fn default_shutdown_file() -> String {
    "/run/systemd/shutdown/scheduled".to_string()
}

fn default_notice_source() -> &'static str {
    "notice command"
}

fn default_notice_interval_ms() -> u64 {
    5000
}

fn default_enabled() -> bool {
    true
}

impl Default for Config {
    fn default() -> Self {
        Self {
            user: None,
            key: None,
            port: default_port(),
            holder_key: None,
            ca: None,
            work_dir: default_work_dir(),
            connect_timeout_ms: default_connect_timeout_ms(),
            answer_timeout_ms: default_answer_timeout_ms(),
            pulse_interval_ms: default_pulse_interval_ms(),
            keepalive_interval_ms: default_keepalive_interval_ms(),
            keepalive_max: default_keepalive_max(),
            min_free_disk_mb: default_min_free_disk_mb(),
            max_sessions: default_max_sessions(),
            proxy_command: None,
            watch: default_watch(),
            notice_file: default_notice_file(),
            shutdown_file: default_shutdown_file(),
            notice_command: None,
            notice_interval_ms: default_notice_interval_ms(),
            notice_source: default_notice_source(),
            containment: Containment::default(),
            hosts: Vec::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Config::default().limits()
    }
}

impl Config {
    /// The abilities of the adapter.
    pub const TRAITS: Traits = Traits { prepares: true, cleans: true, repairs: false, probes: true };

    /// Whether holders log in as other users than the broker, and so cannot write in working copies.
    pub fn has_holders_apart(&self) -> bool {
        let Some(authority) = &self.ca else { return false };
        let own = |user: Option<&String>| user.is_none_or(|user| *user == authority.user);
        !own(self.user.as_ref()) || !self.hosts.iter().all(|host| own(host.user.as_ref()))
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            connect: Duration::from_millis(self.connect_timeout_ms),
            answer: Duration::from_millis(self.answer_timeout_ms),
            pulse: (self.pulse_interval_ms > 0).then(|| Duration::from_millis(self.pulse_interval_ms)),
            keepalive_interval: Duration::from_millis(self.keepalive_interval_ms),
            keepalive_max: self.keepalive_max,
            sessions: self.max_sessions,
            watch: self.watch.then(|| Watch {
                notice_file: self.notice_file.clone(),
                shutdown_file: self.shutdown_file.clone(),
                command: self.notice_command.clone().unwrap_or_default(),
                command_source: self.notice_source,
                interval: Duration::from_millis(self.notice_interval_ms),
                work_dir: self.work_dir.trim_end_matches('/').to_string(),
            }),
        }
    }
}
