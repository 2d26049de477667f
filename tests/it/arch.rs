//! The arrows of docs/ARCHITECTURE.md, read from the sources: a tidy test.

use std::path::{Path, PathBuf};

pub(crate) fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let found = files(folder, "rs");
    assert!(!found.is_empty(), "{folder} has sources");
    found
}

/// The files of a folder with this extension, with their texts.
fn files(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, extension: &str, found: &mut Vec<(PathBuf, String)>) {
        let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries.map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                walk(&entry, extension, found);
            } else if entry.extension().is_some_and(|e| e == extension) {
                found.push((entry.clone(), std::fs::read_to_string(&entry).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), extension, &mut found);
    found
}

/// No source of the folder names the crate or module, outside of comments.
fn never_names(folder: &str, name: &str) {
    for (path, text) in sources(folder) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let named = code.match_indices(name).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                let after = code[at + name.len()..].chars().next();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
                    && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
            });
            assert!(!named, "{}:{} names {name}: {line}", path.display(), number + 1);
        }
    }
}

#[test]
fn each_layer_names_only_what_it_may() {
    never_names("src/store", "tonic");
    never_names("src/rpc", "sqlx");
    never_names("src/engine", "tonic");
    never_names("src/engine", "sqlx");
    never_names("src/engine", "prometheus_client");
    never_names("src/http", "sqlx");
    never_names("src/http", "tonic");
    for drawn in ["tonic", "sqlx", "maud", "ratatui"] {
        never_names("src/overview", drawn);
    }
    never_names("client/src", "wharfinger_core");
    // Random numbers come from `client/src/random.rs`.
    never_names("src", "RandomState");
    never_names("client/src", "RandomState");
    for adapter in [
        "adapters/api/src",
        "adapters/host/src",
        "adapters/local/src",
        "adapters/ssh/src",
        "adapters/copies/src",
        "adapters/ec2/src",
        "adapters/fake/src",
    ] {
        never_names(adapter, "wharfinger_core");
        never_names(adapter, "tonic");
        never_names(adapter, "sqlx");
    }
    for folder in ["src/engine", "src/store", "src/rpc", "client/src", "src/telemetry"] {
        for adapter in ["wharfinger_local", "wharfinger_ssh", "wharfinger_copies", "wharfinger_ec2"] {
            never_names(folder, adapter);
        }
    }
}

/// The registry names the adapters. So does `run`, which carries a command to a leased host and lands its result (ADR 0011).
#[test]
fn few_name_an_adapter() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (path, text) in sources("src") {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap();
        let landing = ["src/cli/run/land.rs", "src/cli/run/mod.rs"].contains(&name);
        for adapter in ["wharfinger_local", "wharfinger_ssh", "wharfinger_copies", "wharfinger_ec2"] {
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
            let named = code.lines().any(|line| line.split("//").next().unwrap_or("").contains(adapter));
            let allowed = name.starts_with("src/adapters/")
                || name.starts_with("src/cli/run/") && ["wharfinger_local", "wharfinger_ssh"].contains(&adapter)
                || name == "src/config/tests.rs"
                || (landing && adapter == "wharfinger_copies");
            assert!(!named || allowed, "{name} names {adapter}");
        }
    }
}

#[test]
fn the_core_is_pure() {
    for (folder, expected) in [("types", ""), ("core", "wharfinger-types.workspace = true")] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
        assert_eq!(dependencies.trim(), expected, "dependencies in {}", folder.display());
        let lib = std::fs::read_to_string(folder.join("src/lib.rs")).unwrap();
        assert!(lib.contains("#![no_std]"), "{} is checked by the compiler", folder.display());
    }
    never_names("core/src", "std");
}

/// A type that the core and the adapters share has one definition, in `types`.
#[test]
fn shared_types_are_defined_once() {
    let names = sources("types/src")
        .iter()
        .flat_map(|(_, text)| text.lines().map(String::from).collect::<Vec<_>>())
        .filter_map(|line| {
            let rest = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "))?;
            Some(rest.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_string())
        })
        .collect::<Vec<_>>();
    assert!(names.iter().any(|name| name == "Blame"), "{names:?}");
    for folder in ["core/src", "adapters/api/src", "adapters/host/src"] {
        for (path, text) in sources(folder) {
            for name in &names {
                for kind in ["struct", "enum"] {
                    let again = text.lines().any(|line| {
                        let after = line.trim_start().strip_prefix(&format!("pub {kind} {name}"));
                        after.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
                    });
                    assert!(!again, "{} defines {name} again; use wharfinger-types", path.display());
                }
            }
        }
    }
}

/// Whether the file is made from `proto/`, whose comments have rules of their own (`buf lint`).
fn is_generated(path: &Path) -> bool {
    path.ends_with("client/src/pb/generated.rs")
}

#[test]
fn no_file_is_too_long_to_be_one_idea() {
    for folder in ["src", "types", "core/src", "client", "adapters", "tests"] {
        for (path, text) in sources(folder) {
            if is_generated(&path) {
                continue;
            }
            assert!(text.lines().count() <= 800, "{} has {} lines", path.display(), text.lines().count());
        }
    }
}

