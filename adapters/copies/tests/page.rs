//! `docs/spoilt.md` has each state that the tests play, with the end that they ask for, and no other.

#![allow(clippy::unwrap_used, reason = "a test: what can't be read ends it")]

#[allow(dead_code, unused_imports, reason = "the other test files use the rest")]
mod support;

use std::collections::BTreeMap;
use support::rows::{self, Ends};

#[test]
fn the_page_has_each_state_and_its_end() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/spoilt.md");
    let page = std::fs::read_to_string(path).unwrap();
    let mut told = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{line}");
        if cells[0] != "state" && !cells[0].starts_with('-') {
            assert!(told.insert(cells[0], (cells[2], cells[3])).is_none(), "twice: {line}");
        }
    }
    let rows: Vec<_> = rows::all().concat();
    for (name, _, ends) in &rows {
        let (noticed, mended) = told.remove(name).unwrap_or_else(|| panic!("the page has no row {name:?}"));
        let (reason, how) = match ends {
            Ends::Mended => ("–".to_string(), "prepared"),
            Ends::Repaired(reason) => (format!("`{reason}`"), "repaired"),
            Ends::Recycled(reason) => (format!("`{reason}`"), "replaced"),
        };
        assert_eq!((noticed, mended), (reason.as_str(), how), "{name}");
    }
    assert_eq!(told.into_keys().collect::<Vec<_>>(), Vec::<&str>::new(), "rows without a test");
    assert!(rows.len() > 140, "{}", rows.len());
}
