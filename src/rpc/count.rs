//! The layer that counts calls by method and code. It is the outermost, so that it sees every refusal.

use crate::clock::Moment;
use crate::pb;
use crate::telemetry::metrics::Calls;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use prost_types::FileDescriptorSet;
use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::codegen::{Bytes, Service};
use tonic::{Code, Status};
use tower::Layer;

/// A method of a service of this port.
struct Method {
    service: String,
    name: String,
    /// One message and one answer.
    unary: bool,
}

/// The label for a path that the port does not know: a stranger must not be able to make series.
const UNKNOWN: &str = "unknown";

/// Counts calls. Without a counter it does nothing.
#[derive(Clone)]
pub(crate) struct Count(Option<Arc<Counter>>);

struct Counter {
    calls: Calls,
    methods: HashMap<String, Method>,
}

impl Count {
    pub(crate) fn new(calls: Option<Calls>) -> Self {
        Self(calls.map(|calls| Arc::new(Counter { calls, methods: methods() })))
    }
}

/// The methods of the services on the port, by path.
fn methods() -> HashMap<String, Method> {
    let sets = [pb::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET];
    let mut methods = HashMap::new();
    for set in sets {
        let Ok(files) = <FileDescriptorSet as prost::Message>::decode(set) else { continue };
        for file in &files.file {
            for service in &file.service {
                let full = format!("{}.{}", file.package(), service.name());
                for method in &service.method {
                    let unary = !method.client_streaming() && !method.server_streaming();
                    let name = method.name().to_string();
                    methods.insert(format!("/{full}/{name}"), Method { service: full.clone(), name, unary });
                }
            }
        }
    }
    methods
}

impl<S> Layer<S> for Count {
    type Service = CountedService<S>;
    fn layer(&self, service: S) -> CountedService<S> {
        CountedService { service, count: self.clone() }
    }
}

/// A service whose calls are counted.
#[derive(Clone)]
pub(crate) struct CountedService<S> {
    service: S,
    count: Count,
}

impl<S> Service<Request<Body>> for CountedService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(counter) = self.count.0.clone() else { return Box::pin(self.service.call(request)) };
        let mut call = CallUnderWay::begin(counter, request.uri().path());
        let answer = self.service.call(request);
        Box::pin(async move {
            let response = answer.await?;
            // An answer without messages has its status in the headers.
            if let Some(code) = code_of(response.headers()) {
                call.end(code);
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(Seen { body, call })))
        })
    }
}

/// A call that is counted when it ends, or when it is dropped.
struct CallUnderWay {
    counter: Arc<Counter>,
    path: String,
    began: Moment,
    ended: bool,
}

impl CallUnderWay {
    fn begin(counter: Arc<Counter>, path: &str) -> Self {
        let call = Self { counter, path: path.to_string(), began: Moment::now(), ended: false };
        let (service, method, _) = call.names();
        call.counter.calls.started(service, method);
        call
    }

    fn names(&self) -> (&str, &str, bool) {
        match self.counter.methods.get(&self.path) {
            Some(method) => (&method.service, &method.name, method.unary),
            None => (UNKNOWN, UNKNOWN, false),
        }
    }

    fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let (service, method, unary) = self.names();
        let took = unary.then(|| self.began.past());
        self.counter.calls.handled(service, method, i32::from(code), took);
    }
}

impl Drop for CallUnderWay {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    Status::from_header_map(headers).map(|status| status.code())
}

/// A body whose trailers end the call.
struct Seen {
    body: Body,
    call: CallUnderWay,
}

impl http_body::Body for Seen {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(code) = frame.trailers_ref().and_then(code_of) {
                    self.call.end(code);
                }
            }
            Poll::Ready(Some(Err(status))) => {
                let code = status.code();
                self.call.end(code);
            }
            Poll::Ready(None) => self.call.end(Code::Unknown),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
