//! `[server.tls]` and `[page.tls]`: the certificate of a port, and whose clients it takes.

use super::problem::{Problems, Span};
use super::reader::Reader;
use std::path::Path;
use std::time::Duration;
use toml::Spanned;
use wharfinger_core::Millis;
use wharfinger_tls::{ClientAuth, Protocol, Revoked, ServerSettings, Setting, TlsProblem, TrustSettings};

/// Default of the time after which the files are read again.
const RELOAD: Millis = Millis::secs(30);

/// The settings of a port with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The files, with absolute paths.
    pub files: ServerSettings,
    /// Time after which the files are read again. SIGHUP reads them at once.
    pub reload_every: Duration,
}

/// The table as read.
#[derive(Debug, Default)]
pub(crate) struct TlsSection {
    /// The name of the table.
    name: &'static str,
    span: Option<Span>,
    certificate: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
    client_auth: Option<Spanned<String>>,
    client_ca: Vec<Spanned<String>>,
    crl: Vec<Spanned<String>>,
    reload_every: Option<Spanned<Millis>>,
    trust: Vec<TrustSection>,
    serials: Vec<Spanned<String>>,
    uris: Vec<Spanned<String>>,
    fingerprints: Vec<Spanned<String>>,
}

/// One table `trust` of it as read.
#[derive(Debug)]
struct TrustSection {
    span: Span,
    ca: Option<Spanned<String>>,
    uris: Vec<Spanned<String>>,
}

impl TlsSection {
    /// Whether the file has the table.
    pub(crate) fn is_there(&self) -> bool {
        self.span.is_some()
    }

    /// Whether clients are asked for certificates, as far as the table says.
    pub(crate) fn asks(&self) -> bool {
        let none = self.client_auth.as_ref().is_some_and(|text| text.get_ref() == "none");
        self.is_there() && !none && !(self.client_ca.is_empty() && self.trust.is_empty())
    }
}

/// The names of the table, of its tables `trust` and of its table `revoked`.
pub(crate) struct Names {
    pub(crate) table: &'static str,
    pub(crate) trust: &'static str,
    pub(crate) revoked: &'static str,
}

/// Those of the server's port.
pub(crate) const OF_SERVER: Names =
    Names { table: "[server.tls]", trust: "[[server.tls.trust]]", revoked: "[server.tls.revoked]" };
/// Those of the page's port.
pub(crate) const OF_PAGE: Names =
    Names { table: "[page.tls]", trust: "[[page.tls.trust]]", revoked: "[page.tls.revoked]" };

pub(crate) fn read(above: &mut Reader<'_>, names: &Names, problems: &mut Problems) -> TlsSection {
    let mut tls = above.table("tls", names.table, problems);
    let mut section = TlsSection {
        name: names.table,
        span: tls.span(),
        certificate: tls.text("certificate", problems),
        key: tls.text("key", problems),
        client_auth: tls.text("client_auth", problems),
        client_ca: tls.strings("client_ca", problems).unwrap_or_default(),
        crl: tls.strings("crl", problems).unwrap_or_default(),
        reload_every: tls.duration("reload_every", Millis::secs(1)..=Millis::secs(3600), problems),
        ..TlsSection::default()
    };
    for mut trust in tls.tables("trust", names.trust, problems) {
        section.trust.push(TrustSection {
            span: trust.span().unwrap_or(0..0),
            ca: trust.text("ca", problems),
            uris: trust.strings("uris", problems).unwrap_or_default(),
        });
        trust.finish(problems);
    }
    let mut revoked = tls.table("revoked", names.revoked, problems);
    section.serials = revoked.strings("serials", problems).unwrap_or_default();
    section.uris = revoked.strings("uris", problems).unwrap_or_default();
    section.fingerprints = revoked.strings("fingerprints", problems).unwrap_or_default();
    revoked.finish(problems);
    tls.finish(problems);
    section
}

