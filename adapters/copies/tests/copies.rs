//! The life of a working copy: made, prepared, cleaned, checked, destroyed.

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test file uses the rest
mod support;

use std::sync::Arc;
use support::{DeadShell, World, sh};
use wharfinger_adapter::{Adapter, Blame, PrepareJob, ProvisionJob, ShellError, Verdict, access};
use wharfinger_copies::Clean;

#[tokio::test]
async fn a_copy_lives_from_its_making_to_its_end() {
    let mut world = World::new(Clean::Clean).await;
    assert_eq!(world.check().await, Verdict::Healthy);
    let work = world.work(&[]);
    let prepared = world.prepare_for(work.clone()).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
    let note = std::fs::read_to_string(world.home().join("meta/lease")).unwrap();
    assert!(note.contains(&work.lease) && note.contains(&work.token.to_string()), "{note}");

    world.spoil("mkdir target && echo o >target/o && echo new >new.txt && echo changed >a.txt");
    world.clean(work).await.unwrap();
    assert_eq!(world.spoil("git status --porcelain --ignored"), "");
    assert!(!world.home().join("meta/lease").exists());
    assert_eq!(world.check().await, Verdict::Healthy);

    // The same call again finds the copy and leaves it.
    let before = world.spoil("stat -c %i .");
    world.provision().await.unwrap();
    assert_eq!(world.spoil("stat -c %i ."), before);

    world.adapter.destroy(&world.job).await.unwrap();
    assert!(!world.home().exists());
    assert!(matches!(world.check().await, Verdict::Gone { reason: "DIRECTORY_MISSING", .. }));
    world.adapter.destroy(&world.job).await.unwrap();
}

#[tokio::test]
async fn every_kind_of_name_gives_its_commit() {
    let world = World::new(Clean::Clean).await;
    let (v1, side) = (world.origin.id("v1"), world.origin.id("side"));
    let pull = world.origin.id("refs/pull/7/head");
    let rows: Vec<(Vec<(&str, &str)>, &str)> = vec![
        (vec![], "main"),
        (vec![("branch", "side")], "side"),
        (vec![("branch", "refs/heads/side"), ("x-own", "--whatever")], "side"),
        (vec![("tag", "v1")], "v1"),
        (vec![("tag", "v1a")], "v1a"),
        (vec![("ref", "refs/pull/7/head")], "refs/pull/7/head"),
        (vec![("ref", "pull/7/head")], "refs/pull/7/head"),
        (vec![("ref", "refs/tags/v1a")], "v1a"),
        (vec![("ref", "side")], "side"),
        (vec![("ref", "v1")], "v1"),
        (vec![("ref", "HEAD")], "main"),
        (vec![("commit", &v1)], "v1"),
        (vec![("commit", &side[..9])], "side"),
        (vec![("commit", &pull)], "refs/pull/7/head"),
    ];
    for (params, name) in rows {
        let prepared = world.prepare(&params).await.unwrap_or_else(|failure| panic!("{params:?}: {failure:?}"));
        world.assert_is(&prepared, name, &[]);
    }
    // The wanted tag is there by name, for `git describe`.
    world.prepare(&[("tag", "v1a")]).await.unwrap();
    assert_eq!(world.spoil("git describe"), "v1a");
    assert_eq!(world.spoil("git rev-parse origin/HEAD"), world.origin.id("main"));
}

#[tokio::test]
async fn a_missing_ref_is_the_requests_fault_and_taints_nothing() {
    let world = World::new(Clean::Clean).await;
    let tree = world.origin.work("git rev-parse main^{tree} && git tag blob main:a.txt && git push -q origin blob && git branch both && git tag both && git push -q origin refs/heads/both refs/tags/both");
    for (params, reason) in [
        (("branch", "no-such"), "REF_NOT_FOUND"),
        (("branch", "v1"), "REF_NOT_FOUND"),
        (("tag", "main"), "REF_NOT_FOUND"),
        (("ref", "refs/pull/8/head"), "REF_NOT_FOUND"),
        (("ref", "both"), "REF_AMBIGUOUS"),
        (("commit", "0123456789abcdef0123456789abcdef01234567"), "REF_NOT_FOUND"),
        (("commit", "0123456789abcdef0123456789abcdef0123456701234567890123450123456a"), "REF_NOT_FOUND"),
        (("commit", "0123456"), "REF_NOT_FOUND"),
        (("commit", tree.as_str()), "REF_NOT_A_COMMIT"),
        (("tag", "blob"), "REF_NOT_A_COMMIT"),
        (("branch", "--upload-pack=touch /tmp/wharfinger-owned"), "BAD_REF_NAME"),
        (("ref", "-h"), "BAD_REF_NAME"),
        (("commit", "--help"), "BAD_COMMIT"),
        (("brunch", "main"), "UNKNOWN_PARAMETER"),
    ] {
        let failure = world.prepare(&[params]).await.expect_err(params.1);
        assert_eq!((failure.blame, failure.reason), (Blame::Request, reason), "{params:?}: {failure}");
        if reason == "REF_NOT_FOUND" {
            assert!(failure.message.contains(params.1) && failure.message.contains("origin.git"), "{failure}");
        }
        assert_eq!(world.check().await, Verdict::Healthy, "{params:?}");
    }
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
}

