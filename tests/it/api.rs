//! docs/api.md against the code: every reason is documented with its status, and every documented reason exists.

use crate::arch::sources;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use wharfinger_core::{BlockerCode, Reason};

type Statuses = BTreeMap<String, BTreeSet<&'static str>>;

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md")).unwrap()
}

/// The rows of the table under a heading: the name in the first column, and the second column.
fn table(heading: &str) -> BTreeMap<String, String> {
    let page = page();
    let section =
        page.split("\n## ").find(|section| section.starts_with(heading)).unwrap_or_else(|| panic!("{heading}"));
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")).map(|line| {
        let (name, rest) = line.split_once("` | ").unwrap_or_else(|| panic!("{line}"));
        (name.to_owned(), rest.split(" | ").next().unwrap_or_default().to_owned())
    });
    let rows: Vec<_> = rows.collect();
    let map: BTreeMap<_, _> = rows.iter().cloned().collect();
    assert_eq!(map.len(), rows.len(), "{heading} names something twice");
    map
}

/// The next text in quotes, if nothing but white space is before it.
fn quoted(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix('"')?.split('"').next()
}

/// The names that follow a call in the sources of a folder, outside of tests.
fn named_after<'a>(texts: &'a [String], before: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    texts.iter().flat_map(move |text| {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        code.match_indices(before).map(move |(at, _)| code[at + before.len()..].split_once(',').unwrap_or_default())
    })
}

fn texts(folder: &str) -> Vec<String> {
    let tests = |path: &Path| path.file_name().is_some_and(|name| name == "tests.rs");
    sources(folder).into_iter().filter(|(path, _)| !tests(path)).map(|(_, text)| text).collect()
}

/// Reasons of refusals of the core, by the kind of the refusal, and of the statuses of the services.
fn reasons() -> Statuses {
    let mut found = Statuses::new();
    let mut add = |reason: &str, status| {
        found.entry(reason.to_owned()).or_default().insert(status);
    };
    let core = texts("core/src");
    for (kind, rest) in named_after(&core, "RejectionKind::") {
        let status = match kind.trim() {
            "Invalid" => "INVALID_ARGUMENT",
            "NotFound" => "NOT_FOUND",
            "Conflict" => "ALREADY_EXISTS",
            "Denied" => "PERMISSION_DENIED",
            "Exhausted" | "Quota" => "RESOURCE_EXHAUSTED",
            "Precondition" => "FAILED_PRECONDITION",
            _ => continue,
        };
        if let Some(reason) = quoted(rest) {
            add(reason, status);
        }
    }
    // A closure of the checks of a request.
    for (reason, _) in named_after(&core, "return invalid(") {
        add(quoted(reason).unwrap_or_else(|| panic!("{reason}")), "INVALID_ARGUMENT");
    }
    for (code, rest) in named_after(&texts("src/rpc"), "Code::") {
        let status = match code.trim() {
            "InvalidArgument" => "INVALID_ARGUMENT",
            "Unavailable" => "UNAVAILABLE",
            "NotFound" => "NOT_FOUND",
            "OutOfRange" => "OUT_OF_RANGE",
            "ResourceExhausted" => "RESOURCE_EXHAUSTED",
            "DeadlineExceeded" => "DEADLINE_EXCEEDED",
            "Internal" => "INTERNAL",
            "FailedPrecondition" => "FAILED_PRECONDITION",
            "DataLoss" => "DATA_LOSS",
            "Unauthenticated" => "UNAUTHENTICATED",
            "PermissionDenied" => "PERMISSION_DENIED",
            _ => continue,
        };
        if let Some(reason) = quoted(rest) {
            add(reason, status);
        }
    }
    // `RpcError::NotFound` makes its reason from what it looked for.
    for what in ["LEASE", "RESOURCE", "POOL"] {
        add(&format!("UNKNOWN_{what}"), "NOT_FOUND");
    }
    found
}

#[test]
fn every_reason_is_documented_with_its_status() {
    let documented: BTreeMap<String, BTreeSet<String>> = table("Errors")
        .into_iter()
        .map(|(reason, statuses)| (reason, statuses.split(", ").map(String::from).collect()))
        .collect();
    let found = reasons();
    assert!(found.len() > 35, "the sources are read as they are written: {found:?}");
    let found: BTreeMap<String, BTreeSet<String>> =
        found.into_iter().map(|(reason, all)| (reason, all.into_iter().map(String::from).collect())).collect();
    for (reason, statuses) in &found {
        assert_eq!(documented.get(reason), Some(statuses), "{reason} in docs/api.md, and in the code");
    }
    for reason in documented.keys() {
        assert!(found.contains_key(reason), "docs/api.md documents {reason}, which no code has");
    }
}

#[test]
fn every_cause_is_documented() {
    let documented: BTreeSet<String> = table("Why a lease broke").into_keys().collect();
    let all: BTreeSet<String> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    assert_eq!(documented, all);
}

#[test]
fn every_code_of_a_blocker_is_documented() {
    let all: BTreeSet<String> = BlockerCode::ALL.iter().map(|code| code.to_string()).collect();
    assert_eq!(table("Why a lease waits").into_keys().collect::<BTreeSet<_>>(), all);
}

#[test]
fn every_reason_of_missing_credentials_is_documented() {
    let page = table("Why credentials are missing");
    let proto =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/wharfinger/v1/types.proto")).unwrap();
    let code: String = ["src/rpc", "adapters/ssh/src", "adapters/ec2/src", "adapters/api/src"]
        .iter()
        .flat_map(|folder| texts(folder))
        .collect();
    for reason in page.keys() {
        assert!(proto.contains(&format!("{reason}: ")), "types.proto explains {reason}");
        assert!(code.contains(&format!("\"{reason}\"")), "no code has {reason}");
    }
}

/// The version of the API and the table of additions go together.
#[test]
fn the_page_lists_the_present_minor_version() {
    let row = format!("| {} | ", wharfinger::rpc::API_MINOR);
    assert!(page().lines().any(|line| line.starts_with(&row)), "docs/api.md has no row for {row}");
}
