//! Processes of a lease end with it, wherever they went, and take no more than its share.

use crate::sshd::{Sshd, skip};
use crate::support::{Server, repository, text};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use wharfinger_testkit::cgroup;

/// Where the processes of the tests leave their ids; any user may write there.
struct Notes(tempfile::TempDir);

impl Notes {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o1777)).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Shell lines that each leave a process behind without a mark of its lease: another session, an empty environment, no limit
    /// of file locks, `/` as directory.
    fn leave(&self) -> String {
        let at = self.path().display();
        let bare = |name: &str| {
            format!("ulimit -S -w unlimited; echo $$ >{at}/{name}.new; mv {at}/{name}.new {at}/{name}; exec sleep 3600")
        };
        let daemon = format!(
            "import os,resource,sys\n\
             if os.fork(): sys.exit(0)\n\
             os.setsid()\n\
             if os.fork(): os._exit(0)\n\
             os.chdir('/'); resource.setrlimit(10, (-1, -1))\n\
             [os.close(fd) for fd in range(3)]\n\
             open('{at}/daemon', 'w').write(str(os.getpid()))\n\
             os.execve('/bin/sleep', ['sleep', '3600'], {{}})"
        );
        [
            format!("cd / && env -i setsid sh -c '{}' </dev/null >/dev/null 2>&1 &", bare("bare")),
            format!("python3 -c \"{daemon}\""),
            // As under sudo: another user.
            format!("cd / && env -i setpriv --reuid=65534 --regid=65534 --clear-groups setsid sh -c '{}' </dev/null >/dev/null 2>&1 &", bare("other")),
            format!("until [ -s {at}/bare ] && [ -s {at}/daemon ] && [ -s {at}/other ]; do sleep 0.05; done"),
        ]
        .join("\n")
    }

    fn pids(&self, names: &[&str]) -> Vec<u32> {
        names
            .iter()
            .map(|name| std::fs::read_to_string(self.path().join(name)).unwrap().trim().parse().unwrap())
            .collect()
    }
}

const LEFT: [&str; 3] = ["bare", "daemon", "other"];

fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
}

fn ended(pids: &[u32]) {
    let left: Vec<_> = pids.iter().filter(|pid| lives(**pid)).collect();
    for pid in &left {
        let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    }
    assert!(left.is_empty(), "{left:?} of {pids:?} outlived their lease");
}

/// A pool of hosts with one machine: this one, or one behind an sshd.
fn pool(sshd: Option<&Sshd>, work: &Path, more: &str) -> String {
    let (work, kind) = (work.display(), if sshd.is_some() { "ssh" } else { "local" });
    let head = format!(
        "[[pool]]\nname = \"hosts\"\nadapter = \"{kind}\"\nslots = 2\nmin_ready = 1\n{more}\n[pool.timeouts]\nprepare = \"60s\"\n"
    );
    let Some(sshd) = sshd else { return format!("{head}[pool.local]\nroot = \"{work}\"\n") };
    format!(
        "{head}[pool.ssh]\nwork_dir = \"{work}\"\nkey = \"{key}\"\nholder_key = \"{key}\"\n[[pool.ssh.host]]\nname = \"a\"\n\
         address = \"{}\"\nport = {}\nuser = \"{}\"\nhost_key = \"{}\"\n",
        sshd.address,
        sshd.port,
        sshd.user,
        sshd.host_key(),
        key = sshd.key().display()
    )
}

/// A build that runs until it is dropped.
struct Neighbour(Child, PathBuf);

impl Neighbour {
    fn start(server: &Server, notes: &Notes, options: &[&str]) -> Self {
        let at = notes.path().join("neighbour");
        let line = format!("while :; do date +%s.%N >{0}.new; mv {0}.new {0}; sleep 0.1; done", at.display());
        let args = [&["run", "-q", "--retries", "0"], options, &["--", "sh", "-c", &line]].concat();
        let child = server.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        server.wait("the neighbour runs", || at.exists().then_some(()));
        Self(child, at)
    }

