//! `[cluster.tls]`: the certificates by which the servers of a cluster know each other.

use super::problem::{Problems, Span};
use super::reader::Reader;
use super::tls::Tls;
use std::path::{Path, PathBuf};
use toml::Spanned;
use wharfinger_tls::spiffe::Uri;
use wharfinger_tls::{ClientAuth, ClientSettings, ClientTls, ServerTls, TlsProblem};

/// TLS between the servers of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterTls {
    /// The certificate that this server shows to the leader, and the authorities that sign those of servers. Paths are absolute.
    pub settings: ClientSettings,
    /// The names of servers.
    pub peers: Vec<Uri>,
}

/// `[cluster.tls]` as read.
#[derive(Debug, Default)]
pub(crate) struct ClusterTlsSection {
    span: Option<Span>,
    certificate: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
    ca: Option<Spanned<String>>,
    peers: Vec<Spanned<String>>,
}

pub(crate) fn read(cluster: &mut Reader<'_>, problems: &mut Problems) -> ClusterTlsSection {
    let mut tls = cluster.table("tls", "[cluster.tls]", problems);
    let section = ClusterTlsSection {
        span: tls.span(),
        certificate: tls.text("certificate", problems),
        key: tls.text("key", problems),
        ca: tls.text("ca", problems),
        peers: tls.strings("peers", problems).unwrap_or_default(),
    };
    tls.finish(problems);
    section
}

/// Checks the table and all files that it names. `None`: there is no table, or it has mistakes, which are noted. `cluster` is the place
/// of [cluster]; `has_tls`: the file has [server.tls], and `port` is its settings if it has no mistakes.
pub(crate) fn check(
    section: &ClusterTlsSection,
    cluster: &Span,
    has_tls: bool,
    port: Option<&Tls>,
    folder: &Path,
    problems: &mut Problems,
) -> Option<ClusterTls> {
    let Some(span) = section.span.clone() else {
        if has_tls {
            let message = "the servers of this [cluster] have [server.tls], and do not know each other's certificates";
            let remedy = "add [cluster.tls] with peers = [\"spiffe://farm.example.org/wharfinger/server\"], the names of the servers";
            problems.add(cluster.clone(), message, remedy);
        }
        return None;
    };
    if !has_tls {
        let remedy = "add [server.tls]: a server that leads is called at its port";
        problems.add(span.clone(), "[cluster.tls] without [server.tls]: the other servers find no TLS here", remedy);
    }
    let before = problems.len();
    let peers: Vec<Uri> = section.peers.iter().filter_map(|text| name(text, problems)).collect();
    if section.peers.is_empty() {
        let remedy =
            "add peers = [\"spiffe://farm.example.org/wharfinger/server\"], the names in the servers' certificates";
        problems.add(span.clone(), "[cluster.tls] has no `peers`", remedy);
    }
    if let (Some(one), None) | (None, Some(one)) = (&section.certificate, &section.key) {
        let remedy = "write both, or none of them: then those of [server.tls] are used";
        problems.add(one.span(), "[cluster.tls] has a `certificate` or a `key` without the other", remedy);
    }
    // Mistakes of [server.tls] are noted there.
    let port = port?;
    if port.files.client_auth == ClientAuth::None {
        let remedy = "add client_ca to [server.tls], the file of the authority that signs the servers' certificates";
        problems.add(span.clone(), "a server that leads does not ask the others for their certificates", remedy);
    }
    let ca = match (&section.ca, &port.files.client_ca[..]) {
        (Some(ca), _) => Some(folder.join(ca.get_ref())),
        (None, [only]) => Some(only.clone()),
        (None, _) => {
            let remedy = "add ca, the file of the authorities that sign the servers' certificates";
            problems.add(
                span.clone(),
                "[cluster.tls] has no `ca`, and client_ca of [server.tls] is not one file",
                remedy,
            );
            None
        }
    };
    if problems.len() > before {
        return None;
    }
    let own = |text: &Spanned<String>| folder.join(text.get_ref());
    let identity = match (&section.certificate, &section.key) {
        (Some(certificate), Some(key)) => (own(certificate), own(key)),
        _ => (port.files.certificate.clone(), port.files.key.clone()),
    };
    let place = section.certificate.as_ref().map_or(span.clone(), Spanned::span);
    let settings = ClientSettings { ca, identity: Some(identity.clone()), server_uri: None };
    if let Err(problem) = try_out(&settings, &identity.0, &peers, port) {
        let message = match &problem.path {
            Some(path) => format!("{} {}", path.display(), problem.message),
            None => problem.message.clone(),
        };
        problems.add(place, message, problem.remedy);
        return None;
    }
    Some(ClusterTls { settings, peers })
}

fn name(text: &Spanned<String>, problems: &mut Problems) -> Option<Uri> {
    Uri::parse(text.get_ref())
        .map_err(|error| {
            let message = format!("a name of `peers` {error}: {:?}", text.get_ref());
            problems.add(text.span(), message, "write a whole name: spiffe://DOMAIN/PATH");
        })
        .ok()
}

/// Does what the servers will do with each other's certificates, with those of this one.
fn try_out(settings: &ClientSettings, own: &PathBuf, peers: &[Uri], port: &Tls) -> Result<(), TlsProblem> {
    let now = crate::clock::wall();
    let client = ClientTls::load_for(settings.clone(), peers.to_vec())?;
    // This server, as the others find it when it leads.
    client.trusts(&port.files.certificate, now)?;
    // This server, as the leader sees it.
    let leaf = ServerTls::load(port.files.clone(), now)?.would_admit(own, now)?;
    if peers.contains(&leaf.uri) {
        return Ok(());
    }
    Err(TlsProblem {
        setting: wharfinger_tls::Setting::Certificate,
        path: Some(own.clone()),
        message: format!("has the name {}, which is none of `peers`", leaf.uri),
        remedy: "add it to `peers`, or use the certificate of a server".into(),
    })
}
