//! Trust of a server in a call that another server forwards.

use super::*;
use crate::auth::{Passed, Proof, hex};
use crate::pb;
use crate::rpc::forward::{FORWARDED, IDENTITY, SEAL};
use crate::rpc::forward_auth;
use http_body_util::{BodyExt, Full};
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::codegen::{Bytes, Service};
use tonic::transport::Endpoint;

const PATH: &str = "/wharfinger.v1.LeaseService/List";
const AGENT: Who = Who::new("web", "agent", &[BuiltIn::Agent]);

fn passed(id: &str) -> Passed {
    Passed { principal: format!("token:{id}").into(), proof: Proof::token(id.into()), expires: None, peer: None }
}

/// A message of gRPC, with its prefix.
fn framed(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    framed.extend(body);
    framed
}

/// Sends a `List` with these headers, as a client that knows how servers forward calls.
async fn send(to: &str, headers: &[(&str, &str)], body: Vec<u8>) -> String {
    send_by(Endpoint::from_shared(to.to_owned()).unwrap().connect().await.unwrap(), headers, body).await
}

/// The same by this connection.
async fn send_by(mut channel: Channel, headers: &[(&str, &str)], body: Vec<u8>) -> String {
    let mut request = http::Request::post(PATH).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::new(Full::new(Bytes::from(body)))).unwrap();
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let response = channel.call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    if parts.status != http::StatusCode::OK {
        return format!("HTTP {}", parts.status);
    }
    let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
    let status = Status::from_header_map(&parts.headers).or_else(|| Status::from_header_map(&trailers));
    match status {
        Some(status) if status.code() != tonic::Code::Ok => outcome::<()>(Err(status)),
        Some(_) => outcome(Ok(())),
        None => "no status".to_owned(),
    }
}

#[tokio::test]
async fn a_forwarded_call_is_believed_for_its_key_path_identity_time_and_message() {
    let (world, bearers) = world(1, 4, &[AGENT]).await;
    let there = format!("http://{}", world.leader.server.address);
    let body = framed(&pb::ListRequest::default());
    let identity = passed("agent").encode().unwrap();
    let seal =
        |key: &str, path: &str, identity: &str, body: &[u8]| forward_auth::seal(key, path, identity, body).unwrap();
    let good = seal(KEY, PATH, &identity, &body);
    let ask = async |headers: &[(&str, &str)]| send(&there, headers, body.clone()).await;
    assert_eq!(ask(&[(FORWARDED, "2"), (IDENTITY, &identity), (SEAL, &good)]).await, "OK");

    const WHO: &str = "Unauthenticated NO_CREDENTIALS";
    let other = passed("other").encode().unwrap();
    let upper = identity.to_uppercase();
    let bearer = bearers[0].0.clone().unwrap();
    let token = bearer.to_str().unwrap();
    let local = Passed { principal: "local".into(), proof: Proof::Local, expires: None, peer: None }.encode().unwrap();
    let long = hex(&[2; 4500]);
    for (why, headers) in [
        ("no seal", &[(FORWARDED, "2"), (IDENTITY, &*identity)][..]),
        ("an empty seal", &[(FORWARDED, "2"), (IDENTITY, &identity), (SEAL, "")]),
        ("garbage", &[(FORWARDED, "2"), (IDENTITY, "Z2FyYmFnZQ=="), (SEAL, "Z2FyYmFnZQ==")]),
        ("another lead", &[(FORWARDED, "2"), (IDENTITY, &identity), (SEAL, &seal("other", PATH, &identity, &body))]),
        ("another path", &[(FORWARDED, "2"), (IDENTITY, &identity), (SEAL, &seal(KEY, "/a/B", &identity, &body))]),
        ("another message", &[(FORWARDED, "2"), (IDENTITY, &identity), (SEAL, &seal(KEY, PATH, &identity, b"x"))]),
        ("another identity", &[(FORWARDED, "2"), (IDENTITY, &other), (SEAL, &good)]),
        ("another text of it", &[(FORWARDED, "2"), (IDENTITY, &upper), (SEAL, &seal(KEY, PATH, &upper, &body))]),
        ("too long", &[(FORWARDED, "2"), (IDENTITY, &long), (SEAL, &seal(KEY, PATH, &long, &body))]),
        ("a seal twice", &[(FORWARDED, "2"), (IDENTITY, &identity), (SEAL, &good), (SEAL, &good)]),
        ("an identity twice", &[(FORWARDED, "2"), (IDENTITY, &identity), (IDENTITY, &identity), (SEAL, &good)]),
        ("no longer a caller here", &[(FORWARDED, "2"), (IDENTITY, &local), (SEAL, &seal(KEY, PATH, &local, &body))]),
        ("the proof before", &[(FORWARDED, "1"), ("wharfinger-caller", "token:agent"), ("wharfinger-proof", "1.00")]),
        ("a name alone", &[(FORWARDED, "1"), ("wharfinger-caller", "token:agent")]),
        ("a mark lowers", &[(FORWARDED, "2"), ("authorization", token)]),
        ("not marked", &[(IDENTITY, &identity), (SEAL, &good)]),
        ("other spellings", &[("wharfinger_passed", "2"), ("wharfinger-identity-bin", &identity), (SEAL, &good)]),
    ] {
        assert_eq!(ask(headers).await, WHO, "{why}");
    }
    let unknown = seal(KEY, PATH, &other, &body);
    let unknown = ask(&[(FORWARDED, "2"), (IDENTITY, &other), (SEAL, &unknown)]).await;
    assert_eq!(unknown, "Unauthenticated TOKEN_UNKNOWN", "the leader looks the caller up itself");
    assert_eq!(ask(&[("authorization", token)]).await, "OK");
}