    /// It still makes progress.
    fn works(&mut self, server: &Server) {
        let was = std::fs::read_to_string(&self.1).unwrap();
        server.wait("the neighbour goes on", || (std::fs::read_to_string(&self.1).unwrap() != was).then_some(()));
        assert!(self.0.try_wait().unwrap().is_none(), "the neighbour ended");
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// Leaves processes behind under one lease; the next one on the slot finds none of them, and the neighbour is not touched.
fn nothing_is_left(server: &Server, options: &[&str]) {
    let notes = Notes::new();
    let mut neighbour = Neighbour::start(server, &notes, options);
    let run = |line: &str| server.cli(&[&["run", "-q"], options, &["--", "sh", "-c", line]].concat());
    let first = run(&notes.leave());
    let pids = notes.pids(&LEFT);
    assert!(first.status.success(), "{}", text(&first));
    // The other slot is the neighbour's, so that this is the same one.
    let second = run("cat /proc/self/cgroup");
    ended(&pids);
    assert!(
        second.status.success() && String::from_utf8_lossy(&second.stdout).contains("/wharfinger/res_"),
        "{}",
        text(&second)
    );
    neighbour.works(server);
}

#[test]
fn a_process_that_leaves_session_environment_and_user_ends_with_its_lease_on_an_ssh_host() {
    if skip("containment") || cgroup().is_none() {
        return;
    }
    let (sshd, work) = (Sshd::start(), tempfile::tempdir().unwrap());
    let server = Server::start(&pool(Some(&sshd), work.path(), "require_containment = true"));
    server.wait_for_state("hosts", "READY", 1);
    nothing_is_left(&server, &["--label", "containment=cgroup"]);
    let host = &server.wait_for_state("hosts", "READY", 1)[0];
    assert_eq!(host["labels"]["containment"], "cgroup", "{host}");
}

#[test]
fn a_process_that_leaves_session_environment_and_user_ends_with_its_lease_on_this_machine() {
    if skip("containment") || cgroup().is_none() {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let server = Server::start(&pool(None, work.path(), ""));
    server.wait_for_state("hosts", "READY", 1);
    nothing_is_left(&server, &["--pool", "hosts"]);
}

#[test]
fn processes_of_a_working_copy_end_with_the_copys_lease() {
    if skip("containment") || cgroup().is_none() {
        return;
    }
    let (sshd, work) = (Sshd::start(), tempfile::tempdir().unwrap());
    let pools = pool(Some(&sshd), work.path(), "");
    let copies = "[[pool]]\nname = \"copies\"\nadapter = \"copies\"\non = \"hosts\"\nmax = 2\n[pool.copies]\nrepository = \"{folder}/origin\"\n";
    let mut server = Server::prepared("w.db");
    repository(&server.folder.path().join("origin"));
    server.configure("", &format!("{pools}{copies}"));
    server.run();
    nothing_is_left(&server, &["--pool", "copies"]);
}

/// An sshd for an ordinary user, started in a group of cgroup v2 that the user may write, or in the root.
fn sshd_of_user(delegated: Option<&Path>) -> Sshd {
    let Some(group) = delegated else { return Sshd::start_for_user("") };
    let group = group.display();
    // A user that may write these three may move processes between the groups below (cgroup v2, "delegation").
    Sshd::start_for_user(&format!(
        "mkdir -p {group}/logins && chown build {group} {group}/cgroup.procs {group}/cgroup.subtree_control && \
         echo 0 >{group}/logins/cgroup.procs"
    ))
}

#[test]
fn an_ordinary_user_contains_in_a_delegated_group() {
    let Some(tree) = cgroup() else { return };
    if skip("containment") {
        return;
    }
    let group = tree.join(format!("wharfinger-test-user-{}", std::process::id()));
    {
        let sshd = sshd_of_user(Some(&group));
        let work = sshd.home().join("work");
        let server = Server::start(&pool(Some(&sshd), &work, "require_containment = true"));
        server.wait_for_state("hosts", "READY", 1);
        let notes = Notes::new();
        // The sleep has no mark of the lease any more.
        let line = notes.leave().replace("setpriv --reuid=65534 --regid=65534 --clear-groups ", "");
        let first = server.cli(&["run", "-q", "--pool", "hosts", "--", "sh", "-c", &line]);
        let pids = notes.pids(&LEFT);
        assert!(first.status.success(), "{}", text(&first));
        server.wait("the slot is cleaned", || {
            let resources = server.resources();
            resources
                .iter()
                .any(|r| r["state"] == "READY" && r["leases"].as_array().is_none_or(Vec::is_empty))
                .then_some(())
        });
        let second = server.cli(&["run", "-q", "--pool", "hosts", "--", "true"]);
        assert!(second.status.success(), "{}", text(&second));
        server.wait("what was left has ended", || (!pids.iter().any(|pid| lives(*pid))).then_some(()));
        ended(&pids);
    }
    remove_groups(group.file_name().unwrap().to_str().unwrap());
}

/// An sshd for an ordinary user whose sessions lie in a group of root's, beside the user's service manager. On a host that systemd
/// has booted its system manager moves a process from one to the other. Here the user may: it has the `cgroup.procs` above both.
fn sshd_beside_a_service_manager(name: &str) -> Sshd {
    let script = r#"
        mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system
        mkdir -p /run/user && mount -t tmpfs tmpfs /run/user
        runtime=/run/user/$(id -u build)
        mkdir -m 700 "$runtime" && chown build "$runtime"
        trees=$(awk '$3 == "cgroup2" || ($3 == "cgroup" && $4 ~ /name=systemd/) { print $2 }' /proc/self/mounts | sort -u)
        for tree in $trees; do
          slice=$tree/NAME
          mkdir -p "$slice/manager" "$slice/session"
          chown build "$slice/cgroup.procs" "$slice/manager" "$slice/manager/cgroup.procs" "$slice/manager/cgroup.subtree_control"
          echo $$ >"$slice/manager/cgroup.procs"
        done 2>/dev/null
        setpriv --reuid build --regid build --clear-groups env -i HOME="$runtime" XDG_RUNTIME_DIR="$runtime" PATH=/usr/bin:/bin \
          systemd --user </dev/null >/dev/null 2>&1 &
        for tree in $trees; do echo $$ >"$tree/NAME/session/cgroup.procs"; done
        for _ in $(seq 300); do [ -S "$runtime/systemd/private" ] && [ -S "$runtime/bus" ] && break; sleep 0.1; done
    "#;
    Sshd::start_for_user(&script.replace("NAME", name))
}

/// Removes a group and those below it, deepest first. Those of processes that are still ending may stay.
fn remove_groups(name: &str) {
    let all = std::fs::read_to_string("/proc/self/mounts").unwrap();
    for mount in all.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with("/sys/fs/cgroup")) {
        let group = Path::new(mount).join(name);
        if group.exists() {
            let _ = std::process::Command::new("find")
                .arg(&group)
                .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
                .output();
        }
    }
}

#[test]
fn an_ordinary_user_contains_in_a_group_of_its_service_manager() {
    if skip("containment") || cgroup().is_none() {
        return;
    }
    let name = format!("wharfinger-test-scope-{}", std::process::id());
    {
        let sshd = sshd_beside_a_service_manager(&name);
        let work = sshd.home().join("work");
        let server = Server::start(&pool(Some(&sshd), &work, "require_containment = true"));
        server.wait_for_state("hosts", "READY", 1);
        let notes = Notes::new();
        let mut neighbour = Neighbour::start(&server, &notes, &["--pool", "hosts"]);
        let line = notes.leave().replace("setpriv --reuid=65534 --regid=65534 --clear-groups ", "");
        let run = |line: &str| {
            server.cli(&["run", "-q", "--pool", "hosts", "--label", "containment=scope", "--", "sh", "-c", line])
        };
        let first = run(&format!("{line}; cat /proc/self/cgroup"));
        let pids = notes.pids(&LEFT);
        assert!(first.status.success(), "{}", text(&first));
        let groups = String::from_utf8_lossy(&first.stdout).into_owned();
        assert!(groups.contains("/manager/app.slice/wharfinger-slots.service/wharfinger/res_"), "{groups}");
        // The other slot is the neighbour's, so that this is the same one.
        let second = run("cat /proc/self/cgroup");
        ended(&pids);
        assert!(second.status.success(), "{}", text(&second));
        neighbour.works(&server);
    }
    remove_groups(&name);
}

#[test]
fn a_host_that_cannot_contain_is_refused_where_the_pool_asks_for_it() {
    if skip("containment") {
        return;
    }
    let sshd = sshd_of_user(None);
    let work = sshd.home().join("work");
    let server = Server::start(&pool(Some(&sshd), &work, "require_containment = true"));
    let said = server.wait("the host is refused", || {
        let output = text(&server.cli(&["resources"]));
        output.contains("NOT_CONTAINED").then_some(output)
    });
    assert!(said.contains("PROVISIONING"), "{said}");
    // Without the demand it serves by the marks, and says so.
    server.configure("", &pool(Some(&sshd), &work, ""));
    server.reload();
    let host = &server.wait_for_state("hosts", "READY", 1)[0];
    assert_eq!(host["labels"]["containment"], "marks", "{host}");
    let refused =
        server.cli(&["run", "--pool", "hosts", "--label", "containment=cgroup", "--queue-for", "1s", "--", "true"]);
    assert!(!refused.status.success(), "{}", text(&refused));
}

#[test]
fn a_leak_and_a_fork_bomb_end_at_the_limits_of_their_own_lease() {
    if skip("containment") || cgroup().is_none() {
        return;
    }
    let (sshd, work) = (Sshd::start(), tempfile::tempdir().unwrap());
    let limits = "[pool.limits]\nmemory = \"96MiB\"\npids = 40\ncpus = 1.5";
    let server = Server::start(&pool(Some(&sshd), work.path(), limits));
    server.wait_for_state("hosts", "READY", 1);
    let notes = Notes::new();
    let mut neighbour = Neighbour::start(&server, &notes, &["--pool", "hosts"]);

    let leak = ["run", "--pool", "hosts", "--", "python3", "-c", "x = bytearray(400 << 20)"];
    let output = server.cli(&leak);
    let said = text(&output);
    assert!(
        !output.status.success() && said.contains("the lease's own limit of memory, 96 MiB, was reached"),
        "{said}"
    );
    neighbour.works(&server);
    let lease = said.split_whitespace().find(|word| word.starts_with("lse_")).unwrap();
    let why = text(&server.cli(&["why", lease]));
    assert!(why.contains("own limit of memory, 96 MiB"), "{why}");

    let bomb = "i=0; while [ $i -lt 100 ]; do sleep 60 & i=$((i + 1)); done; exit 3";
    let output = server.cli(&["run", "--pool", "hosts", "--", "bash", "-c", bomb]);
    let said = text(&output);
    assert!(!output.status.success() && said.contains("the lease's own limit of processes, 40, was reached"), "{said}");
    neighbour.works(&server);
    // A failure of its own: the host is not blamed, and the next lease has the slot.
    let next = server.cli(&["run", "-q", "--pool", "hosts", "--", "true"]);
    assert!(next.status.success(), "{}", text(&next));
    server.wait_for_state("hosts", "READY", 1);
}
