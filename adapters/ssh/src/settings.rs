//! Reads and checks a pool's table of the configuration file. Each mistake has the path of its value.

use crate::address::bare_address;
use crate::config::{Config, Host};
use crate::endpoint::Endpoint;
use crate::key;
use crate::key_file::key_file_problem;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wharfinger_adapter::Failure;
use wharfinger_adapter::settings::{
    ConfigProblem, PoolDefaults, Scope, Segment, Value, disabled_reason_fault, fields, is_name, label_name_fault,
    label_value_fault, read,
};

const NO_HOSTS: &str = "list them under [[pool.ssh.host]], each with name, address and host_key";

/// Private keys by their files: a thousand hosts share one key, which is read once.
type Keys = BTreeMap<PathBuf, Arc<russh::keys::PrivateKey>>;

/// The defaults of a pool.
pub fn defaults() -> PoolDefaults {
    PoolDefaults::hosts()
}

impl Config {
    /// The keys of one machine in the configuration file.
    pub fn host_keys() -> &'static [&'static str] {
        fields::<Host>()
    }

    /// Reads a pool's table. Paths of key files are relative to the folder of the configuration file.
    ///
    /// # Errors
    /// All mistakes in the table.
    pub fn read(table: Option<&Value>, scope: &Scope, folder: &Path) -> Result<Self, Vec<ConfigProblem>> {
        let none = || vec![ConfigProblem::new("this pool of ssh machines lists none", NO_HOSTS)];
        let config: Config = read(table.ok_or_else(none)?, scope)?;
        if config.hosts.is_empty() {
            return Err(none());
        }
        let config = config.resolved(folder);
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// With all paths of key files absolute; `~` is the home of the broker's user.
    pub fn resolved(mut self, folder: &Path) -> Self {
        let signing = self.ca.iter_mut().flat_map(|authority| authority.key.iter_mut().chain(&mut authority.agent));
        let own = self.key.iter_mut().chain(&mut self.holder_key).chain(signing);
        for path in own.chain(self.hosts.iter_mut().filter_map(|host| host.key.as_mut())) {
            *path = match (path.strip_prefix("~"), std::env::home_dir()) {
                (Ok(rest), Some(home)) => home.join(rest),
                _ => folder.join(&path),
            };
        }
        self
    }

    /// All mistakes in the settings. It reads the key files.
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = self.pool_problems();
        for (key, path) in [("key", &self.key), ("holder_key", &self.holder_key)] {
            problems.extend(path.as_deref().and_then(key_file_problem).map(|problem| problem.at([key])));
        }
        problems.extend(self.authority_problems());
        let bad_key = |host: &Host| {
            let path = host.key.as_ref().or(self.key.as_ref());
            path.is_some_and(|path| key_file_problem(path).is_some())
        };
        let mut keys = Keys::new();
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        let mut addresses: BTreeMap<_, usize> = BTreeMap::new();
        for (at, host) in self.hosts.iter().enumerate() {
            let in_host = |problem: ConfigProblem| problem.within(at).within("host");
            problems.extend(host_problems(host).into_iter().map(in_host));
            if let Some(path) = &host.key {
                problems.extend(key_file_problem(path).map(|problem| in_host(problem.at(["key"]))));
            }
            // A key file that is reported already is not read.
            if !bad_key(host)
                && let Err(problem) = self.endpoint(at, host, &mut keys)
            {
                problems.push(problem);
            }
            if let Some(first) = names.insert(&host.name, at) {
                let message = format!("two machines have the name {:?}", host.name);
                problems.push(twice(message, "give one of them another name", first, at, "name"));
            }
            let proxy = host.proxy_command.as_ref().or(self.proxy_command.as_ref());
            let user = host.user.as_ref().or(self.user.as_ref());
            let port = host.port.unwrap_or(self.port);
            if let Some(first) = addresses.insert((&host.address, port, user, proxy), at) {
                let message = format!("two machines have the address {:?} and the port {port}", host.address);
                let remedy = "take one out; for more leases at once on one machine, set `slots`";
                problems.push(twice(message, remedy, first, at, "address"));
            }
        }
        problems
    }

    /// Mistakes in the settings of the pool itself.
    fn pool_problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let mut bad = |key: &str, message: String, remedy: String| {
            problems.push(ConfigProblem::new(message, remedy).at([key]));
        };
        let absolute = "write an absolute path on the hosts";
        if !self.work_dir.starts_with('/') {
            bad("work_dir", format!("`work_dir` is {:?}", self.work_dir), absolute.into());
        }
        for (key, value, least) in [
            ("connect_timeout_ms", self.connect_timeout_ms, 1),
            ("answer_timeout_ms", self.answer_timeout_ms, 1),
            ("keepalive_interval_ms", self.keepalive_interval_ms, 1),
            ("keepalive_max", self.keepalive_max as u64, 1),
            ("max_sessions", self.max_sessions as u64, 1),
            ("notice_interval_ms", self.notice_interval_ms, 100),
        ] {
            if !(least..=3_600_000).contains(&value) {
                bad(key, format!("`{key}` is {value}"), format!("use {least} to 3600000"));
            }
        }
        if !matches!(self.pulse_interval_ms, 0 | 100..=3_600_000) {
            let message = format!("`pulse_interval_ms` is {}", self.pulse_interval_ms);
            bad("pulse_interval_ms", message, "use 100 to 3600000, or 0 for none".into());
        }
        for (key, path) in [("notice_file", &self.notice_file), ("shutdown_file", &self.shutdown_file)] {
            if !path.is_empty() && !path.starts_with('/') {
                bad(key, format!("`{key}` is {path:?}"), format!("{absolute}, or \"\" for none"));
            }
        }
        problems
    }

    /// Checks the settings and reads the keys.
    pub(crate) fn endpoints(&self) -> Result<BTreeMap<String, Endpoint>, Failure> {
        let bad = |problem: ConfigProblem| problem.into_failure("BAD_CONFIG");
        if let Some(problem) = self.pool_problems().into_iter().next() {
            return Err(bad(problem));
        }
        let mut keys = Keys::new();
        let mut endpoints = BTreeMap::new();
        for (at, host) in self.hosts.iter().enumerate() {
            let endpoint = self.endpoint(at, host, &mut keys).map_err(|mut problem| {
                problem.message = format!("host {:?}: {}", host.name, problem.message);
                bad(problem)
            })?;
            if endpoints.insert(host.name.clone(), endpoint).is_some() {
                let message = format!("two hosts have the name {:?}", host.name);
                return Err(bad(ConfigProblem::new(message, "give each host of a pool a name of its own")));
            }
        }
        Ok(endpoints)
    }

    /// The way to one machine. Paths of problems start at the pool's table.
    fn endpoint(&self, at: usize, host: &Host, keys: &mut Keys) -> Result<Endpoint, ConfigProblem> {
        let in_host = |problem: ConfigProblem| problem.within(at).within("host");
        let bad = |message: String, remedy: &str| in_host(ConfigProblem::new(message, remedy));
        if host.name.is_empty() {
            return Err(bad(format!("the host at {:?} has no name", host.address), "give it one"));
        }
        let Some(user) = host.user.as_ref().or(self.user.as_ref()) else {
            return Err(bad("no user to log in as".into(), "set `user` for the pool or for the host"));
        };
        let Some(path) = host.key.as_ref().or(self.key.as_ref()) else {
            return Err(bad("no private key to log in with".into(), "set `key` for the pool or for the host"));
        };
        let key = match keys.get(path) {
            Some(key) => Arc::clone(key),
            None => {
                let key = key::read_private(path).map_err(|fault| {
                    let problem = ConfigProblem::new(fault.message, fault.remedy).at(["key"]);
                    if host.key.is_some() { in_host(problem) } else { problem }
                })?;
                let key = Arc::new(key);
                keys.insert(path.clone(), Arc::clone(&key));
                key
            }
        };
        let address = bare_address(&host.address).map_err(in_host)?;
        let host_key = key::parse_host_key(&host.host_key)
            .map_err(|fault| in_host(ConfigProblem::new(fault.message, fault.remedy).at(["host_key"])))?;
        Ok(Endpoint {
            name: host.name.clone(),
            address,
            port: host.port.unwrap_or(self.port),
            user: user.clone(),
            key,
            certified: None,
            key_path: Some(path.clone()),
            host_key,
            proxy_command: host.proxy_command.clone().or_else(|| self.proxy_command.clone()),
            limits: self.limits(),
        })
    }
}

