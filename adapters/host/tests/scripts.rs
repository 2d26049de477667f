//! Every script that runs on hosts, under each shell that may be /bin/sh there, with arguments that try to become commands.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use wharfinger_testkit::{Need, need};

/// The shells that a Debian or Alpine host has as /bin/sh, and those that administrators put there.
const SHELLS: [&[&str]; 3] = [&["dash"], &["bash", "--posix"], &["busybox", "sh"]];

/// Each makes a file `canary` in the working directory if it is ever read as a program's text.
const HOSTILE: [&str; 12] = [
    "$(touch canary)",
    "`touch canary`",
    "'; touch canary; '",
    "\"; touch canary; \"",
    "; touch canary #",
    "|touch canary|",
    "a\ntouch canary\n",
    "x$(touch canary)/e;touch canary",
    "\\1;w canary",
    "%s%d%n $IFS *",
    "-exec touch canary ;",
    "--",
];

struct World {
    dir: tempfile::TempDir,
    shell: &'static [&'static str],
    hostile: &'static str,
}

/// The text of scripts of one crate, one behind the other.
fn text(of: &str, names: &[&str]) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(of).join("src/sh");
    names.iter().map(|name| std::fs::read_to_string(dir.join(name)).unwrap()).collect()
}

impl World {
    /// A path that has the hostile text in it. It is one component, or more where the text has a slash.
    fn path(&self, end: &str) -> String {
        format!("{}/d{}/{end}", self.dir.path().display(), self.hostile)
    }

