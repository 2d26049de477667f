//! Two teams and an operator on one server, each with a token.

use crate::support::{LOCAL, Server, text};
use std::process::{Command, Output, Stdio};

/// A caller: the text of its token, and the lines with which the server knows it.
pub(crate) struct Caller {
    pub(crate) token: String,
    pub(crate) lines: String,
}

pub(crate) fn caller(server: &Server, id: &str, tenant: &str, role: &str) -> Caller {
    let made = server.json(&["token", "new", id, "--tenant", tenant, "--role", role, "--expires", "never"]);
    let part = |name: &str| made[name].as_str().unwrap().to_owned();
    Caller { token: part("token"), lines: part("configuration") }
}

impl Caller {
    pub(crate) fn command(&self, server: &Server, args: &[&str]) -> Command {
        let mut command = server.command(args);
        command.env("WHARFINGER_AUTH_TOKEN", &self.token);
        command
    }

    pub(crate) fn cli(&self, server: &Server, args: &[&str]) -> Output {
        self.command(server, args).output().unwrap()
    }

    pub(crate) fn json(&self, server: &Server, args: &[&str]) -> serde_json::Value {
        let output = self.cli(server, &[args, &["--json"]].concat());
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// A server that knows these callers.
fn serving(server: &mut Server, callers: &[&Caller]) {
    let lines: String = callers.iter().map(|caller| caller.lines.as_str()).collect();
    server.configure(&lines, LOCAL);
    server.spawn();
    let first = callers[0];
    server.wait("the server to answer", || first.cli(server, &["pools"]).status.success().then_some(()));
}

#[test]
fn each_team_sees_its_own_leases_and_an_operator_sees_all() {
    let mut server = Server::prepared("w.db");
    server.env.push(("WHARFINGER_LOG", "trace".into()));
    let web = caller(&server, "web-ci", "web", "agent");
    let other = caller(&server, "other-ci", "other", "agent");
    let ops = caller(&server, "ops", "ops", "admin");
    serving(&mut server, &[&web, &other, &ops]);

    for (who, output) in [
        ("nobody", server.cli(&["ls"])),
        ("a stranger", server.command(&["ls"]).env("WHARFINGER_AUTH_TOKEN", &web.token[..20]).output().unwrap()),
    ] {
        assert_eq!(output.status.code(), Some(77), "{who}: {}", text(&output));
    }
    assert!(server.cli(&["health"]).status.success(), "health needs no token");

    let leased = web.json(&server, &["lease", "--pool", "hosts", "--wait", "60s", "--holder", "web build"]);
    let id = leased["lease"]["id"].as_str().unwrap().to_owned();
    assert_eq!(leased["lease"]["principal"], "token:web-ci");
    let sees = |who: &Caller| text(&who.cli(&server, &["ls"])).contains(&id);
    assert!(sees(&web) && sees(&ops) && !sees(&other));
    for args in [&["get", &*id][..], &["release", &id], &["renew", &id], &["explain", &id], &["why", &id]] {
        let refused = other.cli(&server, args);
        assert_eq!(refused.status.code(), Some(65), "{args:?}: {}", text(&refused));
        assert!(!text(&refused).contains("web build") && !text(&refused).contains("web-ci"), "{}", text(&refused));
    }
    for args in [&["resources"][..], &["events"], &["cordon", "--pool", "hosts"], &["break", &id, "--reason", "x"]] {
        let refused = other.cli(&server, args);
        assert_eq!(refused.status.code(), Some(77), "{args:?}: {}", text(&refused));
    }
    assert!(ops.cli(&server, &["resources"]).status.success());

    // A process of a lease does not speak for its holder.
    let script = "echo token=${WHARFINGER_AUTH_TOKEN:-none}";
    let ran = web.cli(&server, &["exec", "--local", "--pool", "hosts", "--", "sh", "-c", script]);
    assert!(ran.status.success() && String::from_utf8_lossy(&ran.stdout).contains("token=none"), "{}", text(&ran));
    // In a file.
    let file = server.folder.path().join("token");
    std::fs::write(&file, format!("{}\n", web.token)).unwrap();
    let from_file = server.command(&["get", &id]).env("WHARFINGER_AUTH_TOKEN_FILE", &file).output().unwrap();
    assert!(from_file.status.success(), "{}", text(&from_file));

    assert!(web.cli(&server, &["release", &id]).status.success());
    let log = server.log();
    assert!(log.contains("TRACE"), "the log tells everything");
    for caller in [&web, &other, &ops] {
        assert!(!log.contains(&caller.token), "a token is in the log");
        let database = std::fs::read(server.folder.path().join("w.db")).unwrap();
        assert!(!database.windows(caller.token.len()).any(|part| part == caller.token.as_bytes()));
    }
}

#[test]
fn a_token_that_is_taken_away_ends_its_calls_and_no_others() {
    let mut server = Server::prepared("w.db");
    let web = caller(&server, "web-ci", "web", "agent");
    let ops = caller(&server, "ops", "ops", "admin");
    serving(&mut server, &[&ops, &web]);
    let watch =
        |who: &Caller| who.command(&server, &["watch"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut gone, mut stays) = (watch(&web), watch(&ops));
    let lease = web.json(&server, &["lease", "--pool", "hosts", "--wait", "60s"]);
    server.configure(&ops.lines, LOCAL);
    server.reload();
    let end = server.wait("the watch to end", || gone.try_wait().unwrap());
    assert_eq!(end.code(), Some(77));
    assert_eq!(web.cli(&server, &["ls"]).status.code(), Some(77));
    assert!(stays.try_wait().unwrap().is_none(), "an operator goes on watching");
    // The lease ends by its TTL, and by who may end it.
    let id = lease["lease"]["id"].as_str().unwrap();
    assert!(ops.cli(&server, &["break", id, "--reason", "its token is gone"]).status.success());
    stays.kill().unwrap();
    stays.wait().unwrap();
}

#[test]
fn a_role_of_the_configuration_has_its_limits_and_loses_a_verb_at_a_reload() {
    let mut server = Server::prepared("w.db");
    let ci = caller(&server, "ci", "web", "small");
    let rule = |verbs: &str| {
        format!(
            "{}[[role]]\nname = \"small\"\n[[role.allow]]\nverbs = [{verbs}]\npools = [\"host*\"]\nscope = \"own\"\n\
             [role.allow.limits]\npriority = [-10, 0]\n",
            ci.lines
        )
    };
    let all = "\"lease\", \"release\", \"renew\", \"get\", \"watch\", \"pool.get\"";
    server.configure(&rule(all), LOCAL);
    server.spawn();
    server.wait("the server to answer", || ci.cli(&server, &["pools"]).status.success().then_some(()));
    let who = ci.json(&server, &["whoami"]);
    assert_eq!((&who["principal"], &who["roles"][0]), (&"token:ci".into(), &"small".into()), "{who}");
    assert_eq!(who["rules"][0]["limits"]["priority"], "-10 to 0");
    let exit = |args: &[&str]| ci.cli(&server, args).status.code();
    assert_eq!((exit(&["can-i", "lease", "hosts"]), exit(&["can-i", "resource.drain", "hosts"])), (Some(0), Some(1)));
    assert_eq!(exit(&["can-i", "laese"]), Some(65));

    let lease = ["lease", "--pool", "hosts", "--wait", "60s"];
    let refused = ci.cli(&server, &[&lease[..], &["--priority", "5"]].concat());
    assert_eq!(refused.status.code(), Some(77), "{}", text(&refused));
    assert!(text(&refused).contains("priority: 5; role \"small\" allows -10 to 0"), "{}", text(&refused));
    let leased = ci.json(&server, &[&lease[..], &["--priority", "0"]].concat());
    let id = leased["lease"]["id"].as_str().unwrap();

    let mut watch = ci.command(&server, &["watch"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(watch.stdout.as_mut().unwrap()), &mut line).unwrap();
    assert!(line.contains(id), "{line}");
    server.reload();
    assert!(watch.try_wait().unwrap().is_none(), "nothing has changed");
    server.configure(&rule("\"lease\", \"release\", \"pool.get\""), LOCAL);
    server.reload();
    let end = server.wait("the watch to end", || watch.try_wait().unwrap());
    let mut words = String::new();
    std::io::Read::read_to_string(&mut watch.stderr.take().unwrap(), &mut words).unwrap();
    assert!(end.code() == Some(77) && words.contains("NO_LONGER_ALLOWED"), "{end:?} {words}");
    assert_eq!(exit(&["get", id]), Some(77));
    assert_eq!(exit(&["release", id]), Some(0), "it stays its holder's");
}
