//! Sign-in by what a request brings along: a client certificate of the port's own TLS, and the name in a proxy's header.

use super::*;
use crate::auth::{Callers, CertificateGrant, Network, ProxyGrant};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wharfinger_tls::pki::Authority;
use wharfinger_tls::spiffe::{Pattern, Uri};
use wharfinger_tls::{ClientAuth, Protocol, ServerSettings, ServerTls};

const HEADER: &str = "x-forwarded-user";

fn trust() -> Trust {
    let roles = |role| Roles::of(&[role]);
    let person = |user: &str, role| ProxyGrant { user: user.into(), tenant: "default".into(), roles: roles(role) };
    let certificate = |uri: &str, role| CertificateGrant {
        uri: Pattern::parse(uri).unwrap(),
        tenant: "default".into(),
        roles: roles(role),
    };
    let callers = Callers {
        proxied: vec![person("ann@example.org", BuiltIn::Admin), person("*@example.org", BuiltIn::Reader)],
        certificates: vec![certificate("spiffe://farm/ops", BuiltIn::Admin)],
        ..Callers::default()
    };
    let trust = Trust::everyone();
    trust.set(Some(callers)).unwrap();
    trust
}

fn proxy() -> Option<ProxySettings> {
    let from = Network::parse("10.0.0.5").into_iter().collect();
    Some(ProxySettings { header: HEADER.into(), from })
}

#[tokio::test]
async fn a_person_whom_the_proxy_names_is_signed_in_and_from_elsewhere_the_header_is_a_refusal() {
    let broker = broker(1, 1).await;
    let sources = AnswerSources { trust: trust(), ..AnswerSources::default() };
    let world = page_behind(&broker.handle, sources, proxy());
    let get = async |from: &str, url: &str, headers: &[(&str, &str)]| {
        let from = ConnectInfo::plain(from.parse().unwrap());
        world.ask_from(from, Method::GET, url, headers, "").await
    };
    let (near, far) = ("10.0.0.5:4711", "10.0.0.6:4711");
    let ann = [(HEADER, "ann@example.org")];
    let page = get(near, "/servers", &ann).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    assert!(page.text.contains("proxy:ann@example.org"), "{}", page.text);
    for from in [far, NEAR, "[::1]:9"] {
        for headers in [&ann[..], &[(HEADER, "")]] {
            let refused = get(from, "/servers", headers).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{from}: {}", refused.text);
            assert!(refused.text.contains("[page.proxy]") && !refused.text.contains("proxy:ann"), "{}", refused.text);
        }
        // Without the header it is a request like others.
        assert_eq!(get(from, "/servers", &[]).await.status, StatusCode::UNAUTHORIZED);
    }
    // One whom no grant names, and two names at once.
    let unknown = get(near, "/servers", &[(HEADER, "eve@example.com")]).await;
    assert_eq!(unknown.status, StatusCode::UNAUTHORIZED);
    assert!(!unknown.text.contains("signed in as"), "{}", unknown.text);
    let two = get(near, "/servers", &[(HEADER, "ann@example.org"), (HEADER, "bob@example.org")]).await;
    assert_eq!(two.status, StatusCode::BAD_REQUEST);
    // Roles count, and a form of another site is refused for them, too.
    let bob = [(HEADER, "bob@example.org")];
    assert_eq!(get(near, "/", &bob).await.status, StatusCode::OK);
    let post = async |headers: &[(&str, &str)], site: &str| {
        let form = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", site)];
        let headers: Vec<(&str, &str)> = headers.iter().copied().chain(form).collect();
        let from = ConnectInfo::plain(near.parse().unwrap());
        world.ask_from(from, Method::POST, "/pools/p/act/cordon", &headers, "reason=why&once=1").await
    };
    assert_eq!(post(&bob, "same-origin").await.status, StatusCode::FORBIDDEN);
    assert_eq!(post(&ann, "cross-site").await.status, StatusCode::FORBIDDEN);
    let done = post(&ann, "same-origin").await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.text);
    assert!(get(near, "/events", &ann).await.text.contains("proxy:ann@example.org"));
}

#[tokio::test]
async fn tabs_of_two_people_behind_one_proxy_share_no_rendering() {
    let broker = broker(1, 1).await;
    let sources = AnswerSources { trust: trust(), ..AnswerSources::default() };
    let world = page_behind(&broker.handle, sources, proxy());
    let view = async |user: &str| {
        let from = ConnectInfo::plain("10.0.0.5:4711".parse().unwrap());
        world.ask_from(from, Method::GET, "/view?at=/events", &[(HEADER, user)], "").await.text
    };
    // The events are for one of them alone.
    let (ann, bob) = (view("ann@example.org").await, view("bob@example.org").await);
    assert_ne!(ann, bob);
    assert!(ann.contains("<h1>Events") && bob.contains("may not call Events"), "{ann} {bob}");
}