    fn make(&self, path: &str, content: &str) -> PathBuf {
        let path = PathBuf::from(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn command(&self, script: &str, args: &[&str]) -> Command {
        // Among processes of its own: a script that fails must not end others.
        let mut command = Command::new("unshare");
        let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        command.args(["--fork", "--pid", "--mount-proc", "--kill-child"]).args((!root).then_some("--map-root-user"));
        command.args(["timeout", "60"]).args(self.shell).args(["-c", script, "script"]).args(args);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, script: &str, args: &[&str], exit: i32) -> String {
        self.judged(self.command(script, args).output().unwrap(), exit)
    }

    fn judged(&self, output: Output, exit: i32) -> String {
        let at = format!("{:?} with {:?}", self.shell, self.hostile);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!self.dir.path().join("canary").exists(), "{at}: an argument was run");
        assert_eq!(output.status.code(), Some(exit), "{at}: {complaint}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn each(check: impl Fn(&World)) {
    for shell in SHELLS {
        for hostile in HOSTILE {
            check(&World { dir: tempfile::tempdir().unwrap(), shell, hostile });
        }
    }
}

#[test]
fn a_hosts_facts_are_asked() {
    let facts = text("host", &["cgroup.sh", "facts.sh"]);
    each(|world| {
        for (scratch, make) in
            [(world.path("scratch"), "yes"), (world.path("none"), "no"), (world.hostile.into(), "no")]
        {
            let said = world.run(&facts, &[&scratch, make], 0);
            assert!(said.ends_with("\nend=yes\n"), "{said}");
            assert_eq!(said.contains("\nscratch=yes\n"), make == "yes", "{said}");
            let free = said.lines().find_map(|line| line.strip_prefix("free_kb=")).unwrap();
            assert!(free.parse::<u64>().is_ok(), "{said}");
        }
    });
}

#[test]
fn a_tree_is_removed_and_nothing_else() {
    let remove = text("host", &["remove.sh"]);
    each(|world| {
        let kept = world.make(&world.path("kept"), "");
        world.make(&world.path("tree/deep/file"), "");
        world.run(&remove, &[&world.path("tree")], 0);
        world.run(&remove, &[&world.path("tree")], 0);
        assert!(kept.exists() && !Path::new(&world.path("tree")).exists());
    });
}

#[test]
fn a_slot_is_given_guarded_and_taken() {
    let (set, guard) = (text("host", &["cgroup.sh", "fence.sh", "set_fence.sh"]), text("host", &["guard.sh"]));
    let reap = text("host", &["cgroup.sh", "processes.sh", "fence.sh", "reap.sh"]);
    each(|world| {
        let fence = world.path("res_1/.wharfinger/fence.0");
        std::fs::create_dir_all(world.path("res_1.owner")).unwrap();
        for number in ["2305843009213693953", world.hostile] {
            world.run(&set, &[&fence, "7", world.hostile, number], 0);
            assert_eq!(std::fs::read_to_string(&fence).unwrap(), "7\n");
            world.run(&set, &[&fence, "6", world.hostile, number], 113);
            let since = std::fs::read_to_string(world.path("res_1/.wharfinger/since.0")).unwrap();
            let start = since.split(' ').nth(2).unwrap();
            assert!(since.starts_with("7 ") && start.parse::<u64>().is_ok(), "{since}");

            let command = ["printf", "%s|", world.hostile, "", "b"];
            let said = world.run(&guard, &[&[&fence[..], "7", number], &command[..]].concat(), 0);
            assert_eq!(said, format!("{}||b|", world.hostile));
            world.run(&guard, &[&fence, "8", number, "true"], 113);
            world.run(&guard, &[&fence, "7", number, &world.path("none")], 127);

            world.run(&reap, &[world.hostile, &fence, "6", number], 113);
            assert_eq!(world.run(&reap, &[world.hostile, &fence, "7", number], 0), "0\n");
            assert!(!Path::new(&fence).exists());
            world.run(&guard, &[&fence, "7", number, "true"], 113);
        }
    });
}

/// A script on this machine itself, where its processes outlive it.
fn outside(shell: &[&str], script: &str, args: &[&str], exit: i32) -> String {
    let mut command = Command::new("timeout");
    command.arg("60").args(shell).args(["-c", script, "script"]).args(args).stdin(Stdio::null());
    let output = command.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{shell:?} with {args:?}: {complaint}");
    format!("{}{complaint}", String::from_utf8_lossy(&output.stdout))
}

#[test]
fn a_slots_group_ends_what_took_its_marks_away() {
    if wharfinger_testkit::cgroup().is_none() {
        return;
    }
    let (set, guard) = (text("host", &["cgroup.sh", "fence.sh", "set_fence.sh"]), text("host", &["guard.sh"]));
    let reap = text("host", &["cgroup.sh", "processes.sh", "fence.sh", "reap.sh"]);
    let limits = text("host", &["cgroup.sh", "limits.sh"]);
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let fence = format!("{}/hosts/res_1/.wharfinger/fence.0", dir.path().display());
        let note = fence.replace("fence.0", "cgroup.0");
        let lease = format!("lse_{}_{}", std::process::id(), shell[0]);
        let number = "2305843009213693953";
        for token in ["7", "8"] {
            let given = [&fence[..], token, &lease, number, "yes", "67108864", "1500", "40"];
            outside(shell, &set, &given, 0);
            let text = std::fs::read_to_string(&note).unwrap();
            assert!(text.starts_with(&format!("token {token}\nmust yes\ntree /")), "{text}");
            let group = |kind: &str| {
                let line = text.lines().find(|line| line.starts_with(kind));
                PathBuf::from(line.unwrap_or_else(|| panic!("no {kind}in {text}")).split_once(' ').unwrap().1)
            };
            let tree = group("tree ");
            let run = |line: &str, exit| outside(shell, &guard, &[&fence, token, number, "sh", "-c", line], exit);
            let left = LEAVE;
            let pid: u32 = run(left, 0).trim().parse().unwrap();
            let is = run("cat /proc/self/cgroup", 0);
            assert!(is.contains(tree.file_name().unwrap().to_str().unwrap()), "{is}");
            // Named again for the same token, it leaves what runs alone.
            outside(shell, &set, &given, 0);
            let lives =
                || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
            assert!(lives(), "{shell:?}");
            assert_eq!(outside(shell, &limits, &[&fence], 0), "memory=67108864 0\ncpu=1500 0\npids=40 0\n");
            // It holds all that it reads, and there is no end.
            run("tail /dev/zero || exit 9", 9);
            let said = outside(shell, &reap, &[&lease, &fence, token, number], 0);
            assert_eq!(said, "1\nmemory=67108864 1\ncpu=1500 0\npids=40 0\n", "{shell:?}");
            assert!(!lives() && !tree.exists() && !Path::new(&note).exists(), "{shell:?}");
        }
        // A group that cannot be looked at is not clean; one that lies elsewhere is not believed.
        outside(shell, &set, &[&fence, "9", &lease, number, "yes"], 0);
        let text = std::fs::read_to_string(&note).unwrap();
        let name = text.lines().find_map(|line| line.rsplit_once("/wharfinger/")).unwrap().1;
        std::fs::write(&note, format!("{text}tree /nowhere/wharfinger/{name}\n")).unwrap();
        let said = outside(shell, &reap, &[&lease, &fence, "9", number], 7);
        assert!(said.contains("/nowhere/wharfinger") && said.contains("cannot be looked at"), "{said}");
        std::fs::write(&note, format!("{text}tree /etc\ntree /nowhere/../wharfinger/{name}\n")).unwrap();
        assert_eq!(outside(shell, &reap, &[&lease, &fence, "9", number], 0), "0\n");
        outside(shell, &guard, &[&fence, "9", number, "true"], 113);
    }
}

/// A folder for a user's runtime files with a socket where its service manager listens.
struct Manager {
    dir: tempfile::TempDir,
    /// Accepts connections and never answers. `None`: the manager is dead, and its socket is left.
    _hung: Option<std::os::unix::net::UnixListener>,
}

impl Manager {
    fn new(hung: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::create_dir(dir.path().join("systemd")).unwrap();
        let socket = dir.path().join("systemd/private");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [dir.path(), &dir.path().join("systemd"), &socket] {
            open(path);
        }
        // The kernel accepts for it: a client waits for words.
        Self { dir, _hung: hung.then_some(listener) }
    }

    /// Runs a script as a user who may make no control groups. Returns what it printed, and how often it ran systemctl.
    fn ask(&self, shell: &[&str], script: &str, args: &[&str]) -> (String, usize) {
        let (bin, log) = (self.dir.path().join("bin"), self.dir.path().join("asked"));
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(&log, "").unwrap();
        std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o666)).unwrap();
        let real = ["/usr/bin/systemctl", "/bin/systemctl"].into_iter().find(|at| Path::new(at).exists()).unwrap();
        let counted = bin.join("systemctl");
        std::fs::write(&counted, format!("#!/bin/sh\necho >>{}\nexec {real} \"$@\"\n", log.display())).unwrap();
        std::fs::set_permissions(&counted, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65533", "--regid=65533", "--clear-groups", "timeout", "80"]).args(shell);
        command.args(["-c", script, "script"]).args(args);
        command.env("XDG_RUNTIME_DIR", self.dir.path()).current_dir("/").stdin(Stdio::null());
        command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display()));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{shell:?}: {:?}: {said}", output.status);
        (said, std::fs::read_to_string(&log).unwrap().lines().count())
    }
}

