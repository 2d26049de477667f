//! etcd's leases, by its own gRPC API: a process of its own, with its data beside ours.

use crate::meter::{Figure, Plan, connect, measure};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

pub(crate) struct Etcd {
    address: String,
    child: Child,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The message etcdserverpb.LeaseGrantRequest.
#[derive(Clone, PartialEq, prost::Message)]
struct GrantRequest {
    #[prost(int64, tag = "1")]
    ttl: i64,
    #[prost(int64, tag = "2")]
    id: i64,
}

/// etcdserverpb.LeaseGrantResponse, as far as it matters.
#[derive(Clone, PartialEq, prost::Message)]
struct GrantResponse {
    #[prost(int64, tag = "2")]
    id: i64,
    #[prost(int64, tag = "3")]
    ttl: i64,
}

/// The message etcdserverpb.LeaseRevokeRequest.
#[derive(Clone, PartialEq, prost::Message)]
struct RevokeRequest {
    #[prost(int64, tag = "1")]
    id: i64,
}

/// The message etcdserverpb.LeaseRevokeResponse.
#[derive(Clone, PartialEq, prost::Message)]
struct RevokeResponse {}

impl Etcd {
    /// `None` if etcd is not installed.
    pub(crate) async fn start(data: &Path) -> Option<Self> {
        let port = |()| std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok().map(|a| a.port());
        let (client, peer) = (port(())?, port(())?);
        let address = format!("http://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let child = Command::new("etcd")
            .args(["--name", "bench", "--data-dir"])
            .arg(data)
            .args(["--listen-client-urls", &address, "--advertise-client-urls", &address])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("bench={peer}"), "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let etcd = Self { address, child };
        for _ in 0..100 {
            if let Ok(endpoint) = Channel::from_shared(etcd.address.clone())
                && let Ok(channel) = endpoint.connect().await
                && grant(channel).await.is_some()
            {
                return Some(etcd);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        eprintln!("etcd did not start within 10 s: not compared");
        None
    }

    pub(crate) async fn grant(&self, plan: Plan) -> Figure {
        let channels = connect(&self.address, plan.connections).await;
        measure(plan, channels, |channel| async move {
            grant(channel).await.expect("etcd grants");
        })
        .await
    }

    pub(crate) async fn cycle(&self, plan: Plan) -> Figure {
        let channels = connect(&self.address, plan.connections).await;
        measure(plan, channels, |channel| async move {
            let id = grant(channel.clone()).await.expect("etcd grants");
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.expect("connected");
            let codec: ProstCodec<RevokeRequest, RevokeResponse> = ProstCodec::default();
            let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseRevoke");
            client.unary(tonic::Request::new(RevokeRequest { id }), path, codec).await.expect("etcd revokes");
        })
        .await
    }
}

async fn grant(channel: Channel) -> Option<i64> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.ok()?;
    let codec: ProstCodec<GrantRequest, GrantResponse> = ProstCodec::default();
    let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseGrant");
    let answer = client.unary(tonic::Request::new(GrantRequest { ttl: 600, id: 0 }), path, codec).await.ok()?;
    Some(answer.into_inner().id)
}
