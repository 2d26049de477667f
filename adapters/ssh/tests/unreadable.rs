//! Processes that do not show their environment, to their own user either, end with their lease (docs/adr/0018).

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[macro_use]
#[path = "support/pool.rs"]
mod pool;
mod support;

use std::path::PathBuf;
use std::sync::Arc;
use support::{Sshd, skip};
use wharfinger_adapter::{
    Access, Adapter, Blame, CleanJob, Command, EndedHow, Failure, HolderWork, ParentHost, PrepareJob, ProvisionJob,
    ResourceJob, Shell, access,
};
use wharfinger_host::{fence, reaper::LEASE_VARIABLE};
use wharfinger_ssh::{Config, Host, SshAdapter};

macro_rules! host_or_skip {
    ($make:expr) => {{
        if skip(std::thread::current().name().unwrap_or("?")) {
            return;
        }
        TestHost::made($make).await
    }};
}

/// The lease of this token: an id of its own for each test, as each lease has.
fn lease_id(token: u64) -> String {
    let test = std::thread::current().name().unwrap_or("?").replace("::", "_");
    format!("lse_{}_{test}_{token}", std::process::id())
}

/// A host of the pool, made ready.
struct TestHost {
    sshd: Sshd,
    adapter: SshAdapter,
    job: ResourceJob,
}

fn adapter(sshd: &Sshd) -> (SshAdapter, ResourceJob) {
    let host = Host { slots: Some(2), ..pool::host(sshd, "alpha") };
    let work_dir = home(sshd).join("work").to_string_lossy().into_owned();
    let config = Config { work_dir, ..pool::config(sshd, vec![host]) };
    let job = pool::job("res_01KAV9FT00QVQG00000000001A");
    (SshAdapter::new("farm".into(), config).unwrap(), job)
}

fn home(sshd: &Sshd) -> PathBuf {
    if sshd.user == "root" { sshd.folder().to_path_buf() } else { sshd.home() }
}

impl TestHost {
    async fn made(sshd: Sshd) -> Self {
        let (adapter, mut job) = adapter(&sshd);
        // A program that its user may run and not read: the kernel makes such a process unreadable.
        let program = home(&sshd).join("sealed");
        std::fs::copy("/bin/sleep", &program).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let made = adapter.provision(&ProvisionJob { resource: job.clone(), attempt: 0 }).await.unwrap();
        job.handle = Some(made.handle);
        Self { sshd, adapter, job }
    }

    fn work(slot: u32, token: u64) -> HolderWork {
        HolderWork { lease: lease_id(token), slot, token, ..HolderWork::default() }
    }

    async fn lease(&self, slot: u32, token: u64) -> Access {
        let job = PrepareJob { resource: self.job.clone(), work: Self::work(slot, token), child: None };
        self.adapter.prepare(&job).await.unwrap().access
    }

    async fn clean(&self, slot: u32, token: u64) -> Result<(), Failure> {
        let job = CleanJob { resource: self.job.clone(), work: Self::work(slot, token), ended: EndedHow::Ok };
        self.adapter.clean(&job).await
    }

    fn scratch(&self) -> String {
        home(&self.sshd).join("work/hosts").join(&self.job.resource).to_string_lossy().into_owned()
    }

    /// A login that knows nothing of the broker's.
    fn login(&self) -> Arc<dyn Shell> {
        pool::holder(&self.sshd)
    }

    /// Runs a shell line with a bare environment, by the guard of this lease or (`None`) by a login of one's own.
    async fn run(&self, lease: Option<(&Access, u64)>, line: &str) -> String {
        let bare = "cd \"$1\" && exec env -i HOME=\"$1\" TMPDIR=\"$1\" PATH=\"$PATH\" /bin/sh -c \"$2\"";
        let command = Command::new(["/bin/sh", "-c", bare, "bare", &home(&self.sshd).to_string_lossy(), line]);
        let command = match lease {
            None => command,
            Some((access, token)) => {
                let marked = command.env(LEASE_VARIABLE, lease_id(token));
                fence::guarded(marked, &access[access::FENCE], token)
            }
        };
        let output = self.login().run(command).await.unwrap();
        assert!(output.exit.success(), "{line}: {}", output.complaint());
        output.text()
    }

