//! Hooks of a real server: what happens between an entry of the trail and its receiver.

use crate::failover::Farm;
use crate::postgresql::shared;
use crate::support::{LOCAL, PATIENCE, Server, free_port, text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// One delivery.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    id: String,
    signature: String,
    timestamp: String,
    pub(crate) body: Vec<u8>,
    event: Value,
}

/// A receiver over HTTP. It ends when it is dropped.
pub(crate) struct Receiver {
    got: Arc<Mutex<Vec<Got>>>,
    stop: Arc<AtomicBool>,
    port: u16,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Receiver {
    /// `answers`: whether it answers, or lets each request hang.
    pub(crate) fn start(port: u16, answers: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (got, stop): (Arc<Mutex<Vec<Got>>>, Arc<AtomicBool>) = (Arc::default(), Arc::default());
        let (seen, ends) = (got.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut hung = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let Some((one, mut stream)) = read(stream) else { continue };
                seen.lock().unwrap().push(one);
                if answers {
                    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
                } else {
                    hung.push(stream);
                }
            }
        });
        Self { got, stop, port, thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(stream: TcpStream) -> Option<(Got, TcpStream)> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut reader = BufReader::new(stream);
    let mut headers = std::collections::BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None if line.trim_end().is_empty() => break,
            None => None,
        };
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let event = serde_json::from_slice(&body).ok()?;
    let (id, signature, timestamp) = (header("webhook-id"), header("webhook-signature"), header("webhook-timestamp"));
    Some((Got { id, signature, timestamp, body, event }, reader.into_inner()))
}

/// Whether the signature is right, by another library than the server's.
fn is_signed(got: &Got) -> bool {
    let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
    let mut signed = format!("{}.{}.", got.id, got.timestamp).into_bytes();
    signed.extend_from_slice(&got.body);
    let tag = STANDARD.decode(got.signature.strip_prefix("v1,").unwrap_or_default()).unwrap_or_default();
    aws_lc_rs::hmac::verify(&key, &signed, &tag).is_ok()
}

