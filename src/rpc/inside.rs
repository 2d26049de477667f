//! The services without a socket, for callers in this process: the operator's page and Jenkins' remote locks.
//!
//! A call goes through the same layers as one that comes by the port: it is counted, gets its identity from its origin and its
//! token, is refused by the same rules, and is forwarded to the server that leads. A caller in here can do nothing that the API
//! cannot.

use crate::auth::Addresses;
use crate::engine::{Handle, Role};
use crate::pb;
use crate::pb::admin_service_client::AdminServiceClient;
use crate::pb::admin_service_server::AdminServiceServer;
use crate::pb::lease_service_client::LeaseServiceClient;
use crate::pb::lease_service_server::LeaseServiceServer;
use crate::pb::trust_service_client::TrustServiceClient;
use crate::pb::trust_service_server::TrustServiceServer;
use crate::rpc::admin::AdminApi;
use crate::rpc::audit::Refusals;
use crate::rpc::configuration::{ConfigurationStatus, RefusedConfiguration};
use crate::rpc::connection::{ConnectInfo, Connection, Port, accept};
use crate::rpc::context::{AnswerSources, Context};
use crate::rpc::count::Count;
use crate::rpc::forward::ForwardLayer;
use crate::rpc::lease::LeaseApi;
use crate::rpc::limits::RpcLimits;
use crate::rpc::peers::Peers;
use crate::rpc::principal::Identify;
use crate::rpc::server::tell;
use crate::rpc::trust::TrustApi;
use crate::telemetry::metrics::Calls;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{Request, Response};
use tonic::metadata::{AsciiMetadataValue, MetadataKey};
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::ServiceBuilder;
use tower::util::BoxCloneSyncService;
use wharfinger_core::{Program, Revision};

/// The caller of a call from inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsideCaller {
    /// The connection of the person's program, and what that proves.
    pub(crate) connection: ConnectInfo,
    /// Its token. `None`: it has none, and is known by its connection alone.
    pub token: Option<Arc<str>>,
    /// The program of this process that calls for it.
    pub program: Program,
}

impl InsideCaller {
    /// A caller at this address, whose connection proves no more than that.
    pub fn at(address: SocketAddr, token: Option<Arc<str>>, program: Program) -> Self {
        Self { connection: ConnectInfo::plain(address), token, program }
    }

    /// Whether it shows who it is, by a token, a certificate or a proxy.
    pub(crate) fn proves(&self) -> bool {
        self.token.is_some() || self.connection.certificate().is_some() || self.connection.proxied().is_some()
    }
}

/// The kind of a refusal, by who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The caller proves nothing, or its proof is not worth anything.
    Unknown,
    /// The caller is known, and may not do that.
    NotAllowed,
    /// There is no such thing.
    NotFound,
    /// The request is at fault, or the state of its subject.
    Request,
    /// The server cannot answer now.
    Unavailable,
    /// A fault of the server.
    Internal,
}

/// The refusal of a call from inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsideError {
    /// Its kind.
    pub kind: RefusalKind,
    /// The stable reason, as in docs/api.md. Empty: it has none.
    pub reason: String,
    /// The message, for people.
    pub message: String,
}

impl From<Status> for InsideError {
    fn from(status: Status) -> Self {
        let kind = match status.code() {
            Code::Unauthenticated => RefusalKind::Unknown,
            Code::PermissionDenied => RefusalKind::NotAllowed,
            Code::NotFound => RefusalKind::NotFound,
            Code::InvalidArgument | Code::FailedPrecondition | Code::AlreadyExists | Code::OutOfRange => {
                RefusalKind::Request
            }
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted | Code::Cancelled => {
                RefusalKind::Unavailable
            }
            Code::Ok | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => RefusalKind::Internal,
        };
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        Self { kind, reason, message: status.message().to_owned() }
    }
}

/// The place of this server among the servers, and the age of its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it leads.
    pub leads: bool,
    /// The address of the server that leads, if this one follows and knows it.
    pub leader: Option<Arc<str>>,
    /// The age of the data. `None`: nothing was read yet.
    pub age: Option<Duration>,
    /// Whether the data is recent enough for an answer.
    pub fresh: bool,
    /// The revision of the data.
    pub revision: u64,
    /// A text of the configuration file that was refused at a reload.
    pub refused: Option<RefusedConfiguration>,
}

type Service = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The services without a socket. Cheap to clone.
#[derive(Clone)]
pub struct Inside {
    service: Service,
    handle: Handle,
    asks: crate::auth::Trust,
    configuration: ConfigurationStatus,
    max_response: usize,
    door: (RpcLimits, Option<Calls>, CancellationToken),
}

