//! `run --ci`: names by the environment, and the log of the product.

use crate::support::{Server, local, text};
use serde_json::json;
use std::process::Output;

const GITHUB: [(&str, &str); 9] = [
    ("GITHUB_ACTIONS", "true"),
    ("GITHUB_REPOSITORY", "octo/app"),
    ("GITHUB_WORKFLOW", "CI"),
    ("GITHUB_JOB", "test"),
    ("GITHUB_SHA", "ffac537e"),
    ("GITHUB_SERVER_URL", "https://github.com"),
    ("GITHUB_RUN_ID", "1658821493"),
    ("GITHUB_RUN_ATTEMPT", "1"),
    ("GITHUB_ACTION", "__run"),
];

fn run(server: &Server, env: &[(&str, &str)], command: &[&str]) -> (Output, serde_json::Value) {
    let path = server.folder.path().join("ci.json");
    let args = super::line(&path, &["--pool", "copies", "--ci", "auto", "--"]);
    // The suite may run in a CI product itself.
    let mut child = server.command(&[&args[..], command].concat());
    for name in [
        "GITHUB_ACTIONS",
        "GITLAB_CI",
        "BUILDKITE",
        "FORGEJO_ACTIONS",
        "GITEA_ACTIONS",
        "JENKINS_URL",
        "CI_SYSTEM_NAME",
    ] {
        child.env_remove(name);
    }
    let output = child.envs(env.iter().copied()).output().unwrap();
    let result = super::read(&path).unwrap_or_else(|why| panic!("{why}: {}", text(&output)));
    (output, result)
}

#[test]
fn a_job_gives_its_names_and_its_log_folds() {
    let server = local();
    let (output, first) = run(&server, &GITHUB, &["sh", "-c", "echo '##[error] ::error::of the build'; exit 3"]);
    assert_eq!((&first["ci"], &first["work"]), (&json!("github"), &json!("octo/app/CI/test@ffac537e")), "{first:#}");
    assert_eq!(first["holder"], "https://github.com/octo/app/actions/runs/1658821493");
    let lease = server.json(&["get", first["lease"].as_str().unwrap()]);
    assert_eq!((&lease["work"], &lease["tags"]["ci_job"]), (&first["work"], &json!("test")), "{lease}");
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(
        said.contains("\n::group::wharfinger: attempt 1 of 3: waiting for a host\n") || said.starts_with("::group::"),
        "{said}"
    );
    assert_eq!((said.matches("::group::").count(), said.matches("::endgroup::").count()), (1, 1), "{said}");
    let error = said.lines().find(|line| line.starts_with("::error ")).unwrap_or_else(|| panic!("{said}"));
    assert!(
        error.starts_with("::error title=whose fault%3A UNDECIDED::") && error.contains("wharfinger why lse_"),
        "{error}"
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "##[error] ::error::of the build\n",
        "the command's own is its own"
    );

    // The same command again in the same job: another lease.
    let (_, second) = run(&server, &GITHUB, &["sh", "-c", "echo '##[error] ::error::of the build'; exit 3"]);
    assert_ne!(first["lease"], second["lease"]);
    let base = first["request_id"].as_str().unwrap();
    assert!(base.starts_with("gh-1658821493-1-test-__run-"), "{base}");
    assert_eq!(second["request_id"], format!("{base}+2"));

    let gitlab = [
        ("GITLAB_CI", "true"),
        ("CI_JOB_ID", "50"),
        ("CI_JOB_NAME", "t"),
        ("CI_PROJECT_PATH", "g/a"),
        ("CI_COMMIT_SHA", "1"),
    ];
    let (output, third) = run(&server, &gitlab, &["true"]);
    assert_eq!((&third["ci"], &third["ended"]), (&json!("gitlab"), &json!("command")), "{third:#}");
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(said.contains("section_start:") && said.contains("wharfinger_1_wait[collapsed=true]\r"), "{said:?}");
    assert_eq!(said.matches("section_start:").count(), said.matches("section_end:").count(), "{said:?}");

    let (output, none) = run(&server, &[], &["true"]);
    assert_eq!(none["ci"], json!(null), "{none:#}");
    assert!(!text(&output).contains("group"), "{}", text(&output));
}
