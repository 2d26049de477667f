//! Traces of a real server and a real client, at a collector of the real protocol.

use crate::hosts::pools;
use crate::sshd::{Sshd, skip};
use crate::support::{LOCAL, PATIENCE, Server, text};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tonic::{Request, Response, Status};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let all = request.into_inner().resource_spans.into_iter().flat_map(|one| one.scope_spans);
        self.0.lock().unwrap().extend(all.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector in a runtime of its own, and its address.
pub(crate) struct Running {
    collector: Collector,
    pub(crate) address: String,
    _runtime: tokio::runtime::Runtime,
}

impl Running {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let collector = Collector::default();
        let service = TraceServiceServer::new(collector.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        runtime.spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        Self { collector, address, _runtime: runtime }
    }

    /// Each span once, by its id.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let mut seen = BTreeSet::new();
        let all = self.collector.0.lock().unwrap().clone();
        all.into_iter().filter(|span| seen.insert((span.trace_id.clone(), span.span_id.clone()))).collect()
    }

    /// Waits until the spans of a lease are there.
    fn of(&self, server: &Server, lease: &str) -> Vec<Span> {
        let begun = Instant::now();
        loop {
            let all = self.spans();
            if let Some(root) = all.iter().find(|span| attribute(span, "wharfinger.lease.id") == lease) {
                let mut ids: BTreeSet<Vec<u8>> = BTreeSet::from([root.span_id.clone()]);
                // Children of children.
                for _ in 0..3 {
                    let children = all.iter().filter(|span| ids.contains(&span.parent_span_id));
                    let children: Vec<Vec<u8>> = children.map(|span| span.span_id.clone()).collect();
                    ids.extend(children);
                }
                return all.into_iter().filter(|span| ids.contains(&span.span_id)).collect();
            }
            assert!(begun.elapsed() < PATIENCE, "no spans of {lease}: {all:#?}\n{}", server.log());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|one| one.key == key).and_then(|one| one.value.clone()?.value);
    match found {
        Some(Value::StringValue(text)) => text,
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

#[test]
fn a_build_and_its_command_are_in_the_trace_of_their_caller() {
    let otel = Running::start();
    let server = Server::start_with(&format!("[traces]\nendpoint = \"{}\"", otel.address), LOCAL);
    let mut command = server.command(&[
        "run",
        "-q",
        "--pool",
        "hosts",
        "--",
        "sh",
        "-c",
        "echo $WHARFINGER_LEASE $TRACEPARENT $TRACESTATE",
    ]);
    command.env("TRACEPARENT", format!("00-{TRACE}-{PARENT}-01")).env("TRACESTATE", "vendor=1");
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{}", text(&ran));
    let printed = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
    let (lease, rest) = printed.split_once(' ').unwrap();
    let (parent, state) = rest.split_once(' ').unwrap();
    let spans = otel.of(&server, lease);
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:#?}");
    let root = spans.iter().find(|span| span.name == "lease").unwrap();
    assert_eq!(hex(&root.parent_span_id), PARENT);
    assert_eq!(
        (attribute(root, "wharfinger.lease.end"), attribute(root, "wharfinger.pool")),
        ("RELEASED".into(), "hosts".into())
    );
    let hold = spans.iter().find(|span| span.name == "lease.hold").unwrap();
    assert_eq!((parent, state), (&*format!("00-{TRACE}-{}-01", hex(&hold.span_id)), "vendor=1"));
    for name in ["lease.prepare", "lease.clean"] {
        assert!(names(&spans).contains(&name), "{name}: {:?}", names(&spans));
    }
    // Without a trace of the caller there is none of the command, and none of a lease that went well.
    let ran = server
        .command(&["run", "-q", "--pool", "hosts", "--", "sh", "-c", "echo ${TRACEPARENT:-none}"])
        .env_remove("TRACEPARENT")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), "none", "{}", text(&ran));
    let mut sampled = server.command(&["run", "-q", "--pool", "hosts", "--", "true"]);
    assert!(sampled.env("TRACEPARENT", format!("00-{TRACE}-{PARENT}-01")).status().unwrap().success());
    let begun = Instant::now();
    while otel.spans().iter().filter(|span| span.name == "lease").count() < 2 {
        assert!(begun.elapsed() < PATIENCE, "{}", server.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(otel.spans().iter().all(|span| hex(&span.trace_id) == TRACE), "the one between has no spans");
}

/// A host dies under a lease, the server is killed between grant and break, and the replacement goes on in the same trace.
#[test]
fn one_trace_through_a_break_a_sigkill_and_a_replacement() {
    if skip("one_trace_through_a_break_a_sigkill_and_a_replacement") {
        return;
    }
    let otel = Running::start();
    let (mut a, mut b) = (Sshd::start(), Sshd::start());
    let work = tempfile::tempdir().unwrap();
    let head = format!("[traces]\nendpoint = \"{}\"", otel.address);
    let mut server = Server::start_with(&head, &pools(&[("a", &a), ("b", &b)], work.path()));
    let mut command =
        server.command(&["--json", "lease", "--pool", "hosts", "--replace", "--ttl", "10m", "--wait", "60s"]);
    let leased = command.env("TRACEPARENT", format!("00-{TRACE}-{PARENT}-01")).output().unwrap();
    assert!(leased.status.success(), "{}", text(&leased));
    let leased: serde_json::Value = serde_json::from_slice(&leased.stdout).unwrap();
    let first = leased["lease"]["id"].as_str().unwrap().to_owned();
    let resource = server.json(&["resource", leased["lease"]["resource_id"].as_str().unwrap()]).to_string();
    server.kill();
    if resource.contains("\"a\"") {
        a.kill_hard();
    } else {
        b.kill_hard();
    }
    server.run();
    let broken = server.wait("the break", || {
        let now = server.json(&["get", &first]);
        (now["state"] == "BROKEN").then_some(now)
    });
    let second = broken["replacement_id"].as_str().unwrap().to_owned();
    server.wait("the replacement", || (server.json(&["get", &second])["state"] == "ACTIVE").then_some(()));
    assert!(server.cli(&["release", &second]).status.success());
    let (of_first, of_second) = (otel.of(&server, &first), otel.of(&server, &second));
    for span in of_first.iter().chain(&of_second) {
        assert_eq!(hex(&span.trace_id), TRACE, "{span:#?}");
    }
    for name in ["lease", "lease.hold", "lease.break"] {
        let span = of_first.iter().find(|span| span.name == name);
        let status = span.and_then(|span| span.status.clone()).map(|status| status.code);
        assert_eq!(status, Some(2), "{name} is an error: {:?}", names(&of_first));
    }
    assert!(names(&of_first).contains(&"resource.check"), "{:?}", names(&of_first));
    let (root, next) = (&of_first[0], of_second.iter().find(|span| span.name == "lease").unwrap());
    let root = of_first.iter().find(|span| span.name == "lease").unwrap_or(root);
    assert_eq!(next.links[0].span_id, root.span_id, "the replacement is linked to the broken one");
    assert!(!attribute(root, "wharfinger.machine").is_empty());
}
