//! The header in which a proxy names the person who asks. It is believed from the proxy alone, by its address or by its socket. From
//! elsewhere it is a refusal: a proxy that hands on what its visitors send would else be believed.

use super::guard::Refusal;
use crate::auth::{Network, is_proxied_name};
use crate::rpc::ConnectInfo;
use axum::http::StatusCode;
use axum::http::header::{HeaderMap, HeaderName};
use std::sync::Arc;

/// The proxy before the page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// The name of the header, in lower case.
    pub header: String,
    /// The addresses of the proxy.
    pub from: Vec<Network>,
}

const ELSEWHERE: Refusal = Refusal {
    status: StatusCode::FORBIDDEN,
    message: "This request names a person in the header of the proxy, and does not come from the proxy ([page.proxy]). Leave the header out.",
};
const NO_NAME: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    message: "The header of the proxy ([page.proxy]) is there twice, or is no name: 1 to 256 visible ASCII characters.",
};

/// The same, ready to look at requests. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Proxy(Arc<(Option<HeaderName>, Vec<Network>)>);

impl Proxy {
    pub(crate) fn new(settings: ProxySettings) -> Self {
        Self(Arc::new((HeaderName::try_from(settings.header).ok(), settings.from)))
    }

    /// The person whom a request names. `None`: it names none.
    ///
    /// # Errors
    /// [`Refusal`]: the header does not come from the proxy, or is no name.
    pub(crate) fn user(&self, from: &ConnectInfo, headers: &HeaderMap) -> Result<Option<Arc<str>>, Refusal> {
        let (Some(header), networks) = (&self.0.0, &self.0.1) else { return Ok(None) };
        let mut values = headers.get_all(header).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let is_proxy = from.by_socket()
            || from.address().is_some_and(|address| networks.iter().any(|network| network.holds(address.ip())));
        if !is_proxy {
            return Err(ELSEWHERE);
        }
        let name = value.to_str().ok().filter(|name| values.next().is_none() && is_proxied_name(name));
        name.map(|name| Some(Arc::from(name))).ok_or(NO_NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_header_is_believed_from_the_proxy_alone_and_from_elsewhere_it_is_a_refusal() {
        let from = ["10.0.0.5", "10.1.0.0/16"].iter().filter_map(|text| Network::parse(text)).collect();
        let proxy = Proxy::new(ProxySettings { header: "x-forwarded-user".into(), from });
        let asked = |address: &str, values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("X-Forwarded-User", HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let from = ConnectInfo::plain(address.parse().unwrap());
            proxy.user(&from, &headers).map(|name| name.map(|name| name.to_string()))
        };
        for near in ["10.0.0.5:9", "10.1.2.3:9", "[::ffff:10.0.0.5]:9"] {
            assert_eq!(asked(near, &["ann@example.org"]), Ok(Some("ann@example.org".into())), "{near}");
            assert_eq!(asked(near, &[]), Ok(None));
            for wrong in [&[""][..], &["a b"], &["\u{e4}"], &["ann", "bob"], &["ann", ""], &[&"x".repeat(257)]] {
                assert_eq!(asked(near, wrong), Err(NO_NAME), "{wrong:?}");
            }
        }
        for far in ["10.0.0.6:9", "127.0.0.1:9", "[::1]:9", "10.2.0.1:9"] {
            assert_eq!(asked(far, &["ann@example.org"]), Err(ELSEWHERE), "{far}");
            assert_eq!(asked(far, &[""]), Err(ELSEWHERE), "whatever it says");
            assert_eq!(asked(far, &[]), Ok(None));
        }
    }
}
