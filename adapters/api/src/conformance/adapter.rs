//! What every host [`Adapter`] must do.

use super::{alive, dead, sh, until};
use crate::reaper::LEASE_VARIABLE;
use crate::{
    Access, Adapter, CleanJob, EndedHow, HolderWork, ProvisionJob, Provisioned, ResourceJob, Shell, Verdict, access,
    quote,
};
use std::sync::Arc;

/// All of them, one after the other. `job` says pool, inventory item and a resource id that no one else uses.
pub async fn all(adapter: Arc<dyn Adapter>, job: ResourceJob) {
    provision_is_idempotent(&*adapter, &job).await;
    check_and_probe_are_healthy(&*adapter, &job).await;
    clean_kills_that_lease_and_no_other(&*adapter, &job).await;
    destroy_twice_is_fine(&*adapter, &job).await;
    destroy_of_what_never_was_is_fine(&*adapter, &job).await;
}

/// Makes it, and returns the job as the broker would give it from then on.
pub async fn made(adapter: &dyn Adapter, job: &ResourceJob) -> (ResourceJob, Provisioned) {
    let provisioned = adapter
        .provision(&ProvisionJob { resource: job.clone(), attempt: 0 })
        .await
        .unwrap_or_else(|f| panic!("provision: {} {f}", f.reason));
    let mut job = job.clone();
    job.handle = Some(provisioned.handle.clone());
    (job, provisioned)
}

/// The same operation again finds what the first one made; its access says how to get there and holds no secret.
pub async fn provision_is_idempotent(adapter: &dyn Adapter, job: &ResourceJob) {
    let (_, first) = made(adapter, job).await;
    let (_, second) = made(adapter, job).await;
    assert_eq!(first, second, "provision with the same op gives the same resource");
    assert!(first.handle.len() <= 16 * 1024, "the handle is too long");
    let needed = [access::TRANSPORT, access::ADDRESS, access::USER, access::PATH, access::BOOT_ID];
    for key in needed {
        assert!(first.access.get(key).is_some_and(|v| !v.is_empty()), "access lacks {key}: {:?}", first.access);
    }
    assert!(!first.access.contains_key(access::PRIVATE_KEY), "secrets belong to prepare");
    assert!(first.labels.contains_key("os") && first.labels.contains_key("arch"), "{:?}", first.labels);
}

/// What was just made is healthy, thoroughly and cheaply asked.
pub async fn check_and_probe_are_healthy(adapter: &dyn Adapter, job: &ResourceJob) {
    let (job, _) = made(adapter, job).await;
    assert_eq!(adapter.check(&job).await, Ok(Verdict::Healthy));
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy));
}

/// Starts a process that outlives its command and is marked with this lease: a daemon in a session of its own, with a
/// child in its group that dropped the mark. Their ids are in `<file>` and `<file>.child`.
async fn leave_running(shell: &dyn Shell, file: &str, lease: &str) {
    let file = quote(file);
    let line = format!(
        "rm -f {file} {file}.child\n\
         {LEASE_VARIABLE}={lease} setsid sh -c 'trap \"\" TERM HUP; echo $$ >{file}; \
         env -i PATH=\"$PATH\" sleep 300 & echo $! >{file}.child; while :; do sleep 1; done' </dev/null >/dev/null 2>&1 &\n\
         while ! [ -s {file}.child ] || ! [ -s {file} ]; do sleep 0.05; done"
    );
    sh(shell, &line).await;
}

/// Cleaning ends what that lease left running, wherever it hid, and leaves the neighbour's processes alone.
pub async fn clean_kills_that_lease_and_no_other(adapter: &dyn Adapter, job: &ResourceJob) {
    let (job, provisioned) = made(adapter, job).await;
    let shell = adapter.shell(&job).await.expect("a host has a shell");
    let path = path_of(&provisioned.access);
    // One name is the beginning of the other: a careless match would take both.
    let (mine, other) = (format!("{path}/mine"), format!("{path}/other"));
    let (lease, neighbour) = ("lse_conformance_1", "lse_conformance_12");
    leave_running(&*shell, &mine, lease).await;
    leave_running(&*shell, &other, neighbour).await;

    clean(adapter, &job, lease).await;
    for suffix in ["", ".child"] {
        let (mine, other) = (quote(&format!("{mine}{suffix}")), quote(&format!("{other}{suffix}")));
        until(&*shell, &format!("clean kills the lease's process{suffix}"), &dead(&mine)).await;
        until(&*shell, &format!("clean spares the neighbour's process{suffix}"), &alive(&other)).await;
    }
    clean(adapter, &job, lease).await;
    clean(adapter, &job, neighbour).await;
    until(&*shell, "clean kills the neighbour when it is its turn", &dead(&quote(&other))).await;
}

/// Destroying what is destroyed is success, and nothing of it is left.
pub async fn destroy_twice_is_fine(adapter: &dyn Adapter, job: &ResourceJob) {
    let (job, provisioned) = made(adapter, job).await;
    let shell = adapter.shell(&job).await.expect("a host has a shell");
    let path = quote(&path_of(&provisioned.access));
    sh(&*shell, &format!("mkdir -p {path}/deep/er && echo x >{path}/deep/er/file && chmod 500 {path}/deep/er")).await;
    adapter.destroy(&job).await.expect("destroy");
    adapter.destroy(&job).await.expect("destroy again");
    sh(&*shell, &format!("! [ -e {path} ]")).await;
}

/// So is destroying what was never made.
pub async fn destroy_of_what_never_was_is_fine(adapter: &dyn Adapter, job: &ResourceJob) {
    let job = ResourceJob { resource: format!("{}_never", job.resource), handle: None, ..job.clone() };
    adapter.destroy(&job).await.expect("destroy of what never was");
}

async fn clean(adapter: &dyn Adapter, job: &ResourceJob, lease: &str) {
    let work = HolderWork { lease: lease.to_string(), ..HolderWork::default() };
    adapter
        .clean(&CleanJob { resource: job.clone(), work, ended: EndedHow::Broken })
        .await
        .unwrap_or_else(|f| panic!("clean: {} {f}", f.reason));
}

fn path_of(access: &Access) -> String {
    access.get(access::PATH).cloned().expect("access has a path")
}
