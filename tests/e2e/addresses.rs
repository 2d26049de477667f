//! Limits of each address before it is known who calls. Clients come from several addresses of this machine.

use crate::issuer::{Issuer, Signer, github};
use crate::support::{LOCAL, PATIENCE, Server, free_port, text};
use hyper_util::rt::TokioIo;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use wharfinger::pb::ListRequest;
use wharfinger::pb::lease_service_client::LeaseServiceClient;

const AUDIENCE: &str = "https://wharfinger.farm.example.org";

struct World {
    server: Server,
    runtime: tokio::runtime::Runtime,
    meters: u16,
    token: String,
    issuer: Issuer,
    signer: Signer,
}

impl World {
    /// A server whose own address has no limits; 127.0.0.3 and 127.0.0.4 have these.
    fn serving(limits: &str) -> Self {
        let mut server = Server::prepared("w.db");
        let made = server.json(&["token", "new", "ci", "--tenant", "web", "--role", "agent", "--expires", "never"]);
        let part = |name: &str| made[name].as_str().unwrap().to_owned();
        let signer = Signer::p256("k1");
        let issuer = Issuer::start(&server.folder.path().join("issuer"), &[&signer]);
        let meters = free_port();
        let settings = format!(
            "[server.per_address]\nexempt = [\"127.0.0.1\"]\n{limits}\n[metrics]\nlisten = \"127.0.0.1:{meters}\"\n{}\
             [auth]\naudience = \"{AUDIENCE}\"\n[[auth.issuer]]\nname = \"github\"\npreset = \"github\"\nissuer = \"{}\"\n\
             algorithms = [\"ES256\"]\nca_file = \"{}\"\n[[auth.issuer.grant]]\nwhen = {{ repository_owner_id = \"9919\" }}\n\
             tenant = \"web\"\nroles = [\"agent\"]\n",
            part("configuration").replace("[auth]\n", ""),
            issuer.url,
            issuer.ca.display(),
        );
        server.configure(&settings, LOCAL);
        server.spawn();
        let token = part("token");
        server.wait("the server to answer", || {
            let listed = server.command(&["ls"]).env("WHARFINGER_AUTH_TOKEN", &token).output().unwrap();
            listed.status.success().then_some(())
        });
        Self { runtime: tokio::runtime::Runtime::new().unwrap(), server, meters, token, issuer, signer }
    }

    fn address(&self) -> SocketAddr {
        self.server.address.trim_start_matches("http://").parse().unwrap()
    }

    /// A connection from this address of this machine.
    fn connect(&self, from: &str) -> std::io::Result<TcpStream> {
        let (from, to): (SocketAddr, _) = (format!("{from}:0").parse().unwrap(), self.address());
        self.runtime.block_on(async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(from)?;
            socket.connect(to).await
        })
    }

    /// Whether the server closes a new connection from this address at once.
    fn is_closed(&self, stream: &mut TcpStream, within: Duration) -> bool {
        self.runtime.block_on(async {
            let mut byte = [0];
            let read = tokio::time::timeout(within, tokio::io::AsyncReadExt::read(stream, &mut byte)).await;
            matches!(read, Ok(Ok(0) | Err(_)))
        })
    }

    fn channel(&self, from: &str) -> Channel {
        let (from, to): (SocketAddr, _) = (format!("{from}:0").parse().unwrap(), self.address());
        let connector = tower::service_fn(move |_: Uri| async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind(from)?;
            Ok::<_, std::io::Error>(TokioIo::new(socket.connect(to).await?))
        });
        let endpoint = Endpoint::from_shared(self.server.address.clone()).unwrap();
        self.runtime.block_on(endpoint.connect_with_connector(connector)).unwrap()
    }

    fn list(&self, channel: &Channel, token: &str) -> Result<(), Status> {
        let mut request = Request::new(ListRequest::default());
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        self.runtime.block_on(LeaseServiceClient::new(channel.clone()).list(request)).map(drop)
    }

    fn job(&self, attempt: &str) -> String {
        let mut claims = github(&self.issuer.url, AUDIENCE);
        claims["run_attempt"] = attempt.into();
        self.signer.token(&claims)
    }

    /// The count of a reason in the exposition.
    fn turned_away(&self, reason: &str) -> u64 {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.meters)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        let wanted = format!("wharfinger_turned_away_total{{reason=\"{reason}\"}} ");
        all.lines().find_map(|line| line.strip_prefix(&wanted)).map_or(0, |count| count.trim().parse().unwrap())
    }

    fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < PATIENCE, "in vain: {what}\n{}", self.server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[test]