/// Mistakes in the values of one machine that need no other value.
fn host_problems(host: &Host) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    if !is_name(&host.name) {
        let message = format!("{:?} is not a valid machine name", host.name);
        let remedy = "use 1 to 63 of a to z, 0 to 9 and -; the address may be anything";
        problems.push(ConfigProblem::new(message, remedy).at(["name"]));
    }
    if let Some(slots) = host.slots.filter(|slots| !(1..=1024).contains(slots)) {
        problems
            .push(ConfigProblem::new(format!("`slots` is {slots}"), "use 1 to 1024, or enabled = false").at(["slots"]));
    }
    let reason = host.disabled_reason.as_ref();
    if let Some((message, remedy)) = reason.and_then(|reason| disabled_reason_fault(reason, host.enabled)) {
        problems.push(ConfigProblem::new(message, remedy).at(["disabled_reason"]));
    }
    for (name, value) in &host.labels {
        if let Some((message, remedy)) = label_name_fault(name) {
            problems.push(ConfigProblem::new(message, remedy).at(["labels"]).then(Segment::Name(name.clone())));
        }
        if let Some((message, remedy)) = label_value_fault(name, value) {
            problems.push(ConfigProblem::new(message, remedy).at(["labels", name.as_str()]));
        }
    }
    problems
}

/// A value that two machines have.
fn twice(message: String, remedy: &str, first: usize, again: usize, key: &str) -> ConfigProblem {
    let path = |at: usize| vec!["host".into(), at.into(), key.into()];
    ConfigProblem { path: path(again), label: "again here", ..ConfigProblem::new(message, remedy) }
        .also(path(first), "first here")
}
