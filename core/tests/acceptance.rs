//! `docs/acceptance.md` is true: the tests that it names exist, those that belong in it are named, and ignored ones are said to
//! be open.
#![expect(clippy::unwrap_used, reason = "a test: what can't be read ends it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The tests of these files are there for the page, and so are those of `peers/` in `SCENARIOS`.
const OURS: [&str; 3] = ["core/tests/scenarios/drydock.rs", "tests/e2e/seed.rs", "tests/e2e/table.rs"];
const SCENARIOS: &str = "core/tests/scenarios";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// One line of a table.
struct Row {
    line: usize,
    tests: String,
    remark: String,
}

fn rows(page: &str) -> Vec<Row> {
    let lines = page.lines().enumerate().filter(|(_, line)| line.starts_with('|'));
    let cells = lines.map(|(n, line)| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 3, "line {}: a case, its tests, a remark", n + 1);
        Row { line: n + 1, tests: cells[1].to_string(), remark: cells[2].to_string() }
    });
    cells.filter(|row| row.tests != "tests" && !row.tests.starts_with("---")).collect()
}

/// The texts between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    let parts: Vec<&str> = cell.split('`').collect();
    assert_eq!(parts.len() % 2, 1, "a backtick is left open: {cell}");
    parts.into_iter().skip(1).step_by(2).collect()
}

/// Every function of a file: whether it is a test, and whether that is ignored.
fn functions(text: &str) -> BTreeMap<&str, (bool, bool)> {
    let mut found = python_functions(text);
    found.extend(rust_functions(text));
    found
}

/// Those of a file in Python. Tests are named `test_…`.
fn python_functions(text: &str) -> BTreeMap<&str, (bool, bool)> {
    let mut found = BTreeMap::new();
    let mut ignored = false;
    for line in text.lines().map(str::trim_start) {
        ignored |= line.starts_with("@pytest.mark.skip") || line.starts_with("@pytest.mark.xfail");
        if let Some(rest) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("def ") {
            let name = rest.split('(').next().unwrap_or_default();
            found.insert(name, (name.starts_with("test_"), ignored));
            ignored = false;
        }
    }
    found
}

fn rust_functions(text: &str) -> BTreeMap<&str, (bool, bool)> {
    let mut found = BTreeMap::new();
    let (mut test, mut ignored) = (false, false);
    for line in text.lines().map(str::trim_start) {
        test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        ignored |= line.starts_with("#[ignore");
        let words = line.strip_prefix("pub ").unwrap_or(line);
        let words = words.strip_prefix("async ").unwrap_or(words);
        if let Some(rest) = words.strip_prefix("fn ") {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            found.insert(name, (test, ignored));
            (test, ignored) = (false, false);
        } else if let Some(rest) = words.strip_prefix("def ") {
            // A test of the clients, in Python.
            let name = rest.split('(').next().unwrap_or_default();
            found.insert(name, (name.starts_with("test_"), false));
        } else if let Some(rest) = words.strip_prefix("test(") {
            // A test of the TypeScript package. One for each row of a table has the table's name before a colon.
            let quote = rest.chars().next().unwrap_or('"');
            let ends: &[char] = if quote == '`' { &['`', ':'] } else { &[quote] };
            let name = rest.trim_start_matches(quote).split(ends).next().unwrap_or_default();
            found.insert(name, (true, false));
        }
    }
    found
}

fn sources() -> Vec<String> {
    let mut files = OURS.map(String::from).to_vec();
    for entry in std::fs::read_dir(root().join(SCENARIOS).join("peers")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        files.push(format!("{SCENARIOS}/peers/{name}"));
    }
    files
}

#[test]
fn the_page_names_tests_that_exist_and_says_which_are_open() {
    let page = std::fs::read_to_string(root().join("docs/acceptance.md")).unwrap();
    let mut read: BTreeMap<String, String> = BTreeMap::new();
    let mut named = BTreeSet::new();
    let mut wrong = Vec::new();
    let rows = rows(&page);
    assert!(rows.len() > 60, "the tables are found: {} rows", rows.len());
    for row in &rows {
        let (mut checked, mut open) = (0, false);
        for test in quoted(&row.tests) {
            checked += 1;
            let Some((file, name)) = test.split_once("::") else {
                // A part of ./test.sh that is one script.
                if test.ends_with("/test.sh") && root().join(test).is_file() {
                    continue;
                }
                wrong.push(format!("line {}: {test} is no file::function", row.line));
                continue;
            };
            if !read.contains_key(file) {
                let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
                read.insert(file.to_string(), text);
            }
            match functions(&read[file]).get(name) {
                // The contract's tests are plain functions, which the adapters' tests call.
                Some((test, ignored)) if *test || file.contains("/conformance/") => open |= ignored,
                Some(_) => wrong.push(format!("line {}: {name} in {file} is no test", row.line)),
                None => wrong.push(format!("line {}: no function {name} in {file}", row.line)),
            }
            named.insert(test.to_string());
        }
        let excused = row.tests == "does not apply" && !row.remark.is_empty();
        if checked == 0 && !excused {
            wrong.push(format!("line {}: names no test and gives no reason", row.line));
        }
        if open != row.remark.contains("**open**") {
            let is = if open {
                "is ignored: the remark must say **open**"
            } else {
                "runs: the remark must not say **open**"
            };
            wrong.push(format!("line {}: its test {is}", row.line));
        }
    }
    for file in sources() {
        let text = std::fs::read_to_string(root().join(&file)).unwrap();
        for (name, (test, _)) in functions(&text) {
            if test && !named.contains(&format!("{file}::{name}")) {
                wrong.push(format!("{file}::{name} is not on the page"));
            }
        }
    }
    assert!(wrong.is_empty(), "docs/acceptance.md:\n{}", wrong.join("\n"));
}

/// `docs/trust-cases.md` has a row for each case of the design, and the tests that it names exist.
#[test]
fn each_case_of_trust_has_its_row_and_names_tests_that_exist_or_says_that_it_is_open() {
    let page = std::fs::read_to_string(root().join("docs/trust-cases.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| N"));
    let mut read: BTreeMap<String, String> = BTreeMap::new();
    let mut number = 0;
    for row in rows {
        number += 1;
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [case, tests, _] = cells[..] else { panic!("{row}: a case, its tests, a remark") };
        assert!(case.starts_with(&format!("N{number} ")), "{row}: the case is N{number}");
        if tests == "**open**" {
            continue;
        }
        let names = quoted(tests);
        assert!(!names.is_empty(), "{row}: names no test");
        for test in names {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{test} is no file::function"));
            let text = read
                .entry(file.to_string())
                .or_insert_with(|| std::fs::read_to_string(root().join(file)).unwrap_or_default());
            let found = functions(text).get(name).copied();
            assert_eq!(found, Some((true, false)), "N{number}: {test} is no test that runs");
        }
    }
    assert_eq!(number, 169);
}
