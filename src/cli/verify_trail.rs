//! `events --verify`: compares an export of the audit trail, which lies elsewhere, with the trail of the server.
//!
//! A program that can write the database can change each part of it, a chain of hashes too. An export on another machine is out of reach (ADR 64).

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::json::Json;
use crate::pb;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// Maximum number of differences that are printed.
const SHOWN: usize = 20;
/// Entries of one page.
const PAGE: i32 = 500;

/// Entries by revision, each once, as text.
type Trail = BTreeMap<u64, BTreeSet<String>>;

/// A difference between an export and a trail.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Difference {
    /// The trail does not have an entry of the export.
    Missing(u64, String),
    /// The export does not have an entry of the trail.
    Added(u64, String),
}

/// The result of a comparison.
#[derive(Debug, Default, PartialEq, Eq)]
struct Compared {
    agree: usize,
    /// Entries of the export from before the first one of the trail.
    older: Vec<(u64, String)>,
    differences: Vec<Difference>,
}

/// Compares, and prints what differs. Exit code 65 if anything does.
pub(crate) async fn verify(context: &Context, path: &Path, kept: Duration) -> Result<Exit, Failure> {
    let export = read(path)?;
    let (Some(first), Some(last)) = (export.keys().next(), export.keys().next_back()) else {
        return Err(wrong(path, "has no entry"));
    };
    let trail = trail(context, first.saturating_sub(1), *last).await?;
    let mut compared = compare(&export, &trail);
    let now = jiff::Timestamp::try_from(crate::clock::wall()).unwrap_or(jiff::Timestamp::MAX);
    let is_young = |entry: &str| {
        let at = serde_json::from_str::<Value>(entry)
            .ok()
            .and_then(|entry| entry["at"].as_str()?.parse::<jiff::Timestamp>().ok());
        at.is_none_or(|at| now.duration_since(at).unsigned_abs() < kept)
    };
    let (young, old): (Vec<_>, Vec<_>) =
        std::mem::take(&mut compared.older).into_iter().partition(|(_, entry)| is_young(entry));
    compared.differences.splice(0..0, young.into_iter().map(|(revision, entry)| Difference::Missing(revision, entry)));
    let found = compared.differences.len();
    if context.ui.json {
        let told = compared.differences.iter().map(|difference| {
            let (kind, revision, entry) = difference.parts();
            json!({ "kind": kind, "revision": revision, "entry": serde_json::from_str::<Value>(entry).unwrap_or_default() })
        });
        let told: Vec<Value> = told.collect();
        context.ui.document(&json!({ "agree": compared.agree, "no_longer_kept": old.len(), "differences": told }))?;
    } else {
        for difference in compared.differences.iter().take(SHOWN) {
            let (kind, revision, entry) = difference.parts();
            context.ui.out(&format!("{kind} at revision {revision}: {entry}"))?;
        }
        context.ui.out(&format!(
            "{} entries agree, {} are older than the trail keeps them, {found} differ",
            compared.agree,
            old.len()
        ))?;
    }
    Ok(if found == 0 { Exit::Ok } else { Exit::BadData })
}

impl Difference {
    fn parts(&self) -> (&'static str, u64, &str) {
        match self {
            Difference::Missing(revision, entry) => ("missing or changed in the trail", *revision, entry),
            Difference::Added(revision, entry) => ("not in the export", *revision, entry),
        }
    }
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::BadData, format!("the export {} {why}", path.display()))
        .remedy("give the output of: wharfinger events --follow --json --after 0 --cursor FILE")
}

/// Reads an export: a line for each entry, some of them more than once.
fn read(path: &Path) -> Result<Trail, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| wrong(path, format!("cannot be read: {error}")))?;
    // The export may have ended within its last line; the entry comes again in the next one.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut trail = Trail::new();
    for (number, line) in whole.lines().enumerate() {
        let entry: Option<Value> = serde_json::from_str(line).ok();
        let found = entry.and_then(|entry| Some((entry["revision"].as_u64()?, comparable(entry))));
        let (revision, entry) = found.ok_or_else(|| wrong(path, format!("has no entry in line {}", number + 1)))?;
        trail.entry(revision).or_default().insert(entry);
    }
    Ok(trail)
}

/// An entry as text. A line of an older version has no `program` of its caller, and is equal to an entry whose program is not known.
fn comparable(mut entry: Value) -> String {
    if let Some(caller) = entry.get_mut("caller").and_then(Value::as_object_mut)
        && caller.get("program").is_some_and(Value::is_null)
    {
        caller.remove("program");
    }
    entry.to_string()
}

