//! Certificates, authorities, tokens, keys and roles are exchanged under many open watches and two commands in progress: what may live loses
//! nothing, and what may not is cut. The times are printed: `cargo test --workspace --test e2e rotation:: -- --nocapture | grep ROTATION`.

use crate::issuer::{Issuer, Signer, github, with};
use crate::support::{LOCAL, PATIENCE, Server, quiet, text};
use serde_json::json;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use wharfinger::pb::lease_service_client::LeaseServiceClient;
use wharfinger::pb::watch_response::Event;
use wharfinger::pb::{LeaseRequest, LeaseState, Outcome, ReleaseRequest, Selector, WatchRequest};
use wharfinger_client::internal::parse_addresses;
use wharfinger_client::{ClientOptions, ClientSettings};

const AUDIENCE: &str = "https://wharfinger.farm.example.org";
/// Watches of one connection.
const STREAMS: usize = 25;
/// Maximum time from SIGHUP to the last cut, on a busy machine. The figure that counts is printed; it should be within a second.
const LIMIT: Duration = Duration::from_secs(15);

/// Minimum number of leases that come and go meanwhile.
const LEASES: usize = 10;

/// How a caller proves who it is.
#[derive(Clone)]
enum By {
    Bearer(String),
    /// The name of a pair in the server's folder.
    Pair(&'static str),
}

/// One watch, from its start on.
struct Watched {
    group: &'static str,
    told: Arc<Mutex<Told>>,
}

/// Events of a watch.
#[derive(Default)]
struct Told {
    ended: BTreeSet<String>,
    /// Each change, by lease and revision.
    changes: BTreeSet<(String, u64)>,
    twice: usize,
}

/// The end of a watch.
struct End {
    group: &'static str,
    at: Instant,
    status: Option<Status>,
}

struct World {
    server: Server,
    issuer: Issuer,
    /// Texts and hashes of tokens by a name.
    tokens: BTreeMap<&'static str, (String, String)>,
    runtime: tokio::runtime::Runtime,
    ends: (mpsc::Sender<End>, mpsc::Receiver<End>),
    watches: Vec<Watched>,
    /// The number of watches that were cut.
    cut: Cell<usize>,
}

/// The keys of the configuration at a time.
#[derive(Clone)]
struct Settings {
    authorities: &'static str,
    /// Hashes of the token that is replaced.
    swapped: Vec<&'static str>,
    leaver: bool,
    grant: bool,
    narrowed: bool,
}

impl World {
    fn prepared() -> Self {
        let mut server = Server::prepared("w.db");
        server.address = server.address.replace("http://", "https://");
        for (directory, domain) in [("ca", "farm"), ("old", "farm"), ("next", "farm")] {
            server.pki(&["init", directory, "--domain", domain]);
        }
        server.pki(&["server", "ca", "--name", "127.0.0.1", "--for", "1h"]);
        for (ca, name) in [("ca", "stays"), ("ca", "revoked"), ("old", "moves"), ("old", "builder")] {
            server.pki(&["client", ca, "--uri", &format!("spiffe://farm/{name}"), "--for", "1h"]);
        }
        server.pki(&["client", "ca", "--uri", "spiffe://farm/spare", "--for", "1h"]);
        server.pki(&["revoke", "ca", "spare.pem"]);
        let both =
            ["ca", "next"].map(|ca| std::fs::read_to_string(server.folder.path().join(ca).join("ca.pem")).unwrap());
        std::fs::write(server.folder.path().join("both.pem"), both.concat()).unwrap();
        let issuer = Issuer::start(&server.folder.path().join("ci"), &[&Signer::p256("none")]);
        let mut tokens = BTreeMap::new();
        for (name, id) in [
            ("stays", "stays"),
            ("old", "swapped"),
            ("new", "swapped"),
            ("leaver", "leaver"),
            ("narrow", "narrow"),
            ("flow", "flow"),
        ] {
            let made = server.json(&["token", "new", id, "--tenant", "web", "--role", "agent", "--expires", "never"]);
            let lines = made["configuration"].as_str().unwrap();
            let hash = lines.lines().find_map(|line| line.strip_prefix("sha256 = ")).unwrap();
            let hash = hash.split('"').nth(1).unwrap().to_owned();
            tokens.insert(name, (made["token"].as_str().unwrap().to_owned(), hash));
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        World { server, issuer, tokens, runtime, ends: mpsc::channel(), watches: Vec::new(), cut: Cell::new(0) }
    }

    fn configure(&self, settings: &Settings) {
        let token = |id: &str, hashes: &[&str], role: &str| {
            let hashes: Vec<String> = hashes.iter().map(|name| format!("{:?}", self.tokens[name].1)).collect();
            format!(
                "[[auth.token]]\nid = \"{id}\"\nsha256 = [{}]\ntenant = \"web\"\nroles = [\"{role}\"]\nexpires = \"never\"\n",
                hashes.join(", ")
            )
        };
        let certificate = |name: &str, role: &str| {
            format!("[[auth.certificate]]\nuri = \"spiffe://farm/{name}\"\ntenant = \"web\"\nroles = [\"{role}\"]\n")
        };
        let grant = |owner: &str| {
            format!(
                "[[auth.issuer.grant]]\nwhen = {{ repository_owner_id = \"{owner}\" }}\ntenant = \"web\"\nroles = [\"lead\"]\n"
            )
        };
        let head = format!(
            "[server.tls]\ncertificate = \"127.0.0.1.pem\"\nkey = \"127.0.0.1.key\"\nclient_ca = [{authorities}]\nclient_auth = \"optional\"\n\
             crl = [\"ca/revoked.pem\"]\nreload_every = \"1h\"\n\
             [auth]\naudience = \"{AUDIENCE}\"\n{tokens}{certificates}\
             [[auth.issuer]]\nname = \"github\"\npreset = \"github\"\nissuer = \"{url}\"\nalgorithms = [\"ES256\"]\nca_file = \"{ca}\"\n\
             {stays}{goes}\
             [[role]]\nname = \"narrow\"\n[[role.allow]]\nverbs = [\"get\", \"list\"{watch}]\npools = [\"hosts\"]\nscope = \"tenant\"\n",
            authorities = settings.authorities,
            tokens = [
                token("stays", &["stays"], "lead"),
                token("flow", &["flow"], "agent"),
                token("swapped", &settings.swapped, "agent\", \"lead"),
                token("narrow", &["narrow"], "narrow"),
                if settings.leaver { token("leaver", &["leaver"], "lead") } else { String::new() },
            ]
            .concat(),
            certificates = [
                certificate("stays", "lead"),
                certificate("revoked", "lead"),
                certificate("moves", "lead"),
                certificate("builder", "agent"),
            ]
            .concat(),
            url = self.issuer.url,
            ca = self.issuer.ca.display(),
            stays = grant("9919"),
            goes = if settings.grant { grant("7") } else { String::new() },
            watch = if settings.narrowed { "" } else { ", \"watch\"" },
        );
        self.server.configure(&head, LOCAL);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.server.folder.path().join(name)
    }

    /// A connection that trusts the servers of this authority.
    async fn connect(&self, ca: &str, by: &By) -> Result<Channel, tonic::transport::Error> {
        let identity = match by {
            By::Bearer(_) => None,
            By::Pair(name) => Some((self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))),
        };
        let tls = ClientSettings { ca: Some(self.path(ca)), identity, server_uri: None };
        let options = ClientOptions { tls, connect_timeout: PATIENCE, ..ClientOptions::default() };
        parse_addresses(&self.server.address, &options).unwrap()[0].connect().await
    }

