use super::*;
use crate::auth::{BuiltIn, RoleTable};
use crate::cli::ui::ColorChoice;
use std::path::Path;

const CONFIG: &str = r#"
[[pool]]
name = "linux-1"
adapter = "local"
slots = 2
[pool.local]
root = "/tmp/wharfinger"
[[pool]]
name = "mac"
adapter = "local"
[pool.local]
root = "/tmp/wharfinger"

[[role]]
name = "ci"
[[role.allow]]
verbs = ["lease", "release", "renew", "get"]
pools = ["linux-*"]
scope = "own"
[role.allow.limits]
priority = [-100, 0]
ttl = "30m"
hold = "1m"
taint = "copy"
params = { branch = ["main"] }

[[role]]
name = "janitor"
[[role.allow]]
verbs = ["release"]
pools = ["*"]
scope = "tenant"
[[role.allow]]
verbs = ["resource.drain"]
pools = ["mac"]
scope = "all"

[auth]
[[auth.token]]
id = "web-ci"
sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
tenant = "web"
roles = ["ci"]
expires = "never"
[[auth.token]]
id = "ops"
sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
tenant = "ops"
roles = ["janitor", "reader"]
expires = "2027-01-01T00:00:00Z"
"#;

/// Runs `policy test` with these cases. The texts: standard output is not seen, so each case is judged by itself.
fn judged(folder: &Path, case: &str) -> (Exit, Outcome) {
    let (config, file) = (folder.join("wharfinger.toml"), folder.join("cases.toml"));
    std::fs::write(&config, CONFIG).unwrap();
    std::fs::write(&file, format!("[[case]]\n{case}\n")).unwrap();
    let ui = Ui::new(true, ColorChoice::Never);
    let args = TestArgs { file: file.clone(), config: config.clone() };
    let exit = test(&ui, &args).unwrap_or_else(|failure| panic!("{case}: {}", failure.message));
    let loaded = load(&ui, &config).unwrap_or_else(|_| panic!("the configuration is good"));
    let trust = Trust::everyone();
    trust.set(loaded.auth.clone()).unwrap();
    let cases = cases::read(&file).unwrap();
    let (_, identity) = caller(&trust, &loaded, &cases[0]).unwrap_or_else(|failure| panic!("{}", failure.message));
    let judged = identity.map_err(RpcError::from).and_then(|who| judge(&who, &cases[0].call, &loaded.pools));
    (exit, Outcome::of(judged))
}

