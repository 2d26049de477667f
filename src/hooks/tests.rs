//! Hooks against receivers that fail, hang, refuse, redirect and die. The trail is a real engine's; the receivers are real sockets.

use super::*;
use crate::engine::testing::TrailWriter;
use crate::store::{MemoryStore, StoredEvent};
use crate::telemetry::metrics::Metrics;
use std::path::PathBuf;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;
use wharfinger_core::EventKind;

/// The address of the operator's page.
const PAGE: &str = "https://wharf.example.org";
const PATIENCE: Duration = Duration::from_secs(30);

/// A trail, and the parts of a server that hooks use.
struct Trail {
    writer: TrailWriter,
    store: Arc<MemoryStore>,
    around: Surroundings,
    metrics: Metrics,
}

impl Trail {
    async fn new() -> Self {
        let (writer, metrics) = (TrailWriter::new().await, Metrics::new());
        let (handle, store) = (writer.handle.clone(), writer.store.clone());
        let around = Surroundings {
            handle,
            store: store.clone(),
            told: metrics.told(),
            links: Links::new(PAGE),
            keep_events: Millis::secs(86_400),
        };
        Self { writer, store, around, metrics }
    }

    /// Commits entries of these kinds, each with a revision of its own.
    async fn write(&self, kinds: &[EventKind]) {
        for kind in kinds {
            self.writer.write(*kind, |event| event.detail = Arc::from(format!("entry {}", event.revision.0))).await;
        }
    }

    fn exposed(&self) -> String {
        let server = crate::telemetry::metrics::ServerFacts {
            leads: true,
            revision: 0,
            age: None,
            watches: 0,
            backlog: 0,
            partial: false,
        };
        self.metrics.expose(crate::telemetry::metrics::Exposition::Text, &server, None)
    }
}

/// A request that a receiver got.
#[derive(Clone, Debug)]
struct Got {
    head: String,
    body: serde_json::Value,
}

impl Got {
    fn header(&self, name: &str) -> String {
        let wanted = format!("{name}: ");
        let line = self.head.lines().find(|line| line.to_lowercase().starts_with(&wanted));
        line.map(|line| line[wanted.len()..].to_owned()).unwrap_or_default()
    }

    fn details(&self) -> String {
        self.body["data"]["detail"].as_str().unwrap_or_default().to_owned()
    }
}

/// How a receiver answers its next requests.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Ok,
    Status(&'static str),
    /// It redirects to this port of loopback.
    Elsewhere(u16),
    /// It reads the request, and never answers.
    Hang,
    /// It closes the connection without an answer.
    Close,
    /// It answers 500 and sends bytes without an end.
    Flood,
}