#[test]
fn a_service_manager_that_is_dead_or_hangs_is_asked_once() {
    let installed = ["systemctl", "busctl"].iter().all(|name| Path::new("/usr/bin").join(name).exists());
    if wharfinger_testkit::cgroup().is_none() || need(Need::Systemd, installed.then_some(())).is_none() {
        return;
    }
    let facts = text("host", &["boot.sh", "cgroup.sh", "facts.sh"]);
    let ask = |shell: &[&str], hung| {
        let manager = Manager::new(hung);
        let (said, asked) = manager.ask(shell, &facts, &["/nonexistent/scratch", "no", "memory pids"]);
        assert!(said.contains("\ncontainment=marks\n"), "{shell:?}: {said}");
        assert!(said.contains("its service manager does not answer"), "{shell:?}: {said}");
        assert!(said.ends_with("\nend=yes\n"), "{shell:?}: {said}");
        // Also not for each of the two limits.
        assert_eq!(asked, 1, "{shell:?}, hung: {hung}: {said}");
    };
    std::thread::scope(|scope| {
        for shell in SHELLS {
            for hung in [false, true] {
                scope.spawn(move || ask(shell, hung));
            }
        }
    });
}

/// Leaves a process behind that has no mark of its lease, and returns its id.
const LEAVE: &str = "ulimit -S -w unlimited 2>/dev/null; { cd / && exec env -i setsid sleep 300; } </dev/null >/dev/null 2>&1 & echo $!";