pub(crate) fn secret_in(folder: &std::path::Path) -> String {
    let path = folder.join("hook-secret");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

pub(crate) fn hook(port: u16, secret: &str) -> String {
    format!(
        "[[hook]]\nname = \"ci\"\nformat = \"cloudevents\"\nurl = \"http://127.0.0.1:{port}/hook\"\n\
         secret_file = \"{secret}\"\nkinds = [\"lease.*\"]\ntimeout = \"2s\"\n"
    )
}

/// The kinds and leases of the trail from this revision on, oldest first.
fn trail_from(server: &Server, first: u64) -> Vec<(String, String)> {
    let events = server.json(&["events", "--limit", "1000"]);
    let events = events.as_array().cloned().unwrap_or_else(|| events["events"].as_array().unwrap().clone());
    let mut all: Vec<(u64, String, String)> = events
        .iter()
        .filter(|event| event["kind"].as_str().unwrap().starts_with("lease."))
        .map(|event| {
            let revision = event["revision"].as_u64().or_else(|| event["revision"].as_str()?.parse().ok()).unwrap();
            let lease = event["lease_id"].as_str().or(event["lease"].as_str()).unwrap_or_default();
            (revision, event["kind"].as_str().unwrap().to_owned(), lease.to_owned())
        })
        .collect();
    all.sort_by_key(|(revision, ..)| *revision);
    all.into_iter().filter(|(revision, ..)| *revision >= first).map(|(_, kind, lease)| (kind, lease)).collect()
}

fn trail(server: &Server) -> Vec<(String, String)> {
    trail_from(server, 0)
}

/// The same of what arrived, each id once, and the number of repetitions. The ids must come in order.
fn arrived(got: &[Got]) -> (Vec<(String, String)>, usize) {
    let (mut all, mut last, mut again) = (Vec::new(), (0, 0), 0);
    for one in got {
        assert!(is_signed(one), "{one:?}");
        assert_eq!(one.event["id"].as_str().unwrap(), one.id);
        let (revision, ordinal) = one.id.split_once('.').unwrap();
        let place: (u64, u64) = (revision.parse().unwrap(), ordinal.parse().unwrap());
        if place <= last {
            again += 1;
            continue;
        }
        last = place;
        let data = &one.event["data"];
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        all.push((text("kind"), text("lease")));
    }
    (all, again)
}

fn wait_until_all_arrived(server: &Server, receivers: &[&Receiver]) {
    let begun = Instant::now();
    loop {
        let got: Vec<Got> = receivers.iter().flat_map(|receiver| receiver.got()).collect();
        // A repetition may come in another life of the receiver.
        let (there, _) = arrived(&got);
        // A new hook begins with the entries of that moment.
        let first = got.first().and_then(|one| one.id.split_once('.')?.0.parse().ok()).unwrap_or_default();
        let wanted = trail_from(server, first);
        if !there.is_empty() && there == wanted {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "arrived: {there:#?}\ntrail: {wanted:#?}\n{}", server.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn life(server: &Server) {
    let ran = server.cli(&["run", "-q", "--pool", "hosts", "--", "true"]);
    assert!(ran.status.success(), "{}", text(&ran));
}

#[test]
fn each_entry_arrives_over_a_dead_receiver_and_sigkills_between_event_and_delivery() {
    let port = free_port();
    let mut server = Server::prepared("w.db");
    let secret = secret_in(server.folder.path());
    server.configure(&hook(port, &secret), LOCAL);
    server.run();
    server.wait("the hook to begin", || server.log().contains("serving").then_some(()));
    life(&server);
    // No receiver listens: one line says so, leases go on, and the trail keeps the entries.
    server.wait("the line of the hook", || server.log().contains("the hook cannot deliver").then_some(()));
    life(&server);
    assert_eq!(server.log().matches("the hook cannot deliver").count(), 1, "{}", server.log());
    server.kill();
    server.run();
    // A receiver that takes a message and never answers; the server dies meanwhile.
    let first = {
        let hangs = Receiver::start(port, false);
        server.wait("a delivery under way", || (!hangs.got().is_empty()).then_some(()));
        server.kill();
        hangs.got()[0].clone()
    };
    let receiver = Receiver::start(port, true);
    server.run();
    life(&server);
    wait_until_all_arrived(&server, &[&receiver]);
    let got = receiver.got();
    assert_eq!((&got[0].id, &got[0].event), (&first.id, &first.event), "the same message comes again");
    // A graceful stop stores the place: nothing comes twice.
    assert!(server.stop().success());
    let before = receiver.got().len();
    server.run();
    life(&server);
    wait_until_all_arrived(&server, &[&receiver]);
    let (_, again) = arrived(&receiver.got()[before..]);
    assert_eq!(again, 0);
    let listed = server.cli(&["check-config", server.config().to_str().unwrap(), "--connect"]);
    let said = text(&listed);
    assert!(said.contains(&format!("hook    ci cloudevents: http://127.0.0.1:{port}")), "{said}");
    assert!(said.contains("answers; nothing was sent"), "{said}");
    drop(receiver);
    let refused = server.cli(&["check-config", server.config().to_str().unwrap(), "--connect"]);
    assert_eq!(refused.status.code(), Some(78), "{}", text(&refused));
}

/// A hook that comes, goes and changes with SIGHUP.
#[test]
fn hooks_follow_the_configuration_of_a_running_server() {
    let port = free_port();
    let receiver = Receiver::start(port, true);
    let mut server = Server::prepared("w.db");
    let secret = secret_in(server.folder.path());
    server.configure("", LOCAL);
    server.run();
    life(&server);
    server.configure(&hook(port, &secret), LOCAL);
    server.reload();
    server.wait("the configuration", || server.log().contains("the configuration was read again").then_some(()));
    life(&server);
    server.wait("the end of a lease", || {
        receiver.got().iter().any(|one| one.event["data"]["kind"] == "lease.released").then_some(())
    });
    let (there, again) = arrived(&receiver.got());
    assert!(trail(&server).ends_with(&there) && again == 0, "{there:?} of {:?}", trail(&server));
    assert!(there.len() < trail(&server).len(), "what was before the hook is not carried");
    server.configure("", LOCAL);
    server.reload();
    server.wait("the end of the hook", || server.log().contains("its place in the trail is forgotten").then_some(()));
}

#[test]
fn the_next_leader_goes_on_where_the_former_one_stopped() {
    let Some(cluster) = shared() else { return };
    let port = free_port();
    let receiver = Receiver::start(port, true);
    let folder = tempfile::tempdir().unwrap();
    let head = hook(port, &secret_in(folder.path()));
    let pools = crate::kill::HOSTS.replace("{folder}", &folder.path().display().to_string());
    let mut farm = Farm::empty();
    for _ in 0..2 {
        farm.add(cluster, &head, &|_| pools.clone(), Vec::new());
    }
    let leader = farm.leader();
    life(&farm.servers[leader]);
    farm.servers[leader].wait("the first deliveries", || (!receiver.got().is_empty()).then_some(()));
    life(&farm.servers[leader]);
    farm.servers[leader].kill();
    let next = farm.leader_but(leader);
    life(&farm.servers[next]);
    wait_until_all_arrived(&farm.servers[next], &[&receiver]);
}