    /// Whether a caller gets in by a new connection.
    fn enters(&self, ca: &str, by: &By) -> bool {
        self.runtime.block_on(async {
            let Ok(channel) = self.connect(ca, by).await else { return false };
            let listed =
                LeaseServiceClient::new(channel).list(signed(by, wharfinger::pb::ListRequest::default())).await;
            listed.is_ok()
        })
    }

    fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < PATIENCE, "in vain: {what}\n{}", self.server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Opens watches, and waits until each has what there is.
    fn watch(&mut self, group: &'static str, by: &By, count: usize) {
        let mut opened = Vec::new();
        for first in (0..count).step_by(STREAMS) {
            let channel = self.runtime.block_on(self.connect("both.pem", by)).unwrap();
            for _ in first..count.min(first + STREAMS) {
                let (mut api, by, ends) = (LeaseServiceClient::new(channel.clone()), by.clone(), self.ends.0.clone());
                let told: Arc<Mutex<Told>> = Arc::default();
                self.watches.push(Watched { group, told: told.clone() });
                let (ready, is_ready) = tokio::sync::oneshot::channel();
                opened.push(is_ready);
                self.runtime.spawn(async move {
                    let mut ready = Some(ready);
                    let end = async {
                        let bookmark_interval = Some(prost_types::Duration { seconds: 60, nanos: 0 });
                        let request =
                            WatchRequest { pools: vec!["hosts".into()], bookmark_interval, ..WatchRequest::default() };
                        let mut stream = api.watch(signed(&by, request)).await?.into_inner();
                        while let Some(response) = stream.message().await? {
                            match response.event {
                                Some(Event::Bookmark(bookmark)) if bookmark.synced => {
                                    ready.take().map(|ready| ready.send(()));
                                }
                                Some(Event::Lease(lease)) => {
                                    let mut told = told.lock().unwrap();
                                    if lease.state() == LeaseState::Released {
                                        told.ended.insert(lease.id.clone());
                                    }
                                    if !told.changes.insert((lease.id, lease.revision)) {
                                        told.twice += 1;
                                    }
                                }
                                _ => {}
                            }
                        }
                        Ok::<(), Status>(())
                    };
                    let status = end.await.err();
                    let _ = ends.send(End { group, at: Instant::now(), status });
                });
            }
        }
        for ready in opened {
            self.runtime.block_on(async { tokio::time::timeout(PATIENCE, ready).await }).expect("it syncs").unwrap();
        }
    }

