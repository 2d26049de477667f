use super::*;
use crate::auth::Identity;
use crate::pb::lease_service_client::LeaseServiceClient;
use crate::rpc::testing::{TestServer, grant, start};
use crate::rpc::{AnswerSources, RpcLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt;

async fn channel(server: &TestServer) -> Channel {
    Channel::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap()
}

async fn client(server: &TestServer) -> LeaseServiceClient<Channel> {
    LeaseServiceClient::new(channel(server).await)
}

fn wanted() -> pb::LeaseRequest {
    pb::LeaseRequest {
        request_id: "r".into(),
        holder: "me".into(),
        selector: Some(pb::Selector { pool: "p".into(), ..pb::Selector::default() }),
        ..pb::LeaseRequest::default()
    }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[tokio::test]
async fn a_lease_is_answered_and_its_caller_is_local() {
    let server = start(RpcLimits::default(), grant).await;
    let answer = client(&server).await.lease(wanted()).await.unwrap().into_inner();
    let lease = answer.lease.unwrap();
    assert_eq!((lease.holder.as_str(), lease.principal.as_str()), ("me", Identity::LOCAL));
    assert!(answer.leases.is_empty(), "one lease is told once");
}

#[tokio::test]
async fn bad_input_gets_its_fields_over_the_wire() {
    let server = start(RpcLimits::default(), grant).await;
    let status = client(&server).await.lease(pb::LeaseRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
    let fields: Vec<_> =
        status.get_details_bad_request().unwrap().field_violations.into_iter().map(|v| v.field).collect();
    assert_eq!(fields, ["request_id", "selector"]);
}

#[tokio::test]
async fn a_holder_name_of_ten_megabytes_gets_a_clear_error_and_disturbs_no_client() {
    let server = start(RpcLimits::default(), grant).await;
    let mut client = client(&server).await;
    let huge = pb::LeaseRequest { holder: "h".repeat(10 << 20), ..wanted() };
    let status = client.lease(huge).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "MESSAGE_TOO_LARGE"), "{status:?}");
    assert!(status.message().contains("262144 bytes; a holder has at most 1024"), "{}", status.message());
    assert!(client.lease(wanted()).await.is_ok());
}

#[tokio::test]
async fn garbage_on_the_port_disturbs_no_client() {
    let server = start(RpcLimits::default(), grant).await;
    let mut client = client(&server).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    silent.write_all(b"PRI").await.unwrap();
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01"[..], &[0; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff"]
    {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        // The server closes it; a reset is as good.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    let mut browser = TcpStream::connect(server.address).await.unwrap();
    browser.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    browser.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 426");

    assert!(client.lease(wanted()).await.is_ok());
}

#[tokio::test]
async fn too_many_watches_are_refused_and_a_place_left_is_free_again() {
    let server = start(RpcLimits { max_watches: 1, ..RpcLimits::default() }, grant).await;
    let mut client = client(&server).await;
    let first = client.watch(pb::WatchRequest::default()).await.unwrap();
    let status = client.watch(pb::WatchRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "TOO_MANY"));
    assert!(status.get_details_retry_info().is_some());

    drop(first);
    while let Err(status) = client.watch(pb::WatchRequest::default()).await {
        assert_eq!(status.code(), Code::ResourceExhausted);
    }
}

#[tokio::test]
async fn too_many_calls_are_shed_and_a_silent_engine_is_given_up() {
    let limits = RpcLimits { max_calls: 1, call_timeout: Duration::from_millis(200), ..RpcLimits::default() };
    // Get asks the engine, which leaves questions open in these tests.
    let server = start(limits, grant).await;
    let mut client = client(&server).await;
    let get = pb::GetRequest { lease_id: "lse_01JDEFG7T1000000000000002A".into(), ..pb::GetRequest::default() };
    let mut reasons = Vec::new();
    let (mut a, mut b) = (client.clone(), client.clone());
    let (first, second) = tokio::join!(a.get(get.clone()), b.get(get.clone()));
    for status in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(status.code(), Code::Unavailable);
        reasons.push(reason(&status));
    }
    reasons.sort();
    assert_eq!(reasons, ["OVERLOADED", "TIMED_OUT"]);
    assert!(client.lease(wanted()).await.is_ok());
}

#[tokio::test]
async fn too_many_connections_are_closed_at_once() {
    let server = start(RpcLimits { max_connections: 1, ..RpcLimits::default() }, grant).await;
    let mut client = client(&server).await;
    assert!(client.lease(wanted()).await.is_ok());
    let mut second = TcpStream::connect(server.address).await.unwrap();
    let _ = second.read_to_end(&mut Vec::new()).await;
    assert!(client.lease(wanted()).await.is_ok());
}

