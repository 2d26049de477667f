//! Proves that a host is fit to be leased. One script for every kind of host, run through its [`Shell`].

use crate::containment::{self, Containment, Limits};
use crate::refusal::failure;
use std::collections::BTreeMap;
use std::time::Duration;
use wharfinger_adapter::{Command, Exit, Failure, Output, Shell, Verdict, access};

/// The oldest git that the working copies can live with (`major`, `minor`).
pub const GIT_VERSION_MIN: (u32, u32) = (2, 36);

/// Requirements on a host.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Absolute path of the scratch directory of this resource. Made by [`prove`], looked for by [`examine`].
    pub scratch: String,
    /// Free space that the scratch directory's file system must have, in MiB.
    pub free_disk_mb: u64,
    /// Containment that the pool asks of its hosts. [`prove`] refuses a host without it.
    pub containment: Containment,
    /// Whether the host had control groups when it was made ready. [`examine`] misses them then.
    pub contained: bool,
}

impl Needs {
    /// Containment that a slot must have now: also the control group that the host had when it was made ready.
    pub fn slot(&self) -> Containment {
        Containment { required: self.containment.required || self.contained, ..self.containment }
    }
}

/// The keys of a holder's access for the containment on a host.
pub fn contained_access(contained: bool, limits: &Limits) -> impl Iterator<Item = (String, String)> {
    let containment = (access::CONTAINMENT.to_string(), containment::word(contained).to_string());
    let limits = Some(limits.text()).filter(|text| !text.is_empty());
    [containment].into_iter().chain(limits.map(|text| (access::LIMITS.to_string(), text)))
}

/// One life of a host's processes. It differs from the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// `/proc/sys/kernel/random/boot_id`: another one is another boot. Empty where the kernel has none.
    pub id: String,
    /// The first process: its start, its namespace, and the number of systemd's soft reboots. All processes end with it, also
    /// where the kernel goes on: in a container, or at a soft reboot. Empty where it cannot be read.
    pub init: String,
}

const BOOT: &str = include_str!("sh/boot.sh");

/// The command that asks a host for its [`Boot`].
pub fn boot_command() -> Command {
    Command::new(["/bin/sh", "-c", BOOT, "wharfinger-boot"])
}

/// Reads what [`boot_command`] printed; what is missing stays empty.
pub fn read_boot(output: &Output) -> Boot {
    boot_of(&key_values(&String::from_utf8_lossy(&output.stdout)))
}

fn key_values(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

fn boot_of(lines: &BTreeMap<&str, &str>) -> Boot {
    let value = |key: &str| lines.get(key).copied().unwrap_or_default().trim().to_string();
    Boot { id: value("boot_id"), init: value("init") }
}

/// The verdict of a host whose processes are not those of before; `None` if they may be. What is empty on either side is not
/// compared.
pub fn compare_boots(host: &str, now: &Boot, before: &Boot) -> Option<Verdict> {
    let differ = |now: &str, before: &str| !now.is_empty() && !before.is_empty() && now != before;
    if differ(&now.id, &before.id) {
        let detail = format!("host {host} has boot id {}, and had {} when it was made ready", now.id, before.id);
        return Some(Verdict::Gone { reason: "REBOOTED", detail });
    }
    if differ(&now.init, &before.init) {
        let detail = format!(
            "all processes of host {host} were started again: its first process is {}, and was {} when it was made ready",
            now.init, before.init
        );
        return Some(Verdict::Gone { reason: "RESTARTED", detail });
    }
    None
}

/// Facts of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// This life of its processes.
    pub boot: Boot,
    /// The broker's user there.
    pub user: String,
    /// `os`, `arch`, `cpus`, `containment`: what the broker adds to the labels.
    pub labels: BTreeMap<String, String>,
    /// Whether `/proc` shows the processes of every user; `None` if the host did not say.
    pub shows_processes: Option<bool>,
    /// Whether each slot can have a control group.
    pub contained: bool,
    /// Why it cannot; empty if it can.
    pub containment_fault: String,
    /// Why a limit cannot be set; `None` if all that were asked for can.
    pub limits_fault: Option<String>,
    /// `git --version`, or empty.
    pub git: String,
    /// Free space for us under the scratch directory, in MiB; `None` if it could not be told.
    pub free_disk_mb: Option<u64>,
    /// Free inodes under the scratch directory; `None` where the file system has no fixed number of them.
    pub free_inodes: Option<u64>,
    /// Why a program in the scratch directory cannot be run; `None` if it can, or if none could be written.
    pub exec_fault: Option<String>,
    /// Why the scratch directory cannot be used; `None` if it can.
    pub scratch_fault: Option<String>,
    /// Whether the scratch directory is there.
    pub scratch_exists: bool,
}

