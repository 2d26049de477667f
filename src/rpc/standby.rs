//! The port of a server that stands by: it says who leads, and that it does not serve.

use crate::pb::admin_service_server::AdminServiceServer;
use crate::pb::lease_service_server::LeaseServiceServer;
use crate::rpc::admin::AdminApi;
use crate::rpc::connection;
use crate::rpc::lease::LeaseApi;
use crate::rpc::limits::RpcLimits;
use crate::rpc::server::{SERVICES, ServeError, reflection};
use crate::rpc::status::RpcError;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tower::Service;

/// Where the leader is, as far as that is known; it changes.
pub type KnownLeader = watch::Receiver<Option<String>>;

/// How long calls may take to be refused, once it is over.
const GRACE: Duration = Duration::from_millis(200);

/// Refuses every call with UNAVAILABLE, reason `NOT_LEADER` and the address of the leader (`leader` in its metadata), until
/// `stop` is cancelled. Health says NOT_SERVING, so that nothing that balances load sends anybody here. Reflection works.
///
/// # Errors
/// As [`crate::rpc::serve`].
pub async fn stand_by(
    listener: TcpListener,
    leader: KnownLeader,
    limits: RpcLimits,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let cut = CancellationToken::new();
    let _guard = cut.clone().drop_guard();
    let (reporter, health) = tonic_health::server::health_reporter();
    for name in SERVICES {
        reporter.set_service_status(name, ServingStatus::NotServing).await;
    }
    let incoming = connection::accept(listener, &limits, cut.clone());
    let serving = Server::builder()
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .max_concurrent_streams(limits.max_streams)
        .add_service(Refusing::<LeaseServiceServer<LeaseApi>>::new(leader.clone()))
        .add_service(Refusing::<AdminServiceServer<AdminApi>>::new(leader))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        done = &mut serving => return Ok(done?),
        () = stop.cancelled() => {}
    }
    if tokio::time::timeout(GRACE, &mut serving).await.is_err() {
        cut.cancel();
        let _ = tokio::time::timeout(GRACE, serving).await;
    }
    Ok(())
}

/// A service of this name that refuses everything.
struct Refusing<S> {
    leader: KnownLeader,
    name: PhantomData<fn() -> S>,
}

impl<S> Refusing<S> {
    fn new(leader: KnownLeader) -> Self {
        Self { leader, name: PhantomData }
    }
}

impl<S> Clone for Refusing<S> {
    fn clone(&self) -> Self {
        Self::new(self.leader.clone())
    }
}

impl<S: NamedService> NamedService for Refusing<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Refusing<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let leader = self.leader.borrow().clone();
        ready(Ok(Status::from(RpcError::NotLeader { leader }).into_http()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::admin_service_client::AdminServiceClient;
    use crate::pb::lease_service_client::LeaseServiceClient;
    use crate::pb::{GetRequest, ListPoolsRequest, WatchRequest};
    use tonic::Code;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_types::StatusExt;

    fn refusal(status: &Status, leader: Option<&str>) {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((&*info.reason, info.metadata.get("leader").map(String::as_str)), ("NOT_LEADER", leader));
        assert!(details.retry_info().unwrap().retry_delay.is_some());
    }

    #[tokio::test]
    async fn every_call_is_refused_and_told_where_to_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (tell, leader) = watch::channel(None);
        let stop = CancellationToken::new();
        let port = tokio::spawn(stand_by(listener, leader, RpcLimits::default(), stop.clone()));

        let mut lease = LeaseServiceClient::connect(address.clone()).await.unwrap();
        refusal(&lease.get(GetRequest::default()).await.unwrap_err(), None);
        tell.send(Some("http://other:7411".into())).unwrap();
        refusal(&lease.get(GetRequest::default()).await.unwrap_err(), Some("http://other:7411"));
        refusal(&lease.watch(WatchRequest::default()).await.unwrap_err(), Some("http://other:7411"));
        let mut admin = AdminServiceClient::connect(address.clone()).await.unwrap();
        refusal(&admin.list_pools(ListPoolsRequest::default()).await.unwrap_err(), Some("http://other:7411"));

        let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        let mut health = HealthClient::new(channel);
        for name in SERVICES {
            let answer = health.check(HealthCheckRequest { service: name.into() }).await.unwrap().into_inner();
            assert_eq!(answer.status, ServingStatus::NotServing as i32, "{name}");
        }
        // With connections open it ends all the same.
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), port).await.expect("in good time").unwrap().unwrap();
    }
}