/// A server leads again with a new key, which the follower has not read yet.
#[tokio::test]
async fn a_call_that_is_sealed_with_the_key_of_the_lead_before_is_tried_again_with_the_next_key() {
    let (world, bearers) = world(1, 4, &[AGENT]).await;
    let leader = world.leader.server.address;
    let leads = |key: &str| {
        let address = format!("http://{leader}").into();
        Some(engine::LeaderInfo { address, forwarding_key: key.into() })
    };
    let leadership = world.follows.handle.leadership().clone();
    leadership.follow(leads("the lead before"));
    let ask = || {
        let request = crate::rpc::tests::wanted("r");
        let (mut api, request) = (world.follower.lease.clone(), bearers[0].call(request));
        async move { outcome(api.lease(request).await.map(drop)) }
    };
    let (asked, ()) = tokio::join!(ask(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        leadership.follow(leads(KEY));
    });
    assert_eq!(asked, "OK");
    // A key that stays wrong is reported in time.
    leadership.follow(leads("another"));
    assert_eq!(ask().await, "Unauthenticated NO_CREDENTIALS");
}

/// A way to a server that opens when a test says so. Returns its address, the number of connections that it took, and its gate.
async fn gated(to: std::net::SocketAddr) -> (Arc<str>, tokio::sync::watch::Receiver<usize>, CancellationToken) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap()).into();
    let (taken, seen) = tokio::sync::watch::channel(0);
    let gate = CancellationToken::new();
    let opened = gate.clone();
    // Ends with the runtime of the test.
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            taken.send_modify(|count| *count += 1);
            let opened = opened.clone();
            // Ends with its connections.
            tokio::spawn(async move {
                opened.cancelled().await;
                let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (address, seen, gate)
}

/// Each server decides by what it knows when a call arrives there, and the leader cuts what waits.
#[tokio::test]
async fn n112_a_caller_that_is_revoked_while_its_call_is_forwarded_is_judged_where_the_call_arrives() {
    const REVOKED: &str = "Unauthenticated TOKEN_UNKNOWN";
    let (world, bearers) = world(1, 4, &[AGENT, Who::new("web", "stays", &[BuiltIn::Agent])]).await;
    let there = world.leader.server.address;
    // A follower that knows its callers by itself.
    let own = Trust::tokens(world.known.clone()).unwrap();
    let sources = AnswerSources { trust: own.clone(), ..AnswerSources::default() };
    let server = serving_for(RpcLimits::default(), world.follows.handle.clone(), sources).await;
    let follower = Server::over(server).await;
    let without = |id: &str| -> Vec<_> { world.known.iter().filter(|token| *token.id != *id).cloned().collect() };
    let ask = |by: usize, request_id: &str, wait: i64| {
        let wait = (wait > 0).then_some(prost_types::Duration { seconds: wait, nanos: 0 });
        let request = pb::LeaseRequest { wait, ..crate::rpc::tests::wanted(request_id) };
        let (mut api, request) = (follower.lease.clone(), bearers[by].call(request));
        async move { outcome(api.lease(request).await.map(drop)) }
    };
    let asked_for = async |request_id: &'static str| {
        let found = world
            .handle
            .read(move |core, _| core.leases(None).filter(|lease| *lease.spec.request_id == *request_id).count());
        found.await.unwrap()
    };
    for (request_id, revoke, expected) in [
        ("nothing-happens", None, "OK"),
        ("gone-at-the-follower", Some(&own), "OK"),
        ("gone-at-the-leader", Some(&world.trust), REVOKED),
    ] {
        let (address, mut seen, gate) = gated(there).await;
        let leader = engine::LeaderInfo { address, forwarding_key: KEY.into() };
        world.follows.handle.leadership().follow(Some(leader));
        let call = tokio::spawn(ask(0, request_id, 0));
        seen.wait_for(|count| *count > 0).await.unwrap();
        if let Some(trust) = revoke {
            trust.set(Some(without("agent").into())).unwrap();
        }
        gate.cancel();
        assert_eq!(call.await.unwrap(), expected, "{request_id}");
        assert_eq!(asked_for(request_id).await, usize::from(expected == "OK"), "{request_id}");
        if revoke.is_some() {
            assert_eq!(ask(0, "the-next", 0).await, REVOKED, "{request_id}: the next call");
        }
        assert_eq!(asked_for("the-next").await, 0, "{request_id}");
        assert_eq!(ask(1, "of-another", 0).await, "OK", "{request_id}: a caller that stays");
        own.set(Some(world.known.clone().into())).unwrap();
        world.trust.set(Some(world.known.clone().into())).unwrap();
    }
    // A call that waits at the leader ends there, and that of another goes on.
    world.follows.handle.leadership().follow(leading_with(&world.leader.server, KEY));
    assert_eq!(ask(1, "the-rest", 0).await, "OK");
    let (gone, stays) = (tokio::spawn(ask(0, "waits", 300)), tokio::spawn(ask(1, "waits-on", 300)));
    for request_id in ["waits", "waits-on"] {
        while asked_for(request_id).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    world.trust.set(Some(without("agent").into())).unwrap();
    assert_eq!(gone.await.unwrap(), "Unauthenticated REVOKED");
    // A slot for each of the two that are in the queue.
    for request_id in ["the-rest", "of-another"] {
        let held = world.handle.read(move |core, _| {
            let mut leases = core.leases(None);
            leases.find(|lease| *lease.spec.request_id == *request_id).map(|lease| lease.id.to_string())
        });
        let lease_id = held.await.unwrap().unwrap();
        let release = pb::ReleaseRequest { lease_id, ..Default::default() };
        world.leader.lease.clone().release(bearers[1].call(release)).await.unwrap();
    }
    assert_eq!(stays.await.unwrap(), "OK");
}

/// A seal alone makes no server: a key that leaked is worth nothing without the certificate of one.
#[cfg(feature = "cli")]
#[tokio::test]
async fn between_servers_with_certificates_a_seal_counts_on_the_connection_of_a_server_alone() {
    use crate::rpc::peers::{Peers, channel};
    use crate::rpc::{Port, serve};
    use wharfinger_tls::pki::Authority;
    use wharfinger_tls::spiffe::Uri;
    use wharfinger_tls::{ClientAuth, ClientSettings, ServerSettings, ServerTls};

    let (world, bearers) = world(1, 4, &[AGENT]).await;
    let (dir, now, hour) = (tempfile::tempdir().unwrap(), crate::clock::wall(), Duration::from_secs(3600));
    let authority = Authority::init(&dir.path().join("ca"), "farm", now).unwrap();
    let ca = dir.path().join("ca/ca.pem");
    let name = |text: &str| Uri::parse(text).unwrap();
    let own = authority.server(dir.path(), &["127.0.0.1".into()], Some(&name("spiffe://farm/server")), hour, now);
    let own = own.unwrap();
    let agent = authority.client(dir.path(), &name("spiffe://farm/agent"), hour, now).unwrap();
    let settings = ServerSettings {
        certificate: own.certificate.clone(),
        key: own.key.clone(),
        client_auth: ClientAuth::Optional,
        client_ca: vec![ca.clone()],
        ..ServerSettings::default()
    };
    let peers = |identity| {
        let settings = ClientSettings { ca: Some(ca.clone()), identity, server_uri: None };
        Peers::load(settings, vec![name("spiffe://farm/server")]).unwrap()
    };
    let pair = |written: &wharfinger_tls::pki::Written| Some((written.certificate.clone(), written.key.clone()));
    let body = framed(&pb::ListRequest::default());
    let identity = passed("agent").encode().unwrap();
    let seal = forward_auth::seal(KEY, PATH, &identity, &body).unwrap();
    let stop = CancellationToken::new();
    // Without names of servers a seal is enough, as before.
    for (known, agents, nobodys) in
        [(true, "Unauthenticated NO_CREDENTIALS", "Unauthenticated NO_CREDENTIALS"), (false, "OK", "OK")]
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = format!("https://{}", listener.local_addr().unwrap());
        let tls = Arc::new(ServerTls::load(settings.clone(), now).unwrap());
        let port = Port::with_tls(listener, tls).with_peers(known.then(|| peers(pair(&own))));
        let sources = AnswerSources { trust: world.trust.clone(), ..AnswerSources::default() };
        tokio::spawn(serve(port, world.handle.clone(), RpcLimits::default(), sources, stop.clone()));
        for (shown, wanted) in [(pair(&own), "OK"), (pair(&agent), agents), (None, nobodys)] {
            let by = peers(shown);
            let channel = || channel(Some(&by), &there, |endpoint| endpoint).unwrap();
            let sealed = [(FORWARDED, "2"), (IDENTITY, &*identity), (SEAL, &*seal)];
            assert_eq!(send_by(channel(), &sealed, body.clone()).await, wanted, "{known} {by:?}");
            // A server is believed no more than its seal says.
            let unsealed = [(FORWARDED, "2"), (IDENTITY, &*identity)];
            assert_eq!(send_by(channel(), &unsealed, body.clone()).await, "Unauthenticated NO_CREDENTIALS");
            let token = bearers[0].0.clone().unwrap();
            let own_call = [("authorization", token.to_str().unwrap())];
            assert_eq!(send_by(channel(), &own_call, body.clone()).await, "OK", "a caller of its own");
        }
    }
    let plain = channel(Some(&peers(None)), "http://127.0.0.1:1", |endpoint| endpoint);
    assert!(plain.is_err(), "no call goes out in the clear");
    stop.cancel();
}
