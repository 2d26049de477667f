//! The golden table: the environment of each product, and the request that it makes.

use super::*;
use std::collections::BTreeMap;

/// `[product]`, then the variables, `->`, and the lines of the request.
const TABLE: &str = include_str!("golden.txt");

fn said(wish: Wish, key: Option<&str>, env: &BTreeMap<&str, &str>) -> String {
    let get = |name: &str| env.get(name).filter(|value| !value.is_empty()).map(|value| value.to_string());
    match job(wish, key, &get) {
        Ok(Some(job)) => {
            let tags: Vec<String> = job.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let name = job.product.name();
            format!(
                "ci: {name}\nwork: {}\nholder: {}\nid: {}\ntags: {}\n",
                job.work,
                job.holder,
                job.request_id,
                tags.join("; ")
            )
        }
        Ok(None) => "none\n".into(),
        Err(failure) => format!("{}\n", failure.message),
    }
}

#[test]
fn each_environment_makes_its_request() {
    let mut written = String::new();
    let mut products = std::collections::BTreeSet::new();
    for case in TABLE.split("\n\n").map(str::trim).filter(|case| !case.is_empty()) {
        let (head, rest) = case.split_once('\n').unwrap();
        let (variables, _) = rest.split_once("->").unwrap_or((rest, ""));
        let mut env: BTreeMap<&str, &str> = variables.lines().filter_map(|line| line.split_once('=')).collect();
        let key = env.remove("--ci-key");
        let wish = Wish::parse(env.remove("--ci").unwrap_or("auto")).unwrap();
        let said = said(wish, key, &env);
        products.extend(said.lines().next().and_then(|line| line.strip_prefix("ci: ")).map(String::from));
        written.push_str(&format!("{head}\n{}->\n{said}\n", variables));
    }
    assert_eq!(products.len(), PRODUCTS.len(), "each product has a case: {products:?}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/ci/golden.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &written).unwrap();
    }
    let table = std::fs::read_to_string(path).unwrap();
    assert_eq!(written.trim(), table.trim(), "BLESS=1 writes the table anew; read the difference");
}

#[test]
fn a_request_id_is_one_whatever_the_names_are() {
    let env = |job: &str| {
        let job = job.to_string();
        move |name: &str| match name {
            "GITHUB_ACTIONS" => Some("true".to_string()),
            "GITHUB_RUN_ID" => Some("1".into()),
            "GITHUB_JOB" => Some(job.clone()),
            _ => None,
        }
    };
    let id = |name: &str| job(Wish::Auto, None, &env(name)).unwrap().unwrap().request_id_for(&["make".into()]);
    let long = "x".repeat(500);
    let names = ["a b", "a-b", "ä", "ö", "a\nb", &long, &format!("{long}y")];
    let ids: std::collections::BTreeSet<String> = names.iter().map(|name| id(name)).collect();
    assert_eq!(ids.len(), names.len(), "names that differ have ids that differ: {ids:?}");
    for id in &ids {
        assert!(id.len() <= REQUEST_ID_MAX && id.bytes().all(|byte| byte.is_ascii_graphic()), "{id}");
    }
    assert_eq!(id("a b"), id("a b"), "and the same ones the same");
    let job = job(Wish::Auto, None, &env("a")).unwrap().unwrap();
    assert_ne!(job.request_id_for(&["ab".into(), "c".into()]), job.request_id_for(&["a".into(), "bc".into()]));
}

#[test]
fn a_command_line_goes_before_the_environment() {
    let env = |name: &str| match name {
        "GITLAB_CI" => Some("true".to_string()),
        "CI_JOB_NAME" => Some("test".into()),
        "CI_COMMIT_SHA" => Some("abc".into()),
        _ => None,
    };
    let job = job(Wish::Is(Product::Gitlab), Some("linux"), &env).unwrap().unwrap();
    let mut request = pb::LeaseRequest { work: "mine@1".into(), ..pb::LeaseRequest::default() };
    request.tags.insert("ci_job".into(), "mine".into());
    job.fill(&mut request);
    assert_eq!((request.work.as_str(), request.tags["ci_job"].as_str()), ("mine@1", "mine"));
    assert_eq!(request.tags["ci"], "gitlab");
}
