//! The spans of leases, and a collector of the real protocol that is down, refuses, and comes back.

use super::ids::{HOLD, LEASE, TraceParent, span_of, trace_of};
use super::run::{Surroundings, Traces};
use super::story::{self, Facts, Span};
use super::{Cleaned, Endpoint, TraceSettings, Unparented};
use crate::engine::testing::TrailWriter;
use crate::store::{MemoryStore, Store, StoredEvent};
use crate::telemetry::metrics::Metrics;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use wharfinger_core::{Event, EventKind, LeaseId, Provenance, ResourceId, Subject};

const PATIENCE: Duration = Duration::from_secs(30);
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn entry(revision: u64, at: i64, kind: &str) -> StoredEvent {
    let lease = kind.starts_with("lease.").then(LeaseId::parse_or_zero);
    let resource = (kind.starts_with("resource.")
        || matches!(kind, "lease.preparing" | "lease.active" | "lease.broken"))
    .then(ResourceId::parse_or_zero);
    StoredEvent {
        revision,
        at_unix_ms: at,
        kind: kind.into(),
        actor: "ann".into(),
        pool: Some("hosts".into()),
        lease,
        resource,
        detail: format!("why {kind}"),
        ..StoredEvent::default()
    }
}

trait Zero {
    fn parse_or_zero() -> Self;
}

impl Zero for LeaseId {
    fn parse_or_zero() -> Self {
        "lse_00000000000000000000000000".parse().unwrap()
    }
}

impl Zero for ResourceId {
    fn parse_or_zero() -> Self {
        "res_00000000000000000000000000".parse().unwrap()
    }
}

fn named<'s>(spans: &'s [Span], name: &str) -> &'s Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:#?}"))
}

#[test]
fn a_broken_lease_has_a_span_for_each_part_of_its_life() {
    let parent = TraceParent::parse(PARENT).unwrap();
    let entries = [
        entry(1, 1000, "lease.queued"),
        entry(2, 2000, "lease.preparing"),
        entry(3, 3000, "lease.requeued"),
        entry(4, 4000, "lease.preparing"),
        entry(5, 5000, "lease.active"),
        entry(8, 9000, "lease.broken"),
    ];
    let of_resource = [
        entry(6, 6000, "resource.suspect"),
        entry(6, 6500, "resource.cleared"),
        entry(7, 8000, "resource.suspect"),
        entry(8, 9000, "resource.destroying"),
    ];
    let replaced = "lse_of_before".to_owned();
    let facts = Facts { replaces: Some(replaced.clone()), clean_at: Some(9500), ..Facts::default() };
    let spans = story::spans("lse_1", &entries, &of_resource, &facts, Some(parent));
    let times: Vec<(&str, i64, i64)> = spans.iter().map(|span| (span.name, span.start, span.end)).collect();
    assert_eq!(
        times,
        [
            ("lease", 1000, 9500),
            ("lease.wait", 1000, 2000),
            ("lease.prepare", 2000, 3000),
            ("lease.wait", 3000, 4000),
            ("lease.prepare", 4000, 5000),
            ("lease.hold", 5000, 9000),
            ("resource.check", 6000, 6500),
            ("resource.check", 8000, 9000),
            ("lease.break", 8000, 9000),
            ("lease.clean", 9000, 9500),
        ]
    );
    assert!(spans.iter().all(|span| span.trace == parent.trace));
    let mut ids: Vec<[u8; 8]> = spans.iter().map(|span| span.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), spans.len(), "each span has an id of its own");
    let (root, hold) = (&spans[0], named(&spans, HOLD));
    assert_eq!((root.parent, root.id), (Some(parent.span), span_of("lse_1", LEASE)));
    assert_eq!((hold.parent, hold.id), (Some(root.id), super::hold_of("lse_1", parent).span));
    assert_eq!(named(&spans, "resource.check").parent, Some(hold.id));
    assert_eq!(named(&spans, "lease.break").parent, Some(hold.id));
    assert_eq!(root.links, [(parent.trace, span_of(&replaced, LEASE))]);
    let failed: Vec<&str> = spans.iter().filter(|span| span.error.is_some()).map(|span| span.name).collect();
    assert_eq!(failed, ["lease", "lease.prepare", "lease.hold", "resource.check", "lease.break"]);
    assert_eq!(spans, story::spans("lse_1", &entries, &of_resource, &facts, Some(parent)), "the same on each server");
}

#[test]
fn a_lease_that_lives_has_no_spans_and_one_without_a_caller_has_a_trace_of_its_own() {
    let entries = [entry(1, 1000, "lease.preparing"), entry(2, 2000, "lease.active")];
    assert_eq!(story::spans("lse_1", &entries, &[], &Facts::default(), None), []);
    let entries = [&entries[..], &[entry(3, 3000, "lease.released")]].concat();
    let spans = story::spans("lse_1", &entries, &[], &Facts::default(), None);
    let names: Vec<&str> = spans.iter().map(|span| span.name).collect();
    assert_eq!(names, ["lease", "lease.prepare", "lease.hold"], "it waited for nothing, and its cleaning is not known");
    assert!(spans.iter().all(|span| span.trace == trace_of("lse_1") && span.error.is_none()));
    assert_eq!(spans[0].parent, None);
}

