//! Which requests are let in, and what a browser may do with the answers. It looks at a request's method and headers alone, before
//! anything else does.
//!
//! * The host has to be an IP address, `localhost`, or a name of `[page]`. A name that an attacker has pointed to this machine is none of
//!   them (DNS rebinding).
//! * A request that changes something has to come from the page itself, by what the browser says of its origin.
//! * Another site may link to the page, and may neither frame it nor load anything from it.

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// Maximum length of the body of a form, in bytes.
pub(crate) const MAX_FORM: usize = 32 * 1024;
/// The media type of a form.
const FORM: &str = "application/x-www-form-urlencoded";
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The rights of a browser with an answer. There is no exception: no script, style or image is in a page itself or elsewhere.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types wharfinger";

/// The headers of each answer.
pub(crate) const ANSWER: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, CSP),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

/// The refusal of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// The fault and the remedy.
    pub(crate) message: &'static str,
}

const fn refusal(status: StatusCode, message: &'static str) -> Refusal {
    Refusal { status, message }
}

const WRONG_HOST: Refusal = refusal(
    StatusCode::MISDIRECTED_REQUEST,
    "This address has a host name that the page does not go by. Use its IP address, or add the name to `hosts` in [page].",
);
const OTHER_SITE: Refusal = refusal(
    StatusCode::FORBIDDEN,
    "This request comes from another site, or does not say where it comes from. Open the page itself, and repeat it there.",
);
const NOT_A_FORM: Refusal =
    refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "A request that changes something has to be a form.");
const METHOD: Refusal = refusal(StatusCode::METHOD_NOT_ALLOWED, "The page knows GET, HEAD and POST.");

/// The names by which the page is called, beside IP addresses and `localhost`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Arc<[String]>);

impl Names {
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    fn has(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        host == "localhost" || is_address(&host) || self.0.contains(&host)
    }
}

fn is_address(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4()),
    }
}

/// The host of an authority, without its port. `None`: it is none.
fn host_of(authority: &str) -> Option<&str> {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let end = authority.find(']').map_or(0, |at| at + 1);
    let host = match authority.get(end..)?.find(':') {
        None => authority,
        Some(at) if is_port(authority.get(end + at + 1..)?) => authority.get(..end + at)?,
        Some(_) => return None,
    };
    (!host.is_empty()).then_some(host)
}

/// The value of a header that comes once at most. An error: it comes twice, or has no readable value.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(drop),
        (Some(_), Some(_)) => Err(()),
    }
}

/// Lets a request in.
///
/// # Errors
/// [`Refusal`]: it is not let in.
pub(crate) fn judge(method: &Method, headers: &HeaderMap, names: &Names) -> Result<(), Refusal> {
    let authority = one(headers, &header::HOST).ok().flatten().ok_or(WRONG_HOST)?;
    if !host_of(authority).is_some_and(|host| names.has(host)) {
        return Err(WRONG_HOST);
    }
    let site = one(headers, &SITE).map_err(|()| OTHER_SITE)?;
    if *method == Method::GET || *method == Method::HEAD {
        return reads(site, headers);
    }
    if *method != Method::POST {
        return Err(METHOD);
    }
    let own = match (site, one(headers, &header::ORIGIN).map_err(|()| OTHER_SITE)?) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => is_own(origin, authority),
        // No browser: it has to bring its token by itself.
        (None, None) => headers.contains_key(header::AUTHORIZATION),
    };
    if !own {
        return Err(OTHER_SITE);
    }
    let media = one(headers, &header::CONTENT_TYPE).ok().flatten().unwrap_or_default();
    if media.split(';').next().is_none_or(|media| !media.trim().eq_ignore_ascii_case(FORM)) {
        return Err(NOT_A_FORM);
    }
    Ok(())
}

/// Another site may send its visitor here, and nothing else.
fn reads(site: Option<&str>, headers: &HeaderMap) -> Result<(), Refusal> {
    let is = |name: &HeaderName, value: &str| one(headers, name) == Ok(Some(value));
    match site {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) if is(&MODE, "navigate") && is(&DEST, "document") => Ok(()),
        Some(_) => Err(OTHER_SITE),
    }
}

/// Whether a link on another site, or a mail, led to this request: a strict cookie does not come with it.
pub(crate) fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    matches!(one(headers, &SITE), Ok(Some("cross-site" | "same-site")))
}

/// Whether an origin is that of the request's own host. `null` is none.
fn is_own(origin: &str, authority: &str) -> bool {
    let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    rest.is_some_and(|host| host.eq_ignore_ascii_case(authority))
}

