//! Mistakes in `[pool.ssh.ca]`. Paths of problems start at the table of the pool.

use crate::authority::{Authority, SLOT};
use crate::config::Config;
use crate::host_setup::{is_same_key, user_fault};
use crate::key;
use crate::key_file::key_file_problem;
use wharfinger_adapter::settings::ConfigProblem;

impl Config {
    /// The mistakes of the authority's table. It reads the key file.
    pub(crate) fn authority_problems(&self) -> Vec<ConfigProblem> {
        let Some(authority) = &self.ca else { return Vec::new() };
        let mut problems = Vec::new();
        if self.holder_key.is_some() {
            let message = "the pool has both a `holder_key` for all holders and an authority for certificates";
            problems.push(
                ConfigProblem::new(message, "take `holder_key` out, and its public half off the hosts")
                    .at(["holder_key"]),
            );
        }
        authority.source_problems(&mut problems);
        authority.value_problems(&mut problems);
        for (at, text) in authority.trusted.iter().enumerate() {
            if let Err(fault) = key::parse_host_key(text) {
                let message = fault.message.replace("host_key", "`trusted`");
                problems.push(ConfigProblem::new(message, PUBLIC).at(["ca", "trusted"]).then(at));
            }
        }
        // Only what can be read is compared.
        if problems.is_empty()
            && let Ok(own) = authority.trusted_keys()
        {
            for (at, host) in self.hosts.iter().enumerate() {
                if own.iter().any(|line| is_same_key(line, &host.host_key)) {
                    let message = format!("the authority's key is also the host key of {}", host.name);
                    let problem = ConfigProblem::new(message, SEPARATE).at(["host_key"]).within(at).within("host");
                    problems.push(problem);
                }
            }
            let broker = self.key.as_deref().and_then(|path| crate::public_of(path).ok());
            if broker.is_some_and(|broker| own.iter().any(|line| is_same_key(line, &broker))) {
                let message = "the authority's key is also the key that the broker logs in with";
                problems.push(ConfigProblem::new(message, SEPARATE).at(["ca", "key"]));
            }
        }
        problems
    }
}

const PUBLIC: &str = "write it as `ssh-ed25519 AAAA…`, as in the .pub file";
const SEPARATE: &str = "make a key for the authority alone: ssh-keygen -t ed25519 -N '' -f ca";

impl Authority {
    /// Mistakes in the source of signatures.
    fn source_problems(&self, problems: &mut Vec<ConfigProblem>) {
        let mut bad = |key: &'static str, message: String, remedy: &str| {
            problems.push(ConfigProblem::new(message, remedy).at(["ca", key]));
        };
        match (&self.key, &self.agent) {
            (None, None) => {
                let problem = ConfigProblem::new(
                    "the authority has neither `key` nor `agent`, so nothing signs",
                    "add key = the file of its private key, or agent = the socket of an ssh-agent with public_key",
                );
                problems.push(problem.at(["ca"]));
            }
            (Some(_), Some(_)) => {
                bad("agent", "the authority has both `key` and `agent`".into(), "take one of them out");
            }
            (Some(path), None) => {
                if self.public_key.is_some() {
                    let message = "`public_key` is for an agent; the file of `key` has its own".to_string();
                    bad("public_key", message, "take it out");
                }
                if let Some(problem) = key_file_problem(path) {
                    problems.push(problem.at(["ca", "key"]));
                } else if let Err(fault) = key::read_private(path) {
                    problems.push(ConfigProblem::new(fault.message, fault.remedy).at(["ca", "key"]));
                }
            }
            (None, Some(_)) => match &self.public_key {
                None => bad("agent", "the agent's key is not named".into(), "add public_key = its line of ssh-add -L"),
                Some(text) => {
                    if let Err(fault) = key::parse_host_key(text) {
                        bad("public_key", fault.message.replace("host_key", "`public_key`"), PUBLIC);
                    }
                }
            },
        }
    }

    /// Mistakes in single values.
    fn value_problems(&self, problems: &mut Vec<ConfigProblem>) {
        let mut bad = |key: &'static str, message: String, remedy: String| {
            problems.push(ConfigProblem::new(message, remedy).at(["ca", key]));
        };
        if let Some(remedy) = user_fault(&self.user) {
            let example = format!("; as in user = \"wfslot{SLOT}\"");
            bad("user", format!("{:?} is no user name for holders", self.user), format!("{remedy}{example}"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        if !self.homes.starts_with('/') || self.homes.trim_end_matches('/').is_empty() || !self.homes.chars().all(plain)
        {
            let message = format!("`homes` is {:?}", self.homes);
            bad(
                "homes",
                message,
                "write an absolute path on the hosts, without blanks, of a directory for this alone".into(),
            );
        }
        for (key, value, most) in
            [("cert_max_ms", self.cert_max_ms, 86_400_000_u64), ("lease_max_ms", self.lease_max_ms, 365 * 86_400_000)]
        {
            if !(60_000..=most).contains(&value) {
                bad(key, format!("`{key}` is {value}"), format!("use 60000 to {most}"));
            }
        }
        if self.key_types.is_empty() {
            bad("key_types", "no type of key gets a certificate".into(), "leave it out for [\"ssh-ed25519\"]".into());
        }
    }
}