impl Inside {
    /// The services on this engine. They end with `stop`.
    pub fn new(
        handle: Handle,
        limits: &RpcLimits,
        sources: AnswerSources,
        peers: Option<Peers>,
        stop: CancellationToken,
    ) -> Self {
        let (max, max_response) = (limits.max_request_bytes, limits.max_response_bytes);
        let leadership = handle.leadership().clone();
        let (count, refusals) = (Count::new(sources.calls.clone()), Refusals::default());
        let addresses = (Addresses::new(limits.per_address.clone()), sources.calls.clone());
        let context = Context::new(handle.clone(), limits, sources, stop.clone());
        // Ends with `stop`.
        tokio::spawn(tell(refusals.clone(), stop.clone()));
        let door = (limits.clone(), context.sources.calls.clone(), stop.clone());
        let (asks, configuration) = (context.trust.clone(), context.sources.configuration.clone());
        let routes = Routes::new(LeaseServiceServer::new(LeaseApi(context.clone())).max_decoding_message_size(max))
            .add_service(AdminServiceServer::new(AdminApi(context.clone())).max_decoding_message_size(max))
            .add_service(TrustServiceServer::new(TrustApi(context)).max_decoding_message_size(max))
            .prepare();
        let service = ServiceBuilder::new()
            .layer(count)
            .layer(Identify::new(asks.clone(), leadership.clone(), (peers.clone(), refusals), addresses, max))
            .layer(ForwardLayer::new(leadership, limits, peers))
            .service(routes);
        Self { service: BoxCloneSyncService::new(service), handle, asks, configuration, max_response, door }
    }

    /// The connections of a port for browsers, with the limits of the server's port.
    pub(crate) fn connections(&self, port: Port) -> ReceiverStream<io::Result<Connection>> {
        let (limits, calls, stop) = self.door.clone();
        let refusals = Refusals::default();
        // Ends with `stop`.
        tokio::spawn(tell(refusals.clone(), stop));
        let addresses = Addresses::new(limits.per_address.clone());
        // A stop lets the answers under way end.
        accept(port, &limits, CancellationToken::new(), (refusals, calls, addresses))
    }

    /// Whether a caller needs a proof.
    pub fn asks(&self) -> bool {
        self.asks.asks()
    }

    /// The place of this server among the servers.
    pub fn standing(&self) -> Standing {
        let leadership = self.handle.leadership();
        Standing {
            leads: leadership.role() == Role::Leading,
            leader: leadership.leader(),
            age: leadership.age(),
            fresh: leadership.fresh().is_ok(),
            revision: self.handle.hub().revision().borrow().0,
            refused: self.configuration.problem(),
        }
    }

    /// The latest revision, and each later one.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.handle.hub().revision()
    }
}

/// A request of this caller.
fn dressed<T>(caller: &InsideCaller, message: T) -> Result<tonic::Request<T>, InsideError> {
    let mut request = tonic::Request::new(message);
    request.extensions_mut().insert(caller.connection.clone());
    request.extensions_mut().insert(caller.program);
    if let Some(token) = &caller.token {
        let value = AsciiMetadataValue::try_from(format!("Bearer {token}")).map_err(|_| InsideError {
            kind: RefusalKind::Unknown,
            reason: "MALFORMED_TOKEN".to_owned(),
            message: "the token has characters that no token has".to_owned(),
        })?;
        request.metadata_mut().insert(MetadataKey::from_static(AUTHORIZATION.as_str()), value);
    }
    Ok(request)
}

/// The methods that can be called: a service, and its methods with their messages.
macro_rules! calls {
    ($($client:ident { $($method:ident: $request:ident => $response:ident,)* })*) => {
        impl Inside {
            $($(
                /// Calls the method of this name.
                ///
                /// # Errors
                /// [`InsideError`]: the call is refused.
                pub async fn $method(
                    &self,
                    caller: &InsideCaller,
                    message: pb::$request,
                ) -> Result<pb::$response, InsideError> {
                    let mut client = $client::new(self.service.clone()).max_decoding_message_size(self.max_response);
                    Ok(client.$method(dressed(caller, message)?).await?.into_inner())
                }
            )*)*
        }
    };
}

calls! {
    LeaseServiceClient {
        lease: LeaseRequest => LeaseResponse,
        renew: RenewRequest => RenewResponse,
        get: GetRequest => GetResponse,
        release: ReleaseRequest => ReleaseResponse,
        list: ListRequest => ListResponse,
        explain: ExplainRequest => ExplainResponse,
        list_queue: ListQueueRequest => ListQueueResponse,
        timeline: TimelineRequest => TimelineResponse,
        get_server: GetServerRequest => GetServerResponse,
        list_servers: ListServersRequest => ListServersResponse,
    }
    AdminServiceClient {
        list_pools: ListPoolsRequest => ListPoolsResponse,
        get_pool: GetPoolRequest => GetPoolResponse,
        list_resources: ListResourcesRequest => ListResourcesResponse,
        get_resource: GetResourceRequest => GetResourceResponse,
        events: EventsRequest => EventsResponse,
        weather: WeatherRequest => WeatherResponse,
        cordon: CordonRequest => CordonResponse,
        uncordon: UncordonRequest => UncordonResponse,
        drain: DrainRequest => DrainResponse,
        undrain: UndrainRequest => UndrainResponse,
        check: CheckRequest => CheckResponse,
        taint: TaintRequest => TaintResponse,
        quarantine: QuarantineRequest => QuarantineResponse,
        hold: HoldRequest => HoldResponse,
        recover: RecoverRequest => RecoverResponse,
        recycle: RecycleRequest => RecycleResponse,
        force_destroy: ForceDestroyRequest => ForceDestroyResponse,
        note: NoteRequest => NoteResponse,
        r#break: BreakRequest => BreakResponse,
    }
    TrustServiceClient {
        who_am_i: WhoAmIRequest => WhoAmIResponse,
    }
}
