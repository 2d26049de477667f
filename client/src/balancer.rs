//! The endpoints of several servers, and the choice among them.
//!
//! Calls go to the server that answered the last one. A server that follows and does not forward refuses with the leader's
//! address, and the same call goes there at once if the client may follow it: a refused call did nothing. A call whose connection was never established is
//! retried as well. A later failure is returned; only the caller knows whether to repeat it. The next call goes to the next server.

use super::{AuthToken, ClientError, ClientOptions, Follow, error};
use crate::address::ServerAddress;
use crate::faults::Faults;
use crate::random::random;
use http_body_util::{BodyExt, Full};
use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Bytes, Service};
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Status};

/// Maximum number of servers, configured or named by other servers.
const MOST: usize = 32;

/// The call whose messages are a stream.
const SESSION: &str = "/wharfinger.v1.LeaseService/Session";

type BoxError = Box<dyn StdError + Send + Sync>;

/// Connections to one server.
struct End {
    address: String,
    /// Whether nothing between reads along: TLS, or a Unix socket.
    secure: bool,
    calls: (Channel, Faults),
    watches: (Channel, Faults),
}

struct Shared {
    ends: RwLock<Vec<End>>,
    /// Index of the server for the next call, and of that for the next watch. Watches begin at a random server, so that those of
    /// many clients spread over the servers.
    current: [AtomicUsize; 2],
    options: ClientOptions,
    /// The hosts of the list.
    hosts: Vec<String>,
}

/// A transport to one of several servers. Cheap to clone; the clones share what they know of the servers.
#[derive(Clone)]
pub struct Endpoints {
    shared: Arc<Shared>,
    /// Uses the connections for watches.
    watches: bool,
}

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoints").field("watches", &self.watches).field("servers", &self.shared.addresses()).finish()
    }
}

