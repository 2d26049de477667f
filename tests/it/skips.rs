//! A test that lacks a program or a privilege is never a passed one: read from the sources.

use crate::arch::sources;
use std::path::Path;
use wharfinger_testkit::Need;

/// The functions by which a test may end before it has tested anything, and where each of them is. They ask
/// `wharfinger_testkit::need`, which fails the test where `./test.sh` demands what is missing.
const GATES: [(&str, &str); 20] = [
    ("skip", "adapters/ssh/tests/support/mod.rs"),
    ("skip", "adapters/ssh/tests/support/nft.rs"),
    ("skip", "tests/e2e/faults.rs"),
    ("skip", "tests/e2e/ec2/account.rs"),
    ("start", "tests/support/postgres.rs"),
    ("shared", "tests/support/postgres.rs"),
    ("shared", "src/store/postgres/testing.rs"),
    ("settings", "src/store/postgres/testing.rs"),
    ("fresh", "src/store/postgres/tests.rs"),
    ("behind_a_proxy", "src/store/postgres/tests.rs"),
    ("new", "src/store/sqlite/tests.rs"),
    ("cgroup", "testkit/src/cgroup.rs"),
    ("mount", "adapters/copies/tests/full.rs"),
    ("of_inodes", "adapters/copies/tests/full.rs"),
    ("mount", "tests/e2e/bad_input.rs"),
    ("world", "adapters/copies/tests/lfs.rs"),
    ("tool", "tests/e2e/grpcurl.rs"),
    ("grpcurl", "tests/e2e/grpcurl.rs"),
    ("call", "tests/e2e/grpcurl.rs"),
    ("stubs", "tests/e2e/python.rs"),
];

/// How a test calls a gate.
const CALLS: [&str; 17] = [
    "need(",
    "skip(",
    "Cluster::start",
    "shared()",
    "settings()",
    "fresh()",
    "behind_a_proxy(",
    "B::new()",
    "Mount::new(",
    "Disk::mount(",
    "Disk::of_inodes(",
    "cgroup()",
    "world(",
    "tool(",
    "grpcurl(",
    "call(",
    "stubs(",
];

/// The functions that are tests, and the scenarios that run on each store: the line of each and its body.
fn tests_of(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at].trim_start();
        let attribute = line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let on_each_store = line.starts_with("async fn") && line.contains("<B: Bench>");
        at += 1;
        if !attribute && !on_each_store {
            continue;
        }
        let first = at - 1;
        let indent = &lines[first][..lines[first].len() - line.len()];
        let end = (first..lines.len()).find(|n| lines[*n] == format!("{indent}}}")).unwrap_or(first);
        found.push((first + 1, lines[first..=end].join("\n")));
    }
    found
}

/// Returns the first bare `return` of a test that is neither behind a gate, in the same statement, nor after an assertion.
fn silent_return(body: &str) -> Option<&str> {
    let lines: Vec<&str> = body.lines().collect();
    for (n, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or("").trim();
        let bare = code == "return" || code == "return;" || code.contains("{ return }") || code.contains("{ return; }");
        let quoted = code.starts_with('"');
        let after_assertion = n > 0 && lines[n - 1].trim_start().starts_with("assert");
        if !bare || quoted || after_assertion {
            continue;
        }
        // The line that opens the block, then back to the line that ends the statement before.
        let indent = |n: usize| lines[n].len() - lines[n].trim_start().len();
        let opened = if code.contains('{') { n } else { (0..n).rev().find(|k| indent(*k) < indent(n)).unwrap_or(0) };
        let begun = (0..opened).rev().find(|n| lines[*n].trim_end().ends_with([';', '}'])).map_or(0, |n| n + 1);
        let statement = lines[begun..=opened].join(" ");
        if !CALLS.iter().any(|call| statement.contains(call)) {
            return Some(line);
        }
    }
    None
}

#[test]
fn no_test_ends_silently_for_want_of_something() {
    let mut count = 0;
    for folder in ["src", "core", "adapters", "tests", "testkit"] {
        for (path, text) in sources(folder) {
            for (line, body) in tests_of(&text) {
                count += 1;
                let found = silent_return(&body);
                assert!(
                    found.is_none(),
                    "{}:{line}: the test returns early without wharfinger_testkit::need: {}",
                    path.display(),
                    found.unwrap_or_default().trim()
                );
            }
        }
    }
    assert!(count > 500, "the tests are found: {count}");
}

#[test]
fn each_gate_asks_the_testkit() {
    for (gate, file) in GATES {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let first = lines
            .iter()
            .position(|line| line.contains(&format!("fn {gate}(")))
            .unwrap_or_else(|| panic!("{file} has a function {gate}"));
        let indent = lines[first].len() - lines[first].trim_start().len();
        let end = (first..lines.len()).find(|n| lines[*n] == format!("{}}}", &lines[first][..indent])).unwrap();
        let body = lines[first + 1..=end].join("\n");
        let asks = CALLS.iter().any(|call| body.contains(call)) || body.contains("get_or_init(Cluster::start)");
        assert!(asks || body.contains("server::shared"), "{file}: {gate} asks wharfinger_testkit::need");
    }
}

#[test]
fn the_lint_sees_the_silent_form() {
    let with = |body: &str| format!("#[test]\nfn t() {{\n{body}\n}}\n");
    for silent in [
        "    if !is_root() {\n        return;\n    }",
        "    let Some(x) = there() else { return };",
        "    let Some(x) = there() else {\n        eprintln!(\"no x\");\n        return;\n    };",
    ] {
        let source = with(silent);
        let found = tests_of(&source);
        assert!(silent_return(&found[0].1).is_some(), "{silent}");
    }
    for fine in [
        "    let Some(x) = shared() else { return };",
        "    if need(Need::Root, x).is_none() {\n        return;\n    }",
    ] {
        let source = with(fine);
        assert_eq!(silent_return(&tests_of(&source)[0].1), None, "{fine}");
    }
}

#[test]
fn the_script_knows_each_need() {
    let script = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("test.sh")).unwrap();
    let line = script.lines().find_map(|line| line.strip_prefix("needs=")).expect("test.sh lists the needs");
    let names: Vec<&str> = line.trim_matches(['"', ' ']).split_whitespace().collect();
    assert_eq!(names, Need::ALL.map(Need::name));
}

/// No test is in no part.
#[test]
fn the_script_runs_each_package_and_each_test_binary() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = std::fs::read_to_string(root.join("test.sh")).unwrap();
    let words: Vec<&str> = script.split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_')).collect();
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).expect("the members in one line");
    for member in members.trim_matches(['[', ']']).split(", ") {
        let own = std::fs::read_to_string(root.join(member.trim_matches('"')).join("Cargo.toml")).unwrap();
        let name = own.lines().find_map(|line| line.strip_prefix("name = ")).unwrap().trim_matches('"').to_string();
        assert!(words.contains(&name.as_str()), "no part of test.sh runs the tests of {name}");
    }
    for entry in std::fs::read_dir(root.join("tests")).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        let binary = entry.path().join("main.rs").exists() || name.ends_with(".rs");
        let name = name.trim_end_matches(".rs");
        assert!(!binary || script.contains(&format!("--test {name}")), "no part of test.sh runs tests/{name}");
    }
}
