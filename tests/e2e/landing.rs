//! `run --land`: what a build has made comes onto a branch, raced or refused or said again.

use crate::support::{LOCAL, Server, repository, text};
use std::process::Command;

/// Runs git in the server's bare repository, which builds push to.
fn git(server: &Server, args: &[&str]) -> String {
    let output = Command::new("git").args(args).current_dir(server.folder.path().join("bare")).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

/// A server with copies of a repository that takes pushes.
fn landing() -> Server {
    let mut server = Server::prepared("w.db");
    let origin = server.folder.path().join("origin");
    repository(&origin);
    let bare = server.folder.path().join("bare");
    let output = Command::new("git").args(["clone", "-q", "--bare"]).arg(&origin).arg(&bare).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    server.configure("", &LOCAL.replace("{folder}/origin", "{folder}/bare"));
    server.run();
    server
}

/// Whether it has no holder, and nothing of it is cleaned.
fn free(row: &serde_json::Value) -> bool {
    row["leases"].as_array().is_none_or(Vec::is_empty)
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).to_string()
}

#[test]
fn commits_of_a_build_land_and_are_reported() {
    let server = landing();
    let before = git(&server, &["rev-parse", "main"]);
    let build = "echo built >built.txt";
    let run = |more: &[&str], script: &str| {
        let mut args = vec!["run", "--pool", "copies", "--branch", "main", "--land", "main"];
        args.extend(more);
        args.extend(["--", "sh", "-c", script]);
        server.cli(&args)
    };

    // A command that fails lands nothing; neither does a dry run.
    let failed = run(&["--land-changes", "--no-check"], "echo built >built.txt; exit 3");
    assert_eq!(failed.status.code(), Some(3), "{}", text(&failed));
    let dry = run(&["--land-changes", "--land-dry-run"], build);
    assert_eq!(dry.status.code(), Some(0), "{}", text(&dry));
    assert!(stderr(&dry).contains("dry run: would land 1 commit on main"), "{}", text(&dry));
    assert_eq!(git(&server, &["rev-parse", "main"]), before);

    let args = ["--land-changes", "--message", "Built", "--author", "Ada <ada@example.org>", "--land-id", "build-7"];
    let landed = run(&args, build);
    assert_eq!(landed.status.code(), Some(0), "{}", text(&landed));
    let tip = git(&server, &["rev-parse", "main"]);
    assert!(
        stderr(&landed).contains(&format!("landed 1 commit on main: {} is now {tip}", &before[..12])),
        "{}",
        text(&landed)
    );
    assert_eq!(
        git(&server, &["log", "-1", "--format=%P|%an <%ae>|%s|%b", "main"]),
        format!("{before}|Ada <ada@example.org>|Built|Wharfinger-Landing: build-7")
    );
    // The same landing again, by someone who has not heard of it: the build begins where it began before.
    let id =
        ["run", "--pool", "copies", "--commit", &before, "--land", "main", "--land-changes", "--land-id", "build-7"];
    let again = server.cli(&[&id[..], &["--", "sh", "-c", build]].concat());
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
    assert!(stderr(&again).contains(&format!("landed on main before: {tip}")), "{}", text(&again));
    // Nothing was made.
    let nothing = run(&[], "true");
    assert_eq!(nothing.status.code(), Some(0), "{}", text(&nothing));
    assert!(stderr(&nothing).contains("nothing to land: main at"), "{}", text(&nothing));
    assert_eq!(git(&server, &["rev-parse", "main"]), tip);

    // A merge that the lease asked for lands as it was built.
    let merged = run(&["--param", "merge=feature"], "git rev-parse HEAD; echo $WHARFINGER_BASE");
    assert_eq!(merged.status.code(), Some(0), "{}", text(&merged));
    let new = git(&server, &["rev-parse", "main"]);
    assert_eq!(String::from_utf8_lossy(&merged.stdout), format!("{new}\n{tip}\n"));
    assert_eq!(git(&server, &["show", "main:hello.txt"]), "hello feature");
}

#[test]
fn a_conflict_or_a_refusal_is_the_callers_and_taints_nothing() {
    let server = landing();
    let script = "set -e; git config user.name b; git config user.email b@example.org; echo mine >hello.txt; git commit -qam mine";
    let run = || server.cli(&["run", "--pool", "copies", "--tag", "v1", "--land", "feature", "--", "sh", "-c", script]);
    let before = git(&server, &["rev-parse", "feature"]);
    let conflict = run();
    assert_eq!(conflict.status.code(), Some(65), "{}", text(&conflict));
    assert!(
        stderr(&conflict).contains("MERGE_CONFLICT") && stderr(&conflict).contains("hello.txt"),
        "{}",
        text(&conflict)
    );

    let hook = server.folder.path().join("bare/hooks/pre-receive");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\necho 'main is closed, says Ada' >&2; exit 1\n").unwrap();
    let output = Command::new("chmod").arg("+x").arg(&hook).output().unwrap();
    assert!(output.status.success());
    let refused = server.cli(&["run", "--pool", "copies", "--land", "main", "--", "sh", "-c", script]);
    assert_eq!(refused.status.code(), Some(65), "{}", text(&refused));
    assert!(stderr(&refused).contains("main is closed, says Ada"), "{}", text(&refused));

    // A result that cannot land is reported before a lease is asked for.
    let wrong = server.cli(&["run", "--pool", "copies", "--land", "a..b", "--", "true"]);
    assert_eq!(wrong.status.code(), Some(65), "{}", text(&wrong));
    assert!(!stderr(&wrong).contains(" asked for"), "{}", text(&wrong));
    let asked = server.cli(&["run", "--pool", "copies", "--param", "merge=nowhere", "--", "true"]);
    assert!(stderr(&asked).contains("REF_NOT_FOUND"), "{}", text(&asked));

    assert_eq!(git(&server, &["rev-parse", "feature"]), before);
    // A report of a holder or a check puts a copy in doubt; the copies go through their clean-ups, too.
    let resources = server.wait("the clean-ups to end", || {
        let resources: Vec<_> =
            server.resources().into_iter().filter(|row| row["pool"] == "copies" && row["state"] != "GONE").collect();
        resources.iter().all(|row| row["state"] == "READY" && free(row)).then_some(resources)
    });
    assert!(!resources.is_empty());
    let events = server.json(&["events", "--pool", "copies", "--limit", "1000"]);
    let doubts: Vec<_> =
        events["events"].as_array().unwrap().iter().filter(|event| event["kind"] == "resource.suspect").collect();
    assert!(doubts.is_empty(), "nothing was tainted: {doubts:#?}\n{events}");
}