/// A receiver on loopback. The last answer of its list repeats.
struct Receiver {
    url: String,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Receiver {
    async fn start(answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let (seen, answers) = (got.clone(), answers.to_vec());
        tokio::spawn(async move {
            let mut next = 0;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = answers[next.min(answers.len() - 1)];
                next += 1;
                let request = request(&mut stream).await;
                seen.lock().unwrap().push(request);
                tokio::spawn(async move {
                    let (status, port) = match answer {
                        Answer::Ok => ("204 No Content", 1),
                        Answer::Status(status) => (status, 1),
                        Answer::Elsewhere(port) => ("308 Permanent Redirect", port),
                        Answer::Hang => return tokio::time::sleep(PATIENCE).await,
                        Answer::Close => return,
                        Answer::Flood => {
                            let _ = stream.write_all(b"HTTP/1.1 500 No\r\nconnection: close\r\n\r\n").await;
                            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
                            return;
                        }
                    };
                    let text =
                        format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nlocation: http://127.0.0.1:{port}/\r\n\r\n");
                    let _ = stream.write_all(text.as_bytes()).await;
                });
            }
        });
        Self { url, got }
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    async fn wait(&self, count: usize) -> Vec<Got> {
        let begun = Instant::now();
        while self.got().len() < count {
            assert!(begun.elapsed() < PATIENCE, "{count} requests, and only {:#?}", self.got());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.got()
    }
}

async fn request(stream: &mut tokio::net::TcpStream) -> Got {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        bytes.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let got = Got { head: head.to_owned(), body: serde_json::Value::Null };
        let length: usize = got.header("content-length").parse().unwrap_or(0);
        if body.len() >= length {
            return Got { body: serde_json::from_str(body).unwrap(), ..got };
        }
    }
}

fn hook(url: &str) -> HookSettings {
    HookSettings {
        name: "h".into(),
        filter: Filter::default(),
        fold: Duration::ZERO,
        give_up: Duration::from_secs(3600),
        timeout: Duration::from_millis(300),
        way: Way::CloudEvents { to: to(url), secret_file: None, source: "wharfinger".into() },
    }
}

fn to(url: &str) -> Endpoint {
    Endpoint { url: Source::Here(HookUrl::parse(url).unwrap()), bearer_file: None, ca_file: None }
}

async fn running(trail: &Trail, settings: HookSettings) -> Hooks {
    let mut hooks = Hooks::default();
    hooks.change(&[settings], &trail.around).await;
    // The hook begins with entries that come after its first look.
    let begun = Instant::now();
    while trail.store.trail_places().await.unwrap().is_empty() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    hooks
}

use EventKind::{LeaseActive, LeaseBroken, PoolBrakeOff, PoolBrakeOn};

#[tokio::test]
async fn a_receiver_that_fails_hangs_and_dies_gets_each_entry_in_order() {
    let trail = Trail::new().await;
    let answers =
        [Answer::Status("500 No"), Answer::Hang, Answer::Close, Answer::Flood, Answer::Status("429 Slow"), Answer::Ok];
    let receiver = Receiver::start(&answers).await;
    let mut hooks = running(&trail, hook(&receiver.url)).await;
    trail.write(&[LeaseBroken, LeaseActive]).await;
    let got = receiver.wait(7).await;
    let details: Vec<String> = got.iter().map(Got::details).collect();
    assert_eq!(details, ["entry 1", "entry 1", "entry 1", "entry 1", "entry 1", "entry 1", "entry 2"]);
    let ids: Vec<&serde_json::Value> = got.iter().map(|one| &one.body["id"]).collect();
    assert!(ids[..6].iter().all(|id| **id == "1.0"), "one id over all attempts: {ids:?}");
    assert_eq!(
        (&got[6].body["type"], &got[6].body["subject"]),
        (&"dev.wharfinger.lease.active.v1".into(), &"hosts".into())
    );
    assert_eq!(got[0].header("webhook-id"), "1.0");
    let exposed = trail.exposed();
    assert!(exposed.contains("wharfinger_hook_deliveries_total{hook=\"h\",result=\"failed\"} 5"), "{exposed}");
    assert!(exposed.contains("wharfinger_hook_deliveries_total{hook=\"h\",result=\"ok\"} 2"), "{exposed}");
    assert!(exposed.contains("wharfinger_hook_failing{hook=\"h\"} 0"), "{exposed}");
    // Another life of the server goes on where this one stopped.
    hooks.stop().await;
    trail.write(&[LeaseBroken]).await;
    let _hooks = running(&trail, hook(&receiver.url)).await;
    let got = receiver.wait(8).await;
    assert_eq!((got.len(), got[7].details()), (8, "entry 3".into()));
}

#[tokio::test]
async fn a_refused_message_does_not_hold_the_rest_up() {
    let trail = Trail::new().await;
    let refuses = Answer::Status("422 Unprocessable Content");
    let receiver = Receiver::start(&[refuses, refuses, refuses, Answer::Ok]).await;
    let _hooks = running(&trail, hook(&receiver.url)).await;
    trail.write(&[LeaseBroken, LeaseActive, LeaseActive]).await;
    let got = receiver.wait(5).await;
    assert_eq!(got[3].details(), "entry 2");
    assert_eq!(got[3].body["data"]["skipped"]["messages"], 1, "the next message says so: {}", got[3].body);
    assert_eq!(got[4].body["data"]["skipped"], serde_json::Value::Null);
    assert!(trail.exposed().contains("wharfinger_hook_deliveries_total{hook=\"h\",result=\"skipped\"} 1"));
}

#[tokio::test]
async fn a_redirection_is_not_followed_and_what_is_too_old_is_given_up() {
    let trail = Trail::new().await;
    let elsewhere = Receiver::start(&[Answer::Ok]).await;
    let port = elsewhere.url.trim_end_matches("/hook").rsplit(':').next().unwrap().parse().unwrap();
    let receiver = Receiver::start(&[Answer::Elsewhere(port)]).await;
    let settings = HookSettings { give_up: Duration::from_millis(700), ..hook(&receiver.url) };
    let _hooks = running(&trail, settings).await;
    trail.write(&[LeaseBroken]).await;
    let begun = Instant::now();
    while !trail.exposed().contains("wharfinger_hook_deliveries_total{hook=\"h\",result=\"skipped\"} 1") {
        assert!(begun.elapsed() < PATIENCE, "{}", trail.exposed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(receiver.got().len() >= 2, "it was tried more than once");
    assert_eq!(elsewhere.got().len(), 0, "nothing went elsewhere");
}

#[tokio::test]
async fn a_storm_is_one_message_and_a_filter_leaves_out() {
    let trail = Trail::new().await;
    let receiver = Receiver::start(&[Answer::Ok]).await;
    let filter = Filter { severity: Severity::Warning, ..Filter::default() };
    let settings = HookSettings {
        // A busy machine writes the whole storm within this time.
        fold: Duration::from_secs(10),
        filter,
        way: Way::Slack { to: to(&receiver.url) },
        ..hook(&receiver.url)
    };
    let mut hooks = running(&trail, settings.clone()).await;
    let mut storm = vec![PoolBrakeOn];
    storm.extend([LeaseBroken; 40]);
    storm.extend([LeaseActive; 700]);
    storm.push(PoolBrakeOff);
    trail.write(&storm).await;
    let got = receiver.wait(1).await;
    let text = got[0].body["text"].as_str().unwrap();
    assert!(
        text.starts_with("[critical] 42 entries: 40 lease broken, 1 pool brake off, 1 pool brake on in hosts"),
        "{text}"
    );
    assert!(text.contains("and 37 more") && got[0].body["mrkdwn"] == false, "{text}");
    assert!(text.ends_with(PAGE), "{text}");
    hooks.stop().await;
    let place = &trail.store.trail_places().await.unwrap()[0];
    assert_eq!((place.revision, receiver.got().len()), (742, 1), "{place:?}");
}

#[tokio::test]
async fn alerts_that_last_end_when_their_state_ends() {
    let trail = Trail::new().await;
    let receiver = Receiver::start(&[Answer::Status("503 Later"), Answer::Ok]).await;
    let settings = HookSettings { way: Way::Alertmanager { to: to(&receiver.url) }, ..hook(&receiver.url) };
    let mut hooks = running(&trail, settings.clone()).await;
    trail.write(&[PoolBrakeOn]).await;
    let got = receiver.wait(2).await;
    assert_eq!(got[1].body[0]["labels"]["alertname"], "WharfingerPoolBrakeOn", "{got:?}");
    assert_eq!(got[1].body[0]["generatorURL"], format!("{PAGE}/pools/hosts"), "{got:?}");
    hooks.stop().await;
    let notes = trail.store.trail_places().await.unwrap()[0].notes.clone();
    assert!(notes.contains("pool.brake-on"), "the state is stored with the place: {notes}");
    let _hooks = running(&trail, settings).await;
    trail.write(&[PoolBrakeOff]).await;
    let got = receiver.wait(3).await;
    assert_eq!(got[2].body[0]["labels"], got[1].body[0]["labels"]);
    assert!(got[2].body[0]["endsAt"].as_str() < got[1].body[0]["endsAt"].as_str(), "{got:?}");
}

#[tokio::test]
async fn a_program_gets_the_event_on_its_standard_input() {
    let trail = Trail::new().await;
    let folder = tempfile::tempdir().unwrap();
    let (script, out) = (folder.path().join("notify"), folder.path().join("out"));
    // The first call fails, with more on standard error than is kept.
    std::fs::write(
        &script,
        "#!/bin/sh\nif [ ! -e \"$2.failed\" ]; then touch \"$2.failed\"; head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1; fi\n\
         { echo \"$WHARFINGER_HOOK $1 ${WHARFINGER_LOG:-none}\"; cat; } >> \"$2\"\n",
    )
    .unwrap();
    std::os::unix::fs::PermissionsExt::set_mode(&mut std::fs::metadata(&script).unwrap().permissions(), 0o700);
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let argv = vec![script.display().to_string(), "$(id); x".into(), out.display().to_string()];
    let settings = HookSettings {
        timeout: Duration::from_secs(10),
        way: Way::Command { argv, source: "wharfinger".into() },
        ..hook("http://127.0.0.1:1")
    };
    let _hooks = running(&trail, settings).await;
    trail.write(&[LeaseBroken]).await;
    let begun = Instant::now();
    let text = loop {
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        if text.lines().count() >= 2 {
            break text;
        }
        assert!(begun.elapsed() < PATIENCE, "{text:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let (first, event) = text.trim_end().split_once('\n').unwrap();
    assert_eq!(first, "h $(id); x none");
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    assert_eq!((&event["id"], &event["data"]["kind"]), (&"1.0".into(), &"lease.broken".into()));
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pid.display());
    let argv: Vec<String> = ["/bin/sh", "-c", &script].map(String::from).to_vec();
    let delivery = command::run("h", &argv, b"{}\n".to_vec(), Duration::from_secs(2)).await;
    assert!(matches!(&delivery, http::Delivery::Later { why, .. } if why.contains("was killed")), "{delivery:?}");
    let pid: PathBuf = format!("/proc/{}/cmdline", std::fs::read_to_string(&pid).unwrap().trim()).into();
    let begun = Instant::now();
    // A zombie has no command line.
    while std::fs::read(&pid).is_ok_and(|line| !line.is_empty()) {
        assert!(begun.elapsed() < PATIENCE, "it lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_hook_that_left_the_configuration_begins_anew() {
    let trail = Trail::new().await;
    let receiver = Receiver::start(&[Answer::Ok]).await;
    let mut hooks = running(&trail, hook(&receiver.url)).await;
    hooks.change(&[], &trail.around).await;
    assert_eq!(trail.store.trail_places().await.unwrap(), []);
    assert!(!trail.exposed().contains("hook=\"h\""), "its series are gone");
    trail.write(&[LeaseBroken]).await;
    let _hooks = running(&trail, hook(&receiver.url)).await;
    trail.write(&[LeaseActive]).await;
    let got = receiver.wait(1).await;
    assert_eq!(got[0].details(), "entry 2", "what came while it was not configured is not carried");
}

/// Texts of others stay texts, and are bounded.
#[test]
fn texts_of_others_are_escaped_for_slack() {
    let event = StoredEvent {
        kind: "lease.broken".into(),
        detail: format!("<!channel> & <https://a|b>\n\u{202e}{}", "x".repeat(5000)),
        ..StoredEvent::default()
    };
    let payload = slack::payload(&message::Message::of(event));
    let text = payload["text"].as_str().unwrap();
    assert!(text.contains("&lt;!channel&gt; &amp; &lt;https://a|b&gt;  xxx"), "{text}");
    assert!(text.len() < 600 && text.lines().count() == 1 && !text.contains('\u{202e}'), "{text}");
}