    /// Reads the configuration again. The watches of these groups end with this code, and no others.
    fn exchange(&self, what: &str, cut: &[(&'static str, Option<Code>)]) {
        assert_eq!(
            self.ends.1.try_iter().map(|end| end.group).collect::<Vec<_>>(),
            Vec::<&str>::new(),
            "before {what}"
        );
        let open = |group: &str| self.watches.iter().filter(|watch| watch.group == group).count();
        let wanted: usize = cut.iter().map(|(group, _)| open(group)).sum();
        let start = Instant::now();
        self.server.reload();
        let mut last = start;
        for _ in 0..wanted {
            let left = (start + PATIENCE).saturating_duration_since(Instant::now());
            let end = self
                .ends
                .1
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("{what}: a watch was not cut\n{}", self.server.log()));
            let (_, code) = cut.iter().find(|(group, _)| *group == end.group).unwrap_or_else(|| {
                panic!("{what}: a watch of {:?} ended with {:?}\n{}", end.group, end.status, self.server.log())
            });
            if let Some(code) = code {
                assert_eq!(end.status.as_ref().map(Status::code), Some(*code), "{what}: {:?}", end.status);
            }
            last = last.max(end.at);
        }
        let took = last - start;
        assert!(took < LIMIT, "{what}: {took:?}");
        self.cut.set(self.cut.get() + wanted);
        let lives = self.watches.len() - self.cut.get();
        eprintln!(
            "ROTATION {what}: {wanted} watches were cut within {} ms of SIGHUP, {lives} others were not",
            took.as_millis()
        );
    }

    /// Starts a command on a lease of its own that runs until the file `done` is there, and writes a line per start.
    fn run(&self, name: &str, caller: impl Fn(&mut Command)) -> Child {
        let script = format!(
            "echo started >> '{0}'; while ! [ -e '{1}' ]; do sleep 0.1; done",
            self.path(name).display(),
            self.path("done").display()
        );
        let args = ["exec", "--local", "--pool", "hosts", "--ttl", "10s", "--retries", "0", "--", "sh", "-c", &script];
        let mut command = self.server.command(&args);
        caller(command.env("WHARFINGER_CA_FILE", self.path("both.pem")));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        while !self.path(name).exists() {
            assert!(start.elapsed() < PATIENCE, "{name} does not start\n{}", self.server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        child
    }

    /// Puts a new pair of an authority in the place of another, key first.
    fn renew(&self, args: &[&str], name: &str) {
        self.server.pki(&[args, &["--for", "2h", "--out", "again"]].concat());
        for kind in ["key", "pem"] {
            std::fs::rename(self.path(&format!("again/{name}.{kind}")), self.path(&format!("{name}.{kind}"))).unwrap();
        }
    }
}

fn signed<T>(by: &By, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let By::Bearer(token) = by {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

/// Leases and releases until it is stopped. Returns the leases.
fn flow(
    channel: Channel,
    by: &By,
    (stop, count): &(AtomicBool, AtomicUsize),
    runtime: &tokio::runtime::Handle,
) -> BTreeSet<String> {
    let mut leases = BTreeSet::new();
    let mut api = LeaseServiceClient::new(channel);
    while !stop.load(Ordering::SeqCst) {
        let request = LeaseRequest {
            request_id: format!("flow-{}", leases.len()),
            holder: "flow".into(),
            selector: Some(Selector { pool: "hosts".into(), ..Selector::default() }),
            wait: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
            ..LeaseRequest::default()
        };
        let leased = runtime.block_on(api.lease(signed(by, request))).expect("the flow goes on").into_inner();
        let lease_id = leased.lease.unwrap().id;
        let release =
            ReleaseRequest { lease_id: lease_id.clone(), outcome: Outcome::Ok.into(), ..ReleaseRequest::default() };
        runtime.block_on(api.release(signed(by, release))).expect("the flow goes on");
        leases.insert(lease_id);
        count.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(200));
    }
    leases
}

#[test]
fn a_valid_connection_loses_nothing_and_an_invalid_one_is_cut() {
    let _alone = quiet();
    let mut world = World::prepared();
    let (first, second) = (Signer::p256("k1"), Signer::p256("k2"));
    world.issuer.set_keys(&[&first]);
    let mut settings = Settings {
        authorities: "\"ca/ca.pem\", \"old/ca.pem\"",
        swapped: vec!["old"],
        leaver: true,
        grant: true,
        narrowed: false,
    };
    world.configure(&settings);
    world.server.spawn();
    let token = |name: &str| By::Bearer(world.tokens[name].0.clone());
    let [stays, old, new, leaver, narrow, by_flow] = ["stays", "old", "new", "leaver", "narrow", "flow"].map(token);
    world.until("the server answers", || world.enters("ca/ca.pem", &stays));
    let job = |owner: &str, by: &Signer| {
        By::Bearer(by.token(&with(&github(&world.issuer.url, AUDIENCE), &json!({ "repository_owner_id": owner }))))
    };
    let (job_stays, job_goes, by_next_key) = (job("9919", &first), job("7", &first), job("9919", &second));
    let next_certificate = |world: &World| world.enters("next/ca.pem", &By::Pair("stays"));

    // Two commands: one with a token that is replaced, one with a certificate whose authority is.
    let file = world.path("token");
    std::fs::write(&file, &world.tokens["old"].0).unwrap();
    let by_token = world.run("by-token", |command| {
        command.env("WHARFINGER_AUTH_TOKEN_FILE", &file);
    });
    let by_pair = world.run("by-pair", |command| {
        command
            .env("WHARFINGER_CERTIFICATE", world.path("builder.pem"))
            .env("WHARFINGER_CERTIFICATE_KEY", world.path("builder.key"));
    });
    for (group, by, count) in [
        ("token", &stays, 250),
        ("certificate", &By::Pair("stays"), 200),
        ("job by a key that goes", &job_stays, 150),
        ("certificate of an authority that goes", &By::Pair("moves"), 75),
        ("certificate that is revoked", &By::Pair("revoked"), 75),
        ("token with a secret that is replaced", &old, 75),
        ("token that goes", &leaver, 75),
        ("job without a grant", &job_goes, 50),
        ("role without the verb", &narrow, 50),
    ] {
        world.watch(group, by, count);
    }
    let stop = Arc::new((AtomicBool::new(false), AtomicUsize::new(0)));
    let flowing = {
        let channel = world.runtime.block_on(world.connect("both.pem", &by_flow)).unwrap();
        let (stop, runtime) = (stop.clone(), world.runtime.handle().clone());
        std::thread::spawn(move || flow(channel, &by_flow, &stop, &runtime))
    };

    // The server's certificate, by another authority: open connections stay, new ones see it.
    assert!(!next_certificate(&world));
    world.renew(&["server", "next", "--name", "127.0.0.1"], "127.0.0.1");
    world.exchange("the server's certificate", &[]);
    world.until("the new certificate is shown", || next_certificate(&world));

    // The authority of clients.
    world.renew(&["client", "next", "--uri", "spiffe://farm/builder"], "builder");
    settings.authorities = "\"ca/ca.pem\", \"next/ca.pem\"";
    world.configure(&settings);
    world.exchange("the authority of clients", &[("certificate of an authority that goes", None)]);
    assert!(!world.enters("both.pem", &By::Pair("moves")) && world.enters("both.pem", &By::Pair("builder")));

    world.server.pki(&["revoke", "ca", "revoked.pem"]);
    world.exchange("the list of revoked certificates", &[("certificate that is revoked", None)]);
    assert!(!world.enters("both.pem", &By::Pair("revoked")) && world.enters("both.pem", &By::Pair("stays")));

    // A token: both secrets, then the new one alone.
    settings.swapped = vec!["old", "new"];
    world.configure(&settings);
    world.exchange("a second secret of a token", &[]);
    std::fs::write(world.path("token.new"), &world.tokens["new"].0).unwrap();
    std::fs::rename(world.path("token.new"), &file).unwrap();
    world.until("the second secret counts", || world.enters("both.pem", &new));
    settings.swapped = vec!["new"];
    world.configure(&settings);
    world.exchange(
        "the first secret of a token",
        &[("token with a secret that is replaced", Some(Code::Unauthenticated))],
    );
    assert!(!world.enters("both.pem", &old) && world.enters("both.pem", &new));
    settings.leaver = false;
    world.configure(&settings);
    world.exchange("a token", &[("token that goes", Some(Code::Unauthenticated))]);

    // The issuer signs by another key.
    world.issuer.set_keys(&[&first, &second]);
    world.exchange("a key of an issuer", &[]);
    world.until("the second key counts", || world.enters("both.pem", &by_next_key));
    world.watch("job by the next key", &by_next_key, 50);
    settings.grant = false;
    world.configure(&settings);
    world.exchange("a grant of an issuer", &[("job without a grant", Some(Code::Unauthenticated))]);
    world.issuer.set_keys(&[&second]);
    world.exchange("the first key of an issuer", &[("job by a key that goes", Some(Code::Unauthenticated))]);
    assert!(!world.enters("both.pem", &job_stays) && world.enters("both.pem", &by_next_key));
    settings.narrowed = true;
    world.configure(&settings);
    world.exchange("a role", &[("role without the verb", Some(Code::PermissionDenied))]);

    // Nothing is lost, and nothing is sent twice.
    world.until("more changes", || stop.1.load(Ordering::SeqCst) >= LEASES);
    stop.0.store(true, Ordering::SeqCst);
    let leases = flowing.join().unwrap();
    std::fs::write(world.path("done"), "").unwrap();
    for (name, child) in [("by-token", by_token), ("by-pair", by_pair)] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{name}: {}\n{}", text(&output), world.server.log());
        assert_eq!(std::fs::read_to_string(world.path(name)).unwrap(), "started\n", "{name} ran once");
    }
    let start = Instant::now();
    let lives: Vec<_> = world.watches.iter().filter(|watch| ["token", "certificate"].contains(&watch.group)).collect();
    for watch in &lives {
        while !watch.told.lock().unwrap().ended.is_superset(&leases) {
            assert!(start.elapsed() < PATIENCE, "a watch of {:?} was not told of each lease", watch.group);
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(watch.told.lock().unwrap().twice, 0, "{}", watch.group);
    }
    let ended: Vec<_> = world.ends.1.try_iter().map(|end| (end.group, end.status)).collect();
    assert!(ended.is_empty(), "{ended:?}");
    eprintln!("ROTATION {} watches were told of {} leases each, none twice", lives.len(), leases.len());
}
