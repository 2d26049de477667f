//! A host that was given up comes back: what the old resource left there goes, and nothing else does.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[macro_use]
#[path = "support/pool.rs"]
mod pool;
mod support;

use pool::{config, eventually, host, job_of as job, made};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;
use support::nft::Fault;
use support::{Sshd, skip};
use tokio::time::Instant;
use wharfinger_adapter::{Access, Adapter, Command, ParentHost, ResourceJob, Verdict, access};
use wharfinger_host::reaper::LEASE_VARIABLE;
use wharfinger_ssh::{Config, SshAdapter};

// Of one deployment, by age; the last is another deployment's, and older than all.
const OLD: &str = "res_01KAV9FT00QVQG00000000001A";
const NEW: &str = "res_01KAV9FT01QVQG00000000001B";
const OTHER_POOL: &str = "res_01KAV9FT00QVQG000000000015";
const OTHER_ENTRY: &str = "res_01KAV9FT00QVQG000000000016";
const OTHER_DEPLOYMENT: &str = "res_01KAV9FT00QVQ000000000001A";
const COPY_IN: &str = "res_01KAV9FT00QVQG00000000001C";
const COPY_OUT: &str = "res_01KAV9FT00QVQG00000000001D";

fn work_dir(sshd: &Sshd) -> PathBuf {
    sshd.folder().join("work dir")
}

fn scratch(sshd: &Sshd, resource: &str) -> PathBuf {
    work_dir(sshd).join("hosts").join(resource)
}

fn adapter(sshd: &Sshd, pool: &str) -> SshAdapter {
    let work_dir = work_dir(sshd).to_string_lossy().into_owned();
    let hosts = vec![host(sshd, "alpha"), host(sshd, "beta")];
    SshAdapter::new(pool.into(), Config { work_dir, ..config(sshd, hosts) }).unwrap()
}

async fn lease(adapter: &dyn Adapter, job: &ResourceJob, lease: &str) -> Access {
    pool::prepared(adapter, job, lease, 7).await
}

/// A process that a holder left, ended with the value if it still runs then.
struct Left(Child);

