//! Each kind of mistake with its exact message, and what a good file becomes.
//!
//! The messages are in `mistakes.txt`: a title, the file, what it is refused with. `BLESS=1 cargo test -p wharfinger
//! config::tests` writes them anew; read the difference.

use super::{ConfigError, StoreConfig, load, parse};
use std::fmt::Write as _;
use std::path::Path;
use wharfinger_core::{Brake, DoubtPolicy, Limits, Millis, Timeouts};

const MISTAKES: &str = include_str!("mistakes.txt");

fn refusal(source: &str) -> String {
    match parse(Path::new("wharfinger.toml"), source) {
        Ok(loaded) if loaded.warnings.problems().is_empty() => "(accepted)".into(),
        Ok(loaded) => format!("(accepted)\n{}", loaded.warnings.render(false)),
        Err(error) => error.to_string(),
    }
}

/// Whether this program has all that a case names.
fn is_built_in(case: &str) -> bool {
    (cfg!(feature = "ec2") || !case.contains("ec2")) && (cfg!(feature = "postgres") || !case.contains("postgres"))
}

#[test]
fn each_mistake_has_its_message() {
    let mut written = String::new();
    let mut wrong = String::new();
    for case in MISTAKES.split("\n== ").map(|case| case.strip_prefix("== ").unwrap_or(case)) {
        let (title, rest) = case.split_once('\n').expect("a case has a title");
        let (source, wanted) = rest.split_once("-- refused with\n").expect("a case has a refusal");
        if !is_built_in(case) {
            writeln!(written, "== {title}\n{source}-- refused with\n{}\n", wanted.trim()).unwrap();
            continue;
        }
        let said = refusal(source);
        if said.trim() != wanted.trim() {
            writeln!(wrong, "== {title}\n{said}\n-- and not\n{wanted}").unwrap();
        }
        writeln!(written, "== {title}\n{source}-- refused with\n{}\n", said.trim()).unwrap();
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/mistakes.txt"),
            written.trim_end().to_string() + "\n",
        )
        .unwrap();
    } else {
        assert!(wrong.is_empty(), "{wrong}");
    }
}

#[test]
fn an_empty_file_is_a_server_without_pools() {
    let loaded = parse(Path::new("/etc/wharfinger/wharfinger.toml"), "").unwrap();
    assert_eq!(loaded.server.listen.to_string(), "127.0.0.1:7411");
    assert_eq!(loaded.store, StoreConfig::Sqlite("/etc/wharfinger/wharfinger.db".into()));
    assert_eq!(loaded.limits, Limits::default());
    assert!(loaded.pools.is_empty());
}

#[cfg(all(feature = "ec2", feature = "postgres"))] // it shows what they bring
#[test]
fn the_example_is_fine_as_it_is() {
    let source = include_str!("../../wharfinger.example.toml");
    let loaded = parse(Path::new("/etc/wharfinger/wharfinger.toml"), source).unwrap();
    let names: Vec<&str> = loaded.pools.iter().map(|pool| &*pool.name).collect();
    assert_eq!(names, ["here", "copies"]);
    // Each default in the example is the real one: without their comment signs the lines change nothing.
    let all: String = source
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_setting(rest)).unwrap_or(line).to_string() + "\n")
        .collect();
    if let Err(error) = parse(Path::new("/etc/wharfinger/wharfinger.toml"), &all) {
        let said = error.to_string();
        let wrong: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        let missing = "error: the key file /etc/wharfinger/id_ed25519 does not exist";
        assert!(wrong.iter().all(|line| *line == missing), "{said}");
    }
    let shown =
        parse(Path::new("/etc/wharfinger/wharfinger.toml"), all.split("# Machines by SSH").next().unwrap()).unwrap();
    assert_eq!((shown.limits, shown.server.stop_grace), (loaded.limits, loaded.server.stop_grace));
    let (shown, loaded) = (&shown.pools[0], &loaded.pools[0]);
    assert_eq!((shown.doubt, shown.brake), (loaded.doubt, loaded.brake));
    assert_eq!((shown.drain, shown.max_hold), (loaded.drain, loaded.max_hold));
}

#[cfg(all(feature = "ec2", feature = "postgres"))]
/// A line of the example that is a setting in a comment, and not a sentence.
fn is_setting(line: &str) -> bool {
    line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
}

