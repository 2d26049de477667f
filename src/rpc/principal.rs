//! The layer that gives each call its identity, and refuses a method whose verb its roles do not have.

use crate::auth::{Access, Addresses, Identity, Origin, Passed, Proof, Roles, Trust, Verb, access};
use crate::engine::{Leadership, Role};
use crate::rpc::audit::Refusals;
use crate::rpc::connection::ConnectInfo;
use crate::rpc::forward::{CALLER, FORWARDED, IDENTITY, PROGRAM, PROOF, SEAL};
use crate::rpc::forward_auth;
use crate::rpc::peers::Peers;
use crate::rpc::status::RpcError;
use crate::telemetry::metrics::Calls;
use crate::traces::TraceParent;
use futures::future::{BoxFuture, Either};
use http_body_util::{BodyExt, Full, Limited};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::header::USER_AGENT;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::{Request as Call, Status};
use tower::Layer;
use wharfinger_core::{Caller, Program};

/// The begin of the command line's `user-agent`.
const CLI: &str = "wharfinger-cli/";

/// Puts the identity into each call's extensions, before anything reads its message.
#[derive(Clone)]
pub(crate) struct Identify {
    trust: Trust,
    leadership: Leadership,
    /// The servers that may forward calls. `None`: a seal is enough.
    peers: Option<Peers>,
    refusals: Refusals,
    addresses: Addresses,
    calls: Option<Calls>,
    /// Maximum length of a message in bytes.
    max_request: usize,
}

impl Identify {
    pub(crate) fn new(
        trust: Trust,
        leadership: Leadership,
        (peers, refusals): (Option<Peers>, Refusals),
        (addresses, calls): (Addresses, Option<Calls>),
        max_request: usize,
    ) -> Self {
        Self { trust, leadership, peers, refusals, addresses, calls, max_request }
    }

    /// Whether a server may have forwarded a call that came by this connection.
    fn is_peer(&self, origin: &Origin) -> bool {
        self.peers.as_ref().is_none_or(|peers| peers.has(origin.leaf.as_deref()))
    }

    /// The identity of a call whose message is not part of the proof.
    fn of(&self, origin: Origin, path: &str, headers: &HeaderMap) -> Result<Identity, RpcError> {
        let (peer, from_server) = (origin.address, self.is_peer(&origin));
        if !headers.contains_key(FORWARDED) {
            return Ok(self.trust.identify(origin, headers)?);
        }
        let said = one(headers, CALLER).unwrap_or_default();
        // Until the next release: the proof of a server of an older version, which knows one caller.
        let old =
            from_server && !headers.contains_key(IDENTITY) && !headers.contains_key(SEAL) && said == Identity::LOCAL;
        if old
            && forward_auth::holds(
                &self.leadership.forwarding_key(),
                path,
                said,
                one(headers, PROOF).unwrap_or_default(),
            )
        {
            let passed = Passed { principal: Arc::from(said), proof: Proof::Local, expires: None, peer: None };
            return Ok(self.trust.vouched(passed, peer)?);
        }
        // Anybody may say that: it makes less of who calls, never more.
        Ok(self.trust.unvouched(peer, said)?)
    }

    /// The identity of a call that comes from a client. An address whose proofs were wrong too often waits.
    async fn of_client(&self, origin: &Origin, path: &str, headers: &HeaderMap) -> Result<Identity, RpcError> {
        let waits = origin.address.and_then(|address| self.addresses.waits(address.ip()));
        let too_often = |wait| {
            if let Some(calls) = &self.calls {
                calls.turned_away("ADDRESS_FAILURES");
            }
            Err(RpcError::AddressFailures { wait })
        };
        if let Some(wait) = waits
            && !self.trust.is_cheap(headers)
        {
            return too_often(wait);
        }
        let mut identity = self.of(origin.clone(), path, headers);
        if matches!(&identity, Err(RpcError::Unauthenticated(error)) if error.wants_keys()) {
            self.trust.look_for_keys(headers).await;
            identity = self.of(origin.clone(), path, headers);
        }
        let wrong = matches!(&identity, Err(RpcError::Unauthenticated(error)) if error.is_wrong_proof());
        match (wrong, waits, origin.address) {
            (true, Some(wait), _) => too_often(wait),
            (true, None, Some(address)) => {
                self.addresses.failed(address.ip());
                identity
            }
            _ => identity,
        }
    }

    /// The identity of a call that another server forwarded.
    fn sealed(&self, peer: Option<SocketAddr>, request: &Request<Body>, message: &[u8]) -> Result<Identity, RpcError> {
        let headers = request.headers();
        let proved = || {
            let (identity, seal) = (one(headers, IDENTITY)?, one(headers, SEAL)?);
            let key = self.leadership.forwarding_key();
            let holds = forward_auth::is_sealed(&key, request.uri().path(), identity, message, seal);
            Passed::decode(identity).filter(|_| holds)
        };
        match proved() {
            Some(passed) => Ok(self.trust.vouched(passed, peer)?),
            // The database names this server as the leader, and it has no key yet. Nothing is done, so that the call is tried again.
            None if self.leadership.role() != Role::Leading => {
                Err(RpcError::NotLeader { leader: self.leadership.leader().map(|leader| leader.to_string()) })
            }
            None => Ok(self.trust.unvouched(peer, one(headers, CALLER).unwrap_or_default())?),
        }
    }