    /// Starts an agent with a key in it.
    async fn agent(&self, lease: Option<(&Access, u64)>) -> Agent {
        let line = "eval \"$(ssh-agent -s)\" >/dev/null && { [ -f key ] || ssh-keygen -q -t ed25519 -N '' -f key; } && \
                    ssh-add -q key && ssh-add -l >/dev/null && echo \"$SSH_AGENT_PID $SSH_AUTH_SOCK\"";
        let text = self.run(lease, line).await;
        let (pid, socket) = text.split_once(' ').unwrap();
        Agent { pid: pid.parse().unwrap(), socket: socket.into() }
    }

    /// Starts an unreadable process in a session of its own.
    async fn sealed(&self, lease: Option<(&Access, u64)>) -> u32 {
        let line = "setsid ./sealed 300 </dev/null >/dev/null 2>&1 & echo $!";
        self.run(lease, line).await.parse().unwrap()
    }
}

struct Agent {
    pid: u32,
    socket: PathBuf,
}

impl Agent {
    /// Whether the agent still signs for a client of its socket.
    fn serves(&self) -> bool {
        let listed =
            std::process::Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", &self.socket).output().unwrap();
        listed.status.success()
    }
}

fn lives(pid: u32) -> bool {
    let state = |text: String| text.lines().find(|line| line.starts_with("State:")).map(str::to_string);
    let state = std::fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(state);
    state.is_some_and(|state| !state.contains('Z') && !state.contains('X'))
}

#[tokio::test]
async fn an_agent_left_behind_is_ended() {
    for make in [Sshd::start as fn() -> Sshd, || Sshd::start_for_user("")] {
        let host = host_or_skip!(make());
        let user = &host.sshd.user;
        let access = host.lease(0, 7).await;
        // By the lease's guard, with no environment to find it by; and by a login of the holder's own.
        let guarded = host.agent(Some((&access, 7))).await;
        let sealed = host.sealed(Some((&access, 7))).await;
        assert!(guarded.serves() && lives(sealed));
        let own = if user == "root" { None } else { Some((host.agent(None).await, host.sealed(None).await)) };

        host.clean(0, 7).await.unwrap();
        host.lease(0, 8).await;
        assert!(!guarded.serves() && !lives(guarded.pid) && !lives(sealed), "{user}: of the guarded command");
        if let Some((agent, sealed)) = own {
            assert!(!agent.serves() && !lives(agent.pid) && !lives(sealed), "{user}: of the holder's own login");
        }
        host.clean(0, 8).await.unwrap();
    }
}

#[tokio::test]
async fn a_login_that_has_not_become_its_shell_yet_is_no_leases() {
    let host = host_or_skip!(Sshd::start_for_user(""));
    let home = home(&host.sshd);
    host.lease(0, 7).await;
    // sshd runs this as the user before the shell, in a process that no other one can read until then.
    let rc = "mkdir .ssh && echo '[ ! -e $HOME/slow ] || { : >$HOME/inside; while [ -e $HOME/slow ]; do sleep 0.05; done; }' >.ssh/rc && : >slow";
    host.run(None, rc).await;
    let login = host.login();
    let running = tokio::spawn(async move { login.run(Command::new(["echo", "unharmed"])).await });
    while !home.join("inside").exists() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // The clean-up's own login passes at once.
    std::fs::write(home.join(".ssh/rc"), "").unwrap();
    host.clean(0, 7).await.unwrap();
    std::fs::remove_file(home.join("slow")).unwrap();
    let output = running.await.unwrap().unwrap();
    assert_eq!((output.text(), output.exit.success()), ("unharmed".into(), true), "{}", output.complaint());
}