#[tokio::test]
async fn a_stop_ends_watches_with_a_status_and_does_not_wait_for_idle_connections() {
    let server = start(RpcLimits { stop_grace: Duration::from_secs(600), ..RpcLimits::default() }, grant).await;
    let mut client = client(&server).await;
    let mut watch = client.watch(pb::WatchRequest::default()).await.unwrap().into_inner();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel(&server).await);
    let service = tonic_health::pb::HealthCheckRequest { service: "wharfinger.v1.LeaseService".into() };
    let mut healthy = health.watch(service).await.unwrap().into_inner();
    assert_eq!(healthy.message().await.unwrap().unwrap().status, 1);
    let _idle = TcpStream::connect(server.address).await.unwrap();

    server.shutdown.cancel();

    let status = watch.message().await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STOPPING"));
    assert_eq!(healthy.message().await.unwrap().unwrap().status, 2);
    // Long before the grace is over, though both clients keep their connections.
    server.served.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_client_that_does_not_let_go_is_cut() {
    let server = start(RpcLimits { stop_grace: Duration::from_millis(100), ..RpcLimits::default() }, grant).await;
    // Speaks enough HTTP/2 to be a connection, and then says and reads nothing.
    let mut stuck = TcpStream::connect(server.address).await.unwrap();
    stuck.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut settings = [0; 9];
    stuck.read_exact(&mut settings).await.unwrap();
    // A request that is never finished.
    let headers = b"\0\0\x0e\x01\x04\0\0\0\x01\x83\x86\x44\x0a/wharfinger";
    stuck.write_all(&headers[..23]).await.unwrap();

    server.shutdown.cancel();
    server.served.await.unwrap().unwrap();
    let _ = stuck.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn reflection_names_the_services() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let server = start(RpcLimits::default(), grant).await;
    let mut client = ServerReflectionClient::new(channel(&server).await);
    let list = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answer = client.server_reflection_info(tokio_stream::once(list)).await.unwrap();
    let response = answer.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = response else { panic!("{response:?}") };
    let names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    for name in ["wharfinger.v1.LeaseService", "wharfinger.v1.AdminService", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
    // The details of errors, and the files that theirs import.
    for symbol in ["google.rpc.ErrorInfo", "google.rpc.BadRequest", "google.rpc.RetryInfo", "google.protobuf.Duration"]
    {
        let ask = tonic_reflection::pb::v1::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::FileContainingSymbol(symbol.into())),
        };
        let answer = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap();
        let response = answer.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
        assert!(matches!(response, MessageResponse::FileDescriptorResponse(_)), "{symbol}: {response:?}");
    }
}

/// The way in when all else is broken.
#[cfg(feature = "cli")]
#[tokio::test]
async fn the_unix_socket_answers_while_the_certificate_of_the_port_has_expired() {
    use crate::client::{Client, ClientOptions, ClientSettings};
    use wharfinger_tls::{ServerSettings, ServerTls, pki::Authority};

    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca");
    let past = crate::clock::wall() - Duration::from_secs(7200);
    let authority = Authority::init(&ca, "farm", past).unwrap();
    let names = ["127.0.0.1".to_owned()];
    for (valid, fits) in [(3600, false), (36_000, true)] {
        let into = folder.path().join(valid.to_string());
        std::fs::create_dir(&into).unwrap();
        let pair = authority.server(&into, &names, None, Duration::from_secs(valid), past).unwrap();
        let settings = ServerSettings { certificate: pair.certificate, key: pair.key, ..ServerSettings::default() };
        let tls = ServerTls::load(settings, past + Duration::from_secs(60)).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let path = into.join("w.sock");
        let unix = tokio::net::UnixListener::bind(&path).unwrap();
        let port = Port::with_tls(listener, std::sync::Arc::new(tls)).with_unix(Some(unix));
        let broker = crate::rpc::testing::broker(1, 1).await;
        let stop = CancellationToken::new();
        let sources = AnswerSources::default();
        tokio::spawn(serve(port, broker.handle.clone(), RpcLimits::default(), sources, stop.clone()));
        let tls = ClientSettings { ca: Some(ca.join("ca.pem")), ..ClientSettings::default() };
        let options = ClientOptions { retry_for: Duration::ZERO, tls, ..ClientOptions::default() };
        let by_port = Client::connect_lazy(&address, options.clone()).unwrap().server().await;
        assert_eq!(by_port.is_ok(), fits, "{by_port:?}");
        let socket = format!("unix://{}", path.display());
        let by_socket = Client::connect_with(&socket, options).await.unwrap();
        let lease = by_socket.lease(wanted()).await.unwrap().lease.unwrap();
        assert_eq!(lease.principal, format!("unix:{}", rustix::process::geteuid().as_raw()));
        stop.cancel();
    }
}

/// A full port locks no operator out.
#[tokio::test]
async fn the_unix_socket_has_places_of_its_own_and_takes_nothing_but_http2() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.sock");
    let unix = tokio::net::UnixListener::bind(&path).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let port = Port::from(listener).with_unix(Some(unix));
    let broker = crate::rpc::testing::broker(1, 1).await;
    let limits = RpcLimits { max_connections: 1, preface_timeout: Duration::from_secs(1), ..RpcLimits::default() };
    let stop = CancellationToken::new();
    let sources = AnswerSources::default();
    tokio::spawn(serve(port, broker.handle.clone(), limits, sources, stop.clone()));
    let _only = TcpStream::connect(address).await.unwrap();
    let mut refused = TcpStream::connect(address).await.unwrap();
    let _ = refused.read_to_end(&mut Vec::new()).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\nxxxxxxxxx"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", b"PRI", &[0x16; 24]] {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut told = Vec::new();
        let _ = stream.read_to_end(&mut told).await;
        assert!(told.is_empty(), "{told:?}");
    }
    let client = crate::client::Client::connect(&format!("unix://{}", path.display())).await.unwrap();
    assert!(client.lease(wanted()).await.is_ok());
    stop.cancel();
}
