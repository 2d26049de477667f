//! Programs and privileges that a test needs.
//!
//! `./test.sh` demands all of them: a test that lacks one fails and prints the remedy. `./test.sh --without NAME,…` leaves
//! the tests that need NAME out, also where it is installed. A plain `cargo test` skips what the machine lacks, and
//! says so.
//!
//! * `WHARFINGER_REQUIRE=1`: a missing need is a failure.
//! * `WHARFINGER_WITHOUT=postgresql,moto`: these needs count as missing and are no failure.
//! * `WHARFINGER_SKIPPED=FILE`: each skip appends a line `TEST: NEED`.

use std::fmt;
use std::io::Write;

/// A program or privilege that a test may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Mounts, users, namespaces.
    Root,
    Sshd,
    Nft,
    Postgresql,
    Pgbouncer,
    GitLfs,
    Faketime,
    Systemd,
    /// A tree of cgroup v2 in which root may make groups, and controllers for limits.
    Cgroup,
    /// The Python environment with `grpcurl`, gRPC for Python, `cfn-lint` and Kubernetes' schemas.
    Venv,
    /// The simulated AWS, in the same environment.
    Moto,
    /// Prometheus and promtool, by `WHARFINGER_PROMETHEUS`.
    Prometheus,
    /// Chromium with its driver, and axe-core by `WHARFINGER_AXE`.
    Chromium,
    Tmux,
    /// zsh and fish.
    Shells,
}

impl Need {
    /// Every need, in the order in which `./test.sh --list` prints them.
    pub const ALL: [Need; 15] = [
        Need::Root,
        Need::Sshd,
        Need::Nft,
        Need::Postgresql,
        Need::Pgbouncer,
        Need::GitLfs,
        Need::Faketime,
        Need::Systemd,
        Need::Cgroup,
        Need::Venv,
        Need::Moto,
        Need::Prometheus,
        Need::Chromium,
        Need::Tmux,
        Need::Shells,
    ];

    /// Its name on the command line of `./test.sh`.
    pub fn name(self) -> &'static str {
        match self {
            Need::Root => "root",
            Need::Sshd => "sshd",
            Need::Nft => "nft",
            Need::Postgresql => "postgresql",
            Need::Pgbouncer => "pgbouncer",
            Need::GitLfs => "git-lfs",
            Need::Faketime => "faketime",
            Need::Systemd => "systemd",
            Need::Cgroup => "cgroup",
            Need::Venv => "venv",
            Need::Moto => "moto",
            Need::Prometheus => "prometheus",
            Need::Chromium => "chromium",
            Need::Tmux => "tmux",
            Need::Shells => "shells",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Need::Root => "run the tests as root, where file systems may be mounted",
            Need::Sshd => "apt-get install openssh-server, and run the tests as root",
            Need::Nft => "apt-get install nftables, and run the tests as root with CAP_NET_ADMIN",
            Need::Postgresql => "apt-get install postgresql",
            Need::Pgbouncer => "apt-get install pgbouncer",
            Need::GitLfs => "apt-get install git-lfs",
            Need::Faketime => "apt-get install faketime",
            Need::Systemd => "apt-get install systemd",
            Need::Cgroup => {
                "run the tests as root, with cgroup v2 and the memory controller writable (kernel 5.14 or later)"
            }
            Need::Venv | Need::Moto => "run ./test.sh, which makes the Python environment",
            Need::Prometheus => "run ./test.sh, which unpacks Debian's prometheus",
            Need::Chromium => "run ./test.sh, which installs chromium and chromium-driver and fetches axe-core",
            Need::Tmux => "apt-get install tmux",
            Need::Shells => "apt-get install zsh fish",
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The treatment of a need.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Run,
    Skip,
    Fail,
}

fn decide(need: Need, found: bool, required: bool, without: &str) -> Decision {
    if without.split(',').any(|name| name.trim() == need.name()) {
        Decision::Skip
    } else if found {
        Decision::Run
    } else if required {
        Decision::Fail
    } else {
        Decision::Skip
    }
}

/// Returns what was found of a need, or `None` if the test is to be skipped, which is printed and recorded.
///
/// # Panics
/// The run demands this need and it was not found.
pub fn need<T>(need: Need, found: Option<T>) -> Option<T> {
    let required = std::env::var_os("WHARFINGER_REQUIRE").is_some_and(|value| !value.is_empty() && value != "0");
    let without = std::env::var("WHARFINGER_WITHOUT").unwrap_or_default();
    match decide(need, found.is_some(), required, &without) {
        Decision::Run => found,
        Decision::Skip => {
            record(need);
            None
        }
        Decision::Fail => {
            panic!("{need} is missing: {}; ./test.sh --without {need} leaves the tests that need it out", need.remedy())
        }
    }
}

fn record(need: Need) {
    // A helper thread of a test has no name, or another.
    let test = std::env::var("NEXTEST_TEST_NAME")
        .ok()
        .or_else(|| std::thread::current().name().map(str::to_string))
        .unwrap_or_else(|| "a test".to_string());
    eprintln!("skipped: {test} needs {need}: {}", need.remedy());
    if let Some(path) = std::env::var_os("WHARFINGER_SKIPPED") {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        let written = opened.and_then(|mut file| file.write_all(format!("{test}: {need}\n").as_bytes()));
        if let Err(error) = written {
            panic!("{}: {error}: the skip of {test} cannot be recorded", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_a_failure_where_it_is_required() {
        assert_eq!(decide(Need::Moto, false, true, ""), Decision::Fail);
        assert_eq!(decide(Need::Moto, false, true, "postgresql"), Decision::Fail);
        assert_eq!(decide(Need::Moto, false, false, ""), Decision::Skip);
        assert_eq!(decide(Need::Moto, true, true, ""), Decision::Run);
    }

    #[test]
    fn an_omitted_tool_is_skipped_also_where_it_is_installed() {
        for found in [false, true] {
            for required in [false, true] {
                assert_eq!(decide(Need::Moto, found, required, "postgresql, moto"), Decision::Skip);
            }
        }
        assert_eq!(decide(Need::Root, true, true, "rootless"), Decision::Run);
    }

    #[test]
    fn each_need_has_a_name_of_its_own() {
        let mut names = Need::ALL.map(Need::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Need::ALL.len());
    }
}
