//! Jobs of a CI product on one server: each has tokens of an issuer with an HTTPS server of its own.

use crate::issuer::{Issuer, Mode, Signer, github, now, with};
use crate::support::{LOCAL, Server, text};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

const AUDIENCE: &str = "https://wharfinger.farm.example.org";

struct World {
    server: Server,
    issuer: Issuer,
    signer: Signer,
}

/// The configuration of a server that takes tokens of this issuer.
fn settings(issuer: &Issuer) -> String {
    format!(
        r#"
[auth]
audience = "{AUDIENCE}"
[[auth.issuer]]
name = "github"
preset = "github"
issuer = "{}"
algorithms = ["ES256"]
ca_file = "{}"
refuse = {{ event_name = ["pull_request_target", "workflow_run"] }}
[[auth.issuer.grant]]
when = {{ repository_owner_id = "9919" }}
tenant = "web"
roles = ["agent"]
"#,
        issuer.url,
        issuer.ca.display()
    )
}

impl World {
    /// A server that is not started.
    fn prepared() -> Self {
        let mut server = Server::prepared("w.db");
        server.env.push(("WHARFINGER_LOG", "trace".into()));
        let signer = Signer::p256("k1");
        let issuer = Issuer::start(&server.folder.path().join("ci"), &[&signer]);
        server.configure(&settings(&issuer), LOCAL);
        Self { server, issuer, signer }
    }

    fn serving() -> Self {
        let mut world = Self::prepared();
        world.server.spawn();
        let token = world.token(&json!({}));
        world.server.wait("the server to answer", || world.cli(&token, &["ls"]).status.success().then_some(()));
        world
    }

    fn claims(&self, changes: &Value) -> Value {
        with(&github(&self.issuer.url, AUDIENCE), changes)
    }

    fn token(&self, changes: &Value) -> String {
        self.signer.token(&self.claims(changes))
    }

    fn command(&self, token: &str, args: &[&str]) -> Command {
        let mut command = self.server.command(args);
        command.env("WHARFINGER_AUTH_TOKEN", token);
        command
    }

    fn cli(&self, token: &str, args: &[&str]) -> Output {
        self.command(token, args).output().unwrap()
    }

    /// A lease on the pool of hosts, held by this token's run.
    fn lease(&self, token: &str) -> Value {
        let output = self.cli(token, &["lease", "--pool", "hosts", "--wait", "60s", "--json"]);
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["lease"].clone()
    }
}

