//! Servers of a cluster that know each other by their certificates.

use crate::kill::HOSTS;
use crate::postgresql::{Cluster, schema, shared};
use crate::support::{PATIENCE, Server, text};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::AsyncReadExt;
use wharfinger::client::{Client, ClientOptions, ClientSettings};
use wharfinger::pb::{LeaseRequest, LeaseState, Outcome, Selector};
use wharfinger_tls::pki::Authority;
use wharfinger_tls::spiffe::Uri;
use wharfinger_tls::{ServerSettings, ServerTls};

const SERVER: &str = "spiffe://farm/wharfinger/server";
const HOUR: Duration = Duration::from_secs(3600);

/// Callers, and the names by which servers know each other.
const LINES: &str = r#"
[server.tls]
certificate = "{pki}/server.pem"
key = "{pki}/server.key"
client_ca = "{pki}/ca/ca.pem"
client_auth = "optional"
[cluster.tls]
peers = ["spiffe://farm/wharfinger/server"]
[[auth.certificate]]
uri = "spiffe://farm/agents/"
tenant = "web"
roles = ["agent"]
[[auth.certificate]]
uri = "spiffe://farm/ops"
tenant = "default"
roles = ["admin"]
[[auth.unix]]
uid = {uid}
tenant = "ops"
roles = ["admin"]
"#;

/// Servers on one schema, with one pair of certificates for all, and callers `7` and `ops`.
struct Farm {
    servers: Vec<Server>,
    schema: String,
    pki: tempfile::TempDir,
    _hosts: tempfile::TempDir,
}

/// Makes the pair `NAME.pem` and `NAME.key` of a server with this name.
fn server_pair(authority: &Authority, folder: &Path, name: &str, uri: &str) {
    let into = folder.join(format!("{name}-made"));
    std::fs::create_dir(&into).unwrap();
    let uri = Uri::parse(uri).unwrap();
    let made = authority.server(&into, &["127.0.0.1".into()], Some(&uri), HOUR, SystemTime::now()).unwrap();
    std::fs::rename(made.certificate, folder.join(format!("{name}.pem"))).unwrap();
    std::fs::rename(made.key, folder.join(format!("{name}.key"))).unwrap();
}