#[test]
fn a_case_is_judged_by_the_rules_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let ci = "caller = \"token:web-ci\"\n";
    for (who, call, expect, field) in [
        (ci, "verb = \"lease\"\npool = \"linux-1\"", "allowed", ""),
        (ci, "verb = \"lease\"\npool = \"linux-1\"\npriority = 50", "LIMIT", "priority"),
        (ci, "verb = \"lease\"\npool = \"linux-1\"\nttl = \"31m\"", "LIMIT", "ttl"),
        (ci, "verb = \"lease\"\npool = \"linux-1\"\nttl = \"30m\"\nparams = { branch = \"main\" }", "allowed", ""),
        (ci, "verb = \"lease\"\npool = \"linux-1\"\nparams = { branch = \"dev\" }", "LIMIT", "params[branch]"),
        (ci, "verb = \"lease\"\npool = \"linux-1\"\npriority = 500", "INVALID_REQUEST", "priority"),
        (ci, "verb = \"lease\"\nlabels = { os = \"linux\" }", "allowed", ""),
        (ci, "verb = \"lease\"\npool = \"mac\"", "UNKNOWN_POOL", ""),
        (ci, "verb = \"lease\"\npool = \"nowhere\"", "UNKNOWN_POOL", ""),
        (ci, "verb = \"release\"\npool = \"linux-1\"\noutcome = \"tainted\"", "LIMIT", "outcome"),
        (ci, "verb = \"release\"\npool = \"linux-1\"\noutcome = \"failed\"\nhold = \"1m\"", "allowed", ""),
        (ci, "verb = \"release\"\npool = \"linux-1\"\nhold = \"2m\"", "LIMIT", "hold"),
        (ci, "verb = \"release\"\npool = \"linux-1\"\nlease = \"tenant\"", "UNKNOWN_LEASE", ""),
        (ci, "verb = \"renew\"\npool = \"linux-1\"\nttl = \"31m\"", "LIMIT", "ttl"),
        (ci, "verb = \"get\"\npool = \"linux-1\"\nlease = \"other\"", "UNKNOWN_LEASE", ""),
        (ci, "verb = \"events\"", "NOT_ALLOWED", ""),
        ("caller = \"token:ops\"\n", "verb = \"release\"\npool = \"mac\"\nlease = \"tenant\"", "allowed", ""),
        ("caller = \"token:ops\"\n", "verb = \"release\"\npool = \"mac\"\nlease = \"other\"", "UNKNOWN_LEASE", ""),
        ("caller = \"token:ops\"\n", "verb = \"resource.drain\"\npool = \"mac\"", "allowed", ""),
        ("caller = \"token:ops\"\n", "verb = \"resource.drain\"\npool = \"linux-1\"", "UNKNOWN_RESOURCE", ""),
        ("caller = \"token:nope\"\n", "verb = \"lease\"\npool = \"mac\"", "TOKEN_UNKNOWN", ""),
        ("roles = [\"admin\"]\n", "verb = \"renew\"\npool = \"mac\"\nlease = \"other\"", "NOT_YOURS", "lease_id"),
        ("roles = [\"admin\", \"ci\"]\n", "verb = \"lease\"\npool = \"mac\"\npriority = 100", "allowed", ""),
        ("roles = [\"reader\"]\n", "verb = \"lease\"\npool = \"mac\"", "NOT_ALLOWED", ""),
    ] {
        let (exit, outcome) = judged(folder.path(), &format!("{who}{call}\nexpect = {expect:?}"));
        assert_eq!((outcome.is.as_str(), exit), (expect, Exit::Ok), "{who}{call}: {}", outcome.message);
        assert!(field.is_empty() || outcome.field.as_deref() == Some(field), "{call}: {:?}", outcome.field);
        // Another expectation is a mismatch.
        let other = if expect == "allowed" { "LIMIT" } else { "allowed" };
        let (exit, _) = judged(folder.path(), &format!("{who}{call}\nexpect = {other:?}"));
        assert_eq!(exit, Exit::Command(1), "{call}");
    }
    let (exit, _) = judged(
        folder.path(),
        &format!("{ci}verb = \"lease\"\npool = \"linux-1\"\npriority = 50\nexpect = \"LIMIT\"\nfield = \"ttl\""),
    );
    assert_eq!(exit, Exit::Command(1), "the field is compared, too");
}

#[test]
fn a_file_of_cases_with_mistakes_is_refused_with_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cases.toml");
    for (text, words) in [
        ("", "the file has no case"),
        ("[[case]]\nverb = \"lease\"\nexpect = \"allowed\"", "needs one of `caller` and `roles`"),
        ("[[case]]\nroles = [\"a\"]\ncaller = \"token:x\"\nverb = \"lease\"\nexpect = \"allowed\"", "needs one of"),
        ("[[case]]\nroles = [\"a\"]\nverb = \"laese\"\nexpect = \"allowed\"", "did you mean \"lease\"?"),
        ("[[case]]\nroles = [\"a\"]\nverb = \"lease\"", "no `verb` or no `expect`"),
        ("[[case]]\nroles = [\"a\"]\nverb = \"lease\"\nexpect = \"allowed\"\nprio = 1", "unknown key `prio`"),
        ("[[case]]\nroles = [\"a\"]\nverb = \"lease\"\nexpect = \"allowed\"\nlease = \"mine\"", "`lease` is \"mine\""),
        ("[[case]\n", "not TOML"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = cases::read(&file).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(words), "{text}: {error}");
    }
    std::fs::write(&file, "[[case]]\nroles = [\"a\"]\nverb = \"lease\"\nexpect = \"allowed\"").unwrap();
    assert_eq!(cases::read(&file).unwrap()[0].line, 1);
}

#[test]
fn a_role_as_it_is_printed_is_read_as_the_same_role() {
    for role in BuiltIn::ALL {
        let text = toml_of(&role.role()).replace(&format!("name = {:?}", role.as_str()), "name = \"copy\"");
        let loaded = crate::config::parse(Path::new("wharfinger.toml"), &text).unwrap();
        assert_eq!(loaded.roles.get("copy").unwrap().rules, role.role().rules, "{text}");
    }
    assert_eq!(RoleTable::default().own().len(), 0);
}
