//! Forwards calls that change something to the server that leads. A call is forwarded once at most.
//!
//! A call keeps its path, message and the rest of its deadline, and of its metadata a fixed list; the answer keeps its status
//! and all details. The caller's identity travels with an HMAC whose key only servers on this database have; its credentials
//! stay on this server. Cancelling the call cancels it
//! on the leader too. A call is tried again only while nothing can have been done; after that its caller repeats it.

use crate::auth::{Identity, Passed};
use crate::client::internal::never_stood;
use crate::engine::{LeaderInfo, Leadership, LeadershipState, Role};
use crate::pb::admin_service_server::AdminServiceServer;
use crate::pb::lease_service_server::LeaseServiceServer;
use crate::rpc::admin::AdminApi;
use crate::rpc::forward_auth;
use crate::rpc::lease::LeaseApi;
use crate::rpc::limits::{Gate, RpcLimits};
use crate::rpc::peers::{self, Peers};
use crate::rpc::status::{RpcError, refused_by_follower, refused_without_proof};
use futures::future::{BoxFuture, Either};
use http_body_util::{BodyExt, Full, Limited};
use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::codegen::{Bytes, Service};
use tonic::server::NamedService;
use tonic::transport::Channel;
use tower::Layer;

/// Marks a forwarded call, which is not forwarded again.
pub(crate) const FORWARDED: &str = "wharfinger-passed";
/// The caller's identity, set by the server that forwards the call.
pub(crate) const IDENTITY: &str = "wharfinger-identity";
/// The HMAC of path, identity and message.
pub(crate) const SEAL: &str = "wharfinger-seal";
/// The program by which the caller called.
pub(crate) const PROGRAM: &str = "wharfinger-program";
/// The caller's name and its HMAC, for a leader of the release before. They go with the next release.
pub(crate) const CALLER: &str = "wharfinger-caller";
pub(crate) const PROOF: &str = "wharfinger-proof";
/// The headers of a call that are forwarded. All others stay here, the caller's credentials among them.
const KEPT: [&str; 6] = ["content-type", "te", "grpc-encoding", "grpc-accept-encoding", "user-agent", "traceparent"];
/// The rest of the deadline (gRPC over HTTP/2).
const TIMEOUT: &str = "grpc-timeout";

/// Methods that each server answers itself. All others go to the server that leads. A session is a stream both ways, which is not
/// forwarded: a server that follows refuses it with the leader's address.
const READS: [&str; 18] = [
    "Session",
    "Watch",
    "Get",
    "List",
    "Explain",
    "ListQueue",
    "Timeline",
    "GetServer",
    "ListServers",
    "ListPools",
    "GetPool",
    "ListTenants",
    "ListResources",
    "GetResource",
    "WatchResources",
    "Events",
    "WhoAmI",
    "CanI",
];

/// Maximum time that a call waits for a leader, while nothing was done.
const PATIENCE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(1);
/// Maximum time in which the key of a new lead reaches a follower.
const NEW_KEY: Duration = Duration::from_secs(2);
/// Minimum time between two tries.
const AGAIN: Duration = Duration::from_millis(50);

/// Whether a call goes to the server that leads.
fn decides(path: &str) -> bool {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else { return false };
    let ours =
        [<LeaseServiceServer<LeaseApi> as NamedService>::NAME, <AdminServiceServer<AdminApi> as NamedService>::NAME];
    ours.contains(&service) && !READS.contains(&method)
}

/// The field of each command of operators that makes it a read.
#[derive(Clone, PartialEq, prost::Message)]
struct Validation {
    #[prost(bool, tag = "14")]
    validate_only: bool,
}

/// Whether a message is a command of an operator that is only to be validated. It is not forwarded: a leader of a release that does
/// not know the field would carry it out.
fn only_validates(path: &str, message: &[u8]) -> bool {
    let admin = <AdminServiceServer<AdminApi> as NamedService>::NAME;
    let of_operators = path.strip_prefix('/').and_then(|path| path.split_once('/')).is_some_and(|(of, _)| of == admin);
    let fields = message.get(5..).map(<Validation as prost::Message>::decode);
    of_operators && matches!(fields, Some(Ok(Validation { validate_only: true })))
}

/// The layer that forwards calls.
#[derive(Clone)]
pub(crate) struct ForwardLayer {
    inner: Arc<Inner>,
}

struct Inner {
    leadership: Leadership,
    /// `None`: servers speak no TLS with each other.
    peers: Option<Peers>,
    /// False: such calls are refused with the leader's address.
    forward: bool,
    gate: Gate,
    max_request: usize,
    max_response: usize,
    connection: Mutex<Option<(Arc<str>, Channel)>>,
}

