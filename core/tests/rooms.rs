//! The rooms of the core are shut: its state has no open field, and no transition calls another.
#![expect(clippy::unwrap_used, reason = "a test: a source that cannot be read ends it")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

fn all() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found
}

fn text(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name)).unwrap()
}

/// The part of a text between two others.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let start = text.find(from).unwrap_or_else(|| panic!("{from:?} is there"));
    text[start..].split(to).next().unwrap()
}

#[test]
fn no_field_of_the_state_is_open() {
    let state = text("state/mod.rs");
    let fields = between(&state, "pub struct Core {", "\n}\n");
    let open: Vec<&str> = fields.lines().skip(1).filter(|line| line.trim_start().starts_with("pub")).collect();
    assert!(fields.lines().count() > 20, "these are the fields");
    assert_eq!(open, [""; 0], "a field of the state is open to other rooms");
}

#[test]
fn rows_change_in_transitions_only() {
    for (path, text) in all() {
        let room = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap();
        if room == "state" || room == "lifecycle" {
            continue;
        }
        for edit in ["edit_lease(", "edit_resource(", "touch_resource(", "insert_lease(", "insert_resource("] {
            assert!(
                !text.contains(edit),
                "{} edits a row by {edit}: give the change a name in lifecycle/",
                path.display()
            );
        }
    }
}

/// The methods that the loop over consequences calls.
fn transitions() -> BTreeSet<String> {
    let lifecycle = text("lifecycle/mod.rs");
    let apply = between(&lifecycle, "fn apply(", "\n    }\n");
    let calls = apply.match_indices("self.").map(|(at, found)| {
        let rest = &apply[at + found.len()..];
        rest[..rest.find('(').unwrap()].to_string()
    });
    calls.collect()
}

#[test]
fn no_transition_calls_another() {
    let transitions = transitions();
    assert!(transitions.len() > 15, "{transitions:?}");
    for (path, text) in all() {
        if path.ends_with("lifecycle/mod.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for name in &transitions {
                let called = [format!("self.{name}("), format!("core.{name}(")].iter().any(|call| code.contains(call));
                assert!(!called, "{}:{}: {name} is for the loop alone: push a consequence", path.display(), number + 1);
            }
        }
    }
}

#[test]
fn a_policy_changes_nothing() {
    let mut policies = 0;
    for (path, text) in all() {
        if path.parent().is_some_and(|room| room.ends_with("policy")) {
            for core in text.split("\nimpl Core {").skip(1) {
                policies += 1;
                let own = core.split("\n}\n").next().unwrap();
                assert!(!own.contains("&mut self"), "{} changes the core: move that to lifecycle/", path.display());
            }
        }
    }
    assert!(policies >= 4, "{policies}");
}
