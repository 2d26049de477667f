//! The contract with CI products and their users: docs/ci.md against the real program, server and hosts.

mod files;
mod gitlab;
mod held;
mod names;
mod result;
mod rights;
mod schema;
mod signals;

use crate::support::{Server, text};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Output;

/// A run with a result file, and both.
pub(crate) fn run(server: &Server, name: &str, args: &[&str]) -> (Output, Value) {
    let path = server.folder.path().join(format!("{name}.json"));
    let output = server.command(&line(&path, args)).output().unwrap();
    let result = read(&path).unwrap_or_else(|why| panic!("{name}: {why}: {}", text(&output)));
    assert_eq!(output.status.code().map(i64::from), result["exits_with"].as_i64(), "{}\n{result:#}", text(&output));
    (output, result)
}

/// The arguments of a run with a result file.
pub(crate) fn line<'a>(path: &'a std::path::Path, args: &[&'a str]) -> Vec<&'a str> {
    let mut line = vec!["run", "--result", path.to_str().unwrap()];
    line.extend(args);
    line
}

/// A result file, which the schema allows.
pub(crate) fn read(path: &PathBuf) -> Result<Value, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let result = serde_json::from_slice(&bytes)
        .map_err(|error| format!("no JSON ({error}): {}", String::from_utf8_lossy(&bytes)))?;
    schema::check(&result);
    Ok(result)
}