#[tokio::test]
async fn a_default_branch_that_is_not_there_is_the_operators_to_mend() {
    let mut world = World::bare(|config| config.default_branch = Some("trunk".into()));
    world.provision().await.unwrap();
    let failure = world.prepare(&[]).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "DEFAULT_BRANCH_NOT_FOUND"));
    world.origin.work("git push -q origin side:trunk");
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "side", &[]);
}

#[tokio::test]
async fn an_unreachable_remote_is_the_providers_fault() {
    let mut world = World::new(Clean::Clean).await;
    sh(&world.origin.dir, "mv origin.git away.git");
    for params in [&[][..], &[("branch", "side")], &[("commit", "0123456789abcdef0123456789abcdef01234567")]] {
        let failure = world.prepare(params).await.unwrap_err();
        assert_eq!((failure.blame, failure.reason), (Blame::Provider, "REMOTE_UNREACHABLE"), "{failure}");
    }
    assert_eq!(world.check().await, Verdict::Healthy);
    world.spoil("rm -rf .git");
    let failure = world.repair().await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Provider, "REMOTE_UNREACHABLE"), "{failure}");
    let failure = World::bare(|config| config.repository = "/no/such/repository".into()).provision().await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Provider, "REMOTE_UNREACHABLE"), "{failure}");
    sh(&world.origin.dir, "mv away.git origin.git");
    world.repair().await.unwrap();
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
}

#[tokio::test]
async fn faults_of_the_host_are_distinguished() {
    let world = World::new(Clean::Clean).await;
    let dead = |error: ShellError| world.job_on(Arc::new(DeadShell(error)));
    let silent = dead(ShellError::Unreachable("no route".into()));
    assert!(matches!(world.adapter.check(&silent).await, Ok(Verdict::Unreachable { .. })));
    assert_eq!(world.adapter.destroy(&silent).await.unwrap_err().reason, "UNREACHABLE");
    let failure =
        world.adapter.prepare(&PrepareJob { resource: silent, work: world.work(&[]), child: None }).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Resource, "UNREACHABLE"));
    let other = dead(ShellError::WrongHost("another key".into()));
    assert!(matches!(world.adapter.check(&other).await, Ok(Verdict::Gone { reason: "HOST_REPLACED", .. })));
    let refused = dead(ShellError::Refused("no such key".into()));
    assert_eq!(world.adapter.check(&refused).await.unwrap_err().blame, Blame::Configuration);

    let mut orphan = world.job.clone();
    orphan.parent = None;
    assert_eq!(world.adapter.check(&orphan).await.unwrap_err().blame, Blame::Bug);
    assert_eq!(
        world.adapter.provision(&ProvisionJob { resource: orphan, attempt: 0 }).await.unwrap_err().blame,
        Blame::Bug
    );
}

#[tokio::test]
async fn a_missing_directory_of_the_host_is_not_made_again() {
    let mut world = World::bare(|_| {});
    let host = world.root.parent().unwrap().to_path_buf();
    std::fs::remove_dir(&host).unwrap();
    let failure = world.provision().await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Resource, "HOST_DIRECTORY_MISSING"), "{failure}");
    assert!(!host.exists());
    std::fs::create_dir(&host).unwrap();
    world.provision().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_reported_before_a_file_is_written() {
    let mut world = World::bare(|config| config.min_free_disk_mb = u64::from(u32::MAX));
    let failure = world.provision().await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Resource, "DISK_FULL"), "{failure}");
    world.adapter.destroy(&world.job).await.unwrap();
    assert!(!world.home().exists());
}

