//! The endpoints of several servers, and the choice among them.
//!
//! Calls go to the server that answered the last one. A server that follows and does not forward refuses with the leader's
//! address, and the same call goes there at once: a refused call did nothing. A call whose connection was never established is
//! retried as well. A later failure is returned; only the caller knows whether to repeat it. The next call goes to the next server.

use super::{ClientError, ClientOptions, error};
use crate::random::random;
use http_body_util::{BodyExt, Full};
use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Bytes, Service};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError, Status};

/// Maximum number of servers, configured or named by other servers.
const MOST: usize = 32;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Connections to one server.
struct End {
    address: String,
    calls: Channel,
    watches: Channel,
}

struct Shared {
    ends: RwLock<Vec<End>>,
    /// Index of the server for the next call, and of that for the next watch. Watches begin at a random server, so that those of
    /// many clients spread over the servers.
    current: [AtomicUsize; 2],
    options: ClientOptions,
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

/// Reads addresses: `HOST:PORT` or `http://HOST:PORT`, several with commas between.
pub(super) fn parse(endpoints: &str, options: &ClientOptions) -> Result<Vec<Endpoint>, ClientError> {
    let several = endpoints.contains(',');
    endpoints.split(',').map(|text| endpoint(text.trim(), several, options)).collect()
}

/// The endpoint of each server, for health checks.
///
/// # Errors
/// [`ClientError::Address`].
pub fn parse_addresses(endpoints: &str) -> Result<Vec<Endpoint>, ClientError> {
    parse(endpoints, &ClientOptions::default())
}

fn endpoint(text: &str, several: bool, options: &ClientOptions) -> Result<Endpoint, ClientError> {
    let wrong = || ClientError::Address(format!("{text:?}"));
    let uri = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let endpoint = Endpoint::from_shared(uri).map_err(|_| wrong())?;
    // TLS is not built in: an https address is refused here, before a handshake fails.
    let complete = endpoint.uri().scheme_str() == Some("http") && endpoint.uri().port().is_some();
    if !complete {
        return Err(wrong());
    }
    // With several servers a silent one is given up sooner.
    let (interval, timeout) = if several { (5, 3) } else { (20, 10) };
    Ok(endpoint
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(60)))
        .http2_keep_alive_interval(Duration::from_secs(interval))
        .keep_alive_timeout(Duration::from_secs(timeout))
        .keep_alive_while_idle(true))
}

/// The canonical form of an address.
fn address(endpoint: &Endpoint) -> String {
    endpoint.uri().authority().map(ToString::to_string).unwrap_or_default()
}

impl Endpoints {
    /// Returns the transport for calls and that for watches. The first server may have a connection already.
    pub(super) fn new(parsed: &[Endpoint], first: Option<Channel>, options: &ClientOptions) -> (Endpoints, Endpoints) {
        let mut first = first;
        let ends = parsed.iter().map(|endpoint| End {
            address: address(endpoint),
            calls: first.take().unwrap_or_else(|| endpoint.connect_lazy()),
            watches: endpoint.connect_lazy(),
        });
        let shared = Arc::new(Shared {
            ends: RwLock::new(ends.collect()),
            current: [AtomicUsize::new(0), AtomicUsize::new(anywhere(parsed.len()))],
            options: options.clone(),
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

    /// The present server: its index, its channel, and the number of servers.
    fn current(&self, watches: bool) -> (usize, Channel, usize) {
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

    /// Goes to the server that leads, and adds it if it is unknown. A server of `dead` is refused: clients may reach the leader by
    /// another address than the servers do.
    fn go_to(&self, watches: bool, leader: &str, dead: &[usize]) -> Result<(), ClientError> {
        let told = endpoint(leader, true, &self.options)?;
        let wanted = address(&told);
        let mut ends = self.ends.write().unwrap_or_else(PoisonError::into_inner);
        let at = match ends.iter().position(|end| end.address == wanted) {
            Some(at) if dead.contains(&at) => {
                return Err(ClientError::Address(format!("{leader:?}, which is silent,")));
            }
            Some(at) => at,
            None if ends.len() < MOST => {
                ends.push(End { address: wanted, calls: told.connect_lazy(), watches: told.connect_lazy() });
                ends.len() - 1
            }
            None => return Err(ClientError::Address(format!("{leader:?}, one of too many,"))),
        };
        self.current[usize::from(watches)].store(at, Ordering::Release);
        Ok(())
    }
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

    async fn carry(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        // Each call has one message, which may be sent again.
        let message: Bytes = body.collect().await?.to_bytes();
        let mut left = None;
        let mut dead = Vec::new();
        loop {
            let (at, mut channel, count) = self.shared.current(self.watches);
            let left = left.get_or_insert(2 * count);
            *left = left.saturating_sub(1);
            let request = Request::from_parts(parts.clone(), Body::new(Full::new(message.clone())));
            // A call that is dropped without an answer may have met a server that hangs.
            let hanging = Hanging { shared: &self.shared, at, count, over: !self.watches };
            let answer = async {
                poll_fn(|cx| channel.poll_ready(cx)).await?;
                channel.call(request).await
            };
            let answer = answer.await;
            hanging.end();
            match answer {
                Ok(response) => match self.judge(&response, at, count, &dead) {
                    Next::Again if *left > 0 => {}
                    Next::Again | Next::Done => return Ok(response),
                },
                Err(error) => {
                    self.shared.go_on(self.watches, at, count);
                    if !(never_stood(&error) && count > 1 && *left > 0) {
                        return Err(error.into());
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
        Box::pin(self.clone().carry(request))
    }
}

#[cfg(test)]
mod tests;