    /// The identity of a forwarded call, whose message is part of the proof.
    async fn collected(
        &self,
        peer: Option<SocketAddr>,
        request: Request<Body>,
        access: Access,
    ) -> Result<Request<Body>, Refused> {
        let (parts, body) = request.into_parts();
        // Each message has a prefix of five bytes.
        let message = Limited::new(body, self.max_request + 5).collect().await;
        let message = message.map_err(|_| RpcError::MessageTooLarge { max: self.max_request })?.to_bytes();
        let request = Request::from_parts(parts, Body::new(Full::new(message.clone())));
        let identity = self.sealed(peer, &request, &message);
        admit(request, identity, access)
    }
}

/// A call that is refused before its method sees it.
struct Refused {
    error: RpcError,
    /// The caller, if it is known.
    who: Option<Box<Identity>>,
}

impl From<RpcError> for Refused {
    fn from(error: RpcError) -> Self {
        Self { error, who: None }
    }
}

/// The call with its identity, if its roles may make it.
fn admit(
    mut request: Request<Body>,
    identity: Result<Identity, RpcError>,
    access: Access,
) -> Result<Request<Body>, Refused> {
    let mut identity = identity?;
    let trace = one(request.headers(), "traceparent").and_then(TraceParent::parse);
    identity.trace = trace.map(|trace| trace.to_string().into());
    identity.program = program(&request, identity.via.is_some());
    if !may(&identity.roles, access) {
        let method = method_of(request.uri().path());
        let wanted = wanted(access);
        let Identity { principal, roles, .. } = &identity;
        let message = format!("the roles of {principal} ({roles}) may not call {method}, which needs {wanted}");
        return Err(Refused { error: RpcError::NotAllowed(message), who: Some(Box::new(identity)) });
    }
    request.extensions_mut().insert(Arc::new(identity));
    Ok(request)
}

/// Whether a caller of these roles may make a call of this kind.
fn may(roles: &Roles, access: Access) -> bool {
    match access {
        Access::Open | Access::Undisclosed | Access::Known => true,
        Access::AnyRole => !roles.is_empty(),
        Access::Verbs(verbs) => verbs.iter().any(|verb| roles.has(*verb)),
    }
}

/// The part of the refusal of a call of this kind that names its need.
fn wanted(access: Access) -> String {
    match access {
        Access::Open | Access::Undisclosed | Access::Known | Access::AnyRole => "a role".to_owned(),
        Access::Verbs(verbs) => {
            let names: Vec<String> = verbs.iter().map(ToString::to_string).collect();
            format!("the verb {}", names.join(" or "))
        }
    }
}

/// The program by which a call is made. A program of this process names itself, and so does the server that forwards a call. Of all
/// others only the command line is known, by a header that every client may send.
fn program(request: &Request<Body>, is_vouched: bool) -> Program {
    let inside = request.extensions().get::<Program>().copied();
    let forwarded = || one(request.headers(), PROGRAM).and_then(Program::parse).filter(|_| is_vouched);
    let agent = || one(request.headers(), USER_AGENT.as_str()).is_some_and(|agent| agent.starts_with(CLI));
    inside.or_else(forwarded).unwrap_or_else(|| if agent() { Program::Cli } else { Program::Api })
}

/// The name of the method with this path.
fn method_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The value of a header that comes once.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none());
    value.and_then(|value| value.to_str().ok())
}

impl<S> Layer<S> for Identify {
    type Service = Identified<S>;
    fn layer(&self, service: S) -> Identified<S> {
        Identified { service, identify: Arc::new(self.clone()) }
    }
}

/// A service whose calls have an identity.
#[derive(Clone)]
pub(crate) struct Identified<S> {
    service: S,
    identify: Arc<Identify>,
}

type Answer = Result<Response<Body>, Infallible>;