/// A task is kept by its handle, or a comment above it names its end: `// Ends with the connection.`
#[test]
fn each_detached_task_names_its_end() {
    let kept = [" = ", "AbortOnDropHandle", "push(", "Renewal(", "task: ", ").await"];
    let mut spawns = 0;
    for folder in ["src", "client/src", "jwt/src", "tls/src", "adapters"] {
        for (path, text) in sources(folder) {
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap();
            if ["/tests/", "tests.rs", "testing", "/fake", "/conformance/", "rpc/tenants/"]
                .iter()
                .any(|part| name.contains(part))
            {
                continue;
            }
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let lines: Vec<&str> = code.lines().collect();
            for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("tokio::spawn(")) {
                spawns += 1;
                let before = &lines[number.saturating_sub(5)..number];
                let named = before.iter().any(|line| line.trim_start().starts_with("// Ends "));
                let held = kept.iter().any(|mark| line.contains(mark))
                    || before.last().is_some_and(|line| line.ends_with('='));
                assert!(named || held, "{name}:{}: a task without an end: {line}", number + 1);
            }
        }
    }
    assert!(spawns > 30, "{spawns} tasks were seen");
}

/// The comment at the head of a script is its contract. A library in front of other scripts may have no arguments of its own.
#[test]
fn each_script_has_a_contract_at_its_head() {
    let (mut faults, mut scripts) = (Vec::new(), 0);
    for (path, text) in files("adapters", "sh") {
        let head: String =
            text.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        let library = head.contains("A library in front of another script's text");
        let mut wanted = if library { vec![] } else { vec!["Arguments:", "Exits:"] };
        if !library && path.components().any(|part| part.as_os_str() == "host") {
            wanted.push("Changes:");
        }
        scripts += 1;
        let lacks = |row: &&str| !head.lines().any(|line| line.trim_start_matches(['#', ' ']).starts_with(*row));
        faults.extend(wanted.into_iter().filter(lacks).map(|row| format!("{} says nothing of {row}", path.display())));
    }
    assert!(scripts > 40, "{scripts} scripts were read");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Folders whose comments follow the rule of CONTRIBUTING.md.
const PLAIN: [&str; 10] = ["adapters", "benches", "client", "core", "jwt", "src", "testkit", "tests", "tls", "types"];

/// Beginnings of comments that have no subject, or one that is not a noun of the field.
const BAD_STARTS: [&str; 9] =
    ["So many", "So long", "What ", "Who ", "Whose ", "As whom", "Whether what", "Told ", "Whoever "];

/// Words that hide the subject of a sentence, or its verb.
const HIDING: [&str; 10] =
    ["nobody", "somebody", "so many", "whoever", "is told", "are told", "was told", "were told", "is said", "was said"];

/// Whether the text has the words, with no letter beside them.
fn has_words(text: &str, words: &str) -> bool {
    text.match_indices(words).any(|(at, _)| {
        let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !letter(text[..at].chars().next_back()) && !letter(text[at + words.len()..].chars().next())
    })
}

/// The fault of a comment, if it has one.
fn prose_fault(comment: &str, doc: bool, first: bool) -> Option<String> {
    let words = comment.split_whitespace().count();
    if let Some(start) = BAD_STARTS.iter().find(|start| first && comment.starts_with(**start)) {
        return Some(format!("begins with {:?}; begin with the subject", start.trim()));
    }
    if comment.contains("can not") || comment.contains("can't") {
        return Some("write `cannot`".into());
    }
    let lower = comment.to_lowercase();
    if let Some(words) = HIDING.iter().find(|words| has_words(&lower, words)) {
        return Some(format!("has {words:?}; name the party, and use a verb of the field"));
    }
    let sentence = doc && first && words == 1 && comment.ends_with('.');
    sentence.then(|| "is one word; name the thing and its use".into())
}

#[test]
fn clean_folders_stay_in_plain_english() {
    let mut faults = Vec::new();
    let mut checked = 0;
    for place in PLAIN {
        let texts = sources(place).into_iter().chain(files(place, "sh"));
        for (path, text) in texts.filter(|(path, _)| !is_generated(path)) {
            let sign = if path.extension().is_some_and(|e| e == "sh") { "#" } else { "//" };
            let mut inside = false;
            for (number, line) in text.lines().enumerate() {
                let line = line.trim_start();
                let Some(rest) = line.strip_prefix(sign) else {
                    inside = false;
                    continue;
                };
                let doc = rest.starts_with(['/', '!']);
                let comment = rest.trim_start_matches(['/', '!']).trim();
                checked += 1;
                if let Some(fault) = prose_fault(comment, doc, !inside) {
                    faults.push(format!("{}:{}: {fault}: {comment}", path.display(), number + 1));
                }
                inside = !comment.is_empty();
            }
        }
    }
    assert!(checked > 5000, "{checked} comments were checked");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Beginnings of test names without a subject.
const RIDDLES: [&str; 7] = ["what_", "who_", "whoever_", "whatever_", "which_", "they_", "it_"];

/// The fault of a test's name, if it has one.
fn name_fault(name: &str) -> Option<String> {
    if let Some(start) = RIDDLES.iter().find(|start| name.starts_with(**start)) {
        return Some(format!("begins with {start:?}; begin with the subject"));
    }
    let words = name.replace('_', " ");
    let hiding = HIDING.iter().chain(["can not", "told"].iter()).find(|hiding| has_words(&words, hiding));
    hiding.map(|hiding| format!("has {hiding:?}; name the party, and use a verb of the field"))
}

/// The names of the tests in a source, with their lines.
fn tests_of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut marked = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let line = line.trim_start();
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        }
        let (before, after) = line.split_once("fn ").filter(|_| marked && !line.starts_with(['#', '/']))?;
        let head = before.split_whitespace().all(|word| matches!(word, "pub" | "async"));
        marked = false;
        head.then(|| (number + 1, after.split('(').next().unwrap_or(after)))
    })
}