const SCRIPT: &str = concat!(include_str!("sh/boot.sh"), include_str!("sh/cgroup.sh"), include_str!("sh/facts.sh"));

/// Asks the host for its facts. With `make`, makes the scratch directory first.
///
/// # Errors
/// If the host could not be asked.
pub async fn facts(shell: &dyn Shell, needs: &Needs, make: bool, limit: Duration) -> Result<Facts, Failure> {
    let output = shell.run(facts_command(needs, make, limit)).await.map_err(failure)?;
    read_facts(&output)
}

/// The command behind [`facts`], for adapters that run it their own way.
pub fn facts_command(needs: &Needs, make: bool, limit: Duration) -> Command {
    // Only who makes a host needs to know: a controller is handed down for it.
    let controllers = if make { needs.containment.limits } else { Limits::default() }.controllers();
    let make = if make { "yes" } else { "no" };
    Command::new(["/bin/sh", "-c", SCRIPT, "proof", &needs.scratch, make, &controllers]).timeout(limit)
}

/// Reads what [`facts_command`] printed.
///
/// # Errors
/// `PROOF_FAILED` (resource) if the script did not run to its end.
pub fn read_facts(output: &Output) -> Result<Facts, Failure> {
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = key_values(&text);
    if output.exit != Exit::Code(0) || !lines.contains_key("end") {
        return Err(Failure::resource(
            "PROOF_FAILED",
            format!("the script that proves the host ended with {:?}: {}", output.exit, output.complaint()),
        ));
    }
    let value = |key: &str| lines.get(key).copied().unwrap_or_default().trim();
    let mut labels = BTreeMap::new();
    for key in ["os", "arch", "cpus", containment::LABEL] {
        if !value(key).is_empty() {
            labels.insert(key.to_string(), value(key).to_lowercase());
        }
    }
    Ok(Facts {
        boot: boot_of(&lines),
        user: value("user").to_string(),
        labels,
        shows_processes: lines.get("proc").map(|proc| *proc == "yes"),
        contained: [containment::word(true), containment::SCOPE].contains(&value("containment")),
        containment_fault: value("containment_fault").to_string(),
        limits_fault: lines.get("limits_fault").map(|fault| fault.trim().to_string()),
        git: value("git").to_string(),
        free_disk_mb: value("free_kb").parse::<u64>().ok().map(|kb| kb / 1024),
        free_inodes: value("free_inodes").parse().ok(),
        exec_fault: lines.get("exec_fault").map(|fault| fault.trim().to_string()),
        scratch_fault: lines.get("fault").map(|fault| fault.trim().to_string()),
        scratch_exists: value("scratch") == "yes",
    })
}

/// Makes the scratch directory and proves the host: git is new enough, the directory can be written, the disk has room.
///
/// # Errors
/// `GIT_MISSING`, `GIT_TOO_OLD`, `PROC_MISSING`, `NOT_CONTAINED`, `SCRATCH_UNUSABLE` (configuration), `DISK_FULL` (resource), or what
/// kept us from asking.
pub async fn prove(shell: &dyn Shell, host: &str, needs: &Needs, limit: Duration) -> Result<Facts, Failure> {
    let facts = facts(shell, needs, true, limit).await?;
    judge(host, &facts, needs)?;
    Ok(facts)
}

