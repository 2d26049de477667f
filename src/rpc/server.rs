//! The port: services, limits, and the order in which all of it ends.

use crate::auth::Addresses;
use crate::engine::Handle;
use crate::pb;
use crate::pb::admin_service_server::AdminServiceServer;
use crate::pb::lease_service_server::LeaseServiceServer;
use crate::pb::trust_service_server::TrustServiceServer;
use crate::rpc::admin::AdminApi;
use crate::rpc::audit::{Refusals, WINDOW};
use crate::rpc::connection::{self, Port};
use crate::rpc::context::{AnswerSources, Context};
use crate::rpc::count::Count;
use crate::rpc::forward::ForwardLayer;
use crate::rpc::health::Health;
use crate::rpc::lease::LeaseApi;
use crate::rpc::limits::RpcLimits;
use crate::rpc::principal::Identify;
use crate::rpc::status::explained;
use crate::rpc::trust::TrustApi;
use std::pin::pin;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Response;
use tonic::transport::Server;
use tower::util::MapResponseLayer;

/// After the cut: how long tasks get to see it.
const AFTER_CUT: Duration = Duration::from_secs(1);

/// The port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The built-in descriptors cannot be served: a fault of the program.
    #[error("the reflection service can't be made")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("the gRPC port can't be served")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves the services, reflection and health on a bound port until `shutdown` is cancelled.
///
/// Then, in this order: health says NOT_SERVING, no connection is accepted any more, every watch and every waiting
/// `Lease` ends with UNAVAILABLE and reason `STOPPING`, calls under way are answered; what is still open after
/// [`RpcLimits::stop_grace`] is cut. The engine must run until this returns.
pub async fn serve(
    port: impl Into<Port>,
    handle: Handle,
    limits: RpcLimits,
    sources: AnswerSources,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
    // Whatever way this ends, nothing of it lives on.
    let _guards = (stop.clone().drop_guard(), cut.clone().drop_guard());
    let leadership = handle.leadership().clone();
    let calls = sources.calls.clone();
    let count = Count::new(calls.clone());
    let context = Context::new(handle.clone(), &limits, sources, stop.clone());
    let (reporter, health) = tonic_health::server::health_reporter();
    let well = Health::new(reporter, handle).await;
    let (reflection, reflection_alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
    let max = limits.max_request_bytes;
    let lease = LeaseServiceServer::new(LeaseApi(context.clone()))
        .max_decoding_message_size(max)
        .max_encoding_message_size(limits.max_response_bytes);
    let admin = AdminServiceServer::new(AdminApi(context.clone()))
        .max_decoding_message_size(max)
        .max_encoding_message_size(limits.max_response_bytes);
    let trust = TrustServiceServer::new(TrustApi(context.clone())).max_decoding_message_size(max);
    let port = port.into();
    let refusals = Refusals::default();
    context.tasks.spawn(tell(refusals.clone(), stop.clone()));
    let peers = port.peers.clone();
    let addresses = Addresses::new(limits.per_address.clone());
    let door = (refusals.clone(), calls.clone(), addresses.clone());
    let incoming = connection::accept(port, &limits, cut.clone(), door);
    let serving = Server::builder()
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .max_concurrent_streams(limits.max_streams)
        .layer(count)
        .layer(Identify::new(
            context.trust.clone(),
            leadership.clone(),
            (peers.clone(), refusals),
            (addresses, calls),
            max,
        ))
        .layer(ForwardLayer::new(leadership, &limits, peers))
        .layer(MapResponseLayer::new(move |response| explain(response, max)))
        .add_service(lease)
        .add_service(admin)
        .add_service(trust)
        .add_service(health)
        .add_service(reflection)
        .add_service(reflection_alpha)
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let mut serving = pin!(serving);

    tokio::select! {
        done = &mut serving => return Ok(done?),
        () = well.run(shutdown) => {}
    }
    stop.cancel();
    if let Ok(done) = tokio::time::timeout(limits.stop_grace, &mut serving).await {
        done?;
    } else {
        tracing::info!(grace = ?limits.stop_grace, "connections are still open and are cut now");
        cut.cancel();
        let _ = tokio::time::timeout(AFTER_CUT, serving).await;
    }
    context.tasks.close();
    let _ = tokio::time::timeout(AFTER_CUT, context.tasks.wait()).await;
    Ok(())
}

/// Writes the counters of refusals.
pub(crate) async fn tell(refusals: Refusals, stop: CancellationToken) {
    while tokio::time::timeout(WINDOW, stop.cancelled()).await.is_err() {
        refusals.flush();
    }
}

fn reflection<'a>() -> tonic_reflection::server::Builder<'a> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // google/rpc/error_details.proto: the details of errors, for tools that have no files of their own.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// Gives what tonic itself refuses the same kind of status as everything else.
fn explain(response: Response<Body>, max_request_bytes: usize) -> Response<Body> {
    let status = Status::from_header_map(response.headers());
    match status.and_then(|status| explained(&status, max_request_bytes)) {
        Some(status) => status.into_http(),
        None => response,
    }
}

#[cfg(test)]
mod tests;
