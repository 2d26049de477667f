//! Who calls. The only place that says so: policy builds on it.

use crate::engine::Leadership;
use crate::rpc::connection::ConnectInfo;
use crate::rpc::forward::{CALLER, FORWARDED, PROOF};
use crate::rpc::forward_auth;
use crate::rpc::status::RpcError;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Request;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{self, HeaderMap};
use tower::Layer;

/// Who calls, as far as the connection proves it. Carried into the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal(Arc<str>);

impl Principal {
    /// Somebody on the broker's own machine.
    pub const LOCAL: &'static str = "local";
    /// Somebody on the network who proved nothing.
    pub const ANONYMOUS: &'static str = "anonymous";

    /// From the address of a connection without TLS.
    fn of(peer: Option<SocketAddr>) -> Self {
        match peer {
            Some(peer) if peer.ip().to_canonical().is_loopback() => Self(Arc::from(Self::LOCAL)),
            Some(_) | None => Self(Arc::from(Self::ANONYMOUS)),
        }
    }

    /// As it is stored.
    pub fn name(&self) -> &Arc<str> {
        &self.0
    }
}

/// Puts the principal into each call's extensions, whatever it calls.
#[derive(Clone)]
pub(crate) struct Identify {
    leadership: Leadership,
}

impl Identify {
    pub(crate) fn new(leadership: Leadership) -> Self {
        Self { leadership }
    }

    fn of(&self, peer: Option<SocketAddr>, path: &str, headers: &HeaderMap) -> Principal {
        let connected = Principal::of(peer);
        if !headers.contains_key(FORWARDED) {
            return connected;
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let said = text(CALLER);
        if forward_auth::holds(&self.leadership.forwarding_key(), path, said, text(PROOF)) {
            return Principal(Arc::from(said));
        }
        // Anybody may say that: it makes less of who calls, never more.
        match said {
            Principal::LOCAL => connected,
            _ => Principal(Arc::from(Principal::ANONYMOUS)),
        }
    }
}

impl<S> Layer<S> for Identify {
    type Service = Identified<S>;
    fn layer(&self, service: S) -> Identified<S> {
        Identified { service, identify: self.clone() }
    }
}

/// A service whose calls have a principal.
#[derive(Clone)]
pub(crate) struct Identified<S> {
    service: S,
    identify: Identify,
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Identified<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> S::Future {
        let peer = request.extensions().get::<ConnectInfo>().and_then(|info| info.tcp.remote_addr());
        let principal = self.identify.of(peer, request.uri().path(), request.headers());
        request.extensions_mut().insert(principal);
        self.service.call(request)
    }
}

/// The principal of a request.
pub(crate) fn of<T>(request: &Request<T>) -> Result<Arc<str>, RpcError> {
    let principal = request.extensions().get::<Principal>();
    principal.map(|who| who.0.clone()).ok_or(RpcError::Bug("a call has no principal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_passes_a_call_on_is_believed_with_a_proof_and_else_only_makes_less_of_it() {
        let leadership = Leadership::leading();
        leadership.lead("key");
        let identify = Identify::new(leadership);
        let name = |from: &str, headers: &[(&'static str, &str)]| {
            let headers =
                headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
            identify.of(Some(from.parse().unwrap()), "/a/B", &headers.collect()).name().to_string()
        };
        let (near, far) = ("127.0.0.1:5", "10.0.0.1:5");
        let proof = |caller: &str| forward_auth::make("key", "/a/B", caller).unwrap();
        for (from, said, proved, is) in [
            (far, "local", Some("local"), "local"),
            (near, "anonymous", Some("anonymous"), "anonymous"),
            (far, "root", Some("root"), "root"),
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
        // What is not marked says nothing at all.
        assert_eq!(name(far, &[(CALLER, "local"), (PROOF, &proof("local"))]), "anonymous");
    }

    #[test]
    fn loopback_is_local_and_all_others_are_anonymous() {
        let name = |text: &str| Principal::of(Some(text.parse().unwrap())).name().to_string();
        assert_eq!(name("127.77.1.2:5"), "local");
        assert_eq!(name("[::1]:5"), "local");
        assert_eq!(name("[::ffff:127.0.0.1]:5"), "local");
        assert_eq!(name("10.0.0.1:5"), "anonymous");
        assert_eq!(&**Principal::of(None).name(), "anonymous");
    }
}