/// Puts the headers of each answer into one.
pub(crate) fn dress(headers: &mut HeaderMap) {
    for (name, value) in ANSWER {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        list.iter().map(pair).collect()
    }

    fn status(method: &Method, list: &[(&'static str, &'static str)]) -> u16 {
        let names = Names::new(["Wharf.example.org".to_owned()]);
        judge(method, &headers(list), &names).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_addresses_and_own_names_are_hosts() {
        for (host, is) in [
            ("127.0.0.1:7412", 200),
            ("127.0.0.1", 200),
            ("10.1.2.3:80", 200),
            ("[::1]:7412", 200),
            ("[::1]", 200),
            ("localhost:7412", 200),
            ("LOCALHOST", 200),
            ("wharf.example.org", 200),
            ("WHARF.example.org:443", 200),
            ("evil.test", 421),
            ("evil.test:7412", 421),
            ("127.0.0.1.evil.test", 421),
            ("localhost.evil.test", 421),
            ("wharf.example.org.evil.test", 421),
            ("127.0.0.1:7412:80", 421),
            ("127.0.0.1@evil.test", 421),
            ("127.1", 421),
            ("2130706433", 421),
            ("0x7f.0.0.1", 421),
            ("::1", 421),
            ("[::1", 421),
            ("[::1]x", 421),
            ("[127.0.0.1]", 421),
            (":7412", 421),
            ("127.0.0.1:", 421),
            ("", 421),
        ] {
            assert_eq!(status(&Method::GET, &[("host", host)]), is, "{host}");
        }
        assert_eq!(status(&Method::GET, &[]), 421);
        assert_eq!(status(&Method::GET, &[("host", "127.0.0.1"), ("host", "127.0.0.1")]), 421, "two of them");
    }

    #[test]
    fn only_the_page_itself_changes_something() {
        const HOST: (&str, &str) = ("host", "127.0.0.1:7412");
        const TYPE: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
        for (more, is) in [
            (&[("sec-fetch-site", "same-origin")][..], 200),
            (&[("sec-fetch-site", "same-origin"), ("origin", "null")], 200),
            (&[("sec-fetch-site", "same-site")], 403),
            (&[("sec-fetch-site", "cross-site")], 403),
            (&[("sec-fetch-site", "none")], 403),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://127.0.0.1:7412")], 403),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], 403),
            (&[("origin", "http://127.0.0.1:7412")], 200),
            (&[("origin", "http://127.0.0.1:7413")], 403),
            (&[("origin", "http://127.0.0.1")], 403),
            (&[("origin", "http://127.0.0.1:7412.evil.test")], 403),
            (&[("origin", "ftp://127.0.0.1:7412")], 403),
            (&[("origin", "null")], 403),
            (&[], 403),
            (&[("authorization", "Bearer x")], 200),
            (&[("authorization", "Bearer x"), ("origin", "http://evil.test")], 403),
        ] {
            let all = [&[HOST, TYPE], more].concat();
            assert_eq!(status(&Method::POST, &all), is, "{more:?}");
        }
        let own = ("sec-fetch-site", "same-origin");
        for (media, is) in
            [("application/x-www-form-urlencoded; charset=utf-8", 200), ("text/plain", 415), ("application/json", 415)]
        {
            assert_eq!(status(&Method::POST, &[HOST, own, ("content-type", media)]), is, "{media}");
        }
        assert_eq!(status(&Method::POST, &[HOST, own]), 415);
        for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS, Method::CONNECT, Method::TRACE] {
            assert_eq!(status(&method, &[HOST, TYPE, own]), 405, "{method}");
        }
    }

    #[test]
    fn another_site_may_link_and_nothing_else() {
        const HOST: (&str, &str) = ("host", "127.0.0.1:7412");
        for (site, mode, dest, is) in [
            ("cross-site", "navigate", "document", 200),
            ("same-site", "navigate", "document", 200),
            ("cross-site", "navigate", "iframe", 403),
            ("cross-site", "no-cors", "image", 403),
            ("cross-site", "no-cors", "script", 403),
            ("cross-site", "cors", "empty", 403),
            ("same-site", "cors", "empty", 403),
            ("same-origin", "cors", "empty", 200),
            ("none", "navigate", "document", 200),
        ] {
            let list = [HOST, ("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
            assert_eq!(status(&Method::GET, &list), is, "{list:?}");
        }
    }
}