#[test]
fn an_omitted_key_has_its_default() {
    let source = r#"
        [[pool]]
        name = "here"
        adapter = "local"
        [[pool]]
        name = "work"
        adapter = "copies"
        on = "here"
        copies.repository = "/srv/a.git"
    "#;
    let loaded = parse(Path::new("/srv/w/wharfinger.toml"), source).unwrap();
    let [here, work] = loaded.pools.as_slice() else { panic!("{:?}", loaded.pools) };
    assert_eq!((here.max, here.min_ready, here.slots, here.attempts), (1, 0, 1, 5));
    assert_eq!((here.default_ttl, here.max_ttl), (Millis::secs(60), Millis::secs(86_400)));
    assert_eq!((here.doubt, here.timeouts), (DoubtPolicy::default(), Timeouts::default()));
    assert_eq!((here.idle, here.max_age, here.max_uses), (None, None, None));
    assert_eq!((here.brake, here.domain.as_deref(), here.drain), (Brake::default(), None, None));
    assert_eq!(here.max_hold, Millis::secs(86_400));
    assert_eq!((here.isolation, here.reuse_across_tenants), (wharfinger_core::Isolation::None, true));
    assert!(loaded.tenants.is_empty(), "without [[tenant]] there are no limits");
    assert!(here.enabled && here.inventory.is_none() && here.on.is_empty());
    assert_eq!((work.max, work.min_ready), (4, 0));
    assert_eq!(work.on, [std::sync::Arc::from("here")]);
    let local = loaded.adapters["here"].downcast::<wharfinger_local::Config>().unwrap();
    assert_eq!(local.root, Path::new("/srv/w/wharfinger-scratch"));
    let copies = loaded.adapters["work"].downcast::<wharfinger_copies::Config>().unwrap();
    assert_eq!(copies.repository, "/srv/a.git");
}

#[test]
fn all_that_can_be_said_is_taken() {
    let source = r#"
        [server]
        listen = "0.0.0.0:17411"
        allow_remote = true
        stop_grace = "1m"
        [store]
        path = "state/w.db"
        [limits]
        queue = 500
        claims = 8
        retention = "2h"
        grace = "1m"
        pause = "10s"
        max_ttl = "12h"
        patience = "5m"
        [brake]
        floor = 10
        share = 60
        hold = "10m"
        window = "30s"
        [[pool]]
        name = "here"
        adapter = "local"
        labels = { os = "linux", "example.org/zone" = "a" }
        enabled = false
        slots = 4
        min_ready = 1
        max = 3
        idle = "30m"
        max_age = "24h"
        max_uses = 100
        default_ttl = "90s"
        max_ttl = "6h"
        attempts = 9
        domain = "example.org/zone"
        drain = "10m"
        max_hold = "2h"
        isolation = "host"
        reuse_across_tenants = false
        [pool.brake]
        floor = 0
        share = 100
        hold = "0s"
        window = "1s"
        [pool.doubt]
        after_failed = false
        after_lost = false
        probe_interval = "5s"
        retry_interval = "250ms"
        misses = 4
        over = "20s"
        repairs = 0
        false_alarm = "one in 5,000 leases"
        work_after = 0
        dry_run = true
        [pool.timeouts]
        provision = "1m"
        prepare = "2m"
        clean = "3m"
        check = "4s"
        repair = "5m"
        destroy = "6m"
        [pool.local]
        root = "hosts"
        [[pool]]
        name = "work"
        adapter = "copies"
        on = ["here"]
        max_per_parent = 2
        drain = "now"
        [pool.copies]
        repository = "https://example.org/a.git"
        default_branch = "main"
        clean = "keep"
    "#;
    let loaded = parse(Path::new("/srv/w/wharfinger.toml"), source).unwrap();
    assert!(loaded.server.allow_remote);
    assert_eq!(loaded.server.stop_grace.as_secs(), 60);
    assert_eq!(loaded.store, StoreConfig::Sqlite("/srv/w/state/w.db".into()));
    assert_eq!(
        loaded.limits,
        Limits {
            queue: 500,
            claims: 8,
            retention: Millis::secs(7200),
            grace: Millis::secs(60),
            pause: Millis::secs(10),
            brake: Brake { floor: 10, share: 60, hold: Millis::secs(600), window: Millis::secs(30) },
            patience: Millis::secs(300),
            ..Limits::default()
        }
    );
    let here = &loaded.pools[0];
    assert_eq!(here.labels.get("example.org/zone").map(|value| &**value), Some("a"));
    assert_eq!((here.enabled, here.slots, here.min_ready, here.max), (false, 4, 1, 3));
    assert_eq!((here.idle, here.max_age), (Some(Millis::secs(1800)), Some(Millis::secs(86_400))));
    assert_eq!((here.max_uses, here.attempts), (Some(100), 9));
    assert_eq!((here.default_ttl, here.max_ttl), (Millis::secs(90), Millis::secs(21_600)));
    assert_eq!(here.doubt.retry_interval, Millis(250));
    assert_eq!((here.doubt.misses, here.doubt.repairs, here.doubt.after_lost), (4, 0, false));
    assert_eq!((here.doubt.false_alarm, here.doubt.work_after, here.doubt.dry_run), (5_000, 0, true));
    assert_eq!(here.brake, Brake { floor: 0, share: 100, hold: Millis::ZERO, window: Millis::secs(1) });
    assert_eq!((here.domain.as_deref(), here.drain), (Some("example.org/zone"), Some(Millis::secs(600))));
    assert_eq!(here.max_hold, Millis::secs(7200));
    assert_eq!((here.isolation, here.reuse_across_tenants), (wharfinger_core::Isolation::Host, false));
    assert_eq!((here.timeouts.check, here.timeouts.destroy), (Millis::secs(4), Millis::secs(360)));
    let work = &loaded.pools[1];
    assert_eq!((work.max_per_parent, work.max_ttl), (Some(2), Millis::secs(43_200)));
    assert_eq!(work.drain, Some(Millis::ZERO));
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let error = load(Path::new("/nowhere/wharfinger.toml")).expect_err("it is not there");
    assert!(matches!(error, ConfigError::Unreadable { .. }));
    assert!(error.to_string().starts_with("the configuration /nowhere/wharfinger.toml cannot be read: No such file"));
}

