//! `[page]`: the port of the operator's page, and the names by which people reach it. `page_proxy.rs` has
//! `[page.proxy]`, `page_oidc.rs` has `[page.oidc]`.

use super::check::address;
use super::page_oidc::{self, OidcSection};
use super::page_proxy::{self, Beside, PageProxy, ProxySection};
use super::problem::{Problems, Span};
use super::reader::Reader;
use super::tls::{self, Tls, TlsSection};
use crate::socket::UnixSocket;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use toml::Spanned;
use wharfinger_jwt::{IssuerSettings, ProviderSettings};
use wharfinger_tls::{ClientAuth, Protocol};

/// The default address of the page.
pub(crate) const LISTEN: &str = "127.0.0.1:7412";

/// The settings of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Address and port.
    pub listen: SocketAddr,
    /// The address by which people reach it, without a path. `None`: that of the port.
    pub url: Option<String>,
    /// The host names by which it may be called, beside `localhost`. IP addresses need no entry.
    pub names: Vec<String>,
    /// Its certificates. `None`: it has no TLS.
    pub tls: Option<Tls>,
    /// The proxy before it that names people.
    pub proxy: Option<PageProxy>,
    /// The issuer that signs people in.
    pub oidc: Option<ProviderSettings>,
}

impl Page {
    /// Whether people reach it by https.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some() || self.url.as_ref().is_some_and(|url| url.starts_with("https://"))
    }
}

/// A port for HTTP.
pub(crate) struct Port {
    /// The table of the file.
    pub(crate) table: &'static str,
    /// Its name in messages.
    pub(crate) what: &'static str,
    /// The default address.
    pub(crate) default: &'static str,
    /// Whether it has TLS, and knows its callers.
    pub(crate) known: bool,
}

impl Port {
    /// Checks its address. `None`: it has mistakes, which are noted.
    pub(crate) fn check(
        &self,
        span: Span,
        listen: Option<&Spanned<String>>,
        around: &Around<'_>,
        problems: &mut Problems,
    ) -> Option<SocketAddr> {
        let Port { table, what, default, known } = self;
        let at = listen.map_or(span, Spanned::span);
        let listen = match listen {
            Some(listen) => address(listen, default, problems),
            None => default.parse().ok(),
        };
        if let Some(listen) = listen.filter(|listen| !listen.ip().is_loopback() && !around.allow_remote && !known) {
            problems
                .add(
                    at.clone(),
                    format!("`listen` of {table} is an address that other machines reach: {}", listen.ip()),
                    "listen on 127.0.0.1 or [::1], and reach it by `ssh -L` or by a proxy with TLS on this machine; or set `allow_remote = true` in [server] on a network where everyone may do everything",
                )
                .label(format!("{what} has no TLS"));
        }
        for (other_table, other) in around.taken {
            if listen.is_some() && listen == *other && listen.is_some_and(|listen| listen.port() != 0) {
                let message = format!("{table} and {other_table} listen on one address");
                problems.add(at.clone(), message, format!("give {table} a port of its own, as in {default:?}"));
            }
        }
        listen
    }
}

/// `[page]` as read.
#[derive(Debug, Default)]
pub(crate) struct PageSection {
    span: Option<Span>,
    listen: Option<Spanned<String>>,
    url: Option<Spanned<String>>,
    hosts: Vec<Spanned<String>>,
    pub(crate) tls: TlsSection,
    pub(crate) proxy: ProxySection,
    oidc: OidcSection,
}

/// The other settings of the file that the page depends on.
pub(crate) struct Around<'a> {
    /// Whether callers are known.
    pub(crate) auth: bool,
    /// Whether everyone on the network may do everything.
    pub(crate) allow_remote: bool,
    /// The issuers of tokens.
    pub(crate) issuers: &'a [IssuerSettings],
    /// Whether none of them has a mistake.
    pub(crate) issuers_are_right: bool,
    /// The addresses of the other ports, with their tables.
    pub(crate) taken: &'a [(&'static str, Option<SocketAddr>)],
}

