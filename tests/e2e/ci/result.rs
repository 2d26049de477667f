//! `run --result`: each end with its fault, its code and its attempts.

use super::{read, run};
use crate::support::{local, text};
use serde_json::{Value, json};

/// The fields that matter most.
fn brief(result: &Value) -> (&str, i64, &str, bool) {
    let word = |key: &str| result[key].as_str().unwrap();
    (word("ended"), result["exits_with"].as_i64().unwrap(), word("fault"), result["retry"].as_bool().unwrap())
}

#[test]
fn each_end_has_its_fault_and_its_code() {
    let server = local();
    let pool = ["--pool", "copies", "--retries", "1"];
    let with = |name: &str, more: &[&str], command: &[&str]| {
        let mut args: Vec<&str> = pool.into();
        args.extend(more);
        args.push("--");
        args.extend(command);
        run(&server, name, &args).1
    };
    let ok = with("ok", &["--work", "job@1", "--holder", "https://ci/7"], &["true"]);
    assert_eq!(brief(&ok), ("command", 0, "NONE", false));
    assert_eq!((&ok["exit_code"], &ok["holder"], &ok["work"]), (&json!(0), &json!("https://ci/7"), &json!("job@1")));
    let attempt = &ok["attempts"][0];
    assert_eq!((&attempt["state"], &attempt["outcome"]), (&json!("RELEASED"), &json!("OK")));
    assert_eq!(ok["commit"].as_str().unwrap().len(), 40, "{ok:#}");
    assert_eq!(server.json(&["get", attempt["lease"].as_str().unwrap()])["state"], "RELEASED");

    let failed = with("failed", &[], &["sh", "-c", "exit 75"]);
    assert_eq!(brief(&failed), ("command", 75, "UNDECIDED", false), "a command's own 75 is no lost lease");
    assert_eq!(failed["attempts"][0]["outcome"], "FAILED");
    assert!(failed["attempts"][0]["finding"].is_object(), "{failed:#}");

    let killed = with("killed", &["--exit-failed", "1", "--exit-lost", "2"], &["sh", "-c", "kill -KILL $$"]);
    assert_eq!(brief(&killed), ("command", 1, "UNDECIDED", false));
    assert_eq!((&killed["exit_code"], &killed["signal"]), (&Value::Null, &json!("KILL")));

    let slow = with("slow", &["--timeout", "300ms"], &["sleep", "60"]);
    assert_eq!(brief(&slow), ("timeout", 124, "UNDECIDED", false));
    assert_eq!(slow["attempts"][0]["outcome"], "FAILED");
    assert!(slow["attempts"][0]["ran_ms"].as_u64().unwrap() >= 300, "{slow:#}");

    let missing = with("missing", &[], &["/no/such/program"]);
    assert_eq!(brief(&missing), ("command", 127, "UNDECIDED", false));
    let refused = run(&server, "refused", &["--pool", "nothing", "--exit-lost", "2", "--", "true"]).1;
    assert_eq!(brief(&refused), ("refused", 65, "REQUEST", false));
    assert_eq!(refused["error"]["reason"], "UNKNOWN_POOL");
    assert_eq!(refused["attempts"], json!([]));

    let mangled = with("mangled", &[], &["sh", "-c", "test -e .git && rm -rf .git; exit 4"]);
    assert_eq!(brief(&mangled), ("lost", 75, "RESOURCE", true));
    let attempts = mangled["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{mangled:#}");
    for attempt in attempts {
        assert_eq!(attempt["state"], "BROKEN", "{attempt:#}");
        assert!(attempt["causes"].as_array().unwrap().iter().any(|c| c["reason"] == "RESOURCE_MANGLED"), "{attempt:#}");
    }
}