#[test]
fn a_change_that_needs_a_restart_is_named() {
    let path = Path::new("/srv/w/wharfinger.toml");
    let one = parse(path, "").unwrap();
    let other = parse(path, "store.path = \"other.db\"\n[server]\nlisten = \"127.0.0.1:1\"").unwrap();
    assert_eq!(one.needs_restart(&one), [""; 0]);
    assert_eq!(one.needs_restart(&other), ["[server]", "[store]"]);
    let other = parse(path, "brake.share = 70").unwrap();
    assert_eq!(one.needs_restart(&other), ["[brake]"]);
    let other = parse(path, "limits.queue = 70").unwrap();
    assert_eq!(one.needs_restart(&other), ["[limits]"]);
    let other = parse(path, "[[pool]]\nname = \"a\"\nadapter = \"local\"\nbrake.share = 70\ndrain = \"now\"").unwrap();
    assert_eq!(one.needs_restart(&other), [""; 0], "a pool's own are taken over by a running server");
}

const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

/// A folder with a good key, and what a file in it with these ssh machines becomes.
fn with_ssh(ssh: &str) -> (tempfile::TempDir, Result<super::Loaded, String>) {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let made =
        std::process::Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    assert!(made.unwrap().success());
    let source =
        format!("[[pool]]\nname = \"hosts\"\nadapter = \"ssh\"\n[pool.ssh]\n{ssh}").replace("HOSTKEY", HOST_KEY);
    let loaded = parse(&folder.path().join("wharfinger.toml"), &source)
        .map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "F"));
    (folder, loaded)
}

#[test]
fn ssh_machines_are_an_inventory() {
    let (folder, loaded) = with_ssh(
        r#"
user = "build"
key = "key"
[[pool.ssh.host]]
name = "one"
address = "10.0.0.1"
host_key = "HOSTKEY"
labels = { cpu = "big" }
slots = 3
[[pool.ssh.host]]
name = "two"
address = "10.0.0.2"
host_key = "10.0.0.2 HOSTKEY"
enabled = false
disabled_reason = "new disk on Monday"
"#,
    );
    // The second host key is a line of ssh-keyscan, with the address in front.
    let loaded = loaded.unwrap();
    let hosts = &loaded.pools[0];
    assert_eq!((hosts.max, hosts.min_ready), (2, 1));
    let items = hosts.inventory.as_ref().unwrap();
    assert_eq!((&*items[0].name, items[0].slots, items[0].enabled), ("one", Some(3), true));
    assert_eq!((&*items[1].name, items[1].slots, items[1].enabled), ("two", None, false));
    let reasons: Vec<Option<&str>> = items.iter().map(|item| item.disabled_reason.as_deref()).collect();
    assert_eq!(reasons, [None, Some("new disk on Monday")]);
    assert_eq!(items[0].labels.get("cpu").map(|value| &**value), Some("big"));
    let ssh = loaded.adapters["hosts"].downcast::<wharfinger_ssh::Config>().unwrap();
    assert_eq!(ssh.key.as_deref(), Some(folder.path().join("key").as_path()));
}