/// A collector, with its answers to the first requests.
#[derive(Clone, Default)]
struct Collector {
    answers: Arc<Mutex<Vec<Status>>>,
    spans: Arc<Mutex<Vec<OtlpSpan>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if let Some(status) = self.answers.lock().unwrap().pop() {
            return Err(status);
        }
        let spans = request.into_inner().resource_spans.into_iter().flat_map(|one| one.scope_spans);
        self.spans.lock().unwrap().extend(spans.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn serve(&self, listener: TcpListener) {
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let service = TraceServiceServer::new(self.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    }

    async fn wait(&self, count: usize) -> Vec<OtlpSpan> {
        let begun = Instant::now();
        loop {
            let spans = self.spans.lock().unwrap().clone();
            if spans.len() >= count {
                return spans;
            }
            assert!(begun.elapsed() < PATIENCE, "{count} spans, and only {spans:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A trail, and the parts of a server that traces use.
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
        let around = Surroundings { handle, store: store.clone(), told: metrics.told(), cleaned: Cleaned::default() };
        Self { writer, store, around, metrics }
    }

    /// A lease that is released, or broken. `trace`: that of its caller.
    async fn lease(&self, number: u8, trace: Option<&str>, end: EventKind) -> LeaseId {
        let id: LeaseId = format!("lse_0000000000000000000000000{number}").parse().unwrap();
        for kind in [EventKind::LeasePreparing, EventKind::LeaseActive, end] {
            let caller = (kind == EventKind::LeasePreparing).then(|| Provenance {
                tenant: Arc::from("default"),
                proof: Arc::from("local"),
                peer: None,
                via: None,
                program: None,
                roles: Arc::from("admin"),
                method: Arc::from("Lease"),
                trace: trace.map(Arc::from),
            });
            let about = |event: &mut Event| {
                event.actor = Arc::from("local");
                event.subject = Subject::Lease(id);
                event.lease = Some(id);
                event.caller = caller.map(Arc::new);
            };
            self.writer.write(kind, about).await;
        }
        id
    }

    async fn export_to(&self, traces: &mut Traces, address: &str, unparented: Unparented) {
        let endpoint = Endpoint::parse(address).unwrap();
        let settings = TraceSettings { endpoint, ca_file: None, bearer_file: None, unparented };
        traces.change(Some(&settings), &self.around).await;
        let begun = Instant::now();
        while self.store.trail_places().await.unwrap().is_empty() {
            assert!(begun.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn traces_of(spans: &[OtlpSpan]) -> Vec<(String, Vec<u8>)> {
    let roots = spans.iter().filter(|span| span.name == LEASE);
    roots.map(|span| (span.name.clone(), span.trace_id.clone())).collect()
}

#[tokio::test]
async fn a_collector_that_is_down_gets_the_spans_when_it_is_there() {
    let trail = Trail::new().await;
    // Its port is not listened on yet.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut traces = Traces::default();
    trail.export_to(&mut traces, &address, Unparented::None).await;
    trail.lease(1, Some(PARENT), EventKind::LeaseReleased).await;
    trail.lease(2, None, EventKind::LeaseBroken).await;
    trail.lease(3, Some(&PARENT.replace("-01", "-00")), EventKind::LeaseBroken).await;
    let begun = Instant::now();
    let failing = |trail: &Trail| {
        let facts = crate::telemetry::metrics::ServerFacts {
            leads: true,
            revision: 0,
            age: None,
            watches: 0,
            backlog: 0,
            partial: false,
        };
        trail.metrics.expose(crate::telemetry::metrics::Exposition::Text, &facts, None)
    };
    while !failing(&trail).contains("wharfinger_traces_failing 1") {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Another life of the server meanwhile.
    traces.stop().await;
    let collector = Collector::default();
    *collector.answers.lock().unwrap() = vec![Status::unavailable("later"), Status::resource_exhausted("later")];
    let port = address.rsplit(':').next().unwrap();
    collector.serve(TcpListener::bind(format!("127.0.0.1:{port}")).await.unwrap());
    trail.export_to(&mut traces, &address, Unparented::None).await;
    let spans = collector.wait(3).await;
    let parent = TraceParent::parse(PARENT).unwrap();
    assert_eq!(traces_of(&spans), [(LEASE.to_string(), parent.trace.to_vec())], "{spans:#?}");
    assert_eq!(spans[0].parent_span_id, parent.span.to_vec());
    assert!(spans.iter().all(|span| span.start_time_unix_nano <= span.end_time_unix_nano));
    let exposed = failing(&trail);
    assert!(exposed.contains("wharfinger_trace_spans_total{result=\"ok\"} 3"), "{exposed}");
    assert!(exposed.contains("wharfinger_traces_failing 0"), "{exposed}");
}

#[tokio::test]
async fn refused_spans_are_given_up_and_failed_leases_have_traces_of_their_own() {
    let trail = Trail::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let collector = Collector::default();
    *collector.answers.lock().unwrap() = vec![Status::invalid_argument("no"); 3];
    collector.serve(listener);
    let mut traces = Traces::default();
    trail.export_to(&mut traces, &address, Unparented::Failed).await;
    trail.lease(1, Some(PARENT), EventKind::LeaseReleased).await;
    let begun = Instant::now();
    while !collector.answers.lock().unwrap().is_empty() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    trail.lease(2, None, EventKind::LeaseReleased).await;
    let broken = trail.lease(3, None, EventKind::LeaseBroken).await;
    let spans = collector.wait(4).await;
    assert_eq!(traces_of(&spans), [(LEASE.to_string(), trace_of(&broken.to_string()).to_vec())], "{spans:#?}");
    // Without the table the place is forgotten.
    traces.change(None, &trail.around).await;
    assert_eq!(trail.store.trail_places().await.unwrap(), []);
}