#[tokio::test]
async fn another_account_with_the_same_user_id_is_no_leases() {
    let host = host_or_skip!(Sshd::start_for_user(""));
    let id = host.run(None, "id -u").await;
    host.lease(0, 7).await;
    // The kernel hides it from processes of another group, though it could be read.
    let account = ["--reuid", &id, "--regid", "65533", "--clear-groups", "setsid", "sleep", "300"];
    let mut other = std::process::Command::new("setpriv").args(account).spawn().unwrap();
    let agent = host.agent(None).await;
    host.clean(0, 7).await.unwrap();
    let (spared, ended) = (lives(other.id()), !lives(agent.pid));
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(spared && ended, "the other account's spared: {spared}; our own ended: {ended}");
}

#[tokio::test]
async fn an_agent_left_behind_in_a_working_copy_is_ended() {
    let host = host_or_skip!(Sshd::start_for_user(""));
    // The copy has a lease of its own on the host, which is older than all that runs in the copy.
    let access = host.lease(1, 3).await;
    let origin = "git init -q -b main origin && cd origin && echo one >a.txt && git add a.txt && \
                  git -c user.name=a -c user.email=a@example.org commit -qm one && pwd";
    let mut config = wharfinger_copies::Config::new(host.run(None, origin).await);
    config.min_free_disk_mb = 1;
    let copies = wharfinger_copies::CopiesAdapter::new("copies".into(), config).unwrap();
    let shell = host.adapter.shell(&host.job).await.unwrap();
    let access = access.into_iter().chain([(access::PATH.to_string(), host.scratch())]).collect();
    let parent = ParentHost { resource: host.job.resource.clone(), lease: lease_id(3), access, shell };
    let mut copy = ResourceJob {
        pool: "copies".into(),
        resource: "res_01KAV9FT00QVQG00000000001C".into(),
        item: None,
        handle: None,
        parent: Some(parent),
        ..host.job.clone()
    };
    let made = copies.provision(&ProvisionJob { resource: copy.clone(), attempt: 0 }).await.unwrap();
    copy.handle = Some(made.handle);

    let work = TestHost::work(0, 7);
    let job = PrepareJob { resource: copy.clone(), work: work.clone(), child: None };
    let access = copies.prepare(&job).await.unwrap().access;
    let guarded = host.agent(Some((&access, 7))).await;
    let own = host.agent(None).await;
    let job = CleanJob { resource: copy.clone(), work: work.clone(), ended: EndedHow::Ok };
    copies.clean(&job).await.unwrap();
    assert!(!guarded.serves() && !lives(guarded.pid), "of the guarded command");
    assert!(!own.serves() && !lives(own.pid), "of the holder's own login");
    copies.clean(&job).await.unwrap();

    // A neighbour on the host itself may have started what cannot be told apart.
    let job = PrepareJob { resource: copy.clone(), work: TestHost::work(0, 8), child: None };
    copies.prepare(&job).await.unwrap();
    host.lease(0, 9).await;
    let either = host.agent(None).await;
    let job = CleanJob { resource: copy, work: TestHost::work(0, 8), ended: EndedHow::Ok };
    let failure = copies.clean(&job).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Resource, "PROCESSES_UNREADABLE"), "{failure}");
    assert!(either.serves());
    host.clean(0, 9).await.unwrap();
    assert!(!either.serves());
    copies.clean(&job).await.unwrap();
}

#[tokio::test]
async fn a_gpg_agent_left_behind_is_ended() {
    let host = host_or_skip!(Sshd::start_for_user(""));
    let access = host.lease(0, 7).await;
    let mut agents = Vec::new();
    for (lease, dir) in [(Some((&access, 7)), "a"), (None, "b")] {
        let line = format!(
            "mkdir -m 700 {dir} && GNUPGHOME=$HOME/{dir} gpg-agent --quiet --daemon >/dev/null && \
             echo 'getinfo pid' | GNUPGHOME=$HOME/{dir} gpg-connect-agent"
        );
        let text = host.run(lease, &line).await;
        let pid: u32 = text.lines().find_map(|line| line.strip_prefix("D ")).unwrap().parse().unwrap();
        assert!(lives(pid));
        agents.push(pid);
    }
    host.clean(0, 7).await.unwrap();
    assert_eq!(agents.iter().filter(|pid| lives(**pid)).count(), 0);
}