#[test]
fn all_mistakes_in_ssh_machines_are_reported_at_once() {
    let (_folder, loaded) = with_ssh(
        r#"
key = "key"
[[pool.ssh.host]]
name = "one"
address = "10.0.0.1"
user = "build"
host_key = "ssh-ed25519 nonsense"
labels = { "a b" = "c" }
slots = 0
[[pool.ssh.host]]
name = "one"
address = "-oProxyCommand=x"
user = "build"
host_key = "HOSTKEY"
[[pool.ssh.host]]
name = "Three"
address = "10.0.0.3"
host_key = "HOSTKEY"
[[pool.ssh.host]]
name = "four"
address = "10.0.0.4"
user = "build"
key = "elsewhere"
host_key = "HOSTKEY"
"#,
    );
    let said = loaded.expect_err("all of it is wrong");
    let mut rest = said.as_str();
    for wanted in [
        "host_key \"ssh-ed25519 nonsense\" is not a public key",
        "wharfinger.toml:11:12",
        "\"a b\" is not a valid label name",
        "`slots` is 0",
        "two machines have the name \"one\"",
        "address = \"-oProxyCommand=x\" is no host name or address",
        "no user to log in as",
        "\"Three\" is not a valid machine name",
        "the key file F/elsewhere does not exist",
        "8 mistakes",
    ] {
        let at = rest.find(wanted).unwrap_or_else(|| panic!("{wanted:?} is not in, or not at its place in:\n{said}"));
        rest = &rest[at..];
    }
}

#[cfg(feature = "postgres")] // only there several servers share anything
#[test]
fn servers_that_share_a_file_each_advertise_their_own_name() {
    let source = "[store]\nengine = \"postgres\"\nurl = \"postgres:///w\"\n[cluster]\nadvertise = \"http://{hostname}.farm:7411\"\n";
    let advertised = parse(Path::new("wharfinger.toml"), source).unwrap().cluster.unwrap().advertise;
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(advertised, format!("http://{}.farm:7411", name.trim()));
}

const TOKEN: &str = r#"[[auth.token]]
id = "web-ci"
sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
tenant = "web"
roles = ["agent", "lead"]
expires = "2027-03-01T00:00:00Z"
"#;

#[test]
fn callers_are_known_by_the_hashes_of_their_tokens() {
    let parse = |text: &str| parse(Path::new("wharfinger.toml"), text);
    assert_eq!(parse("").unwrap().auth, None);
    let [token] = &parse(TOKEN).unwrap().auth.unwrap().tokens[..] else { panic!("one token") };
    assert_eq!((&*token.id, &*token.tenant, token.roles.to_string().as_str()), ("web-ci", "web", "agent, lead"));
    assert_eq!(
        token.sha256,
        [<[u8; 32]>::try_from(
            crate::auth::unhex("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08").unwrap()
        )
        .unwrap()]
    );
    let at = token.expires.unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(at.as_secs(), 1_803_859_200);
    let never = parse(&TOKEN.replace("2027-03-01T00:00:00Z", "never")).unwrap().auth.unwrap().tokens;
    assert_eq!(never[0].expires, None);
}

#[test]
fn each_mistake_in_a_token_has_its_message_and_no_secret_is_in_it() {
    let twice = format!("{TOKEN}{TOKEN}");
    for (text, says) in [
        ("[auth]\n".to_owned(), "[auth] has no token"),
        (twice, "two tokens have the id \"web-ci\""),
        (TOKEN.replace("web-ci", "Web"), "\"Web\" is not a valid id of a token"),
        (TOKEN.replace("\"web\"", "\"We b\""), "\"We b\" is not a valid name of a tenant"),
        (TOKEN.replace("\"lead\"", "\"leed\""), "did you mean \"lead\"?"),
        (TOKEN.replace("2027-03-01T00:00:00Z", "tomorrow"), "`expires` is not a time"),
        (TOKEN.replace("9f86", "9F86"), "`sha256` is not a SHA-256"),
        (TOKEN.replace("9f86d0", "wfk_"), "`sha256` is a token itself"),
        (TOKEN.replace("sha256 = \"9f86", "sha256 = []\nx = \"9f86"), "this token has 0 hashes"),
        (TOKEN.replace("expires", "expired"), "this token has no `expires`"),
        (TOKEN.replace("tenant = ", "team = "), "this token has no `tenant`"),
        ("[[auth.token]]\nid = \"a\"\n".to_owned(), "`wharfinger token new ID` prints all lines of a token"),
    ] {
        let said = refusal(&text);
        assert!(said.contains(says), "{text}\n{said}");
        assert!(!said.contains("wfk_81d8"), "a token that was pasted is not shown: {said}");
    }
}
