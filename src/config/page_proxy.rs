//! `[page.proxy]`: the proxy before the page that names people, and `[[auth.proxy]]`: the tenants and roles of those whom it names.

use super::auth::check_tenant;
use super::problem::{Problems, Span};
use super::reader::Reader;
use super::role;
use super::unix::{self, SocketSection};
use crate::auth::{Network, ProxyGrant, RoleTable, is_proxied_name};
use crate::socket::UnixSocket;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use toml::Spanned;

/// Headers that have a meaning of their own for browsers, for the page or for the connection.
const TAKEN: [&str; 14] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "origin",
    "referer",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "te",
    "transfer-encoding",
    "user-agent",
];

/// The proxy of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageProxy {
    /// The header, in lower case.
    pub header: String,
    /// The addresses from which it is believed.
    pub from: Vec<Network>,
    /// The socket from which it is believed.
    pub socket: Option<UnixSocket>,
}

/// `[page.proxy]` as read.
#[derive(Debug, Default)]
pub(crate) struct ProxySection {
    span: Option<Span>,
    header: Option<Spanned<String>>,
    from: Vec<Spanned<String>>,
    socket: SocketSection,
}

impl ProxySection {
    /// Whether the file has the table.
    pub(crate) fn is_there(&self) -> bool {
        self.span.is_some()
    }
}

/// The other settings of the file that the proxy depends on.
pub(crate) struct Beside<'a> {
    /// The address of the page.
    pub(crate) listen: Option<SocketAddr>,
    /// The socket of the server.
    pub(crate) unix: Option<&'a UnixSocket>,
    /// Whether the file has `[[auth.proxy]]`.
    pub(crate) granted: bool,
}

pub(crate) fn read(page: &mut Reader<'_>, problems: &mut Problems) -> ProxySection {
    let mut proxy = page.table("proxy", "[page.proxy]", problems);
    let section = ProxySection {
        span: proxy.span(),
        header: proxy.text("header", problems),
        from: proxy.strings("from", problems).unwrap_or_default(),
        socket: unix::read_socket(&mut proxy, problems),
    };
    proxy.finish(problems);
    section
}

/// Checks the table. `None`: there is none, or it has mistakes, which are noted.
pub(crate) fn check(
    section: &ProxySection,
    beside: &Beside<'_>,
    folder: &Path,
    problems: &mut Problems,
) -> Option<PageProxy> {
    let span = section.span.clone()?;
    let before = problems.len();
    if !beside.granted {
        let remedy = "add [[auth.proxy]] with user = \"*@example.org\", tenant and roles";
        problems.add(span.clone(), "[page.proxy] names people, and none of them has a role", remedy);
    }
    let header = match &section.header {
        None => {
            let remedy = "add header = \"X-Forwarded-User\", or the header in which your proxy names the person";
            problems.add(span.clone(), "[page.proxy] has no `header`", remedy);
            None
        }
        Some(header) => check_header(header, problems),
    };
    if section.from.is_empty() && !section.socket.is_there() {
        let message = "[page.proxy] has neither `from` nor `listen_unix`, so that its header is believed from nowhere";
        let remedy =
            "add listen_unix = \"/run/wharfinger/page.sock\" for a proxy on this machine, or from = [\"10.0.0.5\"]";
        problems.add(span, message, remedy);
    }
    let from: Vec<Network> = section.from.iter().filter_map(|text| check_from(text, beside.listen, problems)).collect();
    let socket = unix::check_socket(&section.socket, true, folder, problems);
    if let (Some(own), Some(other), Some(path)) = (&socket, beside.unix, section.socket.place())
        && own.path == other.path
    {
        let remedy = "give one of them another path, as in \"/run/wharfinger/page.sock\"";
        problems.add(path, "`listen_unix` is the socket of the server, too", remedy);
    }
    if problems.len() > before {
        return None;
    }
    Some(PageProxy { header: header?, from, socket })
}

