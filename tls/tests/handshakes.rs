//! Servers and clients that shake hands: who is let in, under what name, and until when.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test's helpers; certificates are of now")]

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use wharfinger_tls::pki::Authority;
use wharfinger_tls::spiffe::Uri;
use wharfinger_tls::{
    AcceptError, ClientAuth, ClientSettings, ClientTls, ConnectError, Peer, Revoked, ServerSettings, ServerTls,
    Setting, TrustSettings,
};

const HOUR: Duration = Duration::from_secs(3600);

struct Site {
    dir: tempfile::TempDir,
    authority: Authority,
    now: SystemTime,
}

impl Site {
    fn new() -> Self {
        let (dir, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let authority = Authority::init(&dir.path().join("ca"), "farm", now).unwrap();
        let uri = Uri::parse("spiffe://farm/server").unwrap();
        let names = ["localhost".to_string(), "127.0.0.1".to_string()];
        authority.server(dir.path(), &names, Some(&uri), HOUR, now).unwrap();
        Site { dir, authority, now }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn settings(&self, client_auth: ClientAuth) -> ServerSettings {
        ServerSettings {
            certificate: self.path("localhost.pem"),
            key: self.path("localhost.key"),
            client_auth,
            client_ca: vec![self.path("ca/ca.pem")],
            ..ServerSettings::default()
        }
    }

    fn server(&self, client_auth: ClientAuth) -> ServerTls {
        ServerTls::load(self.settings(client_auth), self.now).unwrap()
    }

    /// A client's certificate of this name; its settings.
    fn client(&self, uri: &str) -> ClientSettings {
        let made = self.authority.client(self.dir.path(), &Uri::parse(uri).unwrap(), HOUR, self.now).unwrap();
        self.with(Some((made.certificate, made.key)))
    }

    fn with(&self, identity: Option<(PathBuf, PathBuf)>) -> ClientSettings {
        ClientSettings { ca: Some(self.path("ca/ca.pem")), identity, server_uri: None }
    }
}

/// One connection: what the server and the client say of it. Each reads a byte of the other, so that refusals arrive.
async fn meet(
    server: &ServerTls,
    client: ClientSettings,
    host: &str,
) -> (Result<Option<Peer>, AcceptError>, Result<(), ConnectError>) {
    let client = ClientTls::load(client).unwrap();
    let (near, far) = duplex(64 * 1024);
    let serve = async {
        let mut accepted = server.accept(far).await?;
        accepted.stream.write_all(b"s").await?;
        accepted.stream.flush().await?;
        let mut byte = [0];
        let _ = accepted.stream.read(&mut byte).await;
        Ok(accepted.peer)
    };
    let connect = async {
        let mut stream = client.connect(host, near).await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        stream.write_all(b"c").await?;
        stream.flush().await?;
        Ok(())
    };
    tokio::join!(serve, connect)
}

#[tokio::test]
async fn a_client_with_a_certificate_is_known_by_its_name_and_one_without_is_anonymous() {
    let site = Site::new();
    let server = site.server(ClientAuth::Optional);
    let (peer, done) = meet(&server, site.client("spiffe://farm/agent/7"), "localhost").await;
    done.unwrap();
    let peer = peer.unwrap().unwrap();
    assert_eq!(peer.leaf.uri.as_str(), "spiffe://farm/agent/7");
    assert!(server.welcomes(&peer, site.now));
    assert!(!server.welcomes(&peer, site.now + 2 * HOUR), "its certificate has ended");
    let end = peer.leaf.not_after.duration_since(site.now).unwrap();
    assert!(end <= HOUR && end > HOUR - Duration::from_secs(5), "{end:?}");
    let (peer, done) = meet(&server, site.with(None), "127.0.0.1").await;
    done.unwrap();
    assert_eq!(peer.unwrap(), None);
    // Where one is required, no client is anonymous.
    let (refused, _) = meet(&site.server(ClientAuth::Required), site.with(None), "localhost").await;
    assert!(matches!(refused, Err(AcceptError::Certificate(_))), "{refused:?}");
}

#[tokio::test]
async fn a_bad_certificate_is_refused_also_where_none_would_do() {
    let site = Site::new();
    let server = site.server(ClientAuth::Optional);
    let stranger = Site::new();
    let other = ClientSettings { ca: Some(site.path("ca/ca.pem")), ..stranger.client("spiffe://farm/agent") };
    let (refused, _) = meet(&server, other, "localhost").await;
    assert!(matches!(refused, Err(AcceptError::Certificate(_))), "another authority: {refused:?}");
    // Out of date.
    let uri = Uri::parse("spiffe://farm/late").unwrap();
    let late = site.authority.client(site.dir.path(), &uri, Duration::from_secs(1), site.now - HOUR).unwrap();
    let (refused, _) = meet(&server, site.with(Some((late.certificate, late.key))), "localhost").await;
    assert!(matches!(refused, Err(AcceptError::Certificate(_))), "out of date: {refused:?}");
    // A server's certificate has a name of a host besides its URI, and may call.
    let own = Some((site.path("localhost.pem"), site.path("localhost.key")));
    let (peer, done) = meet(&server, site.with(own), "localhost").await;
    done.unwrap();
    assert_eq!(peer.unwrap().unwrap().leaf.uri.as_str(), "spiffe://farm/server");
    // One without a URI names no caller.
    let made = site.authority.server(site.dir.path(), &["bare".into()], None, HOUR, site.now).unwrap();
    let (refused, _) = meet(&server, site.with(Some((made.certificate, made.key))), "localhost").await;
    let Err(AcceptError::Certificate(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("0 URIs"), "{why}");
}

#[tokio::test]
async fn an_authority_signs_only_the_names_that_it_may() {
    let (site, other) = (Site::new(), Site::new());
    let trust =
        |ca: PathBuf, uris: &[&str]| TrustSettings { ca, uris: uris.iter().map(|uri| uri.to_string()).collect() };
    let settings = ServerSettings {
        client_ca: Vec::new(),
        trust: vec![
            trust(site.path("ca/ca.pem"), &["spiffe://farm/agents/"]),
            trust(other.path("ca/ca.pem"), &["spiffe://farm/ops"]),
        ],
        ..site.settings(ClientAuth::Required)
    };
    let server = ServerTls::load(settings.clone(), site.now).unwrap();
    for (made_by, uri, fine) in [
        (&site, "spiffe://farm/agents/7", true),
        (&other, "spiffe://farm/ops", true),
        (&other, "spiffe://farm/agents/8", false),
        (&site, "spiffe://farm/nobody", false),
    ] {
        let client = ClientSettings { ca: Some(site.path("ca/ca.pem")), ..made_by.client(uri) };
        let (peer, _) = meet(&server, client, "localhost").await;
        assert_eq!(peer.is_ok(), fine, "{uri}: {peer:?}");
    }
    let wrong = ServerSettings { trust: vec![trust(site.path("ca/ca.pem"), &["spiffe://Farm/"])], ..settings };
    let problem = ServerTls::load(wrong, site.now).unwrap_err();
    assert_eq!(problem.setting, Setting::Trust, "{problem}");
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_its_connections_are_found() {
    let site = Site::new();
    let (good, bad) = (site.client("spiffe://farm/good"), site.client("spiffe://farm/bad"));
    let server = site.server(ClientAuth::Required);
    let open = meet(&server, bad.clone(), "localhost").await.0.unwrap().unwrap();
    let list = site.authority.revoke(&bad.identity.as_ref().unwrap().0, site.now).unwrap();
    // A second one is added to the list, and the first stays on it.
    let third = site.client("spiffe://farm/third");
    site.authority.revoke(&third.identity.as_ref().unwrap().0, site.now).unwrap();
    let mut changes = server.changes();
    let settings = ServerSettings { crl: vec![list.clone()], ..site.settings(ClientAuth::Required) };
    server.change(settings.clone(), site.now).unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert!(!server.welcomes(&open, site.now));
    for (client, fine) in [(&bad, false), (&third, false), (&good, true)] {
        assert_eq!(meet(&server, client.clone(), "localhost").await.0.is_ok(), fine);
    }
    // A list that is out of date refuses all.
    let far = site.now + Duration::from_secs(11 * 365 * 86_400);
    let peer = meet(&server, good.clone(), "localhost").await.0.unwrap().unwrap();
    assert!(server.welcomes(&peer, site.now) && !server.welcomes(&peer, far));
    // The list of the settings needs no file of a list.
    for revoked in [
        Revoked { serials: vec![peer.leaf.serial.clone()], ..Revoked::default() },
        Revoked { serials: vec![format!("00:{}", peer.leaf.serial.to_uppercase())], ..Revoked::default() },
        Revoked { uris: vec!["spiffe://farm/".into()], ..Revoked::default() },
        Revoked { fingerprints: vec![peer.leaf.fingerprint.clone()], ..Revoked::default() },
    ] {
        let what = format!("{revoked:?}");
        server.change(ServerSettings { revoked, ..settings.clone() }, site.now).unwrap();
        assert!(!server.welcomes(&peer, site.now), "{what}");
        assert!(meet(&server, good.clone(), "localhost").await.0.is_err(), "{what}");
    }
    // A list of an authority that is not trusted is a mistake.
    let stranger = Site::new();
    let foreign = stranger.client("spiffe://farm/x").identity.unwrap().0;
    let foreign = stranger.authority.revoke(&foreign, site.now).unwrap();
    let problem = server.change(ServerSettings { crl: vec![foreign], ..settings }, site.now).unwrap_err();
    assert_eq!(problem.setting, Setting::Crl);
    assert!(site.authority.revoke(&stranger.path("localhost.pem"), site.now).is_err(), "another authority's");
}

#[tokio::test]
async fn a_server_is_checked_by_its_host_name_or_by_its_uri() {
    let site = Site::new();
    let server = site.server(ClientAuth::Optional);
    for (host, uri, fine) in [
        ("localhost", None, true),
        ("127.0.0.1", None, true),
        ("elsewhere", None, false),
        ("127.0.0.2", None, false),
        ("elsewhere", Some("spiffe://farm/server"), true),
        ("localhost", Some("spiffe://farm/agent"), false),
    ] {
        let client = ClientSettings { server_uri: uri.map(|uri| Uri::parse(uri).unwrap()), ..site.with(None) };
        let (_, done) = meet(&server, client, host).await;
        assert_eq!(done.is_ok(), fine, "{host} {uri:?}: {done:?}");
    }
    let stranger = Site::new();
    let (_, done) = meet(&server, stranger.with(None), "localhost").await;
    assert!(matches!(done, Err(ConnectError::Certificate(_))), "{done:?}");
}

#[tokio::test]
async fn plaintext_and_other_protocols_are_distinguished() {
    let site = Site::new();
    let server = site.server(ClientAuth::Optional);
    let (mut near, far) = duplex(64 * 1024);
    near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let refused = server.accept(far).await.err();
    assert!(matches!(refused, Some(AcceptError::Plaintext)), "{refused:?}");
    let (near, mut far) = duplex(64 * 1024);
    let client = ClientTls::load(site.with(None)).unwrap();
    far.write_all(b"HTTP/1.1 426 Upgrade Required\r\n\r\n").await.unwrap();
    let refused = client.connect("localhost", near).await.err();
    assert!(matches!(refused, Some(ConnectError::Plaintext)), "{refused:?}");
}

fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).unwrap();
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_a_broken_one_changes_nothing() {
    let site = Site::new();
    let server = site.server(ClientAuth::Optional);
    assert_eq!(server.reload(site.now), Ok(false));
    let before = server.not_after();
    let again = site.path("again");
    site.authority.server(&again, &["localhost".into()], None, 2 * HOUR, site.now).unwrap();
    // The certificate without its key.
    rename(&again.join("localhost.pem"), &site.path("localhost.pem"));
    let problem = server.reload(site.now).unwrap_err();
    assert_eq!((problem.setting, problem.path), (Setting::Key, Some(site.path("localhost.key"))));
    assert_eq!(server.not_after(), before);
    meet(&server, site.with(None), "localhost").await.1.unwrap();
    rename(&again.join("localhost.key"), &site.path("localhost.key"));
    assert_eq!(server.reload(site.now), Ok(true));
    assert!(server.not_after() > before);
    meet(&server, site.with(None), "localhost").await.1.unwrap();
    // Garbage, an authority's certificate, none at all, one that is out of date.
    for (content, of) in
        [("x", site.now), ("", site.now), (&std::fs::read_to_string(site.path("ca/ca.pem")).unwrap(), site.now)]
    {
        std::fs::write(site.path("localhost.pem"), content).unwrap();
        assert_eq!(server.reload(of).unwrap_err().setting, Setting::Certificate);
    }
    std::fs::remove_file(site.path("localhost.pem")).unwrap();
    assert!(server.reload(site.now).unwrap_err().message.contains("cannot be read"));
    meet(&server, site.with(None), "localhost").await.1.unwrap();
}

/// As Kubernetes renews the files of a volume: the directory behind a link is another one at once.
#[tokio::test]
async fn n24_files_behind_links_that_are_swapped_are_taken() {
    let site = Site::new();
    let pair = ["localhost.pem", "localhost.key"];
    let swap = |version: &str| {
        let _ = std::fs::remove_file(site.path("..next"));
        std::os::unix::fs::symlink(version, site.path("..next")).unwrap();
        rename(&site.path("..next"), &site.path("..data"));
    };
    std::fs::create_dir(site.path("v0")).unwrap();
    for name in pair {
        rename(&site.path(name), &site.path("v0").join(name));
        std::os::unix::fs::symlink(Path::new("..data").join(name), site.path(name)).unwrap();
    }
    swap("v0");
    let server = site.server(ClientAuth::Optional);
    let mut before = server.not_after();
    for number in 1..=3_u32 {
        let version = format!("v{number}");
        let valid = HOUR * (number + 1);
        site.authority.server(&site.path(&version), &["localhost".into()], None, valid, site.now).unwrap();
        assert_eq!(server.reload(site.now), Ok(false), "nothing is swapped yet");
        swap(&version);
        assert_eq!(server.reload(site.now), Ok(true), "{version}");
        assert!(server.not_after() > before, "{version}");
        before = server.not_after();
        meet(&server, site.with(None), "localhost").await.1.unwrap();
    }
    swap("nowhere");
    assert_eq!(server.reload(site.now).unwrap_err().setting, Setting::Certificate);
    meet(&server, site.with(None), "localhost").await.1.unwrap();
}

#[tokio::test]
async fn a_client_takes_its_renewed_pair_for_the_next_connection() {
    let site = Site::new();
    let server = site.server(ClientAuth::Required);
    let settings = site.client("spiffe://farm/agent");
    let (certificate, key) = settings.identity.clone().unwrap();
    let client = ClientTls::load(settings).unwrap();
    let serial = async |client: &ClientTls| {
        let (near, far) = duplex(64 * 1024);
        let (accepted, stream) = tokio::join!(server.accept(far), client.connect("localhost", near));
        stream.unwrap();
        accepted.unwrap().peer.unwrap().leaf.serial
    };
    let first = serial(&client).await;
    assert_eq!(serial(&client).await, first);
    let uri = Uri::parse("spiffe://farm/agent").unwrap();
    let again = site.authority.client(&site.path("again"), &uri, HOUR, site.now).unwrap();
    // Half a pair is not used.
    rename(&again.certificate, &certificate);
    assert_eq!(serial(&client).await, first);
    rename(&again.key, &key);
    assert_ne!(serial(&client).await, first);
}

#[test]
fn a_key_that_others_can_read_is_refused_and_so_is_what_is_no_file() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new();
    let settings = site.settings(ClientAuth::Required);
    let load = || ServerTls::load(settings.clone(), site.now);
    std::fs::set_permissions(&settings.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let problem = load().unwrap_err();
    assert_eq!(problem.setting, Setting::Key);
    assert!(problem.to_string().contains("chmod 06"), "{problem}");
    std::fs::set_permissions(&settings.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    load().unwrap();
    let fifo = ServerSettings { certificate: site.path("ca"), ..settings.clone() };
    assert!(ServerTls::load(fifo, site.now).unwrap_err().message.contains("not a file"));
    for (change, setting) in [
        (ServerSettings { client_ca: Vec::new(), ..settings.clone() }, Setting::ClientCa),
        (ServerSettings { client_auth: ClientAuth::None, ..settings.clone() }, Setting::ClientCa),
        (
            ServerSettings { certificate: site.path("ca/ca.pem"), key: site.path("ca/ca.key"), ..settings.clone() },
            Setting::Certificate,
        ),
    ] {
        assert_eq!(ServerTls::load(change, site.now).unwrap_err().setting, setting);
    }
    // Out of date, and not valid yet.
    assert_eq!(ServerTls::load(settings.clone(), site.now + 2 * HOUR).unwrap_err().setting, Setting::Certificate);
    assert_eq!(ServerTls::load(settings, site.now - HOUR).unwrap_err().setting, Setting::Certificate);
}

#[test]
fn an_authority_is_not_made_twice_and_opened_again() {
    let site = Site::new();
    let directory = site.path("ca");
    assert!(Authority::init(&directory, "farm", site.now).is_err());
    let again = Authority::open(&directory, site.now).unwrap();
    assert_eq!(again.domain(), "farm");
    let uri = Uri::parse("spiffe://farm/agent").unwrap();
    let made = again.client(site.dir.path(), &uri, HOUR, site.now).unwrap();
    assert!(again.client(site.dir.path(), &uri, HOUR, site.now).is_err(), "{made:?} is there already");
    let elsewhere = Uri::parse("spiffe://elsewhere/agent").unwrap();
    assert!(again.client(site.dir.path(), &elsewhere, HOUR, site.now).is_err());
    for wrong in ["", "a b", "-.", "ü", "x..y", "a/b"] {
        assert!(again.server(site.dir.path(), &[wrong.into()], None, HOUR, site.now).is_err(), "{wrong:?}");
    }
    assert!(Authority::init(&site.path("other"), "Farm", site.now).is_err());
    // Another key in the directory.
    std::fs::copy(made.key, directory.join("ca.key")).unwrap();
    assert!(Authority::open(&directory, site.now).is_err());
}
