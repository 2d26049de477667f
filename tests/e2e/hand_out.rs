//! The wait of a user of a warm copy: from the call of `wharfinger run` to the first byte of its command, and from the last byte to
//! the end, beside `ssh` with a checkout of the same repository on the same sshd.
//!
//! Short in each run; with WHARFINGER_LONG=1 a repository of 50,000 files and more turns. Figures:
//! `cargo test --test e2e hand_out:: -- --nocapture | grep TABLE`.

use crate::sshd::{Sshd, skip};
use crate::support::{Server, quiet, text};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The repository, and how often each is measured.
struct Size {
    files: usize,
    turns: usize,
}

fn size() -> Size {
    match std::env::var("WHARFINGER_LONG").is_ok_and(|v| v == "1") {
        true => Size { files: 50_000, turns: 15 },
        false => Size { files: 1_000, turns: 3 },
    }
}

/// From the call to the first byte, and from the last byte to the end.
#[derive(Clone, Copy)]
struct Spans {
    first: Duration,
    rest: Duration,
}

/// Runs it. It must end well, and print something.
fn timed(mut command: Command) -> Spans {
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let (mut first, mut last, mut buffer) = (None, begun, [0; 64]);
    loop {
        let read = out.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        last = Instant::now();
        first.get_or_insert(last);
    }
    let output = child.wait_with_output().unwrap();
    let ended = Instant::now();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    let first = first.unwrap_or_else(|| panic!("{command:?} printed nothing: {}", text(&output)));
    Spans { first: first - begun, rest: ended - last }
}

fn median(mut spans: Vec<Duration>) -> Duration {
    spans.sort();
    spans[spans.len() / 2]
}

/// The medians.
fn of(all: &[Spans]) -> Spans {
    let of = |span: fn(&Spans) -> Duration| median(all.iter().map(span).collect());
    Spans { first: of(|spans| spans.first), rest: of(|spans| spans.rest) }
}

/// A repository of small files in many directories, with a second commit that changes ten of them.
fn repository(at: &Path, files: usize) {
    std::fs::create_dir_all(at).unwrap();
    let script = format!(
        r#"{{ printf 'commit refs/heads/main\ncommitter a <a@example.org> 1700000000 +0000\ndata 1\na\n'
           n=0; while [ $n -lt {files} ]; do
             printf 'M 644 inline d%d/f%d\ndata 240\n%0239d\n\n' $((n / 50)) $n $n; n=$((n + 1)); done
           printf 'commit refs/heads/next\ncommitter a <a@example.org> 1700000001 +0000\ndata 1\nb\nfrom refs/heads/main\n'
           n=0; while [ $n -lt 10 ]; do printf 'M 644 inline d0/f%d\ndata 2\nb\n\n' $n; n=$((n + 1)); done; }} |
         git fast-import --quiet"#
    );
    let done = Command::new("sh")
        .args(["-ec", "git init -q --bare -b main . && eval \"$1\"", "sh", &script])
        .current_dir(at)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", text(&done));
}

/// A host with processes of its own, so that they can be counted; a server that has it; and a clone beside the copies.
struct Farm {
    server: Server,
    sshd: Sshd,
    work: tempfile::TempDir,
}

impl Farm {
    fn start(files: usize, copies: usize) -> Self {
        let work = tempfile::tempdir().unwrap();
        // Its first process ends with the one that waits for it.
        let prelude = "exec unshare --pid --fork --mount-proc --kill-child=KILL /usr/sbin/sshd \"$@\"";
        let sshd = Sshd::start_in(prelude, "MaxSessions 50", None);
        repository(&work.path().join("origin"), files);
        let (key, host_key) = (sshd.key().display().to_string(), sshd.host_key());
        let server = Server::start(&format!(
            // A watch on the host would be counted, too.
            "[[pool]]\nname = \"hosts\"\nadapter = \"ssh\"\nslots = {copies}\n[pool.ssh]\nuser = \"root\"\nwork_dir = \"{dir}/hosts\"\nwatch = false\n\
             [[pool.ssh.host]]\nname = \"a\"\naddress = \"{address}\"\nport = {port}\nkey = \"{key}\"\nhost_key = \"{host_key}\"\n\
             [[pool]]\nname = \"copies\"\nadapter = \"copies\"\non = \"hosts\"\nmax = {copies}\nmin_ready = {copies}\n\
             [pool.copies]\nrepository = \"{dir}/origin\"\n",
            dir = work.path().display(),
            address = sshd.address,
            port = sshd.port,
        ));
        server.wait_for_state("copies", "READY", copies);
        for n in 0..copies {
            let clone = format!("git clone -q '{0}/origin' '{0}/clone{n}'", work.path().display());
            assert!(Command::new("sh").args(["-ec", &clone]).status().unwrap().success());
        }
        Self { server, sshd, work }
    }