impl ForwardLayer {
    pub(crate) fn new(leadership: Leadership, limits: &RpcLimits, peers: Option<Peers>) -> Self {
        let inner = Inner {
            leadership,
            peers,
            forward: limits.forward,
            gate: Gate::new(limits.max_calls + limits.max_waits),
            max_request: limits.max_request_bytes,
            max_response: limits.max_response_bytes,
            connection: Mutex::default(),
        };
        ForwardLayer { inner: Arc::new(inner) }
    }
}

impl<S> Layer<S> for ForwardLayer {
    type Service = Forward<S>;
    fn layer(&self, service: S) -> Forward<S> {
        Forward { service, inner: self.inner.clone() }
    }
}

/// A service whose changing calls are forwarded.
#[derive(Clone)]
pub(crate) struct Forward<S> {
    service: S,
    inner: Arc<Inner>,
}

impl<S> Service<Request<Body>> for Forward<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = self.inner.clone();
        if inner.leadership.role() == Role::Leading || !decides(request.uri().path()) {
            return Either::Left(self.service.call(request));
        }
        // The clone that reported ready serves the call.
        let own = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, own);
        Either::Right(Box::pin(async move {
            match inner.forward(request).await {
                Ok(response) => Ok(response),
                Err(Kept::Refused(error)) => Ok(Status::from(error).into_http()),
                Err(Kept::Own(request)) => service.call(request).await,
            }
        }))
    }
}

/// Outcome of a call that was not forwarded.
enum Kept {
    Refused(RpcError),
    /// This server serves the call itself: it leads now, or the call changes nothing.
    Own(Request<Body>),
}

impl From<RpcError> for Kept {
    fn from(error: RpcError) -> Self {
        Kept::Refused(error)
    }
}

/// Outcome of one try.
enum Tried {
    Answered(Response<Body>),
    /// The leader did not accept the seal. Nothing was done.
    Unproved(Response<Body>),
    /// Nothing was done.
    Nothing,
    /// Something may have been done.
    Lost,
}

impl Inner {
    async fn forward(&self, request: Request<Body>) -> Result<Response<Body>, Kept> {
        let mut stand = self.leadership.watch();
        let refusal = |stand: &LeadershipState| RpcError::NotLeader {
            leader: stand.leader.as_ref().map(|leader| leader.address.to_string()),
        };
        if !self.forward || request.headers().contains_key(FORWARDED) {
            return Err(refusal(&stand.borrow()).into());
        }
        let _place = self.gate.enter_call()?;
        let (parts, body) = request.into_parts();
        // Each message has a prefix of five bytes.
        let message = Limited::new(body, self.max_request + 5).collect().await;
        let message = message.map_err(|_| RpcError::MessageTooLarge { max: self.max_request })?.to_bytes();
        if only_validates(parts.uri.path(), &message) {
            return Err(Kept::Own(Request::from_parts(parts, Body::new(Full::new(message)))));
        }
        let now = Instant::now();
        let (patience, deadline) = (now + PATIENCE, left(&parts.headers).map(|left| now + left));
        let mut unproved_since: Option<Instant> = None;
        loop {
            let current = stand.borrow_and_update().clone();
            if current.role == Role::Leading {
                return Err(Kept::Own(Request::from_parts(parts, Body::new(Full::new(message)))));
            }
            if let Some(leader) = &current.leader {
                let call = dressed(&parts, &message, leader, deadline)?;
                let tried = tokio::select! {
                    tried = self.call(leader, call) => tried?,
                    // The former leader may hang, and its successor does not know of this call.
                    () = other_than(stand.clone(), leader) => Tried::Lost,
                };
                match tried {
                    Tried::Answered(response) => return Ok(response),
                    Tried::Unproved(response)
                        if unproved_since.get_or_insert_with(Instant::now).elapsed() >= NEW_KEY =>
                    {
                        return Ok(response);
                    }
                    // Deadlines travel in whole milliseconds.
                    Tried::Lost if deadline.is_some_and(|deadline| deadline <= Instant::now() + 2 * TICK) => {
                        return Err(RpcError::OverDeadline.into());
                    }
                    Tried::Lost => return Err(RpcError::LeaderLost.into()),
                    Tried::Unproved(_) | Tried::Nothing => {}
                }
            }
            if Instant::now() >= patience {
                return Err(refusal(&current).into());
            }
            let _ = tokio::time::timeout(AGAIN, stand.changed()).await;
        }
    }