/// Judges facts that are there already, as [`prove`] does.
///
/// # Errors
/// As [`prove`].
pub fn judge(host: &str, facts: &Facts, needs: &Needs) -> Result<(), Failure> {
    let (major, minor) = GIT_VERSION_MIN;
    if facts.git.is_empty() {
        return Err(Failure::configuration(
            "GIT_MISSING",
            format!("host {host} has no git in the PATH of {}; install git {major}.{minor} or later", facts.user),
        ));
    }
    match git_version(&facts.git) {
        Some(version) if version < GIT_VERSION_MIN => {
            return Err(Failure::configuration(
                "GIT_TOO_OLD",
                format!("host {host} has {:?}; install git {major}.{minor} or later", facts.git),
            ));
        }
        Some(_) | None => {}
    }
    if facts.shows_processes == Some(false) {
        return Err(Failure::configuration(
            "PROC_MISSING",
            format!(
                "host {host} does not show its processes to {}, so what a lease leaves running cannot be found; mount /proc \
                 without hidepid, or with a gid= of which {} is a member",
                facts.user, facts.user
            ),
        ));
    }
    if needs.containment.required && !facts.contained {
        return Err(Failure::configuration(
            "NOT_CONTAINED",
            format!(
                "host {host} cannot keep a lease in a control group, and the pool has require_containment: {}; log in as root, \
                 give {} a delegated group of cgroup v2, or have systemd keep its service manager (loginctl enable-linger)",
                facts.containment_fault, facts.user
            ),
        ));
    }
    if let Some(fault) = &facts.limits_fault {
        return Err(Failure::configuration(
            "NOT_CONTAINED",
            format!("host {host} cannot set the [pool.limits]: {fault}; enable it there, or take the limit out"),
        ));
    }
    // A full disk is often the reason why nothing can be written, so it speaks first.
    if let Some(free) = facts.free_disk_mb
        && free < needs.free_disk_mb
    {
        return Err(Failure::resource("DISK_FULL", disk_text(host, free, needs)));
    }
    if let Some(text) = inode_text(host, facts, needs) {
        return Err(Failure::resource("DISK_FULL", text));
    }
    if let Some(fault) = &facts.exec_fault {
        return Err(Failure::configuration(
            "SCRATCH_NOEXEC",
            format!(
                "host {host}: no program in {} can be run: {fault}; set work_dir to a file system that is mounted without noexec",
                needs.scratch
            ),
        ));
    }
    if let Some(fault) = &facts.scratch_fault {
        return Err(Failure::configuration(
            "SCRATCH_UNUSABLE",
            format!("host {host}: directory {}: {fault}; let {} write there", needs.scratch, facts.user),
        ));
    }
    Ok(())
}

/// The cheap check of a host that was proved before: same boot, disk free, scratch directory there. It reads the boot, the free
/// space and the scratch directory of `facts`, and nothing else.
///
/// `before`: the boot that [`prove`] found then.
pub fn glance(host: &str, facts: &Facts, before: &Boot, needs: &Needs) -> Verdict {
    if let Some(gone) = compare_boots(host, &facts.boot, before) {
        return gone;
    }
    if let Some(free) = facts.free_disk_mb
        && free < needs.free_disk_mb
    {
        return Verdict::Mangled { repairable: false, reason: "DISK_FULL", detail: disk_text(host, free, needs) };
    }
    if let Some(detail) = inode_text(host, facts, needs) {
        return Verdict::Mangled { repairable: false, reason: "DISK_FULL", detail };
    }
    if !facts.scratch_exists {
        return Verdict::Mangled {
            repairable: true,
            reason: "SCRATCH_MISSING",
            detail: format!("host {host}: directory {} is not there", needs.scratch),
        };
    }
    Verdict::Healthy
}

