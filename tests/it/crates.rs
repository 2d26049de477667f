//! Dependencies of the crates, and the metadata for publishing them. `cargo` answers, and nothing is built.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The dependencies that are built into a package, each with its features.
fn tree(arguments: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let fixed = ["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}|{f}"];
    let text = cargo(&[&fixed, arguments].concat());
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (package, features) = line.split_once('|').unwrap_or((line, ""));
        let features = features.trim_end_matches(" (*)").split(',').filter(|one| !one.is_empty()).map(str::to_owned);
        found.entry(package.split(' ').next().unwrap_or_default().to_owned()).or_default().extend(features);
    }
    assert!(found.contains_key("tonic"), "{text}");
    found
}

/// A feature of tonic that only a server needs.
fn serves(tonic: &BTreeSet<String>) -> bool {
    ["server", "router", "transport"].iter().any(|feature| tonic.contains(*feature))
}

#[test]
fn the_agent_has_nothing_of_the_server() {
    let tree = tree(&["-p", "wharfinger", "--no-default-features", "--features", "agent"]);
    for package in tree.keys() {
        let server = ["sqlx", "libsqlite3", "aws-config", "aws-sdk", "axum", "toml"];
        assert!(!server.iter().any(|start| package.starts_with(start)), "the agent has {package}");
        let own = ["wharfinger-core", "wharfinger-ec2", "tonic-reflection", "annotate-snippets", "tracing-subscriber"];
        assert!(!own.contains(&package.as_str()), "the agent has {package}");
    }
    assert!(!serves(&tree["tonic"]), "{:?}", tree["tonic"]);
    assert!(!tree["wharfinger-client"].contains("server"));
    for needed in ["wharfinger-ssh", "wharfinger-copies", "wharfinger-local", "clap"] {
        assert!(tree.contains_key(needed), "`run` needs {needed}");
    }
}

#[test]
fn the_client_library_brings_no_server_and_no_generator() {
    let tree = tree(&["-p", "wharfinger-client"]);
    assert!(!serves(&tree["tonic"]), "{:?}", tree["tonic"]);
    for package in tree.keys() {
        let own =
            package.starts_with("wharfinger") && !["wharfinger-client", "wharfinger-tls"].contains(&package.as_str());
        assert!(!own && package != "axum" && !package.starts_with("prost-build"), "the client has {package}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("client");
    assert!(!folder.join("build.rs").exists(), "users run no build script");
    // let chains need Rust 1.88, and edition 2024.
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("edition = \"2021\"") && manifest.contains("rust-version = \"1.85\""), "{manifest}");
}

#[test]
fn a_published_crate_has_a_complete_manifest_and_needs_nothing_private() {
    let metadata = cargo(&["metadata", "--offline", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |package: &Value| package["name"].as_str().unwrap().to_owned();
    let private: BTreeSet<String> = packages.iter().filter(|package| package["publish"].is_array()).map(name).collect();
    assert_eq!(
        private,
        ["wharfinger-client-generate", "wharfinger-fake", "wharfinger-sim", "wharfinger-testkit"]
            .map(String::from)
            .into()
    );
    for package in packages.iter().filter(|package| package["publish"].is_null()) {
        let name = name(package);
        for field in ["description", "license", "repository", "readme", "rust_version"] {
            assert!(package[field].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {field}");
        }
        for (list, most) in [("keywords", 5), ("categories", 5)] {
            let count = package[list].as_array().unwrap().len();
            assert!((1..=most).contains(&count), "{name} has {count} {list}");
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["path"].is_null() || dependency["kind"] == "dev" {
                continue;
            }
            let other = dependency["name"].as_str().unwrap();
            assert!(!private.contains(other), "{name} needs {other}, which is not published");
            assert_ne!(dependency["req"], "*", "{name} needs {other} in no version");
        }
        let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap();
        let licence = std::fs::read_to_string(folder.join("LICENSE")).unwrap_or_default();
        assert!(licence.contains("Apache License"), "{name} has no LICENSE");
    }
}