/// Checks the table and all files that it names. `None`: there is no table, or it has mistakes, which are noted.
pub(crate) fn check(section: &TlsSection, protocol: Protocol, folder: &Path, problems: &mut Problems) -> Option<Tls> {
    let span = section.span.clone()?;
    let before = problems.len();
    let file = |text: &Spanned<String>| folder.join(text.get_ref());
    for (key, value) in [("certificate", &section.certificate), ("key", &section.key)] {
        if value.is_none() {
            let remedy = format!(
                "add {key} = \"server.{}\"; wharfinger pki makes both files",
                if key == "key" { "key" } else { "pem" }
            );
            problems.add(span.clone(), format!("{} has no `{key}`", section.name), remedy);
        }
    }
    let client_auth = section.client_auth.as_ref().and_then(|text| match text.get_ref().as_str() {
        "none" => Some(ClientAuth::None),
        "optional" => Some(ClientAuth::Optional),
        "required" => Some(ClientAuth::Required),
        other => {
            let message = format!("`client_auth` is {other:?}");
            problems.add(text.span(), message, "write \"none\", \"optional\" or \"required\"").label("not known");
            None
        }
    });
    for trust in &section.trust {
        if trust.ca.is_none() || trust.uris.is_empty() {
            let remedy = "add ca = \"clients.pem\" and uris = [\"spiffe://farm.example.org/\"]";
            let table = section.name.trim_matches(['[', ']']);
            problems.add(trust.span.clone(), format!("[[{table}.trust]] lacks `ca` or `uris`"), remedy);
        }
    }
    let (Some(certificate), Some(key)) = (&section.certificate, &section.key) else { return None };
    if problems.len() > before {
        return None;
    }
    let texts = |list: &[Spanned<String>]| list.iter().map(|text| text.get_ref().clone()).collect::<Vec<_>>();
    let settings = ServerSettings {
        certificate: file(certificate),
        key: file(key),
        client_auth: client_auth.unwrap_or(if section.client_ca.is_empty() && section.trust.is_empty() {
            ClientAuth::None
        } else {
            ClientAuth::Required
        }),
        client_ca: section.client_ca.iter().map(file).collect(),
        trust: section
            .trust
            .iter()
            .filter_map(|trust| Some(TrustSettings { ca: file(trust.ca.as_ref()?), uris: texts(&trust.uris) }))
            .collect(),
        crl: section.crl.iter().map(file).collect(),
        revoked: Revoked {
            serials: texts(&section.serials),
            uris: texts(&section.uris),
            fingerprints: texts(&section.fingerprints),
        },
        protocol,
    };
    if let Err(problem) = wharfinger_tls::ServerTls::load(settings.clone(), crate::clock::wall()) {
        let at = place(section, folder, &problem).unwrap_or(span);
        let message = match &problem.path {
            Some(path) => format!("{} {}", path.display(), problem.message),
            None => problem.message.clone(),
        };
        problems.add(at, message, problem.remedy);
        return None;
    }
    let every = section.reload_every.as_ref().map_or(RELOAD, |every| *every.get_ref());
    Some(Tls { files: settings, reload_every: Duration::from_millis(u64::try_from(every.0).unwrap_or(0)) })
}

/// The place of a problem's file or value in the configuration.
fn place(section: &TlsSection, folder: &Path, problem: &TlsProblem) -> Option<Span> {
    let all: Vec<&Spanned<String>> = match problem.setting {
        Setting::Certificate => section.certificate.iter().collect(),
        Setting::Key => section.key.iter().collect(),
        Setting::ClientCa => section.client_ca.iter().chain(&section.client_auth).collect(),
        Setting::Crl => section.crl.iter().collect(),
        Setting::Trust => section.trust.iter().flat_map(|trust| trust.ca.iter().chain(&trust.uris)).collect(),
        Setting::Revoked => section.serials.iter().chain(&section.uris).chain(&section.fingerprints).collect(),
        Setting::Ca => Vec::new(),
    };
    let named = |text: &&&Spanned<String>| match &problem.path {
        Some(path) => folder.join(text.get_ref()) == *path,
        None => problem.message.contains(&format!("{:?}", text.get_ref())),
    };
    all.iter().find(named).or(all.first()).map(|text| text.span())
}
