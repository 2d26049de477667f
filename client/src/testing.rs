//! A broker that does what a test says, for the tests of the client.

use crate::pb;
use crate::pb::lease_service_server::{LeaseService, LeaseServiceServer};
use crate::pb::trust_service_server::{TrustService, TrustServiceServer};
use crate::{Client, ClientOptions};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming, async_trait};

pub(crate) type Message = Result<pb::WatchResponse, Status>;

/// A broker; dropping it ends its port and its connections.
pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    pub(crate) script: Arc<Script>,
    /// Each watch that a client opens: what it asked for, and where to tell.
    pub(crate) watches: mpsc::UnboundedReceiver<(pb::WatchRequest, mpsc::Sender<Message>)>,
    _server: DropGuard,
}

/// Answers in turn; the last one again and again.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) lease: Mutex<VecDeque<Result<pb::LeaseResponse, Status>>>,
    pub(crate) renew: Mutex<VecDeque<Result<pb::RenewResponse, Status>>>,
    pub(crate) get: Mutex<VecDeque<Result<pb::GetResponse, Status>>>,
    pub(crate) leases_asked: Mutex<Vec<pb::LeaseRequest>>,
    pub(crate) who: Mutex<VecDeque<Result<pb::WhoAmIResponse, Status>>>,
    pub(crate) renewals: Mutex<usize>,
    pub(crate) releases: Mutex<Vec<pb::ReleaseRequest>>,
    /// Takes each stream of a session that a client opens. `None`: the broker has no sessions.
    pub(crate) sessions: Mutex<Option<mpsc::Sender<AgentStream>>>,
}

/// The messages of a client over its session, and where to answer.
pub(crate) type AgentStream = (Streaming<pb::SessionRequest>, mpsc::Sender<Result<pb::SessionResponse, Status>>);

struct Service {
    script: Arc<Script>,
    watches: mpsc::UnboundedSender<(pb::WatchRequest, mpsc::Sender<Message>)>,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await, // the one before is not gone yet
            }
        };
        let address = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test opens few watches")]
        let (opened, watches) = mpsc::unbounded_channel();
        let script = Arc::new(Script::default());
        let trust = TrustServiceServer::new(Service { script: script.clone(), watches: opened.clone() });
        let service = LeaseServiceServer::new(Service { script: script.clone(), watches: opened });
        let stop = CancellationToken::new();
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .add_service(trust)
            .serve_with_incoming_shutdown(TcpIncoming::from(listener), stop.clone().cancelled_owned());
        tokio::spawn(async move { drop(serving.await) });
        Self { address, script, watches, _server: stop.drop_guard() }
    }

    pub(crate) async fn client(&self) -> Client {
        let options = ClientOptions { retry_for: Duration::from_secs(10), ..ClientOptions::default() };
        Client::connect_with(&self.address.to_string(), options).await.unwrap()
    }
}

fn next<T: Clone>(answers: &Mutex<VecDeque<Result<T, Status>>>) -> Result<Response<T>, Status> {
    let mut answers = answers.lock().unwrap();
    let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
    answer.unwrap_or_else(|| Err(Status::unimplemented("not in the script"))).map(Response::new)
}

#[async_trait]
impl LeaseService for Service {
    async fn lease(&self, request: Request<pb::LeaseRequest>) -> Result<Response<pb::LeaseResponse>, Status> {
        self.script.leases_asked.lock().unwrap().push(request.into_inner());
        next(&self.script.lease)
    }

    async fn login(&self, _: Request<pb::LoginRequest>) -> Result<Response<pb::LoginResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn release(&self, request: Request<pb::ReleaseRequest>) -> Result<Response<pb::ReleaseResponse>, Status> {
        let request = request.into_inner();
        let lease = lease(1, pb::LeaseState::Released);
        self.script.releases.lock().unwrap().push(request);
        Ok(Response::new(pb::ReleaseResponse { lease: Some(lease.clone()), leases: vec![lease] }))
    }

    async fn renew(&self, _request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewResponse>, Status> {
        *self.script.renewals.lock().unwrap() += 1;
        next(&self.script.renew)
    }

    type WatchStream = ReceiverStream<Message>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (tell, told) = mpsc::channel(16);
        let _ = self.watches.send((request.into_inner(), tell));
        Ok(Response::new(ReceiverStream::new(told)))
    }

    type SessionStream = ReceiverStream<Result<pb::SessionResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<pb::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let sessions = self.script.sessions.lock().unwrap().clone();
        let Some(sessions) = sessions else {
            return Err(Status::unimplemented("a server of an older version"));
        };
        let (tell, told) = mpsc::channel(16);
        let _ = sessions.send((request.into_inner(), tell)).await;
        Ok(Response::new(ReceiverStream::new(told)))
    }

    async fn get(&self, _request: Request<pb::GetRequest>) -> Result<Response<pb::GetResponse>, Status> {
        next(&self.script.get)
    }

    async fn list(&self, _request: Request<pb::ListRequest>) -> Result<Response<pb::ListResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn report(&self, _request: Request<pb::ReportRequest>) -> Result<Response<pb::ReportResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn timeline(&self, _request: Request<pb::TimelineRequest>) -> Result<Response<pb::TimelineResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn explain(&self, _request: Request<pb::ExplainRequest>) -> Result<Response<pb::ExplainResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn list_queue(
        &self,
        _request: Request<pb::ListQueueRequest>,
    ) -> Result<Response<pb::ListQueueResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn list_servers(
        &self,
        _request: Request<pb::ListServersRequest>,
    ) -> Result<Response<pb::ListServersResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn get_server(
        &self,
        _request: Request<pb::GetServerRequest>,
    ) -> Result<Response<pb::GetServerResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
}

#[async_trait]
impl TrustService for Service {
    async fn who_am_i(&self, _request: Request<pb::WhoAmIRequest>) -> Result<Response<pb::WhoAmIResponse>, Status> {
        next(&self.script.who)
    }

    async fn can_i(&self, _request: Request<pb::CanIRequest>) -> Result<Response<pb::CanIResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
}

/// A lease with a TTL of 300 ms.
pub(crate) fn lease(revision: u64, state: pb::LeaseState) -> pb::Lease {
    use pb::LeaseState as S;
    let at = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    let (active_at, ended_at) = match state {
        S::Unspecified | S::Queued | S::Preparing => (None, None),
        S::Active => (at, None),
        S::Released | S::Expired | S::Broken | S::Cancelled | S::Failed => (None, at),
    };
    pb::Lease {
        active_at,
        ended_at,
        id: "lse_01JDEFG7T1000000000000002A".into(),
        revision,
        state: state.into(),
        ttl: Some(prost_types::Duration { seconds: 0, nanos: 300_000_000 }),
        ..pb::Lease::default()
    }
}

pub(crate) fn told(lease: pb::Lease) -> Message {
    let revision = lease.revision;
    Ok(pb::WatchResponse { revision, event: Some(pb::watch_response::Event::Lease(lease)) })
}

pub(crate) fn bookmark(revision: u64, synced: bool) -> Message {
    let bookmark = pb::Bookmark { at: None, synced };
    Ok(pb::WatchResponse { revision, event: Some(pb::watch_response::Event::Bookmark(bookmark)) })
}