#[tokio::test]
async fn a_clone_that_is_cut_off_leaves_nothing_in_the_way() {
    let mut world = World::bare(|_| {});
    // Large enough to be caught in the middle.
    sh(
        &world.origin.dir,
        "dd if=/dev/urandom of=work/big bs=1M count=64 2>/dev/null; cd work; git add big; git commit -qm big; git push -q origin HEAD:main",
    );
    let job = ProvisionJob { resource: world.job.clone(), attempt: 0 };
    {
        let making = world.adapter.provision(&job);
        tokio::pin!(making);
        let half = world.home().join(format!("new.{}", world.job.op));
        let seen = async {
            while !half.exists() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            biased;
            _ = &mut making => panic!("the clone ended before it could be cut off"),
            () = seen => {}
        }
    }
    assert!(!world.tree().exists());
    world.provision().await.unwrap();
    assert_eq!(sh(&world.home(), "ls"), "meta\ntree");
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
}

#[tokio::test]
async fn kept_files_survive_and_tracked_ones_are_the_commits() {
    let world = World::new(Clean::Keep).await;
    let work = world.work(&[]);
    world.prepare_for(work.clone()).await.unwrap();
    world.spoil(
        "mkdir target && echo cache >target/obj && echo mine >notes.txt && echo changed >a.txt && rm src/main.c",
    );
    let before = world.spoil("stat -c %Y.%i .gitignore");
    world.clean(work).await.unwrap();
    let prepared = world.prepare(&[("tag", "v1")]).await.unwrap();
    world.assert_is(&prepared, "v1", &["target", "notes.txt"]);
    assert_eq!(world.spoil("cat target/obj notes.txt"), "cache\nmine");
    // Unchanged files keep their time stamps, or every build would start from nothing.
    assert_eq!(world.spoil("stat -c %Y.%i .gitignore"), before);
    assert!(!world.tree().join("old.txt").exists());
}

#[tokio::test]
async fn a_kept_file_in_the_way_of_the_commit_gives_way() {
    let world = World::new(Clean::Keep).await;
    let work = world.work(&[]);
    world.prepare_for(work.clone()).await.unwrap();
    world.spoil("git init -q side.txt && echo x >side.txt/x && echo y >target");
    world.clean(work).await.unwrap();
    let prepared = world.prepare(&[("branch", "side")]).await.unwrap();
    world.assert_is(&prepared, "side", &["target"]);
}

#[tokio::test]
async fn a_fresh_copy_is_cloned_after_each_lease() {
    let world = World::new(Clean::Fresh).await;
    let work = world.work(&[]);
    let prepared = world.prepare_for(work.clone()).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
    let before = world.spoil("echo secret | git hash-object -w --stdin; stat -c %i .git");
    world.clean(work).await.unwrap();
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
    let object = before.lines().next().unwrap();
    world.spoil(&format!("! git cat-file -e {object} 2>/dev/null"));
}

/// Whether a process is there and not just waiting to be reaped by its parent (this test).
fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