#[test]
fn a_reader_of_the_log_sees_which_attempt_counts() {
    let server = local();
    let marker = server.folder.path().join("once");
    let script = format!(
        "if [ -e {0} ]; then echo well; else touch {0}; echo broken; rm -rf .git; exit 4; fi",
        marker.display()
    );
    for quiet in [false, true] {
        let _ = std::fs::remove_file(&marker);
        let mut args = vec!["--pool", "copies"];
        args.extend(quiet.then_some("--quiet"));
        args.extend(["--", "sh", "-c", &script]);
        let (output, result) = run(&server, "twice", &args);
        assert_eq!(brief(&result), ("command", 0, "NONE", false));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "broken\nwell\n");
        let said = String::from_utf8_lossy(&output.stderr).to_string();
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("----")).collect();
        let [line] = lines[..] else { panic!("one line: {said}") };
        let first = result["attempts"][0]["lease"].as_str().unwrap();
        assert!(line.starts_with("wharfinger: ---- attempt 1 of 3 ended: RESOURCE_MANGLED"), "{line}");
        assert!(
            line.contains("does not count") && line.contains(&format!("attempt 2 of 3, the first was {first}")),
            "{line}"
        );
        let attempts = result["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 2, "{result:#}");
        assert_eq!((&attempts[0]["state"], &attempts[1]["outcome"]), (&json!("BROKEN"), &json!("OK")));
    }
}

#[test]
fn a_job_that_never_began_has_a_result_too() {
    let mut server = local();
    let path = server.folder.path().join("r.json");
    let args = super::line(&path, &["--pool", "copies", "--queue-for", "300ms", "--exit-lost", "9", "--", "true"]);
    // The two copies are held.
    let held: Vec<_> = (0..2)
        .map(|_| {
            server.json(&["lease", "--pool", "copies", "--holder", "test", "--wait", "60s"])["lease"]["id"].clone()
        })
        .collect();
    let output = server.command(&args).output().unwrap();
    let result = read(&path).unwrap();
    assert_eq!(brief(&result), ("failed", 9, "SERVICE", true), "{}\n{result:#}", text(&output));
    assert_eq!(result["attempts"][0]["state"], "FAILED", "{result:#}");
    for id in held {
        server.json(&["release", id.as_str().unwrap()]);
    }
    // Credentials that cannot be had.
    let mut command = server.command(&args);
    let output = command.env("WHARFINGER_AUTH_TOKEN_FILE", "/no/such/token").output().unwrap();
    let result = read(&path).unwrap();
    assert_eq!(result["ended"], "refused", "{}\n{result:#}", text(&output));
    // A command line that no host could take.
    let output =
        server.command(&super::line(&path, &["--pool", "copies", "-e", "1=2", "--", "true"])).output().unwrap();
    assert_eq!(read(&path).unwrap()["ended"], "refused", "{}", text(&output));
    // A file that cannot be written is reported before anything is leased.
    let output = server.cli(&["run", "--result", "/no/such/r.json", "--pool", "copies", "--", "true"]);
    assert_eq!(output.status.code(), Some(65), "{}", text(&output));
    server.kill();
}

#[test]
fn a_break_by_an_operator_is_not_the_hosts_fault() {
    let server = local();
    let started = server.folder.path().join("started");
    let path = server.folder.path().join("r.json");
    let script = format!("touch {}; exec sleep 60", started.display());
    let args = super::line(&path, &["--pool", "copies", "--retries", "0", "--", "sh", "-c", &script]);
    let mut child = server.command(&args).stderr(std::process::Stdio::null()).spawn().unwrap();
    server.wait("the command to run", || started.exists().then_some(()));
    let lease = server.json(&["ls", "--pool", "copies"])["leases"][0]["id"].as_str().unwrap().to_string();
    server.json(&["break", &lease, "--reason", "it is needed"]);
    server.wait("the run to end", || child.try_wait().unwrap());
    let result = read(&path).unwrap();
    assert_eq!(brief(&result), ("lost", 75, "SERVICE", true), "{result:#}");
    assert!(result["fault_detail"].as_str().unwrap().contains("it is needed"), "{result:#}");
}
