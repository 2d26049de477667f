//! The cost of the proof of a caller: the same calls on one engine by ports without TLS, with client certificates and a role, and with the token of
//! a CI product; and handshakes.

use crate::meter::{Figure, Plan, measure};
use crate::signer::{Signer, github, now, with};
use crate::wharf::Wharf;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};
use wharfinger::auth::Trust;
use wharfinger::pb::lease_service_client::LeaseServiceClient;
use wharfinger::rpc::AnswerSources;
use wharfinger_client::internal::parse_addresses;
use wharfinger_client::{ClientOptions, ClientSettings};
use wharfinger_tls::pki::Authority;
use wharfinger_tls::spiffe::Uri;
use wharfinger_tls::{ClientTls, ServerTls};

const AUDIENCE: &str = "https://bench.example.org";
const ISSUER: &str = "https://issuer.example.org";

/// The callers of the secure ports. Both have a role of the configuration, with limits.
const SETTINGS: &str = r#"
[server.tls]
certificate = "127.0.0.1.pem"
key = "127.0.0.1.key"
client_ca = "ca/ca.pem"
client_auth = "optional"
[auth]
audience = "https://bench.example.org"
[[auth.certificate]]
uri = "spiffe://farm/agents/"
tenant = "web"
roles = ["ci"]
[[auth.issuer]]
name = "github"
preset = "github"
issuer = "https://issuer.example.org"
algorithms = ["ES256"]
keys = { file = "keys.json" }
[[auth.issuer.grant]]
when = { repository_owner_id = "9919" }
tenant = "web"
roles = ["ci"]
[[role]]
name = "ci"
[[role.allow]]
verbs = ["lease", "release", "renew", "get", "pool.get"]
pools = ["bench*"]
scope = "own"
[role.allow.limits]
count = 4
ttl = "1h"
priority = [-100, 0]
[[pool]]
name = "bench"
adapter = "local"
[pool.local]
root = "hosts"
"#;

#[allow(clippy::disallowed_methods, reason = "certificates are of now")]
fn present() -> SystemTime {
    SystemTime::now()
}

/// How a caller comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Without TLS, and without a proof.
    Nothing,
    /// With TLS and a client certificate.
    Certificate,
    /// Without TLS, with a token that the server has verified before.
    Token,
    /// With TLS and such a token.
    TlsToken,
}

/// Sends the token of the caller, if it has one.
#[derive(Clone)]
pub(crate) struct Bearer(Option<AsciiMetadataValue>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

type Api = LeaseServiceClient<InterceptedService<Channel, Bearer>>;

/// One engine with three ports.
pub(crate) struct Ways {
    folder: tempfile::TempDir,
    plain: Wharf,
    known: String,
    secure: String,
    signer: Signer,
}

impl Ways {
    pub(crate) async fn start(within: &Path) -> Self {
        let folder = tempfile::tempdir_in(within).expect("the folder can be written");
        let (at, clock) = (folder.path(), present());
        let (day, names) = (Duration::from_secs(86_400), ["127.0.0.1".to_owned()]);
        let authority = Authority::init(&at.join("ca"), "farm", clock).expect("an authority");
        authority.server(at, &names, None, day, clock).expect("a pair");
        authority.client(at, &Uri::parse("spiffe://farm/agents/7").expect("a name"), day, clock).expect("a pair");
        let signer = Signer::p256("k1");
        let keys = serde_json::json!({ "keys": [signer.jwk()] }).to_string();
        std::fs::write(at.join("keys.json"), keys).expect("the keys are written");
        let loaded = wharfinger::config::parse(&at.join("wharfinger.toml"), SETTINGS).expect("the settings are good");
        let trust = Trust::everyone();
        trust.set(loaded.auth).expect("the callers are good");
        let files = loaded.server.tls.expect("it has TLS").files;
        let tls = Arc::new(ServerTls::load(files, clock).expect("the certificates are good"));
        let plain = Wharf::start(&at.join("bench.db")).await;
        let sources = || AnswerSources { trust: trust.clone(), ..AnswerSources::default() };
        let known = format!("http://{}", plain.another_port(None, sources()).await);
        let secure = format!("https://{}", plain.another_port(Some(tls), sources()).await);
        Self { folder, plain, known, secure, signer }
    }

    fn tls(&self) -> ClientSettings {
        let at = self.folder.path();
        ClientSettings {
            ca: Some(at.join("ca/ca.pem")),
            identity: Some((at.join("7.pem"), at.join("7.key"))),
            server_uri: None,
        }
    }

    fn token(&self) -> AsciiMetadataValue {
        let claims = with(&github(ISSUER, AUDIENCE), &serde_json::json!({ "exp": now() + 600 }));
        let mut value: AsciiMetadataValue =
            format!("Bearer {}", self.signer.token(&claims)).parse().expect("a token is ASCII");
        // As the client library sends it.
        value.set_sensitive(true);
        value
    }

    async fn clients(&self, by: By, plan: Plan) -> Vec<Api> {
        let (address, tls, token) = match by {
            By::Nothing => (self.plain.address(), ClientSettings::default(), None),
            By::Token => (&*self.known, ClientSettings::default(), Some(self.token())),
            By::TlsToken => (&*self.secure, ClientSettings { identity: None, ..self.tls() }, Some(self.token())),
            By::Certificate => (&*self.secure, self.tls(), None),
        };
        let options = ClientOptions { tls, ..ClientOptions::default() };
        let server = parse_addresses(address, &options).expect("an address").remove(0);
        let mut clients = Vec::new();
        for _ in 0..plan.connections {
            let channel = server.connect().await.expect("the server listens");
            clients.push(LeaseServiceClient::with_interceptor(channel, Bearer(token.clone())));
        }
        clients
    }

    /// Durable leases.
    pub(crate) async fn lease(&self, by: By, plan: Plan) -> Figure {
        let clients = self.clients(by, plan).await;
        measure(plan, clients, |mut client| async move {
            client.lease(crate::wharf::wanted(false)).await.expect("a lease");
        })
        .await
    }

    /// Handshakes, each on a new connection: both ends of each are in this process.
    pub(crate) async fn handshakes(&self, plan: Plan) -> Figure {
        let tls = ClientTls::load(self.tls()).expect("the certificates are good");
        let address = self.secure.trim_start_matches("https://").to_owned();
        measure(Plan { in_flight: 4, ..plan }, vec![(tls, address)], |(tls, address)| async move {
            let stream = TcpStream::connect(&*address).await.expect("the server listens");
            tls.connect("127.0.0.1", stream).await.expect("the certificates are good");
        })
        .await
    }
}