/// The entries of the server after a revision, up to another.
async fn trail(context: &Context, after: u64, last: u64) -> Result<Trail, Failure> {
    let mut admin = context.connect().await?.admin();
    let mut request = pb::EventsRequest {
        after_revision: after,
        min_revision: last,
        newest_first: false,
        page_size: PAGE,
        ..pb::EventsRequest::default()
    };
    let mut trail = Trail::new();
    loop {
        let page = context.ask(admin.events(request.clone())).await?;
        let is_over = page.events.iter().any(|event| event.revision > last);
        for event in page.events.iter().filter(|event| event.revision <= last) {
            trail.entry(event.revision).or_default().insert(comparable(event.json()));
        }
        request.page_token = page.next_page_token;
        if is_over || request.page_token.is_empty() {
            return Ok(trail);
        }
    }
}

fn compare(export: &Trail, trail: &Trail) -> Compared {
    let none = BTreeSet::new();
    let first = trail.keys().next().copied().unwrap_or(u64::MAX);
    let mut compared = Compared::default();
    for revision in export.keys().chain(trail.keys()).collect::<BTreeSet<_>>() {
        let ours = export.get(revision).unwrap_or(&none);
        let theirs = trail.get(revision).unwrap_or(&none);
        compared.agree += ours.intersection(theirs).count();
        let missing = ours.difference(theirs).cloned();
        if *revision < first {
            compared.older.extend(missing.map(|entry| (*revision, entry)));
            continue;
        }
        compared.differences.extend(missing.map(|entry| Difference::Missing(*revision, entry)));
        let added = theirs.difference(ours).cloned();
        compared.differences.extend(added.map(|entry| Difference::Added(*revision, entry)));
    }
    compared
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(entries: &[(u64, &str)]) -> Trail {
        let mut trail = Trail::new();
        for (revision, entry) in entries {
            trail.entry(*revision).or_default().insert((*entry).to_owned());
        }
        trail
    }

    #[test]
    fn each_difference_is_found_and_order_and_repetition_are_none() {
        let export = made(&[(1, "a"), (2, "b"), (2, "c"), (3, "d"), (5, "e")]);
        let same = compare(&export, &export);
        assert_eq!((same.agree, same.older.len(), same.differences.len()), (5, 0, 0));
        let missing = |revision, entry: &str| Difference::Missing(revision, entry.into());
        let added = |revision, entry: &str| Difference::Added(revision, entry.into());
        for (trail, differences) in [
            (made(&[(1, "a"), (2, "b"), (3, "d"), (5, "e")]), vec![missing(2, "c")]),
            (made(&[(1, "a"), (2, "b"), (2, "x"), (3, "d"), (5, "e")]), vec![missing(2, "c"), added(2, "x")]),
            (made(&[(1, "a"), (2, "b"), (2, "c"), (3, "d"), (4, "x"), (5, "e")]), vec![added(4, "x")]),
            (made(&[(1, "a"), (2, "b"), (2, "c"), (3, "d")]), vec![missing(5, "e")]),
        ] {
            assert_eq!(compare(&export, &trail).differences, differences);
        }
        // Entries before the first one of the trail may be older than the trail is kept.
        let compared = compare(&export, &made(&[(3, "d"), (5, "e")]));
        assert_eq!((compared.agree, compared.differences.len()), (2, 0));
        assert_eq!(compared.older, [(1, "a".into()), (2, "b".into()), (2, "c".into())]);
        assert_eq!(compare(&export, &Trail::new()).older.len(), 5);
    }

    #[test]
    fn a_line_of_an_older_version_is_equal_to_its_entry() {
        let caller = pb::EventCaller { method: "Drain".into(), ..pb::EventCaller::default() };
        let event = |caller| pb::Event { revision: 7, caller: Some(caller), ..pb::Event::default() };
        let now = event(caller.clone()).json();
        let mut before = now.clone();
        before["caller"].as_object_mut().unwrap().remove("program");
        assert_eq!(comparable(before.clone()), comparable(now));
        let by_page = event(pb::EventCaller { program: "page".into(), ..caller }).json();
        assert_ne!(comparable(before), comparable(by_page));
        assert_eq!(comparable(json!({ "revision": 1 })), "{\"revision\":1}");
    }

    #[test]
    fn an_export_has_a_line_for_each_entry_and_may_end_within_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("export");
        std::fs::write(
            &path,
            "{\"revision\":1,\"kind\":\"a\"}\n{\"kind\":\"a\",\"revision\":1}\n{\"revision\":2}\n{\"revis",
        )
        .unwrap();
        let read_now = || read(&path).map(|trail| trail.values().map(BTreeSet::len).collect::<Vec<_>>());
        assert_eq!(read_now(), Ok(vec![1, 1]));
        for wrong in ["x\n", "{}\n", "{\"revision\":1}\nx\n", "[]\n", "{\"revision\":\"1\"}\n"] {
            std::fs::write(&path, wrong).unwrap();
            assert!(read(&path).is_err(), "{wrong:?}");
        }
    }
}
