//! `run --put` and `--fetch`: of hosts that are not trusted, and of attempts that do not count.

use super::run;
use crate::sshd::{Sshd, skip};
use crate::support::{Server, local, repository, text};
use serde_json::json;
use std::path::{Path, PathBuf};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .map(|all| all.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

fn to(server: &Server, name: &str) -> (PathBuf, String) {
    let folder = server.folder.path().join(name);
    let text = folder.display().to_string();
    (folder, text)
}

/// The same with a local host and over SSH.
fn there_and_back(server: &Server) {
    let (out, out_text) = to(server, "out");
    let put = server.folder.path().join("put me");
    std::fs::create_dir_all(put.join("sub")).unwrap();
    std::fs::write(put.join("sub/f"), vec![7; 300_000]).unwrap();
    let spec = format!("{}:in/it", put.display());
    let script = "cp -r in/it 'out put'; mkdir -p r; echo '<junit/>' > r/a.xml; echo b > r/b.txt; exit 3";
    let args =
        ["--pool", "copies", "--put", &spec, "--fetch", "r/*.xml", "--fetch", "out put", "--fetch-to", &out_text];
    let (output, result) = run(server, "both", &[&args[..], &["--", "sh", "-c", script]].concat());
    assert_eq!((&result["ended"], &result["exit_code"]), (&json!("command"), &json!(3)), "{}", text(&output));
    assert_eq!(result["fetched"], json!(["out put/sub/f", "r/a.xml"]), "of a failed attempt too: {result:#}");
    assert_eq!(result["fetch_error"], json!(null));
    assert_eq!(std::fs::read(out.join("out put/sub/f")).unwrap(), vec![7; 300_000]);
    assert_eq!(std::fs::read_to_string(out.join("r/a.xml")).unwrap(), "<junit/>\n");
    assert_eq!(names(&out), ["out put", "r"], "nothing is left beside them");
}

#[test]
fn files_go_there_and_come_back() {
    there_and_back(&local());
}

#[test]
fn files_go_to_an_ssh_host_and_come_back() {
    if skip("files_go_to_an_ssh_host_and_come_back") {
        return;
    }
    let a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let server = Server::start(&crate::hosts::pools(&[("a", &a)], work.path()));
    repository(&server.folder.path().join("origin"));
    there_and_back(&server);
}

#[test]
fn a_hostile_tree_writes_nothing_outside_and_hangs_no_runner() {
    let server = local();
    let (out, out_text) = to(&server, "out");
    let args = ["--pool", "copies", "--fetch", "r", "--fetch-to", &out_text, "--"];
    let script =
        "mkdir r; ln -s /etc r/etc; ln -s /etc/passwd r/passwd; mkfifo r/pipe; echo x > r/good; chmod 6755 r/good";
    let (output, result) = run(&server, "links", &[&args[..], &["sh", "-c", script]].concat());
    // A success without all of its files is none.
    assert_eq!((&result["ended"], output.status.code()), (&json!("refused"), Some(65)), "{}", text(&output));
    assert_eq!((&result["exit_code"], &result["fetched"]), (&json!(0), &json!(["r/good"])), "{result:#}");
    let why = result["fetch_error"].as_str().unwrap();
    assert!(why.contains("symbolic link") && why.contains("pipe"), "{why}");
    assert_eq!(names(&out.join("r")), ["good"]);
    assert_eq!(result["attempts"][0]["outcome"], "OK", "the work and its resource are well: {result:#}");

    // A host whose `tar` lies: the names are those of another stream.
    let evil = server.folder.path().join("evil.tar");
    let made = std::process::Command::new("python3")
        .args([
            "-c",
            "import sys, tarfile, io
t = tarfile.open(sys.argv[1], 'w')
for name in ['../escaped', '/tmp/wharfinger-escaped', 'a/../../escaped', 'fine']:
    i = tarfile.TarInfo(name); i.size = 4; t.addfile(i, io.BytesIO(b'evil'))
l = tarfile.TarInfo('l'); l.type = tarfile.SYMTYPE; l.linkname = '..'; t.addfile(l)
i = tarfile.TarInfo('l/escaped'); i.size = 4; t.addfile(i, io.BytesIO(b'evil'))
t.close()",
        ])
        .arg(&evil)
        .status()
        .unwrap();
    assert!(made.success());
    let bin = server.folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let (out, out_text) = to(&server, "out2");
    std::fs::write(bin.join("tar"), format!("#!/bin/sh\ncat {}\n", evil.display())).unwrap();
    std::process::Command::new("chmod").args(["755"]).arg(bin.join("tar")).status().unwrap();
    let path = server.folder.path().join("lying.json");
    let with_bin = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = server
        .command(&super::line(&path, &["--pool", "copies", "--fetch", "*.txt", "--fetch-to", &out_text, "--", "true"]))
        .env("PATH", with_bin)
        .output()
        .unwrap();
    let result = super::read(&path).unwrap();
    assert_eq!(result["fetched"], json!(["fine", "l/escaped"]), "{}\n{result:#}", text(&output));
    assert_eq!(names(&out), ["fine", "l"]);
    assert!(!out.join("l").is_symlink());
    assert!(!server.folder.path().join("escaped").exists() && !Path::new("/tmp/wharfinger-escaped").exists());
}

#[test]
fn nothing_comes_of_a_lost_attempt_or_of_nothing() {
    let server = local();
    let (out, out_text) = to(&server, "out");
    let fetch = ["--pool", "copies", "--fetch", "f", "--fetch-to", &out_text];
    let script = "echo $WHARFINGER_LEASE > f; rm -rf .git; exit 3";
    let (_, result) = run(&server, "lost", &[&fetch[..], &["--retries", "1", "--", "sh", "-c", script]].concat());
    assert_eq!((&result["ended"], &result["fetched"]), (&json!("lost"), &json!([])), "{result:#}");
    assert!(names(&out).is_empty(), "{:?}", names(&out));

    let (output, result) = run(&server, "nothing", &[&fetch[..], &["--", "true"]].concat());
    assert_eq!((output.status.code(), &result["ended"]), (Some(65), &json!("refused")), "{result:#}");
    assert!(result["fetch_error"].as_str().unwrap().contains("matches f"), "{result:#}");
    let (_, result) = run(&server, "failed", &[&fetch[..], &["--", "sh", "-c", "exit 3"]].concat());
    assert_eq!((&result["ended"], &result["exit_code"]), (&json!("command"), &json!(3)), "a failure stays one");
    let only = [&fetch[..], &["--fetch-on", "failure", "--", "sh", "-c", "echo > f"]].concat();
    let (_, result) = run(&server, "only", &only);
    assert_eq!((&result["exits_with"], &result["fetched"]), (&json!(0), &json!([])), "{result:#}");
    let much = [&fetch[..], &["--fetch-max", "1KiB", "--", "sh", "-c", "truncate -s 2T f"]].concat();
    let (_, result) = run(&server, "much", &much);
    assert!(result["fetch_error"].as_str().unwrap().contains("more than 1KiB"), "{result:#}");
    assert!(names(&out).is_empty(), "{:?}", names(&out));

    for bad in [&["--fetch", "../x"][..], &["--fetch", "/etc/passwd"], &["--put", "x:../y"], &["--put", "/no/such:x"]] {
        let output = server.cli(&[&["run", "--pool", "copies"], bad, &["--", "true"]].concat());
        assert!(matches!(output.status.code(), Some(2 | 65)), "{bad:?}: {}", text(&output));
    }
}