/// Whether an address, as `HOST:PORT`, is of this machine whatever name servers say.
pub(crate) fn is_here(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

impl Endpoints {
    /// Returns the transport for calls and that for watches. The first server may have a connection already.
    pub(super) fn new(
        parsed: &[ServerAddress],
        first: Option<(Channel, Faults)>,
        options: &ClientOptions,
    ) -> (Endpoints, Endpoints) {
        let mut first = first;
        let ends = parsed.iter().map(|server| End {
            address: server.authority(),
            secure: server.is_private(),
            calls: first.take().unwrap_or_else(|| server.connect_lazy()),
            watches: server.connect_lazy(),
        });
        let shared = Arc::new(Shared {
            ends: RwLock::new(ends.collect()),
            current: [AtomicUsize::new(0), AtomicUsize::new(anywhere(parsed.len()))],
            options: options.clone(),
            hosts: parsed.iter().filter_map(|server| server.host().map(String::from)).collect(),
        });
        (Endpoints { shared: shared.clone(), watches: false }, Endpoints { shared, watches: true })
    }
}

fn anywhere(count: usize) -> usize {
    usize::try_from(random() % (count.max(1) as u64)).unwrap_or(0)
}

impl Endpoints {
    /// Number of known servers.
    pub(super) fn count(&self) -> usize {
        self.shared.ends.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Shared {
    fn addresses(&self) -> Vec<String> {
        self.ends.read().unwrap_or_else(PoisonError::into_inner).iter().map(|end| end.address.clone()).collect()
    }

    /// The present server: its index, its channel with the faults of that, and the number of servers.
    fn current(&self, watches: bool) -> (usize, (Channel, Faults), usize) {
        let ends = self.ends.read().unwrap_or_else(PoisonError::into_inner);
        let at = self.current[usize::from(watches)].load(Ordering::Acquire) % ends.len();
        let end = &ends[at];
        (at, if watches { end.watches.clone() } else { end.calls.clone() }, ends.len())
    }

    /// Goes on to the next server, unless another call did so already.
    fn go_on(&self, watches: bool, from: usize, count: usize) {
        let current = &self.current[usize::from(watches)];
        let _ = current.compare_exchange(from, (from + 1) % count, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Adds the caller's token to a request for this server. Without TLS others could read it on its way to another machine.
    async fn sign(&self, request: &mut Request<Body>, at: usize) -> Result<Option<AuthToken>, BoxError> {
        let token = match (&self.options.credentials, &self.options.token) {
            (Some(credentials), _) => credentials.token().await?,
            (None, Some(token)) => token.clone(),
            (None, None) => return Ok(None),
        };
        let ends = self.ends.read().unwrap_or_else(PoisonError::into_inner);
        let Some(end) = ends.get(at) else { return Ok(None) };
        if !(end.secure || is_here(&end.address)) {
            let message = format!(
                "the token is not sent to {0}: there is no TLS, and others could read it; write https://{0}",
                end.address
            );
            return Err(Status::unauthenticated(message).into());
        }
        request.headers_mut().insert("authorization", token.0.clone());
        Ok(Some(token))
    }

    /// Whether there is another token than the one that was refused.
    async fn has_other_than(&self, refused: Option<&AuthToken>) -> bool {
        match (&self.options.credentials, refused) {
            (Some(credentials), Some(refused)) => credentials.other_than(refused).await.is_some(),
            (Some(_) | None, _) => false,
        }
    }

    /// Whether a refusal may lead to this server, which is not in the list.
    fn may_follow(&self, told: &ServerAddress) -> bool {
        match self.options.follow {
            Follow::Listed => false,
            Follow::SameHosts => told.host().is_some_and(|host| self.hosts.iter().any(|known| known == host)),
            Follow::Anywhere => true,
        }
    }

    /// Goes to the server that leads, and adds it if it is unknown and may be followed. A server of `dead` is refused: clients may reach the leader by
    /// another address than the servers do.
    fn go_to(&self, watches: bool, leader: &str, dead: &[usize]) -> Result<(), ClientError> {
        let told = ServerAddress::parse(leader, true, &self.options, &mut None)?;
        let wanted = told.authority();
        let mut ends = self.ends.write().unwrap_or_else(PoisonError::into_inner);
        let at = match ends.iter().position(|end| end.address == wanted) {
            Some(at) if dead.contains(&at) => {
                return Err(ClientError::Address(format!("{leader:?}, which is silent,")));
            }
            Some(at) => at,
            // A server names no file of this machine.
            None if told.is_socket() => {
                return Err(ClientError::Address(format!("{leader:?}, which is a socket of this machine,")));
            }
            // An answer must not lead from a server that proves itself to one that does not.
            None if !told.is_private() && ends.iter().any(|end| end.secure) => {
                return Err(ClientError::Address(format!("{leader:?}, which has no TLS as the listed servers have,")));
            }
            None if !self.may_follow(&told) => {
                return Err(ClientError::Address(format!("{leader:?}, which is none of the listed servers,")));
            }
            None if ends.len() < MOST => {
                let (calls, watches) = (told.connect_lazy(), told.connect_lazy());
                ends.push(End { address: wanted, secure: told.is_private(), calls, watches });
                ends.len() - 1
            }
            None => return Err(ClientError::Address(format!("{leader:?}, one of too many,"))),
        };
        self.current[usize::from(watches)].store(at, Ordering::Release);
        Ok(())
    }
}

fn is_unauthenticated(response: &Response<Body>) -> bool {
    Status::from_header_map(response.headers()).is_some_and(|status| status.code() == Code::Unauthenticated)
}

/// Consequence of an answer.
enum Next {
    /// The answer is returned.
    Done,
    /// The call did nothing, and goes to another server.
    Again,
}

impl Endpoints {
    /// A refusal before anything was done leads to another server.
    fn judge(&self, response: &Response<Body>, at: usize, count: usize, dead: &[usize]) -> Next {
        let Some(status) = Status::from_header_map(response.headers()) else { return Next::Done };
        if status.code() != Code::Unavailable {
            return Next::Done;
        }
        let refusal = error::reason(&status).is_some_and(|reason| reason == "NOT_LEADER");
        match error::leader(&status).filter(|_| refusal) {
            Some(leader) if self.shared.go_to(self.watches, &leader, dead).is_ok() => return Next::Again,
            Some(_) | None => self.shared.go_on(self.watches, at, count),
        }
        if refusal { Next::Again } else { Next::Done }
    }

    /// Carries a call whose messages are a stream, once: they cannot be sent again. A refusal leads the next one to another server.
    async fn carry_stream(self, mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (at, (mut channel, faults), count) = self.shared.current(self.watches);
        let trace = self.shared.options.traceparent.as_deref();
        if let Some(Ok(trace)) = trace.map(tonic::codegen::http::HeaderValue::from_str) {
            request.headers_mut().insert("traceparent", trace);
        }
        let token = self.shared.sign(&mut request, at).await?;
        let answer = async {
            poll_fn(|cx| channel.poll_ready(cx)).await?;
            channel.call(request).await
        };
        match answer.await {
            Ok(response) => {
                if is_unauthenticated(&response) {
                    // Another token is asked for, for the next one.
                    self.shared.has_other_than(token.as_ref()).await;
                }
                let _ = self.judge(&response, at, count, &[]);
                Ok(response)
            }
            Err(error) => {
                self.shared.go_on(self.watches, at, count);
                Err(faults.noted().map_or_else(|| error.into(), Into::into))
            }
        }
    }

    async fn carry(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (mut parts, body) = request.into_parts();
        let trace = self.shared.options.traceparent.as_deref();
        if let Some(Ok(trace)) = trace.map(tonic::codegen::http::HeaderValue::from_str) {
            parts.headers.insert("traceparent", trace);
        }
        // Each call has one message, which may be sent again.
        let message: Bytes = body.collect().await?.to_bytes();
        let mut left = None;
        let mut dead = Vec::new();
        let mut renewed = false;
        // The latest failure that is no fault of a certificate: that server may take the call later.
        let mut lost: Option<BoxError> = None;
        loop {
            let (at, (mut channel, faults), count) = self.shared.current(self.watches);
            let left = left.get_or_insert(2 * count);
            *left = left.saturating_sub(1);
            let mut request = Request::from_parts(parts.clone(), Body::new(Full::new(message.clone())));
            let token = self.shared.sign(&mut request, at).await?;
            // A call that is dropped without an answer may have met a server that hangs.
            let hanging = Hanging { shared: &self.shared, at, count, over: !self.watches };
            let answer = async {
                poll_fn(|cx| channel.poll_ready(cx)).await?;
                channel.call(request).await
            };
            let answer = answer.await;
            hanging.end();
            // A token that has just expired, or was replaced. The call did nothing.
            let refused = answer.as_ref().is_ok_and(is_unauthenticated);
            if refused && !renewed && self.shared.has_other_than(token.as_ref()).await {
                renewed = true;
                continue;
            }
            match answer {
                Ok(response) => match self.judge(&response, at, count, &dead) {
                    Next::Again if *left > 0 => {}
                    Next::Again | Next::Done => return Ok(response),
                },
                Err(error) => {
                    self.shared.go_on(self.watches, at, count);
                    // A server that refuses the certificate has done nothing.
                    let fault = faults.noted();
                    let undone = fault.is_some() || never_stood(&error);
                    let again = undone && count > 1 && *left > 0;
                    match fault {
                        None if again => lost = Some(error.into()),
                        None => return Err(error.into()),
                        Some(_) if again => {}
                        // Each server refuses, or the others are away for now.
                        Some(fault) => return Err(lost.unwrap_or_else(|| fault.into())),
                    }
                    dead.push(at);
                }
            }
        }
    }
}

struct Hanging<'s> {
    shared: &'s Shared,
    at: usize,
    count: usize,
    over: bool,
}

impl Hanging<'_> {
    fn end(mut self) {
        self.over = true;
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        if !self.over {
            // Only for calls: a watch stays open.
            self.shared.go_on(false, self.at, self.count);
        }
    }
}

/// Whether the connection was never established, so that nothing was sent.
pub fn never_stood(error: &tonic::transport::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

impl Service<Request<Body>> for Endpoints {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() == SESSION {
            return Box::pin(self.clone().carry_stream(request));
        }
        Box::pin(self.clone().carry(request))
    }
}

#[cfg(test)]
mod tests;