fn one_address_cannot_take_the_connections_of_others() {
    let world = World::serving("connections = 5\nconnections_per_second = 0");
    let mut held: Vec<_> = (0..5).map(|_| world.connect("127.0.0.3").unwrap()).collect();
    for _ in 0..20 {
        let mut more = world.connect("127.0.0.3").unwrap();
        assert!(world.is_closed(&mut more, PATIENCE), "a sixth connection");
    }
    assert!(world.turned_away("ADDRESS_CONNECTIONS") >= 20);
    // Silent connections are closed after a while, which is another limit: at least one was open all the time.
    assert!(!world.is_closed(&mut held[4], Duration::from_millis(1)));
    assert!(world.list(&world.channel("127.0.0.4"), &world.token).is_ok(), "another address");
    let own = world.server.command(&["ls"]).env("WHARFINGER_AUTH_TOKEN", &world.token).output().unwrap();
    assert!(own.status.success(), "{}", text(&own));
    drop(held);
    world.until("a place that is left is free again", || {
        let mut again = world.connect("127.0.0.3").unwrap();
        !world.is_closed(&mut again, Duration::from_millis(50))
    });
    let log = world.server.log();
    let lines = log.lines().filter(|line| line.contains("\"reason\":\"ADDRESS_CONNECTIONS\""));
    let refused: Vec<_> = lines.filter(|line| line.contains("\"message\":\"a connection is refused\"")).collect();
    let [line] = refused[..] else { panic!("{refused:#?}") };
    assert!(line.contains("127.0.0.3:") && line.contains("[server.per_address]"), "{line}");
}

#[test]
fn connections_of_one_address_come_at_a_rate() {
    let world = World::serving("connections = 0\nconnections_per_second = 5");
    let start = Instant::now();
    let streams: Vec<_> = (0..60).map(|_| world.connect("127.0.0.3").unwrap()).collect();
    let closed = streams
        .into_iter()
        .map(|mut stream| world.is_closed(&mut stream, Duration::from_millis(200)))
        .filter(|closed| *closed)
        .count();
    // Twenty at once, and five in each second that this took.
    let most = 20 + 5 * (usize::try_from(start.elapsed().as_secs()).unwrap() + 1);
    assert!(closed >= 60_usize.saturating_sub(most) && closed <= 40, "{closed} of 60");
    assert!(world.turned_away("ADDRESS_RATE") > 0);
    assert!(world.list(&world.channel("127.0.0.4"), &world.token).is_ok(), "another address");
}

#[test]
fn wrong_credentials_of_one_address_are_limited_and_good_ones_never() {
    let world = World::serving("failures_per_minute = 20");
    let (bad, other) = (world.channel("127.0.0.3"), world.channel("127.0.0.4"));
    let made = world.server.json(&["token", "new", "ci", "--tenant", "web", "--role", "agent", "--expires", "never"]);
    let wrong = made["token"].as_str().unwrap();
    let verified = world.job("1");
    assert!(world.list(&bad, &verified).is_ok());
    let start = Instant::now();
    let (mut looked_at, mut limited) = (0_u64, 0);
    for _ in 0..300 {
        let status = world.list(&bad, wrong).unwrap_err();
        match status.code() {
            Code::Unauthenticated if reason(&status) == "TOKEN_UNKNOWN" => looked_at += 1,
            Code::ResourceExhausted if reason(&status) == "ADDRESS_FAILURES" => {
                limited += 1;
                let wait = status.get_details_retry_info().and_then(|retry| retry.retry_delay).unwrap();
                assert!(wait <= Duration::from_secs(3), "{wait:?}");
            }
            _ => panic!("{status:?}"),
        }
    }
    let most = 80 + start.elapsed().as_secs() / 3 + 1;
    assert!((80..=most).contains(&looked_at), "{looked_at} of at most {most}");
    assert_eq!(world.turned_away("ADDRESS_FAILURES"), limited);
    // A proof that costs nothing to check, and one that is verified already, goes through. A signature is not looked at.
    assert!(world.list(&bad, &world.token).is_ok() && world.list(&bad, &verified).is_ok());
    // On a busy machine a place comes back between the last failure and the call.
    let (fresh, refused) = (2..22)
        .find_map(|number| {
            let fresh = world.job(&number.to_string());
            while world.list(&bad, wrong).is_err_and(|status| status.code() == Code::Unauthenticated) {}
            world.list(&bad, &fresh).err().map(|refused| (fresh, refused))
        })
        .expect("the address has no places left");
    assert_eq!((refused.code(), &*reason(&refused)), (Code::ResourceExhausted, "ADDRESS_FAILURES"), "{refused:?}");
    // Another address is not concerned, and the same token is good there.
    assert!(world.list(&other, &world.token).is_ok() && world.list(&other, &fresh).is_ok());
    assert!(world.list(&bad, &fresh).is_ok(), "it is verified now");
    assert_eq!(world.list(&other, wrong).unwrap_err().code(), Code::Unauthenticated);
    let log = world.server.log();
    assert!(log.contains("\"reason\":\"ADDRESS_FAILURES\"") && !log.contains(wrong), "{log}");
}