#[tokio::test]
async fn nothing_of_the_former_holder_runs_on() {
    let world = World::new(Clean::Clean).await;
    let work = world.work(&[]);
    world.prepare_for(work.clone()).await.unwrap();
    let spawn = |script: &str, dir: &std::path::Path, lease: &str| {
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", script]).current_dir(dir).stdout(std::process::Stdio::piped());
        if !lease.is_empty() {
            command.env("WHARFINGER_LEASE", lease);
        }
        let mut child = command.spawn().unwrap();
        // It runs, and has set its traps, when it has said so.
        let mut line = [0; 1];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        child
    };
    let root = std::path::Path::new("/");
    let mut victims = [
        spawn("echo r; while :; do sleep 5; done", root, &work.lease),
        spawn("trap '' TERM; echo r; while :; do sleep 5; done", root, &work.lease),
        spawn("echo r; while :; do sleep 5; done", &world.tree().join("src"), ""),
        spawn(&format!("cp /bin/sleep '{0}/slp'; echo r; exec '{0}/slp' 1000", world.tree().display()), root, ""),
        spawn("echo r; kill -STOP $$; sleep 1000", root, &work.lease),
    ];
    // A daemon in a session of its own, and its child that shed the mark.
    let ids = world.origin.dir.join("ids");
    let daemon = format!(
        "setsid sh -c 'trap \"\" TERM HUP; env -i sleep 300 & echo $! $$ >{0}; while :; do sleep 1; done' >/dev/null 2>&1 & \
         while ! [ -s {0} ]; do sleep 0.05; done; echo r",
        ids.display()
    );
    spawn(&daemon, root, &work.lease).wait().unwrap();
    // Another lease's, whose id begins the same, and one beside the tree.
    let mut others = [
        spawn("echo r; exec sleep 1000", root, &format!("{}0", work.lease)),
        spawn("echo r; exec sleep 1000", &world.home(), ""),
    ];
    world.clean(work).await.unwrap();
    for child in &mut victims {
        assert!(!alive(child.id()), "{}", child.id());
        child.wait().unwrap();
    }
    for pid in std::fs::read_to_string(ids).unwrap().split_whitespace() {
        assert!(!alive(pid.parse().unwrap()), "{pid}");
    }
    for child in &mut others {
        assert!(alive(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[tokio::test]
async fn a_process_that_ended_and_was_not_waited_for_is_none() {
    let world = World::new(Clean::Clean).await;
    let work = world.work(&[]);
    world.prepare_for(work.clone()).await.unwrap();
    // As on a host whose first process waits for no orphan. The lease's number is what is left of its marks.
    let script = format!("ulimit -S -w {}; exit 0", wharfinger_host::reaper::number(&work.lease));
    let mut child = std::process::Command::new("/bin/dash").args(["-c", &script]).spawn().unwrap();
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let start = tokio::time::Instant::now();
    while !stat().contains(") Z ") {
        assert!(start.elapsed() < std::time::Duration::from_secs(60), "{}", stat());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    world.clean(work).await.unwrap();
    assert!(stat().contains(") Z "));
    child.wait().unwrap();
}

/// A backup or a monitor opens a file of a copy for a moment.
#[test]
fn a_process_that_one_look_finds_is_not_ended() {
    let script = include_str!("../src/sh/stop.sh");
    let from = script.find("settled() {").expect("the function of two looks");
    let function = &script[from..from + script[from..].find("\n}\n").unwrap() + 3];
    // The first look finds 10 and 20, and each later one 20 and 30.
    let looks = "inside() { if mkdir looked 2>/dev/null; then printf '10\\n20\\n'; else printf '20\\n30\\n'; fi; }";
    for shell in [&["dash"][..], &["bash", "--posix"], &["busybox", "sh"]] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new(shell[0]);
        command.args(&shell[1..]).args(["-c", &format!("{looks}\n{function}settled")]).current_dir(dir.path());
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "20\n", "{shell:?}: {output:?}");
    }
    assert!(script.contains("    settled\n"), "the clean-up asks it");
}

#[tokio::test]
async fn a_clean_up_that_comes_too_late_touches_nothing() {
    let world = World::new(Clean::Clean).await;
    let old = world.work(&[]);
    world.prepare_for(old.clone()).await.unwrap();
    world.prepare(&[]).await.unwrap();
    world.spoil("echo build >out.o");
    let failure = world.clean(old).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Provider, "FENCED"), "{failure}");
    assert!(world.tree().join("out.o").exists());
}

#[tokio::test]
async fn a_repository_with_sha256_names_works() {
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        "git init -q --object-format=sha256 --bare -b main o.git; git init -q --object-format=sha256 -b main w; cd w; echo x >x; git add x; git commit -qm x; git push -q ../o.git main",
    );
    let url = dir.path().join("o.git").to_str().unwrap().to_string();
    let mut world = World::bare(|config| config.repository = url.clone());
    world.provision().await.unwrap();
    let id = sh(&dir.path().join("o.git"), "git rev-parse main");
    for params in [&[][..], &[("commit", id.as_str())], &[("commit", &id[..12])]] {
        assert_eq!(world.prepare(params).await.unwrap().access[access::COMMIT], id);
    }
    assert_eq!(world.check().await, Verdict::Healthy);
}

#[tokio::test]
async fn line_ends_that_do_not_round_trip_are_no_mangling() {
    let world = World::new(Clean::Clean).await;
    world.origin.work(
        r#"printf 'a\r\nb\r\n' >crlf.txt && git add -A && git commit -qm crlf
        printf '*.txt text\n*.bat eol=crlf\n' >.gitattributes && printf 'x\ny\n' >run.bat && git add .gitattributes run.bat && git commit -qm attr
        git push -q origin main"#,
    );
    let prepared = world.prepare(&[]).await.unwrap();
    assert_eq!(prepared.access[access::COMMIT], world.origin.id("main"));
    assert_eq!(world.spoil("od -c crlf.txt run.bat | grep -o '\\\\r' | wc -l"), "4");
    world.spoil("printf 'a\\r\\nB\\r\\n' >crlf.txt");
    world.prepare(&[]).await.unwrap();
    assert_eq!(world.spoil("od -c crlf.txt | grep -c B || :"), "0");
}

#[tokio::test]
async fn an_empty_repository_is_healthy_and_says_that_it_has_nothing() {
    let dir = tempfile::tempdir().unwrap();
    sh(dir.path(), "git init -q --bare -b main o.git");
    let url = dir.path().join("o.git").to_str().unwrap().to_string();
    let mut world = World::bare(|config| config.repository = url.clone());
    world.provision().await.unwrap();
    let failure = world.prepare(&[]).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Request, "REF_NOT_FOUND"), "{failure}");
}