#[test]
fn a_run_keeps_its_lease_over_its_tokens_and_no_other_run_has_it() {
    let world = World::serving();
    let first = world.token(&json!({}));
    let lease = world.lease(&first);
    let id = lease["id"].as_str().unwrap();
    assert_eq!(lease["principal"], "jwt:github/repository/1296269/run/777/1");
    // The next token of the same run renews it.
    let second = world.token(&json!({ "jti": "second", "iat": now() - 10, "exp": now() + 200 }));
    assert_ne!(first, second);
    let renewed = world.cli(&second, &["renew", id]);
    assert!(renewed.status.success(), "{}", text(&renewed));
    for other in [json!({ "run_id": "778" }), json!({ "run_attempt": "2" }), json!({ "repository_id": "1" })] {
        let refused = world.cli(&world.token(&other), &["get", id]);
        assert_eq!(refused.status.code(), Some(65), "{other}: {}", text(&refused));
    }
    for (changes, reason) in [
        (json!({ "aud": "https://sts.amazonaws.com" }), "AUDIENCE_MISMATCH"),
        (json!({ "aud": [AUDIENCE, "https://sts.amazonaws.com"] }), "AUDIENCE_MISMATCH"),
        (json!({ "repository_owner_id": "1", "repository_owner": "acme" }), "NO_GRANT"),
        (json!({ "event_name": "pull_request_target" }), "NO_GRANT"),
        (json!({ "iss": "https://token.actions.githubusercontent.com" }), "UNKNOWN_ISSUER"),
        (json!({ "exp": now() - 40 }), "TOKEN_EXPIRED"),
        (json!({ "exp": now() + 90_000 }), "LIFETIME"),
        (json!({ "sub": "" }), "MALFORMED_CREDENTIALS"),
    ] {
        let refused = world.cli(&world.token(&changes), &["ls"]);
        assert_eq!(refused.status.code(), Some(77), "{changes}: {}", text(&refused));
        assert!(text(&refused).contains(reason), "{changes}: {}", text(&refused));
    }
    for (token, reason) in [
        (Signer::p256("k1").token(&world.claims(&json!({}))), "SIGNATURE"),
        (Signer::p256("k9").token(&world.claims(&json!({}))), "UNKNOWN_KEY"),
        (format!("{}.{}.", crate::issuer::encode(r#"{"alg":"none"}"#), first.split('.').nth(1).unwrap()), "MALFORMED"),
        (format!("{first}.x"), "MALFORMED"),
        (first.chars().chain("A".repeat(9000).chars()).collect(), "MALFORMED"),
    ] {
        let refused = world.cli(&token, &["ls"]);
        assert_eq!(refused.status.code(), Some(77), "{token}: {}", text(&refused));
        assert!(text(&refused).contains(reason), "{token}: {}", text(&refused));
    }
    assert!(world.cli(&second, &["release", id]).status.success());
    // No token is in the log or in the database; the reason of a refusal is in the log.
    let log = world.server.log();
    assert!(log.contains("TRACE") && log.contains("\\\"event_name\\\"") || log.contains("\"event_name\""), "{log}");
    for token in [&first, &second] {
        let (_, signature) = token.rsplit_once('.').unwrap();
        assert!(!log.contains(signature), "a token is in the log");
        let database = std::fs::read(world.server.folder.path().join("w.db")).unwrap();
        assert!(!database.windows(signature.len()).any(|part| part == signature.as_bytes()));
    }
}

#[test]
fn a_configuration_is_checked_with_the_keys_of_its_issuers() {
    let world = World::prepared();
    let check = || {
        let path = world.server.config();
        let output = world.server.cli(&["check-config", "--connect", path.to_str().unwrap()]);
        (output.status.code(), text(&output))
    };
    // The repository of the copies does not exist, so that the exit code says nothing of the issuer.
    let (_, said) = check();
    assert!(said.contains("issuer github") && said.contains("good     keys: 1"), "{said}");
    world.issuer.set(Mode::Other);
    let (code, said) = check();
    assert_eq!((code, said.contains("another issuer")), (Some(78), true), "{said}");
}

#[test]
fn keys_may_be_out_of_reach_at_the_start_and_later_and_may_change() {
    let mut world = World::prepared();
    world.issuer.set(Mode::Down);
    world.server.spawn();
    let token = world.token(&json!({}));
    // No answer says that the token is bad: an agent tries again.
    world.server.wait("the server to refuse", || {
        let refused = world.cli(&token, &["ls"]);
        assert_eq!(refused.status.code(), Some(69), "{}", text(&refused));
        text(&refused).contains("KEYS_UNAVAILABLE").then_some(())
    });
    world.issuer.set(Mode::Serve);
    world.server.wait("the keys to be fetched", || world.cli(&token, &["ls"]).status.success().then_some(()));
    for mode in [Mode::Down, Mode::Status(500), Mode::Keys("{}".into())] {
        world.issuer.set(mode);
        assert!(world.cli(&world.token(&json!({ "jti": "later" })), &["ls"]).status.success());
    }
    // The issuer begins with another key. The first token by it makes the server look.
    world.issuer.set(Mode::Serve);
    let next = Signer::p256("k2");
    let by_next = next.token(&world.claims(&json!({})));
    world.issuer.set_keys(&[&world.signer, &next]);
    let taken = world.cli(&by_next, &["ls"]);
    assert!(taken.status.success(), "{}", text(&taken));
    assert!(world.cli(&token, &["ls"]).status.success(), "the former key stands beside it");
    let fetched = world.issuer.requests().len();
    for name in 0..20 {
        let stranger = Signer::p256(&format!("random {name}")).token(&world.claims(&json!({})));
        assert_eq!(world.cli(&stranger, &["ls"]).status.code(), Some(77));
    }
    assert!(world.issuer.requests().len() <= fetched + 2, "strangers do not drive the fetches");
}

/// The claims of a token that a server takes for some seconds more, since clocks may differ by 30 seconds.
fn ending(seconds: i64) -> Value {
    json!({ "iat": now() - 300, "nbf": now() - 300, "exp": now() - 30 + seconds })
}

#[test]
fn a_watch_goes_on_with_a_fresh_token_and_ends_with_the_last_one() {
    let world = World::serving();
    let file = world.server.folder.path().join("token");
    let write = |token: &str| {
        let new = file.with_extension("new");
        std::fs::write(&new, token).unwrap();
        std::fs::rename(&new, &file).unwrap();
    };
    let last = world.token(&ending(6));
    write(&last);
    let mut goes_on = world.server.command(&["watch"]);
    goes_on.env("WHARFINGER_AUTH_TOKEN_FILE", &file).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut goes_on = goes_on.spawn().unwrap();
    let mut ends = world.command(&last, &["watch"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let before = world.lease(&world.token(&json!({})));
    let mut lines = BufReader::new(goes_on.stdout.take().unwrap()).lines().map(Result::unwrap);
    let id = before["id"].as_str().unwrap();
    assert!(lines.any(|line| line.contains(id)), "it saw the first lease");
    write(&world.token(&json!({})));
    let end = world.server.wait("the other watch to end", || ends.try_wait().unwrap());
    assert_eq!(end.code(), Some(77));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut ends.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("TOKEN_EXPIRED") || said.contains("CREDENTIAL_EXPIRED"), "{said}");
    assert!(world.cli(&world.token(&json!({})), &["release", id]).status.success());
    let after = world.lease(&world.token(&json!({})));
    assert!(lines.any(|line| line.contains(after["id"].as_str().unwrap())), "it sees the next lease");
    goes_on.kill().unwrap();
    goes_on.wait().unwrap();
}

#[test]
fn each_source_of_a_token_is_used_and_what_runs_for_a_lease_gets_none() {
    let world = World::serving();
    let folder = world.server.folder.path();
    let token = world.token(&json!({}));
    let file = folder.join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        (output.status.code(), text(&output))
    };
    let ls = || world.server.command(&["ls"]);
    let (code, out) = said(ls().env("WHARFINGER_AUTH_TOKEN_COMMAND", format!("cat {}", file.display())));
    assert_eq!(code, Some(0), "{out}");
    // A file counts before a command, and a command before a text.
    let (code, out) = said(ls().env("WHARFINGER_AUTH_TOKEN_FILE", &file).env("WHARFINGER_AUTH_TOKEN_COMMAND", "false"));
    assert_eq!(code, Some(0), "{out}");
    for (name, value, says) in [
        ("WHARFINGER_AUTH_TOKEN_FILE", "/nowhere/token", "cannot be read"),
        ("WHARFINGER_AUTH_TOKEN_COMMAND", "false", "failed"),
        ("WHARFINGER_AUTH_TOKEN_COMMAND", "/nowhere/helper", "cannot be started"),
        ("WHARFINGER_AUTH_TOKEN", "two words", "holds no token"),
        ("WHARFINGER_OIDC", "github", "ACTIONS_ID_TOKEN_REQUEST_URL is not set"),
        ("WHARFINGER_OIDC", "gitlab", "WHARFINGER_ID_TOKEN is not set"),
        ("WHARFINGER_OIDC", "kubernetes", "/var/run/secrets/wharfinger/token"),
        ("WHARFINGER_OIDC", "buildkite", "buildkite-agent"),
    ] {
        let (code, out) =
            said(ls().env_remove("ACTIONS_ID_TOKEN_REQUEST_URL").env("PATH", "/bin:/usr/bin").env(name, value));
        assert_eq!((code, out.contains(says)), (Some(76), true), "{name}={value}: {out}");
    }
    // As in a job of GitHub: the product's server is asked for a token with our audience.
    world.issuer.issue(&token);
    let job = |command: &mut Command| {
        command
            .env("ACTIONS_ID_TOKEN_REQUEST_URL", format!("{}/token?api-version=2.0", world.issuer.url))
            .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "secret")
            .env("SSL_CERT_FILE", &world.issuer.ca);
    };
    let mut command = world.server.command(&["ls", "--oidc", "github", "--audience", AUDIENCE]);
    job(&mut command);
    let (code, out) = said(&mut command);
    assert_eq!(code, Some(0), "{out}");
    let asked = "/token?api-version=2.0&audience=https%3A%2F%2Fwharfinger.farm.example.org";
    assert!(world.issuer.requests().iter().any(|path| path == asked), "{:?}", world.issuer.requests());
    let (code, out) = said(command.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "wrong"));
    assert_eq!((code, out.contains("id-token: write")), (Some(76), true), "{out}");
    let (code, out) = said(world.server.command(&["ls", "--oidc", "gitlab"]).env("WHARFINGER_ID_TOKEN", &token));
    assert_eq!(code, Some(0), "{out}");

    for (more, oidc) in [(&[][..], "some"), (&["--scrub-oidc"], "none")] {
        let script = "echo auth=$(env | grep -c '^WHARFINGER_AUTH_\\|^WHARFINGER_ID_TOKEN'); \
                      echo oidc=${ACTIONS_ID_TOKEN_REQUEST_TOKEN:+some}${ACTIONS_ID_TOKEN_REQUEST_TOKEN:-none}";
        let args = [&["exec", "--local", "--pool", "hosts"], more, &["--", "sh", "-c", script]].concat();
        let mut command = world.server.command(&args);
        job(command.env("WHARFINGER_AUTH_TOKEN_FILE", &file).env("WHARFINGER_ID_TOKEN", &token));
        let (code, out) = said(&mut command);
        assert_eq!((code, out.contains("auth=0")), (Some(0), true), "{out}");
        assert!(out.contains(&format!("oidc={oidc}")), "{out}");
    }
}