/// The certificates of a farm.
struct Files {
    folder: tempfile::TempDir,
    ca: PathBuf,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca");
        let authority = Authority::init(&ca, "farm", crate::clock::wall()).unwrap();
        Self { folder, ca, authority }
    }

    fn client(&self, uri: &str) -> (PathBuf, PathBuf) {
        let hour = Duration::from_secs(3_600);
        let into = self.folder.path().join(uri.rsplit('/').next().unwrap());
        std::fs::create_dir(&into).unwrap();
        let pair = self.authority.client(&into, &Uri::parse(uri).unwrap(), hour, crate::clock::wall()).unwrap();
        (pair.certificate, pair.key)
    }
}

/// The answer to a request with these headers, over a connection of its own.
fn asked(mut stream: impl Read + Write, headers: &str) -> String {
    let request = format!("GET /servers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

/// The same over TLS, with this certificate.
fn asked_by(own: Option<&(PathBuf, PathBuf)>, ca: &Path, address: SocketAddr, headers: &str) -> String {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = |path: &Path| CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    let mut roots = rustls::RootCertStore::empty();
    chain(&ca.join("ca.pem")).into_iter().for_each(|one| roots.add(one).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = match own {
        Some((certificate, key)) => {
            builder.with_client_auth_cert(chain(certificate), PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    asked(rustls::StreamOwned::new(client, connected(address)), headers)
}

fn connected(address: SocketAddr) -> std::net::TcpStream {
    let stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_has_tls_of_its_own_and_a_certificate_signs_in() {
    let files = Files::new();
    let into = files.folder.path().join("server");
    std::fs::create_dir(&into).unwrap();
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let pair = files.authority.server(&into, &names, None, Duration::from_secs(3_600), crate::clock::wall()).unwrap();
    let settings = ServerSettings {
        certificate: pair.certificate,
        key: pair.key,
        client_auth: ClientAuth::Optional,
        client_ca: vec![files.ca.join("ca.pem")],
        protocol: Protocol::Http1,
        ..ServerSettings::default()
    };
    let tls = Arc::new(ServerTls::load(settings, crate::clock::wall()).unwrap());
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let broker = broker(1, 1).await;
    let (stop, sources) = (CancellationToken::new(), AnswerSources { trust: trust(), ..AnswerSources::default() });
    let inside = Inside::new(broker.handle.clone(), &RpcLimits::default(), sources, None, stop.clone());
    let unix_path = files.folder.path().join("page.sock");
    let unix = UnixListener::bind(&unix_path).unwrap();
    let sockets = PageSockets { tcp, tls: Some(tls), unix: Some(unix) };
    let settings = PageSettings { secure: true, proxy: proxy(), ..PageSettings::default() };
    let served = tokio::spawn(serve(sockets, inside, settings, stop.clone()));
    let ops = files.client("spiffe://farm/ops");
    let stranger = files.client("spiffe://farm/stranger");
    let (ca, path) = (files.ca.clone(), unix_path.clone());
    tokio::task::spawn_blocking(move || {
        let by = |own, headers: &str| asked_by(own, &ca, address, headers);
        let page = by(Some(&ops), "");
        assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains("x509:spiffe://farm/ops"), "{page}");
        let page = by(Some(&stranger), "");
        assert!(page.starts_with("HTTP/1.1 401 Unauthorized") && !page.contains("x509:"), "{page}");
        let page = by(None, "");
        assert!(page.starts_with("HTTP/1.1 401 Unauthorized") && page.contains("name=\"token\""), "{page}");
        // A certificate does not make a header of the proxy believed.
        let page = by(Some(&ops), "X-Forwarded-User: ann@example.org\r\n");
        assert!(page.starts_with("HTTP/1.1 403 Forbidden"), "{page}");
        // The socket of the proxy: it speaks for others, and is no user of this machine.
        let by_socket = |headers: &str| asked(std::os::unix::net::UnixStream::connect(&path).unwrap(), headers);
        let page = by_socket("X-Forwarded-User: bob@example.org\r\n");
        assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains("proxy:bob@example.org"), "{page}");
        let page = by_socket("");
        assert!(page.starts_with("HTTP/1.1 401 Unauthorized"), "{page}");
        // Plaintext gets nothing.
        let mut plain = connected(address);
        plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut said = Vec::new();
        let _ = plain.read_to_end(&mut said);
        assert!(!said.starts_with(b"HTTP/1.1"), "{said:?}");
    })
    .await
    .unwrap();
    // A stop ends it.
    stop.cancel();
    served.await.unwrap().unwrap();
}