    /// Makes one try.
    async fn call(&self, leader: &LeaderInfo, request: Request<Body>) -> Result<Tried, RpcError> {
        let mut channel = self.channel(&leader.address)?;
        let answer = async {
            poll_fn(|cx| channel.poll_ready(cx)).await?;
            channel.call(request).await
        };
        let response = match answer.await {
            Ok(response) => response,
            Err(error) if never_stood(&error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::debug!(cause, leader = &*leader.address, "no connection to the leader");
                return Ok(Tried::Nothing);
            }
            Err(error) => {
                tracing::debug!(%error, leader = &*leader.address, "a forwarded call has no answer");
                return Ok(Tried::Lost);
            }
        };
        // The whole body, so that half an answer is no answer.
        let (parts, body) = response.into_parts();
        let Ok(body) = Limited::new(body, self.max_response).collect().await else { return Ok(Tried::Lost) };
        let trailers = body.trailers().cloned();
        let status = Status::from_header_map(&parts.headers);
        if status.as_ref().is_some_and(refused_by_follower) {
            return Ok(Tried::Nothing);
        }
        let body = Full::new(body.to_bytes()).with_trailers(std::future::ready(trailers.map(Ok)));
        let response = Response::from_parts(parts, Body::new(body));
        // This server knows the caller. The leader may have begun a lead whose key this server has not read yet.
        if status.as_ref().is_some_and(refused_without_proof) {
            return Ok(Tried::Unproved(response));
        }
        Ok(Tried::Answered(response))
    }

    /// The connection to the server that leads. At most one is kept.
    fn channel(&self, address: &Arc<str>) -> Result<Channel, RpcError> {
        let mut kept = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, channel)) = &*kept
            && known == address
        {
            return Ok(channel.clone());
        }
        let channel = peers::channel(self.peers.as_ref(), address, |endpoint| {
            endpoint
                .connect_timeout(Duration::from_secs(2))
                .tcp_nodelay(true)
                .tcp_keepalive(Some(Duration::from_secs(60)))
                .http2_keep_alive_interval(Duration::from_secs(2))
                .keep_alive_timeout(Duration::from_secs(2))
                .keep_alive_while_idle(true)
        });
        let channel = channel.map_err(|error| {
            tracing::error!(%error, %address, "the address of the leader is not called: see its `advertise`");
            RpcError::NotLeader { leader: Some(address.to_string()) }
        })?;
        *kept = Some((address.clone(), channel.clone()));
        Ok(channel)
    }
}

/// The request that is forwarded.
fn dressed(
    parts: &Parts,
    message: &Bytes,
    leader: &LeaderInfo,
    deadline: Option<Instant>,
) -> Result<Request<Body>, RpcError> {
    let mut call = Request::new(Body::new(Full::new(message.clone())));
    *call.method_mut() = parts.method.clone();
    *call.uri_mut() = parts.uri.clone();
    *call.version_mut() = parts.version;
    let headers = call.headers_mut();
    for name in KEPT {
        if let Some(value) = parts.headers.get(name) {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(FORWARDED, HeaderValue::from_static("2"));
    let caller = parts.extensions.get::<Arc<Identity>>().ok_or(RpcError::Bug("a call has no identity"))?;
    let text = |text: &str| HeaderValue::from_str(text).map_err(|_| RpcError::Bug("an identity is no header"));
    let identity = Passed::from(&**caller).encode().ok_or(RpcError::Bug("an identity is too long"))?;
    let (key, path) = (&leader.forwarding_key, parts.uri.path());
    if let Some(seal) = forward_auth::seal(key, path, &identity, message) {
        headers.insert(SEAL, text(&seal)?);
    }
    headers.insert(IDENTITY, text(&identity)?);
    headers.insert(PROGRAM, HeaderValue::from_static(caller.program.as_str()));
    if matches!(&*caller.principal, Identity::LOCAL | Identity::ANONYMOUS) {
        headers.insert(CALLER, text(&caller.principal)?);
        if let Some(proof) = forward_auth::make(key, path, &caller.principal) {
            headers.insert(PROOF, text(&proof)?);
        }
    }
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis().clamp(1, 99_999_999);
        headers.insert(TIMEOUT, text(&format!("{left}m"))?);
    }
    Ok(call)
}

/// The rest of a call's deadline, from its metadata.
fn left(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Waits until another server is known to lead. An unknown leader does not end the wait.
async fn other_than(mut stand: watch::Receiver<LeadershipState>, leader: &LeaderInfo) {
    let other = |stand: &LeadershipState| {
        stand.role == Role::Leading || stand.leader.as_ref().is_some_and(|known| known != leader)
    };
    if stand.wait_for(other).await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests;