impl Left {
    /// It is hard to kill, and has a session of its own, as after a connection that broke (setsid forks only as a leader).
    fn run(dir: &Path, env: &[(&str, &str)]) -> Self {
        let mut command = std::process::Command::new("setsid");
        command.args(["/bin/sh", "-c", "trap '' TERM HUP INT; while :; do sleep 0.1; done"]);
        command.current_dir(dir).envs(env.iter().copied()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn trash(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(".wharfinger")).collect()
}

fn repository(folder: &Path) -> String {
    let script = "git init -q -b main origin && cd origin && echo one >a.txt && git add a.txt && \
                  git -c user.name=a -c user.email=a@example.org commit -qm one";
    let status = std::process::Command::new("/bin/sh").args(["-c", script]).current_dir(folder).status().unwrap();
    assert!(status.success());
    folder.join("origin").to_string_lossy().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn remains_on_a_given_up_host_are_removed_when_it_comes_back() {
    let sshd = sshd_and_nft_or_skip!();
    let farm = adapter(&sshd, "farm");
    let (old, old_access) = made(&farm, job("farm", "alpha", OLD)).await;
    lease(&farm, &old, "lse_host").await;

    // Copies on it: one in its directory, one elsewhere.
    let repository = repository(sshd.folder());
    let root = sshd.folder().join("copies root");
    for (id, name, root) in [(COPY_IN, "lse_in", None), (COPY_OUT, "lse_out", Some(&root))] {
        let mut config = wharfinger_copies::Config::new(repository.clone());
        config.min_free_disk_mb = 1;
        config.root = root.map(|root| root.to_string_lossy().into_owned());
        let copies = wharfinger_copies::CopiesAdapter::new("copies".into(), config).unwrap();
        let shell = farm.shell(&old).await.unwrap();
        let parent = ParentHost { resource: OLD.into(), lease: String::new(), access: old_access.clone(), shell };
        let (copy, _) = made(&copies, ResourceJob { item: None, parent: Some(parent), ..job("copies", "", id) }).await;
        lease(&copies, &copy, name).await;
    }
    let copy_out = root.join(COPY_OUT);
    assert!(copy_out.join("tree/a.txt").exists());

    // Others on the same machine, in the same directories.
    let tools = adapter(&sshd, "tools");
    let (other_pool, _) = made(&tools, job("tools", "alpha", OTHER_POOL)).await;
    lease(&tools, &other_pool, "lse_other").await;
    made(&farm, job("farm", "beta", OTHER_ENTRY)).await;
    made(&farm, job("farm", "alpha", OTHER_DEPLOYMENT)).await;
    let stranger = work_dir(&sshd).join("hosts/stranger");
    std::fs::create_dir_all(&stranger).unwrap();
    let precious = sshd.folder().join("precious");
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("file"), "kept").unwrap();
    std::fs::write(root.join("file"), "kept").unwrap();
    std::fs::create_dir(root.join("res_stranger")).unwrap();

    let home = sshd.folder();
    let lease_of = |name| [(LEASE_VARIABLE, name)];
    let in_old = scratch(&sshd, OLD);
    let fence = in_old.join(".wharfinger/fence.0").to_string_lossy().into_owned();
    let mut ours = [
        ("by the host's lease", Left::run(home, &lease_of("lse_host"))),
        ("by the copy's lease", Left::run(home, &lease_of("lse_in"))),
        ("by the lease of the copy elsewhere", Left::run(home, &lease_of("lse_out"))),
        ("by directory", Left::run(&in_old, &[])),
        ("by directory elsewhere", Left::run(&copy_out.join("tree"), &[])),
        ("by fence", Left::run(home, &[(LEASE_VARIABLE, "lse_9"), ("WHARFINGER_FENCE", &fence)])),
    ];
    let mut theirs = [
        ("another pool's, by lease", Left::run(home, &lease_of("lse_other"))),
        ("another pool's, by directory", Left::run(&scratch(&sshd, OTHER_POOL), &lease_of("lse_other"))),
        ("another entry's", Left::run(&scratch(&sshd, OTHER_ENTRY), &[])),
        ("another deployment's", Left::run(&scratch(&sshd, OTHER_DEPLOYMENT), &lease_of("lse_host2"))),
        ("a stranger's", Left::run(&stranger, &[])),
    ];
    // A fault that makes a removal fail.
    symlink(&precious, in_old.join("link")).unwrap();
    std::fs::create_dir_all(in_old.join("cache/deep")).unwrap();
    std::fs::write(in_old.join("cache/deep/module"), "x").unwrap();
    std::fs::set_permissions(in_old.join("cache/deep"), PermissionsExt::from_mode(0o500)).unwrap();

    let hole = Fault::black_hole(sshd.address);
    farm.destroy(&old).await.unwrap();
    assert!(in_old.exists() && ours[0].1.lives(), "it could not be reached");
    drop(hole);

    let begun = Instant::now();
    made(&farm, job("farm", "alpha", NEW)).await;
    println!("provisioned with a sweep in {:?}", begun.elapsed());
    for (name, left) in &mut ours {
        assert!(!left.lives(), "{name}: still runs");
    }
    assert!(!in_old.exists() && !scratch(&sshd, &format!("{OLD}.owner")).exists() && !copy_out.exists());
    until("the trash is empty", || trash(&work_dir(&sshd).join("hosts")).is_empty() && trash(&root).is_empty());

    for (name, left) in &mut theirs {
        assert!(left.lives(), "{name}: was ended");
    }
    for resource in [NEW, OTHER_POOL, OTHER_ENTRY, OTHER_DEPLOYMENT] {
        assert!(scratch(&sshd, resource).is_dir() && scratch(&sshd, &format!("{resource}.owner/mark")).is_file());
    }
    assert!(stranger.is_dir() && root.join("res_stranger").is_dir() && root.join("file").exists());
    assert_eq!(std::fs::read_to_string(precious.join("file")).unwrap(), "kept", "no link is followed");
    assert!(scratch(&sshd, OTHER_POOL).join(".wharfinger/fence.0").exists());

    // A call for the old resource that was held up somewhere finds nothing that is older.
    made(&farm, job("farm", "alpha", OLD)).await;
    assert!(scratch(&sshd, NEW).is_dir(), "the old resource swept the new one");
    let new = job("farm", "alpha", NEW);
    farm.destroy(&new).await.unwrap();
    assert!(!scratch(&sshd, NEW).exists() && !scratch(&sshd, &format!("{NEW}.owner")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_tree_is_out_of_the_way_at_once_and_a_removal_that_was_cut_off_goes_on() {
    let sshd = sshd_and_nft_or_skip!();
    let farm = adapter(&sshd, "farm");
    made(&farm, job("farm", "alpha", OLD)).await;
    let big = scratch(&sshd, OLD);
    let script = "mkdir -p d && cd d && i=0; while [ $i -lt 200 ]; do mkdir $i; \
                  (cd $i && seq 1 200 | xargs touch); i=$((i+1)); done";
    let status = std::process::Command::new("/bin/sh").args(["-c", script]).current_dir(&big).status().unwrap();
    assert!(status.success());
    // A remover of an earlier provision that died half-way, and a number that another program has by now.
    let hosts = work_dir(&sshd).join("hosts");
    let half = hosts.join(format!(".wharfinger-trash.{OTHER_ENTRY}.1.1"));
    std::fs::create_dir_all(half.join("more")).unwrap();
    std::fs::write(hosts.join(".wharfinger-remover"), format!("{}\n", std::process::id())).unwrap();
    // A link in an old directory's place: the link goes, what it points at stays.
    let precious = sshd.folder().join("precious");
    std::fs::create_dir(&precious).unwrap();
    made(&farm, job("farm", "alpha", COPY_IN)).await;
    std::fs::remove_dir_all(scratch(&sshd, COPY_IN)).unwrap();
    symlink(&precious, scratch(&sshd, COPY_IN)).unwrap();
    let mut stands = Left::run(&precious, &[]);

    let begun = Instant::now();
    made(&farm, job("farm", "alpha", NEW)).await;
    println!("provisioned beside 40,000 files in {:?}", begun.elapsed());
    assert!(!big.exists());
    until("the trash is empty", || trash(&hosts).is_empty());
    assert!(precious.is_dir() && stands.lives());
    assert!(!scratch(&sshd, COPY_IN).is_symlink());
}

#[tokio::test]
async fn a_host_stays_in_its_directory_after_a_change_of_work_dir() {
    if skip("a_host_stays_in_its_directory_after_a_change_of_work_dir") {
        return;
    }
    let sshd = Sshd::start();
    let (job, before) = made(&adapter(&sshd, "farm"), job("farm", "alpha", OLD)).await;
    let work_dir = sshd.folder().join("after").to_string_lossy().into_owned();
    let config = Config { work_dir: work_dir.clone(), ..config(&sshd, vec![host(&sshd, "alpha")]) };
    let now = SshAdapter::new("farm".into(), config).unwrap();
    assert_eq!([now.check(&job).await, now.probe(&job).await], [Ok(Verdict::Healthy), Ok(Verdict::Healthy)]);
    let granted = lease(&now, &job, "lse_after").await;
    assert!(granted[access::FENCE].starts_with(&before[access::PATH]), "{granted:?}");
    now.destroy(&job).await.unwrap();
    assert!(!scratch(&sshd, OLD).exists());
    let (_, after) = made(&now, self::job("farm", "alpha", NEW)).await;
    assert!(after[access::PATH].starts_with(&work_dir), "{after:?}");
}

#[tokio::test]
async fn a_janitor_leaves_the_new_tenant_alone() {
    if skip("a_janitor_leaves_the_new_tenant_alone") {
        return;
    }
    let sshd = Sshd::start();
    let farm = adapter(&sshd, "farm");
    let (old, _) = made(&farm, job("farm", "alpha", OLD)).await;
    // The old resource could not be removed and was forgotten. Its host has another by now, at work over the kept connection.
    let (new, _) = made(&farm, job("farm", "alpha", NEW)).await;
    let (began, go_on) = (sshd.folder().join("began"), sshd.folder().join("go_on"));
    let line = "touch \"$1\"; until [ -e \"$2\" ]; do sleep 0.05; done; echo done";
    let argv = ["/bin/sh", "-c", line, "work", &began.to_string_lossy(), &go_on.to_string_lossy()];
    let (shell, work) = (farm.shell(&new).await.unwrap(), Command::new(argv));
    let working = tokio::spawn(async move { shell.run(work).await });
    eventually("the work begins", async || began.exists()).await;

    farm.destroy(&old).await.unwrap();
    farm.destroy(&old).await.unwrap();
    std::fs::write(&go_on, "").unwrap();
    let output = working.await.unwrap().expect("the connection of the new resource");
    assert_eq!(output.text(), "done");

    // A late call of the old one makes it no tenant.
    let _ = farm.check(&old).await;
    farm.destroy(&old).await.unwrap();
    assert!(sshd.processes().len() > 1, "the kept connection");
    farm.destroy(&new).await.unwrap();
    eventually("its own end closes it", async || sshd.processes().len() == 1).await;
}
