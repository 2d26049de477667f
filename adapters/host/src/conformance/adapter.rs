//! Duties of every host [`Adapter`].

use super::{alive, dead, sh, until};
use crate::fence;
use crate::reaper::LEASE_VARIABLE;
use async_trait::async_trait;
use std::sync::{Arc, Mutex, PoisonError};
use wharfinger_adapter::{
    Access, Adapter, Blame, CleanJob, Command, EndedHow, Exit, Failure, HolderWork, Journal, PrepareJob, Prepared,
    ProvisionJob, Provisioned, ResourceJob, Shell, Verdict, access, quote,
};

/// All of them, one after the other. `job` says pool, inventory item and a resource id that no one else uses.
pub async fn all(adapter: Arc<dyn Adapter>, job: ResourceJob) {
    let job = used(&*adapter, &job).await;
    destroy_twice_is_fine(&*adapter, &job).await;
    destroy_of_what_never_was_is_fine(&*adapter, &job).await;
}

/// The same for machines that are bought, and end with their resource: nothing can be asked of them afterwards.
pub async fn all_of_machines(adapter: Arc<dyn Adapter>, job: ResourceJob) {
    let job = used(&*adapter, &job).await;
    adapter.destroy(&job).await.expect("destroy");
    adapter.destroy(&job).await.expect("destroy again");
    destroy_of_what_never_was_is_fine(&*adapter, &job).await;
}

/// All but the end, on one resource.
async fn used(adapter: &dyn Adapter, job: &ResourceJob) -> ResourceJob {
    let job = provision_is_idempotent(adapter, job).await;
    check_and_probe_are_healthy(adapter, &job).await;
    clean_kills_that_lease_and_no_other(adapter, &job).await;
    the_fence_keeps_out_who_is_late(adapter, &job).await;
    job
}

/// A journal that is durable as long as it lives.
struct Notes(Mutex<Option<String>>);