impl<S> Service<Request<Body>> for Identified<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Either<Ready<Answer>, BoxFuture<'static, Answer>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let origin = request.extensions().get::<ConnectInfo>().map(ConnectInfo::origin).unwrap_or_default();
        let refuse = |error: RpcError| Either::Right(Either::Left(ready(Ok(Status::from(error).into_http()))));
        let access = match access(request.uri().path()) {
            Some(access @ (Access::Known | Access::AnyRole | Access::Verbs(_))) => access,
            Some(Access::Open) => return Either::Left(self.service.call(request)),
            Some(Access::Undisclosed) if !self.identify.trust.asks() => {
                return Either::Left(self.service.call(request));
            }
            Some(Access::Undisclosed) | None => return refuse(RpcError::NoMethod),
        };
        let sealed = request.headers().contains_key(FORWARDED) && request.headers().contains_key(IDENTITY);
        // The clone that reported ready serves the call.
        let own = self.service.clone();
        let (mut service, identify) = (std::mem::replace(&mut self.service, own), self.identify.clone());
        Either::Right(Either::Right(Box::pin(async move {
            let path = request.uri().path().to_owned();
            let admitted = if sealed && identify.is_peer(&origin) {
                // The proof covers the message.
                identify.collected(origin.address, request, access).await
            } else {
                let identity = identify.of_client(&origin, &path, request.headers()).await;
                admit(request, identity, access)
            };
            let (response, who) = match admitted {
                Ok(request) => {
                    let who = request.extensions().get::<Arc<Identity>>().cloned();
                    (service.call(request).await?, who)
                }
                Err(Refused { error, who }) => (Status::from(error).into_http(), who.map(|who| Arc::new(*who))),
            };
            identify.refusals.note_answer(response.headers(), method_of(&path), who.as_deref(), &origin);
            Ok(response)
        })))
    }
}

/// The identity of a call.
pub(crate) fn identity<T>(request: &Call<T>) -> Result<Arc<Identity>, RpcError> {
    request.extensions().get::<Arc<Identity>>().cloned().ok_or(RpcError::Bug("a call has no identity"))
}

/// The caller of a call by a verb, as the core knows it.
pub(crate) fn of<T>(request: &Call<T>, verb: Verb) -> Result<Caller, RpcError> {
    identity(request).map(|identity| identity.reads(verb))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AddressLimits;
    use tonic::codegen::http::HeaderName;

    #[test]
    fn an_older_server_that_forwards_a_call_is_believed_for_one_caller_and_else_only_makes_less_of_it() {
        let leadership = Leadership::leading();
        leadership.lead("key");
        let identify = Identify::new(
            Trust::everyone(),
            leadership,
            (None, Refusals::default()),
            (Addresses::new(AddressLimits::default()), None),
            1000,
        );
        let name = |from: &str, headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            identify.of(Some(from.parse().unwrap()).into(), "/a/B", &headers.collect()).unwrap().principal.to_string()
        };
        let (near, far) = ("127.0.0.1:5", "10.0.0.1:5");
        let proof = |caller: &str| forward_auth::make("key", "/a/B", caller).unwrap();
        for (from, said, proved, is) in [
            (far, "local", Some("local"), "local"),
            (near, "anonymous", Some("anonymous"), "anonymous"),
            (far, "root", Some("root"), "anonymous"),
            (far, "root", Some("local"), "anonymous"),
            (far, "local", None, "anonymous"),
            (near, "local", None, "local"),
            (near, "anonymous", None, "anonymous"),
            (near, "root", None, "anonymous"),
        ] {
            let proof = proved.map(proof).unwrap_or_default();
            let mut headers = vec![(FORWARDED, "1"), (CALLER, said)];
            if proved.is_some() {
                headers.push((PROOF, &proof));
            }
            assert_eq!(name(from, &headers), is, "{from} says {said}, proves {proved:?}");
        }
        // With a header of the present proof the old one is worth nothing.
        let old = [(FORWARDED, "1"), (CALLER, "local"), (PROOF, &proof("local")), (SEAL, "x")];
        assert_eq!(name(far, &old), "anonymous");
        // A call without the mark of a forwarded one is not believed.
        assert_eq!(name(far, &[(CALLER, "local"), (PROOF, &proof("local"))]), "anonymous");
    }

    #[tokio::test]
    async fn a_sealed_call_is_refused_as_by_a_follower_until_this_server_leads() {
        let (leadership, passed) = (
            Leadership::following(std::time::Duration::MAX),
            Passed { principal: Arc::from(Identity::LOCAL), proof: Proof::Local, expires: None, peer: None },
        );
        let identity = passed.encode().unwrap();
        let identify = Identify::new(
            Trust::everyone(),
            leadership.clone(),
            (None, Refusals::default()),
            (Addresses::new(AddressLimits::default()), None),
            1000,
        );
        let asked = async |key: &str| {
            let seal = forward_auth::seal(key, "/a/B", &identity, b"message").unwrap();
            let request = Request::builder().uri("/a/B").header(FORWARDED, "2").header(IDENTITY, &identity);
            let request = request.header(SEAL, seal).body(Body::new(Full::from("message"))).unwrap();
            let admitted = identify.collected(None, request, Access::Known).await;
            admitted.map(|request| request.extensions().get::<Arc<Identity>>().unwrap().principal.to_string())
        };
        // This server has won the election, and does not lead yet: the database names it, and it has no key.
        let early = asked("next").await;
        assert!(matches!(early, Err(Refused { error: RpcError::NotLeader { leader: None }, .. })));
        leadership.lead("next");
        assert_eq!(asked("next").await.ok().as_deref(), Some(Identity::LOCAL));
        assert_eq!(asked("former").await.ok().as_deref(), Some(Identity::ANONYMOUS), "it proves nothing");
    }
}
