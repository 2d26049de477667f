use super::*;
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn a_format_is_chosen_by_accept() {
    let asked =
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5";
    assert_eq!(Exposition::of_accept(asked), Exposition::OpenMetrics);
    assert_eq!(Exposition::of_accept("text/plain"), Exposition::Text);
    assert_eq!(Exposition::of_accept(""), Exposition::Text);
}

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default()
}

/// docs/metrics.md has a table of all metrics. `WHARFINGER_REGENERATE=1` writes it anew.
#[test]
fn each_metric_is_in_the_documentation() {
    let rows = Metrics::new()
        .catalogue()
        .into_iter()
        .map(|entry| format!("| `{}` | {} | {} |\n", entry.name, entry.kind, entry.help));
    let table: String = rows.collect();
    let (path, text) = ("docs/metrics.md", file("docs/metrics.md"));
    let (begin, end) = ("<!-- metrics -->\n", "<!-- end -->");
    let (head, rest) = text.split_once(begin).expect("docs/metrics.md has the place of the table");
    let (now, tail) = rest.split_once(end).expect("the table has an end");
    let wanted = format!("| metric | kind | meaning |\n|---|---|---|\n{table}");
    if std::env::var_os("WHARFINGER_REGENERATE").is_some() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), format!("{head}{begin}{wanted}{end}{tail}"))
            .unwrap();
    } else {
        assert_eq!(now, wanted, "{path} is old: run this test with WHARFINGER_REGENERATE=1");
    }
}

/// The names of metrics in a text, without the suffixes of histograms.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let ours = words
        .filter(|word| (word.starts_with("wharfinger_") || word.starts_with("grpc_server_")) && !word.contains(':'));
    let bare = |word: &str| {
        ["_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_string()
    };
    ours.map(bare).collect()
}

#[test]
fn rules_boards_and_documents_name_only_what_is_exposed() {
    let known: BTreeSet<String> = Metrics::new().catalogue().into_iter().map(|entry| entry.name).collect();
    for path in [
        "deploy/observability/alerts.yaml",
        "deploy/observability/alerts-test.yaml",
        "deploy/observability/board.json",
        "docs/metrics.md",
    ] {
        let named = names(&file(path));
        assert!(named.len() >= 7, "{path}: {named:?}");
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{path} names {unknown:?}");
    }
}

/// The document has the meaning and the remedy of each alert.
#[test]
fn each_alert_is_explained() {
    let alerts = file("deploy/observability/alerts.yaml");
    let text = file("docs/metrics.md");
    let named: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(named.len() >= 12, "{named:?}");
    for alert in named {
        assert!(text.contains(&format!("### {alert}\n")), "docs/metrics.md does not explain {alert}");
    }
}
