//! Certificates and hellos that no authority of ours would make: each is refused, and the same with one thing put right is let in.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test's helpers; certificates are of now")]

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::TlsConnector;
use wharfinger_tls::pki::Authority;
use wharfinger_tls::{AcceptError, ClientAuth, Peer, ServerSettings, ServerTls, Setting};

const HOUR: Duration = Duration::from_secs(3600);

/// The parameters and the key of an authority, and its files.
struct Site {
    dir: tempfile::TempDir,
    now: SystemTime,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(name: &str) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // All have one key identifier: it proves nothing.
    params.key_identifier_method = KeyIdMethod::PreSpecified(vec![7; 20]);
    (params, KeyPair::generate().unwrap())
}

impl Site {
    fn new() -> Self {
        let (dir, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let servers = Authority::init(&dir.path().join("ca"), "farm", now).unwrap();
        servers.server(dir.path(), &["localhost".into()], None, HOUR, now).unwrap();
        let (params, key) = authority("clients");
        std::fs::write(dir.path().join("clients.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Site { dir, now, issuer: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn settings(&self) -> ServerSettings {
        ServerSettings {
            certificate: self.path("localhost.pem"),
            key: self.path("localhost.key"),
            client_auth: ClientAuth::Optional,
            client_ca: vec![self.path("clients.pem")],
            ..ServerSettings::default()
        }
    }

    fn server(&self) -> ServerTls {
        ServerTls::load(self.settings(), self.now).unwrap()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca/ca.pem")).unwrap()).unwrap();
        roots
    }

    /// A client without rules of its own, with this chain.
    fn client(&self, chain: Option<(Vec<CertificateDer<'static>>, KeyPair)>, alpn: &[&[u8]]) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots());
        let mut config = match chain {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }

    /// The server's verdict on a client with this certificate, signed by the authority of clients.
    async fn with(&self, params: CertificateParams) -> Result<Option<Peer>, AcceptError> {
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        meet(&self.server(), self.client(Some((vec![der], key)), &[b"h2"])).await.0
    }
}

/// One connection: what the server says of it, and how the client's handshake ended.
async fn meet(
    server: &ServerTls,
    client: ClientConfig,
) -> (Result<Option<Peer>, AcceptError>, Option<(HandshakeKind, u32)>) {
    let (near, far) = duplex(256 * 1024);
    let serve = async {
        let mut accepted = server.accept(far).await?;
        accepted.stream.write_all(b"s").await?;
        accepted.stream.flush().await?;
        let mut byte = [0];
        let _ = accepted.stream.read(&mut byte).await;
        Ok(accepted.peer)
    };
    let connect = async {
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, near).await.ok()?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.ok()?;
        let (_, session) = stream.get_ref();
        Some((session.handshake_kind()?, session.tls13_tickets_received()))
    };
    tokio::join!(serve, connect)
}

fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

/// The parameters of a client that is let in.
fn right() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "7");
    params.subject_alt_names = vec![uri("spiffe://farm/agents/7")];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

#[tokio::test]
async fn a_certificate_with_one_fault_names_no_caller() {
    type Change = (&'static str, fn(&mut CertificateParams));
    let site = Site::new();
    let peer = site.with(right()).await.unwrap().unwrap();
    assert_eq!(peer.leaf.uri.as_str(), "spiffe://farm/agents/7");
    let wrong: [Change; 13] = [
        ("two URIs", |params| params.subject_alt_names.push(uri("spiffe://farm/ops"))),
        ("two URIs, another one first", |params| params.subject_alt_names.insert(0, uri("spiffe://farm/ops"))),
        ("one URI twice", |params| params.subject_alt_names.push(uri("spiffe://farm/agents/7"))),
        ("a URI of another scheme beside it", |params| params.subject_alt_names.push(uri("https://farm/ops"))),
        ("no URI, and a subject that looks like one", |params| {
            params.subject_alt_names.clear();
            params.distinguished_name.push(DnType::CommonName, "spiffe://farm/agents/7");
        }),
        ("a host name alone", |params| {
            params.subject_alt_names = vec![SanType::DnsName(Ia5String::try_from("agents-7.farm").unwrap())];
        }),
        ("an authority's", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
        ("one that may sign certificates", |params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]),
        ("one that may sign lists", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]),
        ("not for clients", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ("not valid yet", |params| params.not_before = (SystemTime::now() + HOUR).into()),
        ("not valid any more", |params| params.not_after = (SystemTime::now() - HOUR).into()),
        ("a way out of its path", |params| params.subject_alt_names = vec![uri("spiffe://farm/agents/../ops")]),
    ];
    for (what, change) in wrong {
        let mut params = right();
        change(&mut params);
        let refused = site.with(params).await;
        assert!(matches!(refused, Err(AcceptError::Certificate(_))), "{what}: {refused:?}");
    }
    // For servers and clients both, and with a host name beside its URI.
    let mut params = right();
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from("agent-7.farm").unwrap()));
    assert!(site.with(params).await.unwrap().is_some());
}

#[tokio::test]
async fn a_name_and_a_key_identifier_do_not_make_an_authority() {
    let site = Site::new();
    let key = KeyPair::generate().unwrap();
    let (params, twin) = authority("clients");
    let signed = right().signed_by(&key, &Issuer::new(params, twin)).unwrap();
    let chain = (vec![signed.der().clone()], key);
    let (refused, _) = meet(&site.server(), site.client(Some(chain), &[b"h2"])).await;
    assert!(matches!(refused, Err(AcceptError::Certificate(_))), "{refused:?}");
    let key = KeyPair::generate().unwrap();
    let own = right().self_signed(&key).unwrap();
    let (refused, _) = meet(&site.server(), site.client(Some((vec![own.der().clone()], key)), &[b"h2"])).await;
    assert!(matches!(refused, Err(AcceptError::Certificate(_))), "{refused:?}");
}

/// The constraint of an authority to URIs of this host, in DER.
fn only_uris_of(host: &str) -> CustomExtension {
    let wrapped = |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
    let permitted = wrapped(0xa0, &wrapped(0x30, &wrapped(0x86, host.as_bytes())));
    let mut constraint = CustomExtension::from_oid_content(&[2, 5, 29, 30], wrapped(0x30, &permitted));
    constraint.set_criticality(true);
    constraint
}

#[tokio::test]
async fn n11_an_intermediate_signs_nothing_outside_its_names() {
    let site = Site::new();
    for (constraint, fine) in [(None, true), (Some("other"), false)] {
        let (mut params, middle) = authority("middle");
        params.key_identifier_method = KeyIdMethod::Sha256;
        params.custom_extensions.extend(constraint.map(only_uris_of));
        let signed = params.signed_by(&middle, &site.issuer).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = right().signed_by(&key, &Issuer::new(params, middle)).unwrap();
        let chain = vec![leaf.der().clone(), signed.der().clone()];
        let (peer, _) = meet(&site.server(), site.client(Some((chain, key)), &[b"h2"])).await;
        assert_eq!(peer.is_ok(), fine, "{constraint:?}: {peer:?}");
    }
}

#[tokio::test]
async fn a_chain_that_is_too_long_is_refused_in_bounded_memory() {
    let site = Site::new();
    for (length, fine) in [(1, true), (3_000, false)] {
        let key = KeyPair::generate().unwrap();
        let signed = right().signed_by(&key, &site.issuer).unwrap();
        let chain = vec![signed.der().clone(); length];
        let (peer, _) = meet(&site.server(), site.client(Some((chain, key)), &[b"h2"])).await;
        assert_eq!(peer.is_ok(), fine, "{length} certificates");
    }
}

#[tokio::test]
async fn no_connection_is_resumed() {
    let site = Site::new();
    let key = KeyPair::generate().unwrap();
    let signed = right().signed_by(&key, &site.issuer).unwrap();
    // One client: what it keeps of the first connection it would use for the second.
    let client = site.client(Some((vec![signed.der().clone()], key)), &[b"h2"]);
    let server = site.server();
    for _ in 0..2 {
        let (peer, done) = meet(&server, client.clone()).await;
        assert!(peer.unwrap().is_some());
        assert_eq!(done, Some((HandshakeKind::Full, 0)), "a whole handshake, and no ticket");
    }
}

#[tokio::test]
async fn a_client_offers_http2_and_the_present_version_of_tls() {
    let site = Site::new();
    let server = site.server();
    assert!(meet(&server, site.client(None, &[&b"http/1.1"[..], b"h2"])).await.0.is_ok());
    for alpn in [&[][..], &[&b"http/1.1"[..]], &[&b"h2c"[..]]] {
        let (refused, _) = meet(&server, site.client(None, alpn)).await;
        assert!(matches!(refused, Err(AcceptError::Protocol | AcceptError::Handshake(_))), "{alpn:?}: {refused:?}");
    }
    // A hello of TLS 1.2: without the extension that names later versions.
    let extensions = [&b"\x00\x0a\x00\x04\x00\x02\x00\x17"[..], b"\x00\x0d\x00\x04\x00\x02\x04\x03"].concat();
    let length = u8::try_from(extensions.len()).unwrap();
    let hello = [&[3, 3][..], &[9; 32], &[0, 0, 2, 0xc0, 0x2b, 1, 0, 0, length], &extensions].concat();
    let size = u8::try_from(hello.len()).unwrap();
    let record = [&[0x16, 3, 1, 0, size + 4, 1, 0, 0, size][..], &hello].concat();
    let (mut near, far) = duplex(64 * 1024);
    near.write_all(&record).await.unwrap();
    let refused = server.accept(far).await.err();
    assert!(matches!(refused, Some(AcceptError::Handshake(_))), "{refused:?}");
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.unwrap();
    // An alert: protocol_version.
    assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 70]);
}