fn lives(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_login_enters_the_group_by_the_lines_of_the_document() {
    if wharfinger_testkit::cgroup().is_none() {
        return;
    }
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/fencing.md")).unwrap();
    let lines: Vec<&str> = page.lines().skip_while(|line| !line.contains("    note=$")).take(2).collect();
    assert!(lines.len() == 2 && lines[1].contains("cgroup.procs"), "{lines:?}");
    let set = text("host", &["cgroup.sh", "fence.sh", "set_fence.sh"]);
    let reap = text("host", &["cgroup.sh", "processes.sh", "fence.sh", "reap.sh"]);
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let fence = format!("{}/hosts/res_1/.wharfinger/fence.0", dir.path().display());
        let lease = format!("lse_{}_{}_login", std::process::id(), shell[0]);
        outside(shell, &set, &[&fence, "7", &lease, "", "yes"], 0);
        let pid = outside(shell, &format!("WHARFINGER_FENCE=$1\n{}\n{LEAVE}", lines.join("\n")), &[&fence], 0);
        assert!(lives(&pid), "{shell:?}");
        assert_eq!(outside(shell, &reap, &[&lease, &fence, "7", ""], 0), "1\n", "{shell:?}");
        assert!(!lives(&pid), "{shell:?}");
    }
}

#[test]
fn processes_in_the_groups_of_a_resource_are_swept() {
    if wharfinger_testkit::cgroup().is_none() {
        return;
    }
    let (set, guard) = (text("host", &["cgroup.sh", "fence.sh", "set_fence.sh"]), text("host", &["guard.sh"]));
    let make = text("host", &["cgroup.sh"]) + "\ncg_make \"$1\" 7 yes '' '' ''";
    let sweep = text("host", &["cgroup.sh", "processes.sh", "sweep.sh"]);
    let remover = text("host", &["remover.sh"]);
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let path = |end: &str| format!("{}/{end}", dir.path().display());
        let write = |end: &str, content: &str| {
            let file = PathBuf::from(path(end));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        };
        write("hosts/res_1.owner/mark", "me\n");
        let lease = format!("lse_{}_{}_swept", std::process::id(), shell[0]);
        let slot = path("hosts/res_1/.wharfinger/fence.0");
        outside(shell, &set, &[&slot, "7", &lease, "", "yes"], 0);
        // Two working copies: in the host's directory, and elsewhere.
        write("hosts/res_1/copies/res_8/meta/fence", "7\n");
        write("elsewhere/res_9/meta/fence", "7\n");
        write("elsewhere/res_9/meta/marker", "res_9");
        write("hosts/res_1.owner/copy.res_9", &path("elsewhere/res_9\n"));
        let copies = [path("hosts/res_1/copies/res_8/meta/fence"), path("elsewhere/res_9/meta/fence")];
        for fence in &copies {
            outside(shell, &make, &[fence], 0);
        }
        // Another resource's, which is not swept.
        let kept = path("hosts/res_0/.wharfinger/fence.0");
        outside(shell, &set, &[&kept, "7", &lease, "", "yes"], 0);
        let left = |fence: &String| outside(shell, &guard, &[fence, "7", "", "sh", "-c", LEAVE], 0);
        let (swept, spared) = ([left(&slot), left(&copies[0]), left(&copies[1])], left(&kept));
        assert!(swept.iter().chain([&spared]).all(|pid| lives(pid)), "{shell:?}");
        let said = outside(shell, &sweep, &[&path("hosts"), "res_2", "me", &remover], 0);
        assert_eq!(said, "swept=1\nkilled=3\nmarked=yes\nkept=\n", "{shell:?}");
        assert!(!swept.iter().any(|pid| lives(pid)) && lives(&spared), "{shell:?}");
        let reap = text("host", &["cgroup.sh", "processes.sh", "fence.sh", "reap.sh"]);
        outside(shell, &reap, &[&lease, &kept, "7", ""], 0);
        assert!(!lives(&spared), "{shell:?}");
    }
}

