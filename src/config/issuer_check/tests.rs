use crate::config::parse;
use std::path::Path;
use std::time::Duration;
use wharfinger_jwt::{Algorithm, Condition, IssuerSettings, Keys, Preset, Scalar, Template, Test};

fn issuers(lines: &str) -> Result<Vec<IssuerSettings>, String> {
    let source = format!("[auth]\naudience = \"https://wharfinger.example.org\"\n{lines}");
    let loaded = parse(Path::new("/etc/wharfinger/wharfinger.toml"), &source).map_err(|error| error.to_string())?;
    Ok(loaded.auth.unwrap().issuers)
}

const GRANT: &str = "[[auth.issuer.grant]]\ntenant = \"web\"\nroles = [\"agent\"]\n";

#[test]
fn a_preset_has_the_rules_of_its_product() {
    let found =
        issuers(&format!("[[auth.issuer]]\nname = \"gh\"\npreset = \"github\"\n{GRANT}when.repository_id = \"7\""))
            .unwrap();
    let [github] = &found[..] else { panic!("{found:?}") };
    assert_eq!(&*github.issuer, "https://token.actions.githubusercontent.com");
    assert_eq!((&*github.audience, &*github.name), ("https://wharfinger.example.org", "gh"));
    assert_eq!((github.algorithms.as_slice(), github.other_audiences), (&[Algorithm::Rs256][..], false));
    assert_eq!(github.principal, Template::parse(Preset::Github.principal()).unwrap());
    assert_eq!(github.keys, Keys::Discover { hosts: Vec::new() });
    assert_eq!((github.max_lifetime, github.stale_for), (Duration::from_secs(3600), Duration::from_secs(86_400)));
    assert_eq!((&*github.grants[0].tenant, &*github.grants[0].roles[0]), ("web", "agent"));
}

#[test]
fn each_rule_can_be_set() {
    let lines = r#"
[[auth.issuer]]
name = "own"
issuer = "https://issuer.example.org/realm/"
audience = "other"
other_audiences = true
algorithms = ["ES256", "EdDSA"]
types = ["at+jwt"]
max_lifetime = "5m"
keys = { discover = true, hosts = ["keys.example.org"] }
stale_for = "1h"
principal = "sub/{sub}"
require = { ready = true, level = [1, 2] }
refuse = { actor = ["mallory", "eve"] }
[[auth.issuer.grant]]
when = { groups = { contains = "admins" }, "kubernetes.io".namespace = "ci", contains = "x" }
tenant = "web"
roles = ["lead", "agent", "agent"]
"#;
    let found = issuers(lines).unwrap();
    let [own] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        (&*own.issuer, &*own.audience, own.other_audiences),
        ("https://issuer.example.org/realm/", "other", true)
    );
    assert_eq!(own.algorithms, [Algorithm::Es256, Algorithm::EdDsa]);
    assert_eq!(own.types, ["at+jwt"]);
    assert_eq!((own.max_lifetime, own.stale_for), (Duration::from_secs(300), Duration::from_secs(3600)));
    assert_eq!(own.keys, Keys::Discover { hosts: vec!["keys.example.org".into()] });
    let condition = |claim: &str, test| Condition { claim: claim.into(), test };
    let text = |text: &str| Scalar::Text(text.into());
    let level = Test::Is(vec![Scalar::Integer(1), Scalar::Integer(2)]);
    assert_eq!(own.require, [condition("level", level), condition("ready", Test::Is(vec![Scalar::Flag(true)]))]);
    assert_eq!(own.refuse, [condition("actor", Test::Is(vec![text("mallory"), text("eve")]))]);
    let mut when = own.grants[0].when.clone();
    when.sort_by(|a, b| a.claim.cmp(&b.claim));
    assert_eq!(
        when,
        [
            condition("contains", Test::Is(vec![text("x")])),
            condition("groups", Test::Contains(vec![text("admins")])),
            condition("kubernetes.io.namespace", Test::Is(vec![text("ci")])),
        ]
    );
    assert_eq!(own.grants[0].roles.iter().map(|role| &**role).collect::<Vec<_>>(), ["agent", "lead"]);
}

#[test]
fn a_whole_issuer_is_accepted_in_writing_alone() {
    let issuer = |head: &str, grant: &str| issuers(&format!("[[auth.issuer]]\nname = \"x\"\n{head}\n{GRANT}{grant}"));
    let github = "preset = \"github\"";
    let own = "issuer = \"https://issuer.example.org\"";
    for (head, grant) in [
        (github, ""),
        (github, "when.repository_owner = \"acme\""),
        (github, "when.ref = \"refs/heads/main\""),
        ("preset = \"gitlab\"", "when.project_path = \"acme/web\""),
        ("preset = \"gitlab\"\nissuer = \"https://gitlab.example.org\"", "when.ref_protected = \"true\""),
        ("preset = \"buildkite\"", "when.organization_slug = \"acme\""),
        ("preset = \"kubernetes\"\nissuer = \"https://k\"", ""),
        ("issuer = \"https://token.actions.githubusercontent.com\"", "when.repository = \"acme/web\""),
        (own, ""),
    ] {
        let said = issuer(head, grant).unwrap_err();
        assert!(said.contains("ISSUER_IS_SHARED"), "{head} {grant}: {said}");
        assert!(issuer(&format!("{head}\naccept_whole_issuer = true"), grant).is_ok(), "{head} {grant}");
    }
    for (head, grant) in [
        (github, "when.repository_id = \"1\""),
        (github, "when.source_owner_id = \"1\""),
        ("preset = \"github\"\nrequire.repository_owner_id = \"1\"", ""),
        ("preset = \"gitlab\"", "when.namespace_id = \"1\""),
        ("preset = \"buildkite\"", "when.organization_id = \"1\""),
        ("preset = \"kubernetes\"\nissuer = \"https://k\"", "when.kubernetes.io.namespace = \"ci\""),
        (own, "when.sub = \"x\""),
        ("issuer = \"https://issuer.example.org\"\nrequire.sub = \"x\"", ""),
    ] {
        assert!(issuer(head, grant).is_ok(), "{head} {grant}: {:?}", issuer(head, grant));
    }
    // An administrator comes from an issuer of one's own.
    let admin = |head: &str| {
        let lines = GRANT.replace("agent", "admin");
        issuers(&format!("[[auth.issuer]]\nname = \"x\"\n{head}\naccept_whole_issuer = true\n{lines}"))
    };
    assert!(admin(github).unwrap_err().contains("strangers"));
    assert!(admin(own).is_ok());
}