/// The thorough check of a host that was proved before: what [`glance`] finds, and whether the scratch directory is writable, the
/// control groups are there, and git is.
///
/// `before`: the boot that [`prove`] found then.
pub fn examine(host: &str, facts: &Facts, before: &Boot, needs: &Needs) -> Verdict {
    match glance(host, facts, before, needs) {
        Verdict::Healthy => {}
        unfit @ (Verdict::Mangled { .. } | Verdict::Unreachable { .. } | Verdict::Gone { .. }) => return unfit,
    }
    if let Some(fault) = &facts.scratch_fault {
        return Verdict::Mangled {
            repairable: true,
            reason: "SCRATCH_UNUSABLE",
            detail: format!("host {host}: directory {}: {fault}", needs.scratch),
        };
    }
    if let Some(fault) = &facts.exec_fault {
        return Verdict::Mangled {
            repairable: false,
            reason: "SCRATCH_NOEXEC",
            detail: format!("host {host}: no program in {} can be run: {fault}", needs.scratch),
        };
    }
    if needs.contained && !facts.contained {
        return Verdict::Mangled {
            repairable: false,
            reason: "CONTAINMENT_LOST",
            detail: format!(
                "host {host} had control groups when it was made ready, and has none now: {}",
                facts.containment_fault
            ),
        };
    }
    if facts.git.is_empty() {
        return Verdict::Mangled {
            repairable: false,
            reason: "GIT_MISSING",
            detail: format!("host {host} has no git in the PATH of {} any more", facts.user),
        };
    }
    Verdict::Healthy
}

/// Removes a directory and all in it, also where the leftovers are not writable. Not there is `Ok`.
///
/// # Errors
/// `SCRATCH_NOT_REMOVED` (resource) if something is still there, or what kept us from asking.
pub async fn remove_tree(shell: &dyn Shell, path: &str, limit: Option<Duration>) -> Result<(), Failure> {
    const REMOVE: &str = include_str!("sh/remove.sh");
    let command = Command { timeout: limit, ..Command::new(["/bin/sh", "-c", REMOVE, "remove", path]) };
    let output = shell.run(command).await.map_err(failure)?;
    match output.exit {
        Exit::Code(0) => Ok(()),
        ref exit => Err(Failure::resource(
            "SCRATCH_NOT_REMOVED",
            format!("removing {path} ended with {exit:?}: {}", output.complaint()),
        )),
    }
}

/// Free inodes below which a file system counts as full: a slot's own notes take some.
const FREE_INODES_MIN: u64 = 16;

fn inode_text(host: &str, facts: &Facts, needs: &Needs) -> Option<String> {
    let free = facts.free_inodes.filter(|free| *free < FREE_INODES_MIN)?;
    Some(format!(
        "host {host} has {free} free inodes under {}, at least {FREE_INODES_MIN} are needed: the file system has space and can \
         take no more files; remove some",
        needs.scratch
    ))
}

fn disk_text(host: &str, free: u64, needs: &Needs) -> String {
    format!(
        "host {host} has {free} MiB free under {}, less than min_free_disk_mb = {}",
        needs.scratch, needs.free_disk_mb
    )
}

