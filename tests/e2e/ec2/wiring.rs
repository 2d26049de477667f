//! The templates of docs/ec2: all forms have the same permissions, and cfn-lint accepts the stack.

use crate::grpcurl::tool;
use crate::support::text;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ec2").join(name)
}

/// Returns the actions in a file, such as `ec2:RunInstances`.
fn actions(name: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file(name)).unwrap();
    let part = |c: char| c.is_ascii_alphanumeric() || c == ':';
    text.split(|c| !part(c))
        .filter(|word| ["ec2:", "sqs:", "ssm:", "autoscaling:"].iter().any(|service| word.starts_with(service)))
        .filter(|word| word.split_once(':').is_some_and(|(_, name)| name.starts_with(char::is_uppercase)))
        .map(String::from)
        .collect()
}

#[test]
fn the_policy_is_the_same_in_each_form() {
    let policy = actions("policy.json");
    assert!(policy.len() > 8 && policy.contains("ec2:CreateFleet"), "{policy:?}");
    for other in ["cloudformation.yaml", "main.tf"] {
        assert_eq!(actions(other), policy, "{other}");
    }
}

#[test]
fn cfn_lint_takes_the_template() {
    let Some(lint) = tool("cfn-lint") else { return };
    let output = Command::new(lint).arg(file("cloudformation.yaml")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}