impl Notes {
    fn last(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Journal for Notes {
    async fn write(&self, note: &str) -> Result<(), Failure> {
        assert!(note.len() <= 64 * 1024, "the note is too long");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(note.to_string());
        Ok(())
    }
}

/// Makes it, and returns the job as the broker would give it from then on.
pub async fn made(adapter: &dyn Adapter, job: &ResourceJob) -> (ResourceJob, Provisioned) {
    let (_, made) = noted(adapter, job).await;
    made
}

/// The same, and what was written down last on the way.
async fn noted(adapter: &dyn Adapter, job: &ResourceJob) -> (Option<String>, (ResourceJob, Provisioned)) {
    let notes = Notes(Mutex::new(job.handle.clone()));
    let provisioned = adapter
        .provision_noted(&ProvisionJob { resource: job.clone(), attempt: 0 }, &notes)
        .await
        .unwrap_or_else(|f| panic!("provision: {} {f}", f.reason));
    let mut job = job.clone();
    job.handle = Some(provisioned.handle.clone());
    (notes.last(), (job, provisioned))
}

/// The same operation again finds what the first one made; its access says how to get there and holds no secret.
/// Returns the job as the broker would give it from then on.
pub async fn provision_is_idempotent(adapter: &dyn Adapter, job: &ResourceJob) -> ResourceJob {
    let (note, (made_job, first)) = noted(adapter, job).await;
    // The broker died before it heard of it, and goes on from the last note.
    let (_, second) = made(adapter, &ResourceJob { handle: note, ..job.clone() }).await;
    assert_eq!(first, second, "provision with the same op gives the same resource");
    assert!(first.handle.len() <= 16 * 1024, "the handle is too long");
    let needed = [access::TRANSPORT, access::ADDRESS, access::USER, access::PATH, access::BOOT_ID];
    for key in needed {
        assert!(first.access.get(key).is_some_and(|v| !v.is_empty()), "access lacks {key}: {:?}", first.access);
    }
    no_credentials(&first.access);
    assert!(first.labels.contains_key("os") && first.labels.contains_key("arch"), "{:?}", first.labels);
    made_job
}

/// The broker stores what an adapter answers with, so it holds no credentials.
fn no_credentials(access: &Access) {
    for key in access::CREDENTIALS {
        assert!(!access.contains_key(key), "{key} comes from a CredentialSource alone");
    }
}

/// A resource that was just made is healthy by its check and by its probe.
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

/// The token in the slot's fence decides who may run, and an outdated broker changes nothing.
pub async fn the_fence_keeps_out_who_is_late(adapter: &dyn Adapter, job: &ResourceJob) {
    assert!(adapter.traits().prepares, "the fence is written when a slot is prepared");
    let (job, _) = made(adapter, job).await;
    let shell = adapter.shell(&job).await.expect("a host has a shell");
    let work = |slot, token| HolderWork { lease: format!("lse_fence_{token}"), slot, token, ..HolderWork::default() };
    let prepare = async |slot, token, child: Option<&str>| {
        let job = PrepareJob { resource: job.clone(), work: work(slot, token), child: child.map(String::from) };
        let prepared = adapter.prepare(&job).await;
        prepared.iter().for_each(|prepared| no_credentials(&prepared.access));
        prepared
    };
    let clean = async |slot, token| {
        adapter.clean(&CleanJob { resource: job.clone(), work: work(slot, token), ended: EndedHow::Broken }).await
    };
    let fenced = |result: Result<(), Failure>| {
        let failure = result.expect_err("a later lease has the slot");
        assert_eq!((failure.blame, failure.reason), (Blame::Provider, "FENCED"), "{failure}");
    };
    let fence_of = |prepared: Prepared| prepared.access.get(access::FENCE).cloned().expect("access has a fence");

    let path = fence_of(prepare(0, 99, None).await.expect("prepare"));
    assert_eq!(fence_of(prepare(0, 99, None).await.expect("prepare again")), path);
    // Numbers are compared, not text; nothing but the number is in the file.
    assert_eq!(fence_of(prepare(0, 100, None).await.expect("the next lease")), path);
    assert_eq!(sh(&*shell, &format!("cat {}", quote(&path))).await, "100");
    assert_ne!(fence_of(prepare(1, 7, None).await.expect("the neighbour's slot")), path, "each slot has its own");
    let for_child = prepare(0, 3, Some("res_child")).await.expect("prepare for a child");
    assert!(!for_child.access.contains_key(access::FENCE), "a child has its own fence");

    fenced(prepare(0, 99, None).await.map(drop));
    fenced(clean(0, 99).await);
    let run = async |token| {
        let command = Command::sh("echo \"$MARK $0 $1\"; exit 7").env("MARK", "it's");
        let command = Command { argv: [command.argv.clone(), vec!["a b".into(), "'".into()]].concat(), ..command };
        let output = shell.run(fence::guarded(command, &path, token)).await.expect("run");
        (output.exit.clone(), output.text(), output.complaint())
    };
    let (exit, text, _) = run(100).await;
    assert_eq!((exit, text.as_str()), (Exit::Code(7), "it's a b '"), "who holds the lease runs as without a fence");
    let (exit, text, complaint) = run(99).await;
    assert_eq!((exit, text.as_str()), (Exit::Code(fence::REFUSED), ""));
    assert!(complaint.contains("99") && complaint.contains("token 100"), "{complaint}");
    let missing = Command::new(["wharfinger-no-such-program"]);
    let output = shell.run(fence::guarded(missing, &path, 100)).await.expect("run");
    assert_eq!(output.exit, Exit::Code(127), "{}", output.complaint());

    clean(0, 100).await.expect("clean");
    let (exit, _, complaint) = run(100).await;
    assert_eq!(exit, Exit::Code(fence::REFUSED), "{complaint}");
    assert!(complaint.contains("no lease"), "{complaint}");
    clean(0, 100).await.expect("clean again");
    clean(1, 7).await.expect("clean the neighbour");
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