#[test]
fn names_of_tests_state_the_behaviour() {
    let (mut names, mut faults) = (0, Vec::new());
    for (path, text) in PLAIN.into_iter().flat_map(sources) {
        for (line, name) in tests_of(&text) {
            names += 1;
            faults.extend(name_fault(name).map(|fault| format!("{}:{line}: {name} {fault}", path.display())));
        }
    }
    assert!(names > 1500, "{names} names were read");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for riddle in ["what_is_kept_is_kept", "they_stay", "an_end_is_told", "a_pause_expires_nobody", "it_can_not_be"] {
        assert!(name_fault(riddle).is_some(), "{riddle}");
    }
    assert_eq!(name_fault("a_paused_broker_expires_no_lease"), None);
}

#[test]
fn the_prose_rule_refuses_what_it_should() {
    for (comment, doc) in [
        ("So many rows at most.", true),
        ("What the store says.", true),
        ("Told when it has ended.", true),
        ("The file can not be read.", false),
        ("Principal.", true),
        ("Removes it, and whoever waits for it is told.", true),
        ("The queue is full, so nobody is added.", false),
    ] {
        assert!(prose_fault(comment, doc, true).is_some(), "{comment}");
    }
    for comment in ["Maximum number of rows.", "The file cannot be read.", "Ids sort by age.", "This told the time."] {
        assert_eq!(prose_fault(comment, true, true), None, "{comment}");
    }
    assert_eq!(prose_fault("What follows continues a sentence.", true, false), None);
}

/// The first column of each table in a README names files of its folder.
#[test]
fn the_maps_name_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["core", "adapters", "src", "tests"] {
        let text = std::fs::read_to_string(root.join(folder).join("README.md")).unwrap();
        let mut named = 0;
        for row in text.lines().filter(|line| line.starts_with("| `")) {
            let cell = row.split('|').nth(1).unwrap();
            for name in cell.split('`').skip(1).step_by(2) {
                assert!(root.join(folder).join(name).exists(), "{folder}/README.md names {name}");
                named += 1;
            }
        }
        assert!(named > 5, "{folder}/README.md names {named} files");
    }
}

/// Each step of the life of a lease names its files, and no step names a file of another.
#[test]
fn the_life_of_a_lease_names_each_file_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/ARCHITECTURE.md")).unwrap();
    let (_, rest) = text.split_once("## The life of one lease").unwrap();
    let (life, _) = rest.split_once("## Map").unwrap();
    let mut named = std::collections::BTreeMap::new();
    let mut step = 0;
    for line in life.lines() {
        if line.starts_with(|c: char| c.is_ascii_digit()) {
            step += 1;
        }
        for name in line.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs")) {
            let places = [name.into(), format!("src/{name}"), name.replacen("core/", "core/src/", 1)];
            assert!(places.iter().any(|place| root.join(place).is_file()), "step {step} names {name}");
            let first = *named.entry(name).or_insert(step);
            assert_eq!(first, step, "{name} is of two steps");
        }
    }
    assert!(step > 8 && named.len() > 12, "{step} steps, {} files", named.len());
}

/// The glossary has each noun once, in order of the alphabet, and code or comments use it.
#[test]
fn the_glossary_has_each_noun_once_and_the_code_uses_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/glossary.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| noun"));
    let nouns: Vec<&str> = rows.map(|row| row.split('|').nth(1).unwrap().trim()).collect();
    assert!(nouns.len() > 40, "{nouns:?}");
    assert!(nouns.is_sorted_by(|a, b| a < b), "in order, and each once: {nouns:?}");
    let texts: String =
        ["adapters", "core/src", "src"].into_iter().flat_map(sources).map(|(_, text)| text.to_lowercase()).collect();
    let words: std::collections::BTreeSet<&str> = texts.split(|c: char| !c.is_ascii_alphabetic()).collect();
    let unused: Vec<_> = nouns.iter().filter(|noun| !noun.split(' ').all(|word| words.contains(word))).collect();
    assert!(unused.is_empty(), "no code uses {unused:?}");
}