    fn ssh(&self, script: &str) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no"]);
        command.args(["-o", "LogLevel=ERROR", "-i"]).arg(self.sshd.key()).arg("-p").arg(self.sshd.port.to_string());
        command.arg(format!("root@{}", self.sshd.address)).arg(script);
        command
    }

    /// The bare checkout of a branch in a clone of the host, and a word when it is done.
    fn bare(&self, clone: usize, branch: &str) -> Command {
        self.checkout(clone, branch, "")
    }

    /// The same, after a fetch: as a script has to do it that is not told whether there is something new.
    fn fetched(&self, clone: usize, branch: &str) -> Command {
        self.checkout(clone, branch, "git fetch -q &&")
    }

    fn checkout(&self, clone: usize, branch: &str, first: &str) -> Command {
        let dir = self.work.path().join(format!("clone{clone}"));
        self.ssh(&format!(
            "cd {} && {first} git checkout -qf --detach origin/{branch} && git clean -ffdxq && echo here",
            dir.display()
        ))
    }

    fn run(&self, branch: &str) -> Command {
        let key = self.sshd.key().display().to_string();
        self.server
            .command(&["run", "-q", "-n", "--pool", "copies", "--branch", branch, "-i", &key, "--", "echo", "here"])
    }

    /// Waits until all copies are clean again.
    fn settle(&self, copies: usize) {
        self.server.wait("the copies to be free", || {
            let free = self.server.resources().into_iter().filter(|r| {
                r["pool"] == "copies" && r["state"] == "READY" && r["slots_in_use"].as_i64().unwrap_or(0) == 0
            });
            (free.count() == copies).then_some(())
        });
    }

    /// How many processes and threads the host has started, but for those of this question.
    fn started(&self) -> i64 {
        let inner = self.sshd.processes()[0];
        let children = std::fs::read_to_string(format!("/proc/{inner}/task/{inner}/children")).unwrap();
        let first = children.split_whitespace().next().unwrap();
        let output =
            Command::new("nsenter").args(["-t", first, "-p", "cat", "/proc/sys/kernel/ns_last_pid"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8_lossy(&output.stdout).trim().parse::<i64>().unwrap()
    }

    /// Processes that the host starts for this, but for the question itself.
    fn count(&self, work: impl FnOnce()) -> i64 {
        let before = self.started();
        work();
        self.started() - before - 1
    }
}

fn row(name: &str, spans: Spans, more: &str) {
    println!(
        "TABLE | {name} | to the first byte {:.0} ms | from the last byte to the end {:.0} ms | {more}",
        spans.first.as_secs_f64() * 1000.0,
        spans.rest.as_secs_f64() * 1000.0
    );
}

/// At once.
fn at_once(commands: Vec<Command>) -> Vec<Spans> {
    let threads: Vec<_> = commands.into_iter().map(|command| std::thread::spawn(move || timed(command))).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// Measures in turns: a checkout, a checkout after a fetch, and `run`, of as many at once.
fn measure(name: &str, copies: usize, turns: usize) {
    let farm = Farm::start(size().files, copies);
    let (mut bare, mut fetched, mut run) = (Vec::new(), Vec::new(), Vec::new());
    for (turn, branch) in ["main", "next"].iter().cycle().take(turns + 2).enumerate() {
        let plain = at_once((0..copies).map(|n| farm.bare(n, branch)).collect());
        let after_fetch = at_once((0..copies).map(|n| farm.fetched(n, branch)).collect());
        let leased = at_once((0..copies).map(|_| farm.run(branch)).collect());
        farm.settle(copies);
        // The first of each is cold.
        if turn >= 2 {
            bare.extend(plain);
            fetched.extend(after_fetch);
            run.extend(leased);
        }
    }
    let processes = |work: &dyn Fn()| format!("{} processes", farm.count(work));
    let of_bare = processes(&|| drop(at_once(vec![farm.bare(0, "main")])));
    let of_fetched = processes(&|| drop(at_once(vec![farm.fetched(0, "main")])));
    let of_run = processes(&|| {
        at_once(vec![farm.run("main")]);
        farm.settle(copies);
    });
    let (bare, fetched, run) = (of(&bare), of(&fetched), of(&run));
    let ratio = |to: Spans| run.first.as_secs_f64() / to.first.as_secs_f64();
    row(&format!("{name}: ssh with checkout and clean"), bare, &of_bare);
    row(&format!("{name}: ssh with fetch, checkout and clean"), fetched, &of_fetched);
    let ratios =
        format!("{of_run} with the clean-up; {:.2} of the first, {:.2} of the second", ratio(bare), ratio(fetched));
    row(&format!("{name}: run on a warm copy"), run, &ratios);
    // A loss of half is noticed, and a busy machine is not.
    assert!(ratio(fetched) < 4.0, "{name}: a warm copy takes {:.2} of a checkout by ssh", ratio(fetched));
}

#[test]
fn a_warm_copy_is_handed_out_in_the_time_of_a_checkout() {
    if skip("hand_out::a_warm_copy_is_handed_out_in_the_time_of_a_checkout") {
        return;
    }
    let _quiet = quiet();
    measure("one", 1, size().turns * 2);
}

#[test]
fn ten_warm_copies_are_handed_out_at_once() {
    if skip("hand_out::ten_warm_copies_are_handed_out_at_once") {
        return;
    }
    let _quiet = quiet();
    measure("ten at once", 10, size().turns);
}
