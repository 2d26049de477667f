//! The tree of control groups of this machine.

use crate::need::{Need, need};
use std::path::PathBuf;

/// Where cgroup v2 is mounted and can be written, with limits of memory, or `None` if the test is to be skipped.
pub fn cgroup() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let at = fields.nth(1)?;
        (fields.next() == Some("cgroup2")).then(|| PathBuf::from(at))
    });
    let writable = |at: &PathBuf| {
        let group = at.join(format!("wharfinger-test-{}", std::process::id()));
        let made = std::fs::create_dir(&group).is_ok() && group.join("cgroup.kill").exists();
        let _ = std::fs::remove_dir(&group);
        made
    };
    // In a tree of its own (v1), or handed down from the root of v2.
    let limited = |at: &PathBuf| {
        let own = |line: &str| {
            let mut fields = line.split(' ').skip(2);
            fields.next() == Some("cgroup")
                && fields.next().is_some_and(|options| options.split(',').any(|o| o == "memory"))
        };
        let control = std::fs::read_to_string(at.join("cgroup.subtree_control")).unwrap_or_default();
        mounts.lines().any(own) || control.split_whitespace().any(|name| name == "memory")
    };
    need(Need::Cgroup, mount.filter(writable).filter(limited))
}
