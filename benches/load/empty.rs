//! The yardstick: a unary call that does nothing, over the same transport with the same messages.

use crate::meter::{Figure, Plan, connect, measure};
use tokio::net::TcpListener;
use tonic::codegen::http;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use wharfinger::pb::{GetRequest, GetResponse};

pub(crate) struct Empty {
    address: String,
}

#[derive(Clone)]
struct Nothing;

impl tonic::server::NamedService for Nothing {
    const NAME: &'static str = "bench.Nothing";
}

impl tonic::server::UnaryService<GetRequest> for Nothing {
    type Response = GetResponse;
    type Future = std::future::Ready<Result<Response<GetResponse>, Status>>;

    fn call(&mut self, _request: Request<GetRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(GetResponse::default())))
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Nothing {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            let codec: ProstCodec<GetResponse, GetRequest> = ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(Nothing, request).await)
        })
    }
}

impl Empty {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(tonic::transport::Server::builder().add_service(Nothing).serve_with_incoming(incoming));
        Self { address }
    }

    pub(crate) async fn load(&self, plan: Plan) -> Figure {
        let channels = connect(&self.address, plan.connections).await;
        measure(plan, channels, |channel| async move {
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.expect("connected");
            let codec: ProstCodec<GetRequest, GetResponse> = ProstCodec::default();
            let path = http::uri::PathAndQuery::from_static("/bench.Nothing/Call");
            client.unary(Request::new(GetRequest::default()), path, codec).await.expect("an empty answer");
        })
        .await
    }
}