#[tokio::test]
async fn a_neighbours_agent_lives_on() {
    let host = host_or_skip!(Sshd::start_for_user(""));
    let older = host.sealed(None).await;
    let first = host.lease(0, 7).await;
    let second = host.lease(1, 8).await;
    let mine = host.agent(Some((&first, 7))).await;
    let theirs = host.agent(Some((&second, 8))).await;
    host.clean(0, 7).await.unwrap();
    assert!(!lives(mine.pid));
    assert!(theirs.serves(), "the neighbour's agent");
    assert!(lives(older), "what was there before the lease");
    // The next lease of the slot, and its end.
    let third = host.lease(0, 9).await;
    let mine = host.agent(Some((&third, 9))).await;
    host.clean(0, 9).await.unwrap();
    assert!(!lives(mine.pid) && theirs.serves());
    host.clean(1, 8).await.unwrap();
    assert!(!lives(theirs.pid) && lives(older));
}

#[tokio::test]
async fn a_process_that_may_be_a_neighbours_is_spared_and_the_slot_is_not_clean() {
    let host = host_or_skip!(Sshd::start_for_user(""));
    host.lease(0, 7).await;
    let before = host.sealed(None).await;
    // A clock tick later, or the two would have begun in one.
    wait_for_a_tick(before);
    host.lease(1, 8).await;
    let since = host.agent(None).await;

    let failure = host.clean(0, 7).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Resource, "PROCESSES_UNREADABLE"), "{failure}");
    assert!(failure.message.contains(&since.pid.to_string()), "{failure}");
    assert!(since.serves(), "it may be the neighbour's");
    assert!(!lives(before), "the neighbour's lease had not begun");
    // Only one of the two leases is live now.
    host.clean(1, 8).await.unwrap();
    assert!(!lives(since.pid));
    host.clean(0, 7).await.unwrap();
}

/// Returns when a process that starts now has a later start than this one.
fn wait_for_a_tick(pid: u32) {
    let start = |pid: u32| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        text.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap()
    };
    let before = start(pid);
    loop {
        let mut child = std::process::Command::new("sleep").arg("300").spawn().unwrap();
        let now = start(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        if now > before {
            return;
        }
    }
}

#[tokio::test]
async fn logins_outlive_a_lease_that_they_came_after() {
    let host = host_or_skip!(Sshd::start_for_user(""));
    host.lease(0, 7).await;
    // Its sshd is unreadable, runs as the user, and began after the lease.
    let login = host.login();
    let mine =
        tokio::spawn(async move { login.run(Command::sh("echo $$ >pid.new; mv pid.new pid; exec sleep 300")).await });
    let file = home(&host.sshd).join("pid");
    let pid: u32 = loop {
        assert!(!mine.is_finished());
        if let Ok(text) = std::fs::read_to_string(&file) {
            break text.trim().parse().unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    host.clean(0, 7).await.unwrap();
    assert!(lives(pid) && !mine.is_finished(), "an operator's login ended with a lease");
    mine.abort();
}

#[tokio::test]
async fn a_host_that_hides_processes_is_not_made_ready() {
    if skip("a_host_that_hides_processes_is_not_made_ready") {
        return;
    }
    let sshd = Sshd::start_for_user("mount -t proc -o hidepid=2 proc /proc");
    let (adapter, job) = adapter(&sshd);
    let failure = adapter.provision(&ProvisionJob { resource: job, attempt: 0 }).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "PROC_MISSING"), "{failure}");
    assert!(failure.message.contains("hidepid"), "{failure}");
}
