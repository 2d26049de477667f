//! Spans in the messages of OTLP (https://opentelemetry.io/docs/specs/otlp/).

use super::story::Span;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan, Status};

/// Maximum length of a text in bytes. What is longer is cut.
const MAX_TEXT: usize = 4096;

/// The request that exports these spans.
pub(super) fn request(spans: &[Span]) -> ExportTraceServiceRequest {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let resource = [("service.name", "wharfinger".to_owned()), ("service.version", version.clone())];
    let scope = InstrumentationScope { name: "wharfinger".into(), version, ..InstrumentationScope::default() };
    let scope_spans =
        ScopeSpans { scope: Some(scope), spans: spans.iter().map(span).collect(), schema_url: String::new() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: attributes(&resource), ..Resource::default() }),
            scope_spans: vec![scope_spans],
            schema_url: String::new(),
        }],
    }
}

fn span(span: &Span) -> OtlpSpan {
    let status = match &span.error {
        Some(why) => Status { message: text(why), code: StatusCode::Error.into() },
        None => Status { message: String::new(), code: StatusCode::Unset.into() },
    };
    OtlpSpan {
        trace_id: span.trace.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: span.parent.map(|id| id.to_vec()).unwrap_or_default(),
        name: span.name.to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: attributes(&span.attributes),
        events: span
            .events
            .iter()
            .map(|event| Event {
                time_unix_nano: nanos(event.at),
                name: text(&event.name),
                attributes: attributes(&event.attributes),
                ..Event::default()
            })
            .collect(),
        links: span
            .links
            .iter()
            .map(|(trace, id)| Link { trace_id: trace.to_vec(), span_id: id.to_vec(), ..Link::default() })
            .collect(),
        status: Some(status),
        ..OtlpSpan::default()
    }
}

fn attributes(pairs: &[(&'static str, String)]) -> Vec<KeyValue> {
    pairs
        .iter()
        .map(|(key, value)| KeyValue {
            key: (*key).to_owned(),
            value: Some(AnyValue { value: Some(Value::StringValue(text(value))) }),
            ..KeyValue::default()
        })
        .collect()
}

fn text(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

fn nanos(unix_ms: i64) -> u64 {
    u64::try_from(unix_ms).unwrap_or(0).saturating_mul(1_000_000)
}
