//! Who calls. The only place that says so: policy builds on it.

use crate::rpc::status::RpcError;
use std::net::SocketAddr;
use std::sync::Arc;
use tonic::{Request, Status};

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

/// Puts the principal into a request's extensions, whatever it calls.
#[expect(clippy::unnecessary_wraps, reason = "tonic's signature; policy will refuse here")]
pub(crate) fn identify(mut request: Request<()>) -> Result<Request<()>, Status> {
    let principal = Principal::of(request.remote_addr());
    request.extensions_mut().insert(principal);
    Ok(request)
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
    fn loopback_is_local_and_all_others_are_anonymous() {
        let name = |text: &str| Principal::of(Some(text.parse().unwrap())).name().to_string();
        assert_eq!(name("127.77.1.2:5"), "local");
        assert_eq!(name("[::1]:5"), "local");
        assert_eq!(name("[::ffff:127.0.0.1]:5"), "local");
        assert_eq!(name("10.0.0.1:5"), "anonymous");
        assert_eq!(&**Principal::of(None).name(), "anonymous");
    }
}