pub(crate) fn read(file: &mut Reader<'_>, problems: &mut Problems) -> PageSection {
    let mut page = file.table("page", "[page]", problems);
    let section = PageSection {
        span: page.span(),
        listen: page.text("listen", problems),
        url: page.text("url", problems),
        hosts: page.strings("hosts", problems).unwrap_or_default(),
        tls: tls::read(&mut page, &tls::OF_PAGE, problems),
        proxy: page_proxy::read(&mut page, problems),
        oidc: page_oidc::read(&mut page, problems),
    };
    page.finish(problems);
    section
}

/// Checks the table. `None`: there is no table, or it has mistakes, which are noted.
pub(crate) fn check(
    section: &PageSection,
    around: &Around<'_>,
    (unix, granted): (Option<&UnixSocket>, bool),
    folder: &Path,
    problems: &mut Problems,
) -> Option<Page> {
    let span = section.span.clone()?;
    let before = problems.len();
    let tls = tls::check(&section.tls, Protocol::Http1, folder, problems);
    let required = tls.as_ref().is_some_and(|tls| tls.files.client_auth == ClientAuth::Required);
    let known = section.tls.is_there() && (around.auth || required);
    let port = Port { table: "[page]", what: "the page", default: LISTEN, known };
    let listen = port.check(span, section.listen.as_ref(), around, problems);
    let mut names = Vec::new();
    let mut reached = |name: &str, span: Span, problems: &mut Problems| {
        let near = name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !near && !around.auth && !around.allow_remote && !known {
            problems
                .add(
                    span,
                    format!("people of other machines reach the page as {name:?}, and the server knows no callers"),
                    "add [auth] with a token for each of them (docs/trust.md); without it each of them is an administrator",
                )
                .label("reached by others");
        }
        names.push(name.to_ascii_lowercase());
    };
    for host in &section.hosts {
        match is_host(host.get_ref()) {
            true => reached(host.get_ref(), host.span(), problems),
            false => {
                let message = format!("{:?} is not the name of a host", host.get_ref());
                problems.add(
                    host.span(),
                    message,
                    "write the name alone, without a scheme and a port, as in \"wharf.example.org\"",
                );
            }
        }
    }
    let url = section.url.as_ref().and_then(|url| match host_of(url.get_ref()) {
        Some(host) => {
            reached(host, url.span(), problems);
            Some(url.get_ref().trim_end_matches('/').to_owned())
        }
        None => {
            let message = format!("`url` is not the address of a page: {:?}", url.get_ref());
            problems.add(
                url.span(),
                message,
                "write a scheme and a host, without a path, as in \"https://wharf.example.org\"",
            );
            None
        }
    });
    if let Some(at) = section.url.as_ref().filter(|at| tls.is_some() && at.get_ref().starts_with("http://")) {
        let message = "`url` begins with http://, and the port of the page has TLS";
        problems.add(at.span(), message, "write https://, or take [page.tls] out");
    }
    let beside = Beside { listen, unix, granted };
    let proxy = page_proxy::check(&section.proxy, &beside, folder, problems);
    let oidc = page_oidc::check(&section.oidc, url.as_deref(), around, folder, problems);
    (problems.len() == before).then_some(Page { listen: listen?, url, names, tls, proxy, oidc })
}

/// The host of the address of a page. `None`: it is none.
fn host_of(url: &str) -> Option<&str> {
    let authority = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let plain = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
        return (plain && address.parse::<IpAddr>().is_ok()).then_some(address);
    }
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let plain = port.is_none_or(|port| port.parse::<u16>().is_ok());
    (plain && is_host(host)).then_some(host)
}

fn is_host(name: &str) -> bool {
    let part = |part: &str| {
        let plain = part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        !part.is_empty() && part.len() <= 63 && plain && !part.starts_with('-')
    };
    name.len() <= 253 && name.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_page_has_a_scheme_and_a_host() {
        for (url, host) in [
            ("https://wharf.example.org", Some("wharf.example.org")),
            ("https://wharf.example.org/", Some("wharf.example.org")),
            ("http://10.0.0.1:8080", Some("10.0.0.1")),
            ("http://[::1]:80", Some("::1")),
            ("https://wharf.example.org/page", None),
            ("wharf.example.org", None),
            ("ftp://wharf.example.org", None),
            ("https://", None),
            ("https://a b", None),
            ("https://a:b", None),
            ("https://user@host", None),
            ("https://[x]", None),
        ] {
            assert_eq!(host_of(url), host, "{url}");
        }
    }
}