#[test]
fn processes_of_a_resource_are_swept_by_its_mark_alone() {
    let sweep = text("host", &["cgroup.sh", "processes.sh", "sweep.sh"]);
    let remover = text("host", &["remover.sh"]);
    each(|world| {
        let hosts = world.path("hosts");
        let owner = world.hostile.replace('\n', " ");
        world.make(&format!("{hosts}/res_1.owner/mark"), &format!("{owner}\n"));
        world.make(&format!("{hosts}/res_1.owner/lease.0"), &format!("{0} {0}\n", world.hostile));
        world.make(&format!("{hosts}/res_1.owner/copy.res_9"), &world.path("elsewhere/res_9"));
        world.make(&format!("{hosts}/res_1/.wharfinger/since.0"), &format!("{0} {0} {0}\n", world.hostile));
        world.make(&format!("{hosts}/res_1/file"), "");
        let kept = world.make(&format!("{hosts}/res_0/file"), "");
        world.make(&format!("{hosts}/res_0.owner/mark"), &format!("{owner} of another\n"));
        let said = world.run(&sweep, &[&hosts, "res_2", &owner, &remover], 0);
        assert_eq!(said, "swept=1\nkilled=0\nmarked=yes\nkept=\n");
        assert!(kept.exists() && !Path::new(&format!("{hosts}/res_1")).exists());
        world.run(&remover, &[&hosts, ".wharfinger-trash"], 0);
    });
}

#[test]
fn files_are_put_and_got() {
    let (put, get) = (text("ssh", &["put.sh"]), text("ssh", &["get.sh"]));
    each(|world| {
        let source = world.make(&world.path("source"), world.hostile);
        let (new, file, length) = (world.path("new"), world.path("file"), world.hostile.len().to_string());
        let mut command = world.command(&put, &[&new, "640", &file, &length]);
        world.judged(command.stdin(std::fs::File::open(&source).unwrap()).output().unwrap(), 0);
        assert_eq!(world.run(&get, &[&file, "100"], 0), world.hostile);
        // Cut short: nothing is changed.
        world.run(&put, &[&new, "640", &file, &length], 1);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), world.hostile);
        assert!(!Path::new(&new).exists());
    });
}

#[test]
fn no_process_is_named_by_a_text() {
    let (kill, watch) = (text("ssh", &["kill.sh"]), text("ssh", &["watch.sh"]));
    each(|world| {
        world.run(&kill, &[world.hostile], 0);
        world.run(&watch, &[world.hostile, world.hostile], 0);
    });
}

#[test]
fn an_announcement_is_printed_as_it_stands() {
    let watch = text("ssh", &["watch_host.sh"]);
    each(|world| {
        let line = format!("at-risk {}", world.hostile.replace('\n', " "));
        let line = line.trim_end();
        let file = world.make(&world.path("notice"), &format!("{line}\n"));
        let mut command = world.command(&watch, &[&file.to_string_lossy(), &world.path("none"), "", "1"]);
        let mut running = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(running.stdout.take().unwrap()).read_line(&mut said).unwrap();
        running.kill().unwrap();
        running.wait().unwrap();
        let mut parts = said.trim_end_matches('\n').splitn(3, '\t');
        assert_eq!(parts.next(), Some("file"), "{said}");
        assert!(parts.next().unwrap().parse::<u64>().is_ok(), "{said}");
        assert_eq!(parts.next().unwrap().trim_end(), line);
        assert!(!world.dir.path().join("canary").exists(), "{:?} with {:?}", world.shell, world.hostile);
    });
}

#[test]
fn the_metadata_services_address_is_an_argument() {
    let announced = text("ec2", &["seen.sh", "imds.sh", "announced.sh"]);
    let identity = text("ec2", &["imds.sh", "identity.sh"]);
    each(|world| {
        let (address, seen) = (format!("http://127.0.0.1:1/{}", world.hostile), world.make(&world.path("seen"), ""));
        std::fs::remove_file(&seen).unwrap();
        world.run(&announced, &[&address, &seen.to_string_lossy()], 1);
        assert!(seen.exists(), "the sign of life does not wait for the metadata service");
        world.run(&identity, &[&address], 1);
    });
}