/// `git version 2.47.3 (Apple Git-155)` -> `(2, 47)`.
fn git_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("git version ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            boot: Boot { id: "b1".into(), init: "pid:[1] 7 0".into() },
            user: "build".into(),
            git: "git version 2.47.3".into(),
            free_disk_mb: Some(9000),
            scratch_exists: true,
            ..Facts::default()
        }
    }

    fn needs() -> Needs {
        Needs { scratch: "/s".into(), free_disk_mb: 512, containment: Containment::default(), contained: false }
    }

    #[test]
    fn a_host_that_cannot_contain_is_refused_where_the_pool_asks_for_it() {
        let marks = Facts { containment_fault: "cgroup v2 is not mounted".into(), ..good() };
        let asked = Needs { containment: Containment { required: true, ..Containment::default() }, ..needs() };
        let refused = judge("h", &marks, &asked).unwrap_err();
        assert_eq!((refused.reason, refused.blame), ("NOT_CONTAINED", wharfinger_adapter::Blame::Configuration));
        assert!(refused.message.contains("cgroup v2 is not mounted"), "{refused}");
        assert_eq!(judge("h", &marks, &needs()), Ok(()));
        assert_eq!(judge("h", &Facts { contained: true, ..good() }, &asked), Ok(()));
        let limited = Facts { limits_fault: Some("no pids".into()), contained: true, ..good() };
        assert!(judge("h", &limited, &needs()).unwrap_err().message.contains("no pids"));
        let had = Needs { contained: true, ..needs() };
        let before = Boot::default();
        match examine("h", &marks, &before, &had) {
            Verdict::Mangled { reason, .. } => assert_eq!(reason, "CONTAINMENT_LOST"),
            other => panic!("{other:?}"),
        }
        assert_eq!(examine("h", &marks, &before, &needs()), Verdict::Healthy);
    }

    #[test]
    fn git_versions_are_read() {
        assert_eq!(git_version("git version 2.47.3"), Some((2, 47)));
        assert_eq!(git_version("git version 2.39.5 (Apple Git-154)"), Some((2, 39)));
        assert_eq!(git_version("git version 2.50.GIT"), Some((2, 50)));
        assert_eq!(git_version("nonsense"), None);
    }

    #[test]
    fn each_fault_has_its_reason() {
        let reason = |facts: Facts| judge("h", &facts, &needs()).map_err(|f| f.reason);
        assert_eq!(reason(good()), Ok(()));
        assert_eq!(reason(Facts { git: String::new(), ..good() }), Err("GIT_MISSING"));
        assert_eq!(reason(Facts { git: "git version 2.35.1".into(), ..good() }), Err("GIT_TOO_OLD"));
        assert_eq!(reason(Facts { shows_processes: Some(false), ..good() }), Err("PROC_MISSING"));
        assert_eq!(reason(Facts { free_disk_mb: Some(511), ..good() }), Err("DISK_FULL"));
        assert_eq!(reason(Facts { free_inodes: Some(15), ..good() }), Err("DISK_FULL"));
        assert_eq!(reason(Facts { free_inodes: Some(16), ..good() }), Ok(()));
        assert_eq!(reason(Facts { exec_fault: Some("no".into()), ..good() }), Err("SCRATCH_NOEXEC"));
        assert_eq!(reason(Facts { scratch_fault: Some("no".into()), ..good() }), Err("SCRATCH_UNUSABLE"));
    }

    #[test]
    fn another_boot_is_another_host() {
        let before = |id: &str, init: &str| Boot { id: id.into(), init: init.into() };
        let same = before("b1", "pid:[1] 7 0");
        assert_eq!(examine("h", &good(), &same, &needs()), Verdict::Healthy);
        let gone = |before: Boot| match examine("h", &good(), &before, &needs()) {
            Verdict::Gone { reason, .. } => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(gone(before("b0", "")), "REBOOTED");
        assert_eq!(gone(before("b1", "pid:[1] 6 0")), "RESTARTED");
        // An older broker noted no first process.
        assert_eq!(examine("h", &good(), &before("b1", ""), &needs()), Verdict::Healthy);
        let mangled = |facts: Facts| match examine("h", &facts, &same, &needs()) {
            Verdict::Mangled { repairable, reason, .. } => (repairable, reason),
            other => panic!("{other:?}"),
        };
        assert_eq!(mangled(Facts { scratch_exists: false, ..good() }), (true, "SCRATCH_MISSING"));
        assert_eq!(mangled(Facts { free_disk_mb: Some(3), ..good() }), (false, "DISK_FULL"));
        assert_eq!(mangled(Facts { free_inodes: Some(0), ..good() }), (false, "DISK_FULL"));
        assert_eq!(mangled(Facts { exec_fault: Some("no".into()), ..good() }), (false, "SCRATCH_NOEXEC"));
    }
}