#[tokio::test]
async fn a_list_is_of_its_authority_and_a_broken_one_changes_nothing() {
    let site = Site::new();
    let server = site.server();
    let key = KeyPair::generate().unwrap();
    let mut params = right();
    params.serial_number = Some(SerialNumber::from(77_u64));
    let signed = params.signed_by(&key, &site.issuer).unwrap();
    let client = site.client(Some((vec![signed.der().clone()], key)), &[b"h2"]);
    let list = |serial: u64, issuer: &Issuer<'_, KeyPair>, until: SystemTime| {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: (site.now - HOUR).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: (site.now - HOUR).into(),
            next_update: until.into(),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::PreSpecified(vec![7; 20]),
        };
        params.signed_by(issuer).unwrap().pem().unwrap()
    };
    let (params, twin) = authority("clients");
    let twin = Issuer::new(params, twin);
    let later = site.now + HOUR;
    let settings = ServerSettings { crl: vec![site.path("list.pem")], ..site.settings() };
    for (what, text, fine) in [
        ("another serial", list(78, &site.issuer, later), true),
        ("its serial", list(77, &site.issuer, later), false),
        ("out of date", list(78, &site.issuer, site.now - HOUR / 2), false),
        ("signed by another key of that name", list(78, &twin, later), false),
    ] {
        std::fs::write(site.path("list.pem"), text).unwrap();
        server.change(settings.clone(), site.now).unwrap();
        assert_eq!(meet(&server, client.clone()).await.0.is_ok(), fine, "{what}");
    }
    std::fs::write(site.path("list.pem"), list(78, &site.issuer, later)).unwrap();
    server.change(settings.clone(), site.now).unwrap();
    for broken in ["", "x", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"] {
        std::fs::write(site.path("list.pem"), broken).unwrap();
        let problem = server.reload(site.now).unwrap_err();
        assert_eq!(problem.setting, Setting::Crl, "{broken:?}");
        assert!(meet(&server, client.clone()).await.0.is_ok(), "the one before stays");
    }
}

/// A file that is being written: at each length it is none, or the whole.
#[tokio::test]
async fn half_a_file_is_never_taken() {
    let site = Site::new();
    let server = site.server();
    let again = site.path("again");
    let servers = Authority::open(&site.path("ca"), site.now).unwrap();
    servers.server(&again, &["localhost".into()], None, 2 * HOUR, site.now).unwrap();
    let before = server.not_after();
    for name in ["localhost.pem", "clients.pem"] {
        let whole = std::fs::read(site.path(name)).unwrap();
        let next = if name == "clients.pem" { whole.clone() } else { std::fs::read(again.join(name)).unwrap() };
        for part in 0..20 {
            std::fs::write(site.path(name), &next[..next.len() * part / 20]).unwrap();
            assert!(server.reload(site.now).is_err(), "{name}: {part} of 20");
            assert_eq!(server.not_after(), before);
        }
        std::fs::write(site.path(name), whole).unwrap();
        assert_eq!(server.reload(site.now), Ok(false), "{name}");
    }
}