fn check_header(header: &Spanned<String>, problems: &mut Problems) -> Option<String> {
    let name = header.get_ref().to_ascii_lowercase();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
        let message = format!("`header` is not the name of a header: {:?}", header.get_ref());
        problems.add(header.span(), message, "write it as your proxy sends it, as in \"X-Forwarded-User\"");
        return None;
    }
    if TAKEN.contains(&&*name) {
        let message = format!("`header` is {:?}, which browsers send themselves", header.get_ref());
        problems.add(header.span(), message, "use a header of the proxy's own, as in \"X-Forwarded-User\"");
        return None;
    }
    Some(name)
}

fn check_from(text: &Spanned<String>, listen: Option<SocketAddr>, problems: &mut Problems) -> Option<Network> {
    let Some(network) = Network::parse(text.get_ref()) else {
        let message = format!("{:?} is neither an address nor a network", text.get_ref());
        problems.add(text.span(), message, "write an address, or ADDRESS/BITS, as in \"10.0.0.5\" or \"10.1.2.0/24\"");
        return None;
    };
    let holds = |address: &str| address.parse::<IpAddr>().is_ok_and(|address| network.holds(address));
    if network.is_wide() {
        let message = format!("`from` has {:?}: anyone with such an address could name every person", text.get_ref());
        problems.add(text.span(), message, "write the addresses of the proxy alone");
        return None;
    }
    if holds("127.0.0.1") || holds("::1") {
        let message = format!("`from` has {:?}: every program on this machine could name anyone", text.get_ref());
        let remedy =
            "take it out, and add listen_unix = \"/run/wharfinger/page.sock\", which the group of the proxy may open";
        problems.add(text.span(), message, remedy);
        return None;
    }
    if listen.is_some_and(|listen| listen.ip().is_loopback()) {
        let message = "no request comes from there: the page listens on this machine alone";
        problems.add(
            text.span(),
            message,
            "set `listen` of [page] to an address that the proxy reaches, with [page.tls]",
        );
        return None;
    }
    Some(network)
}

/// One `[[auth.proxy]]` as read.
#[derive(Debug)]
pub(crate) struct GrantSection {
    span: Span,
    user: Option<Spanned<String>>,
    tenant: Option<Spanned<String>>,
    roles: Vec<Spanned<String>>,
}

pub(crate) fn read_grant(mut reader: Reader<'_>, problems: &mut Problems) -> GrantSection {
    let section = GrantSection {
        span: reader.span().unwrap_or(0..0),
        user: reader.text("user", problems),
        tenant: reader.text("tenant", problems),
        roles: reader.strings("roles", problems).unwrap_or_default(),
    };
    reader.finish(problems);
    section
}

/// Checks one `[[auth.proxy]]`. `named`: the file has `[page.proxy]`.
pub(crate) fn check_grant(
    section: &GrantSection,
    named: bool,
    table: &RoleTable,
    problems: &mut Problems,
) -> Option<ProxyGrant> {
    if !named {
        let remedy = "add [page.proxy] with the header of the proxy, and from where it is believed";
        problems.add(section.span.clone(), "no proxy names people", remedy);
    }
    let roles = role::check_grant(&section.roles, table, problems);
    if section.roles.is_empty() {
        let remedy = format!("add one or several of {}", role::names(table));
        problems.add(section.span.clone(), "this person has no `roles`", remedy);
    }
    let (Some(user), Some(tenant)) = (&section.user, &section.tenant) else {
        let remedy =
            "add user = \"ann@example.org\" or \"*@example.org\", tenant = \"default\" and roles = [\"reader\"]";
        problems.add(section.span.clone(), "this person has no `user` or no `tenant`", remedy);
        return None;
    };
    check_tenant(tenant, problems);
    if !is_proxied_name(user.get_ref()) {
        let message = format!("`user` is not a name: {:?}", user.get_ref());
        problems.add(user.span(), message, "write 1 to 256 visible ASCII characters; a `*` stands for any of them");
        return None;
    }
    Some(ProxyGrant { user: user.get_ref().as_str().into(), tenant: tenant.get_ref().as_str().into(), roles })
}