impl Farm {
    fn start(cluster: &Cluster, count: usize) -> Farm {
        let (pki, hosts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let authority = Authority::init(&pki.path().join("ca"), "farm", SystemTime::now()).unwrap();
        server_pair(&authority, pki.path(), "server", SERVER);
        for uri in ["spiffe://farm/agents/7", "spiffe://farm/ops"] {
            authority.client(pki.path(), &Uri::parse(uri).unwrap(), HOUR, SystemTime::now()).unwrap();
        }
        let mut farm = Farm { servers: Vec::new(), schema: schema(), pki, _hosts: hosts };
        for _ in 0..count {
            let mut server = farm.prepared(cluster, LINES);
            server.spawn();
            farm.servers.push(server);
        }
        farm
    }

    /// One more server with these lines, which was not started.
    fn prepared(&self, cluster: &Cluster, lines: &str) -> Server {
        let mut server = Server::prepared("unused");
        server.address = server.address.replace("http://", "https://");
        server.env.push(("WHARFINGER_LOG", "debug".into()));
        server.engine = Some(format!(
            "engine = \"postgres\"\nurl = \"{}\"\nschema = \"{}\"\nconnect_timeout = \"2s\"\n\
             [cluster]\nadvertise = \"{}\"\nlead = \"2s\"\nmax_age = \"3s\"",
            cluster.url(),
            self.schema,
            server.address
        ));
        let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
        let lines = lines.replace("{pki}", &self.pki.path().display().to_string()).replace("{uid}", &uid.to_string());
        server.configure(&lines, &HOSTS.replace("{folder}", &self._hosts.path().display().to_string()));
        let config = std::fs::read_to_string(server.config()).unwrap();
        std::fs::write(server.config(), config.replacen("[server]\n", "[server]\nlisten_unix = \"w.sock\"\n", 1))
            .unwrap();
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.pki.path().join(name)
    }

    /// The command line of a caller.
    fn cli(&self, at: usize, name: &str, args: &[&str]) -> Output {
        let mut command = self.servers[at].command(args);
        command
            .env("WHARFINGER_CA_FILE", self.path("ca/ca.pem"))
            .env("WHARFINGER_CERTIFICATE", self.path(&format!("{name}.pem")))
            .env("WHARFINGER_CERTIFICATE_KEY", self.path(&format!("{name}.key")));
        command.output().unwrap()
    }

    fn options(&self, name: &str) -> ClientOptions {
        let identity = Some((self.path(&format!("{name}.pem")), self.path(&format!("{name}.key"))));
        let tls = ClientSettings { ca: Some(self.path("ca/ca.pem")), identity, server_uri: None };
        ClientOptions { retry_for: PATIENCE, tls, ..ClientOptions::default() }
    }

    fn addresses(&self) -> String {
        self.servers.iter().map(|server| server.address.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Waits until one of these servers leads.
    fn leader(&self, among: &[usize]) -> usize {
        let start = Instant::now();
        loop {
            let leads =
                |at: &usize| self.cli(*at, "ops", &["health", "--service", "wharfinger.leader"]).status.success();
            if let Some(at) = among.iter().copied().find(leads) {
                return at;
            }
            assert!(start.elapsed() < PATIENCE, "no server leads\n{}", self.logs());
        }
    }

    fn logs(&self) -> String {
        self.servers.iter().map(|server| format!("---- {}\n{}", server.address, server.log())).collect()
    }

    /// Waits until a call by way of this server is answered so.
    fn until(&self, at: usize, what: &str, args: &[&str], wanted: impl Fn(&Output) -> bool) -> Output {
        let start = Instant::now();
        loop {
            let output = self.cli(at, "7", args);
            if wanted(&output) {
                return output;
            }
            assert!(start.elapsed() < PATIENCE, "{what}: {}\n{}", text(&output), self.logs());
        }
    }
}

fn request(id: &str) -> LeaseRequest {
    LeaseRequest {
        request_id: id.into(),
        holder: id.into(),
        selector: Some(Selector { pool: "hosts".into(), ..Selector::default() }),
        wait: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
        ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        ..LeaseRequest::default()
    }
}

/// Leases are made and ended by way of all servers while the leader is killed.
#[test]
fn leases_go_on_when_the_leader_of_servers_with_tls_dies_under_load() {
    let Some(cluster) = shared() else { return };
    let mut farm = Farm::start(cluster, 3);
    let leader = farm.leader(&[0, 1, 2]);
    let follower = (leader + 1) % 3;
    // By way of a follower: the leader knows who calls by the follower's word, and the follower by its certificate.
    let lease = |output: &Output| serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["lease"].clone();
    let args = ["lease", "--pool", "hosts", "--ttl", "1h", "--wait", "30s", "--json"];
    let kept = lease(&farm.until(follower, "a lease", &args, |output| output.status.success()));
    assert_eq!(kept["principal"], "x509:spiffe://farm/agents/7", "{kept}");
    let trail = farm.cli(leader, "ops", &["events", "--json", "--lease", kept["id"].as_str().unwrap()]);
    let trail: serde_json::Value = serde_json::from_slice(&trail.stdout).unwrap();
    let caller = &trail["events"][0]["caller"];
    assert!(caller["proof"].as_str().unwrap().starts_with("x509:spiffe://farm/agents/7#"), "{trail}");
    assert!(["peer", "via"].iter().all(|part| caller[part].as_str().unwrap().starts_with("127.0.0.1:")), "{trail}");
    let socket = format!("unix://{}", farm.servers[follower].folder.path().join("w.sock").display());
    let mut by_socket = farm.servers[follower].command(&args);
    let by_socket = by_socket.env("WHARFINGER_SERVER", &socket).output().unwrap();
    assert!(by_socket.status.success(), "{}", text(&by_socket));
    assert!(lease(&by_socket)["principal"].as_str().unwrap().starts_with("unix:"), "{}", text(&by_socket));

    let (done, after) = (AtomicU64::new(0), AtomicU64::new(0));
    let (killed, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let (addresses, options) = (farm.addresses(), farm.options("7"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (addresses, options) = (&addresses, options.clone());
            let (done, after, killed, stop, runtime) = (&done, &after, &killed, &stop, &runtime);
            scope.spawn(move || {
                runtime.block_on(async {
                    let client = Client::connect_lazy(addresses, options).unwrap();
                    for round in 0.. {
                        let asked = client.lease(request(&format!("w{worker}-{round}"))).await.unwrap();
                        let lease = asked.lease.unwrap();
                        assert_eq!(lease.state(), LeaseState::Active, "{lease:?}");
                        client.release(&lease.id, Outcome::Ok, "").await.unwrap();
                        done.fetch_add(1, Ordering::SeqCst);
                        if killed.load(Ordering::SeqCst) {
                            after.fetch_add(1, Ordering::SeqCst);
                        }
                        if stop.load(Ordering::SeqCst) {
                            break;
                        }
                    }
                });
            });
        }
        let until = |counter: &AtomicU64, enough: u64, what: &str| {
            let start = Instant::now();
            while counter.load(Ordering::SeqCst) < enough {
                assert!(start.elapsed() < PATIENCE, "{what}");
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        until(&done, 8, "there is no load");
        farm.servers[leader].kill();
        killed.store(true, Ordering::SeqCst);
        until(&after, 12, "nothing goes on after the leader's death");
        stop.store(true, Ordering::SeqCst);
    });
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    let next = farm.leader(&others);
    let id = kept["id"].as_str().unwrap();
    let now = farm.until(next, "the lease", &["get", id, "--json"], |output| output.status.success());
    let now: serde_json::Value = serde_json::from_slice(&now.stdout).unwrap();
    for part in ["state", "access", "fencing_token", "resource_id"] {
        assert_eq!(now[part], kept[part], "{part}");
    }
    let other = others.into_iter().find(|at| *at != next).unwrap();
    let released = farm.until(other, "a release", &["release", id], |output| output.status.success());
    assert!(released.status.success());
}

/// Bytes that a listener in the leader's place got.
async fn attracted(listener: tokio::net::TcpListener, tls: Option<&ServerTls>) -> Vec<u8> {
    let end = tokio::time::Instant::now() + Duration::from_secs(4);
    let mut got = Vec::new();
    while let Ok(Ok((stream, _))) = tokio::time::timeout_at(end, listener.accept()).await {
        let mut bytes = [0; 24];
        let read = match tls {
            None => {
                let mut stream = stream;
                tokio::time::timeout_at(end, stream.read(&mut bytes)).await.ok().and_then(Result::ok)
            }
            Some(tls) => match tls.accept(stream).await {
                Ok(mut accepted) => {
                    tokio::time::timeout_at(end, accepted.stream.read(&mut bytes)).await.ok().and_then(Result::ok)
                }
                Err(_) => None,
            },
        };
        got.extend_from_slice(&bytes[..read.unwrap_or(0)]);
    }
    got
}

/// A program that can write the row of the leader attracts no call, unless it has the certificate of a server.
#[test]
fn a_forged_row_of_the_leader_attracts_nothing() {
    let Some(cluster) = shared() else { return };
    let farm = Farm::start(cluster, 2);
    let leader = farm.leader(&[0, 1]);
    let follower = 1 - leader;
    let renew = ["renew", "lse_00000000000000000000000000"];
    // The leader answers that there is no such lease.
    let known = |output: &Output| output.status.code() == Some(65);
    farm.until(follower, "an answer of the leader", &renew, known);

    let (authority, now) = (Authority::open(&farm.path("ca"), SystemTime::now()).unwrap(), SystemTime::now());
    let stranger = Authority::init(&farm.path("stranger"), "farm", now).unwrap();
    server_pair(&authority, farm.pki.path(), "agent", "spiffe://farm/agents/7-server");
    server_pair(&stranger, farm.pki.path(), "forged", SERVER);
    server_pair(&authority, farm.pki.path(), "other", SERVER);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let truth = &farm.servers[leader].address;
    for (pair, attracts) in [(None, false), (Some("agent"), false), (Some("forged"), false), (Some("other"), true)] {
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let scheme = if pair.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let tls = pair.map(|name| {
            let (certificate, key) = (farm.path(&format!("{name}.pem")), farm.path(&format!("{name}.key")));
            ServerTls::load(ServerSettings { certificate, key, ..ServerSettings::default() }, now).unwrap()
        });
        let set = |address: &str| {
            cluster.sql("wharf", &format!("UPDATE \"{}\".leader SET address = '{address}'", farm.schema))
        };
        set(&address);
        let start = Instant::now();
        while !farm.servers[follower].log().contains(&address) {
            assert!(start.elapsed() < PATIENCE, "the follower does not read the row\n{}", farm.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
        let got = std::thread::scope(|scope| {
            let call = scope.spawn(|| farm.cli(follower, "7", &renew));
            let got = runtime.block_on(attracted(listener, tls.as_ref()));
            set(truth);
            let output = call.join().unwrap();
            // Nothing was done, so that the call is tried again at the true leader; a call that was heard is lost.
            assert!(!output.status.success(), "{}", text(&output));
            got
        });
        assert_eq!(!got.is_empty(), attracts, "{pair:?} got {:?}", String::from_utf8_lossy(&got));
        farm.until(follower, "an answer of the leader", &renew, known);
    }
}

/// A server without the certificate of a server is none: it follows, and its calls are not forwarded.
#[test]
fn a_server_that_cannot_show_the_certificate_of_one_is_refused_before_it_starts() {
    let Some(cluster) = shared() else { return };
    let farm = Farm::start(cluster, 1);
    farm.leader(&[0]);
    let agent = "certificate = \"{pki}/7.pem\"\nkey = \"{pki}/7.key\"\n";
    for (lines, said) in [
        (LINES.replace("peers = ", &format!("{agent}peers = ")), "spiffe://farm/agents/7, which is none of `peers`"),
        (LINES.replace("wharfinger/server\"]", "wharfinger/servers\"]"), "would be refused by a client"),
        (LINES.replace("[cluster.tls]\npeers = [\"spiffe://farm/wharfinger/server\"]", ""), "do not know each other's"),
        (LINES.replace("client_ca = \"{pki}/ca/ca.pem\"\nclient_auth = \"optional\"", ""), "does not ask the others"),
        (LINES.replace("peers = [", "key = \"x\"\npeers = ["), "without the other"),
    ] {
        let server = farm.prepared(cluster, &lines);
        let output = server.cli(&["check-config", server.config().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(78), "{said}: {}", text(&output));
        assert!(text(&output).contains(said), "{said}: {}", text(&output));
    }
    let server = farm.prepared(cluster, LINES);
    let output = server.cli(&["check-config", server.config().to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    // Plaintext at the port of a server.
    let mut plain = farm.servers[0].command(&["ls"]);
    plain.env("WHARFINGER_SERVER", farm.servers[0].address.replace("https://", "http://"));
    assert_eq!(plain.output().unwrap().status.code(), Some(69));
}
