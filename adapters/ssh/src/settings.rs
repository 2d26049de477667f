//! Reads and checks a pool's table of the configuration file. Each mistake has the path of its value.

use crate::address::bare_address;
use crate::config::{Config, Host};
use crate::endpoint::Endpoint;
use crate::key;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wharfinger_adapter::Failure;
use wharfinger_adapter::settings::{
    ConfigProblem, PoolDefaults, Scope, Segment, Value, fields, is_name, label_name_fault, label_value_fault, read,
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
        let own = self.key.iter_mut().chain(&mut self.holder_key);
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

/// The fault of a file that should hold a private key, and its remedy.
pub fn key_file_problem(path: &Path) -> Option<ConfigProblem> {
    let name = path.display();
    let unreadable = |error: std::io::Error| {
        ConfigProblem::new(format!("the key file {name} cannot be read: {error}"), "let the broker's user read it")
    };
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let remedy = format!("make one with: ssh-keygen -t ed25519 -f {name}");
            return Some(ConfigProblem::new(format!("the key file {name} does not exist"), remedy));
        }
        Err(error) => return Some(unreadable(error)),
    };
    if !meta.is_file() {
        let remedy = "name the file with the private key";
        return Some(ConfigProblem::new(format!("the key file {name} is not a file"), remedy));
    }
    let mut head = Vec::new();
    if let Err(error) = File::open(path).and_then(|file| file.take(32).read_to_end(&mut head)) {
        return Some(unreadable(error));
    }
    if ["ssh-", "ecdsa-sha2-", "sk-"].iter().any(|kind| head.starts_with(kind.as_bytes())) {
        let private = path.with_extension("");
        let remedy = format!("name the file with the private key: {}", private.display());
        return Some(ConfigProblem::new(format!("the key file {name} holds a public key"), remedy));
    }
    let mode = meta.permissions().mode() & 0o777;
    // The group may read the file: so are secrets mounted into containers.
    if mode & 0o027 != 0 {
        let message = format!("the key file {name} has mode {mode:04o}, so others may use it");
        return Some(ConfigProblem::new(message, format!("run: chmod 600 {name}")));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let fault = |path: &Path| {
            let shown = |text: &str| text.replace(&folder.path().display().to_string(), "F");
            key_file_problem(path).map(|problem| (shown(&problem.message), shown(&problem.remedy)))
        };
        let some = |message: &str, remedy: &str| Some((message.to_string(), remedy.to_string()));
        let wanted = some("the key file F/key does not exist", "make one with: ssh-keygen -t ed25519 -f F/key");
        assert_eq!(fault(&path), wanted);
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let wanted = some("the key file F/key has mode 0644, so others may use it", "run: chmod 600 F/key");
        assert_eq!(fault(&path), wanted);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(fault(&path), None);
        let wanted = some("the key file F is not a file", "name the file with the private key");
        assert_eq!(fault(folder.path()), wanted);
        let public = folder.path().join("key.pub");
        std::fs::write(&public, "ssh-ed25519 AAAA me@here\n").unwrap();
        let wanted = some("the key file F/key.pub holds a public key", "name the file with the private key: F/key");
        assert_eq!(fault(&public), wanted);
    }
}
