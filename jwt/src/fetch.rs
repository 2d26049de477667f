//! One fetch of an issuer's keys: from its server, within limits, or from a file.

use crate::issuer::{IssuerSettings, Keys};
use crate::json::Json;
use crate::key::{KeySet, KeySetError};
use crate::url::{HttpsUrl, UrlError};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION, USER_AGENT,
};
use hyper::http::request::Builder;
use hyper::http::response::Parts;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;
use wharfinger_tls::{ConnectError, TlsProblem, WebTls};

/// Maximum time of a fetch, with discovery and redirections.
pub(crate) const TIME: Duration = Duration::from_secs(5);
/// Maximum length of an answer in bytes.
const MAX_BODY: usize = 256 * 1024;
/// Maximum number of redirections of one request.
const MAX_REDIRECTS: usize = 3;
/// Maximum number of addresses of one server that are tried.
const MAX_ADDRESSES: usize = 4;

/// The reason why keys were not fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("no answer within {TIME:?}")]
    TimedOut,
    #[error("{0}: its name has no address: {1}")]
    Name(HttpsUrl, io::Error),
    #[error("{0}: no address of it is public, and that of the issuer is")]
    Private(HttpsUrl),
    #[error("{0}: no connection: {1}")]
    Connect(HttpsUrl, io::Error),
    #[error("{0}: {1}")]
    Tls(HttpsUrl, ConnectError),
    #[error("{0}: {1}")]
    Http(HttpsUrl, hyper::Error),
    #[error("{0}: the answer is longer than {MAX_BODY} bytes, or broke off")]
    Body(HttpsUrl),
    #[error("{0} answered {1}")]
    Status(HttpsUrl, StatusCode),
    #[error("{0} redirects to another server, to http, or too often")]
    Redirect(HttpsUrl),
    #[error("{0} has no settings of the issuer: a JSON object with `issuer` and `jwks_uri`")]
    Discovery(HttpsUrl),
    #[error("{0} has the settings of another issuer: its `issuer` is not equal, byte for byte")]
    OtherIssuer(HttpsUrl),
    #[error("{0} has no `{1}`")]
    NoEndpoint(HttpsUrl, &'static str),
    #[error("`{1}` of {0} is {2:?}, which {3}")]
    Endpoint(HttpsUrl, &'static str, String, UrlError),
    #[error("`{1}` of {0} is {2}, which has another host; list it in `hosts` if that is right")]
    OtherHost(HttpsUrl, &'static str, HttpsUrl),
    #[error("what was fetched {0}")]
    Keys(KeySetError),
    #[error("the file of the keys cannot be read: {0}")]
    File(io::Error),
    #[error("the authorities of the issuer's server: {0}")]
    Authorities(TlsProblem),
    #[error("the issuer's URL {0}")]
    Url(UrlError),
}

/// Keys that were fetched.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) keys: KeySet,
    /// Time for which the server says that they hold.
    pub(crate) max_age: Option<Duration>,
}

pub(crate) type Fetching<'f> = Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + 'f>>;

/// A place from which keys are fetched.
pub(crate) trait Fetch: Send + Sync {
    fn fetch(&self) -> Fetching<'_>;
}

impl Fetch for IssuerSettings {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(async move {
            match tokio::time::timeout(TIME, fetch(self)).await {
                Ok(fetched) => fetched,
                Err(_) => Err(FetchError::TimedOut),
            }
        })
    }
}

async fn fetch(settings: &IssuerSettings) -> Result<Fetched, FetchError> {
    if let Keys::File(path) = &settings.keys {
        let bytes = read(path).await.map_err(FetchError::File)?;
        return Ok(Fetched { keys: KeySet::parse(&bytes).map_err(FetchError::Keys)?, max_age: None });
    }
    let tls = WebTls::load(settings.ca_file.as_deref()).map_err(FetchError::Authorities)?;
    let got = match &settings.keys {
        Keys::Url(url) => get(&tls, url, Reach::Any).await?,
        Keys::Discover { hosts } => {
            let (url, reach) = discover(&tls, &settings.issuer, hosts).await?;
            get(&tls, &url, reach).await?
        }
        Keys::File(_) => return Err(FetchError::File(io::Error::other("it is a file"))),
    };
    Ok(Fetched { keys: KeySet::parse(&got.body).map_err(FetchError::Keys)?, max_age: got.max_age })
}

/// A file of limited length. A FIFO or a directory in its place is refused.
async fn read(path: &Path) -> io::Result<Vec<u8>> {
    let about = tokio::fs::metadata(path).await?;
    if !about.is_file() || about.len() > MAX_BODY as u64 {
        return Err(io::Error::other("it is no regular file of at most 256 KiB"));
    }
    tokio::fs::read(path).await
}

/// The URL of the keys, by the issuer's own settings, and the addresses that it may have.
async fn discover(tls: &WebTls, issuer: &str, hosts: &[String]) -> Result<(HttpsUrl, Reach), FetchError> {
    let settings = Settings::fetch(tls, issuer).await?;
    let url = settings.endpoint("jwks_uri", hosts).map_err(|error| *error)?;
    Ok((url, settings.reach))
}

/// The settings that an issuer publishes.
pub(crate) struct Settings {
    at: HttpsUrl,
    json: Json,
    /// The addresses that its endpoints may have: a stranger's settings must not lead into this network.
    pub(crate) reach: Reach,
}

impl Settings {
    /// Fetches the settings of this issuer.
    pub(crate) async fn fetch(tls: &WebTls, issuer: &str) -> Result<Self, FetchError> {
        let at = HttpsUrl::discovery(issuer).map_err(FetchError::Url)?;
        let got = get(tls, &at, Reach::Any).await?;
        let json = Json::parse(&got.body).map_err(|_| FetchError::Discovery(at.clone()))?;
        let reach = if got.private { Reach::Any } else { Reach::Public };
        let settings = Self { at, json, reach };
        match settings.text("issuer") {
            None => Err(FetchError::Discovery(settings.at)),
            Some(found) if found != issuer => Err(FetchError::OtherIssuer(settings.at)),
            Some(_) => Ok(settings),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.json.as_object().and_then(|members| members.get(name)?.as_text())
    }

    /// An endpoint, which has the host of the issuer or one of these.
    pub(crate) fn endpoint(&self, name: &'static str, hosts: &[String]) -> Result<HttpsUrl, Box<FetchError>> {
        let text = self.text(name).ok_or_else(|| FetchError::NoEndpoint(self.at.clone(), name))?;
        let url = HttpsUrl::parse(text)
            .map_err(|error| FetchError::Endpoint(self.at.clone(), name, text.to_owned(), error))?;
        let host = url.host();
        if !host.eq_ignore_ascii_case(self.at.host()) && !hosts.iter().any(|listed| listed.eq_ignore_ascii_case(host)) {
            return Err(FetchError::OtherHost(self.at.clone(), name, url).into());
        }
        Ok(url)
    }
}

/// The addresses to which a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Any,
    Public,
}

#[derive(Debug)]
struct Got {
    body: Bytes,
    max_age: Option<Duration>,
    /// Whether the address of the server is not public.
    private: bool,
}

/// Gets a document. Redirections are followed on the same server.
async fn get(tls: &WebTls, url: &HttpsUrl, reach: Reach) -> Result<Got, FetchError> {
    let mut url = url.clone();
    for _ in 0..=MAX_REDIRECTS {
        let (head, body, private) = send(tls, &url, reach, Request::get(url.path()), Bytes::new()).await?;
        if head.status.is_redirection() {
            let location = head.headers.get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok()).filter(|next| next.is_same_server(&url));
            url = next.ok_or(FetchError::Redirect(url))?;
            continue;
        }
        if head.status != StatusCode::OK {
            return Err(FetchError::Status(url, head.status));
        }
        return Ok(Got { body, max_age: max_age(&head.headers), private });
    }
    Err(FetchError::Redirect(url))
}

/// Posts a form. The answer comes with its status: one that refuses has a body, too. A redirection is not followed.
pub(crate) async fn post(
    tls: &WebTls,
    url: &HttpsUrl,
    reach: Reach,
    authorization: Option<HeaderValue>,
    form: String,
) -> Result<(StatusCode, Bytes), FetchError> {
    let mut request = Request::post(url.path()).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some(authorization) = authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    let (head, body, _) = send(tls, url, reach, request, form.into()).await?;
    if head.status.is_redirection() {
        return Err(FetchError::Redirect(url.clone()));
    }
    Ok((head.status, body))
}

/// One request on a connection of its own. Returns the answer, and whether the address of the server is not public.
async fn send(
    tls: &WebTls,
    url: &HttpsUrl,
    reach: Reach,
    request: Builder,
    body: Bytes,
) -> Result<(Parts, Bytes, bool), FetchError> {
    let (stream, private) = connect(url, reach).await?;
    let stream = tls.connect(url.host(), stream).await.map_err(|error| FetchError::Tls(url.clone(), error))?;
    let failed = |error| FetchError::Http(url.clone(), error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with this call.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = request
        .header(HOST, url.authority())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("wharfinger/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))
        .map_err(|_| FetchError::Url(UrlError::Form))?;
    let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| FetchError::Body(url.clone()))?;
    Ok((head, body.to_bytes(), private))
}

async fn connect(url: &HttpsUrl, reach: Reach) -> Result<(TcpStream, bool), FetchError> {
    let found = tokio::net::lookup_host((url.host(), url.port())).await;
    let all: Vec<SocketAddr> = found.map_err(|error| FetchError::Name(url.clone(), error))?.collect();
    let allowed = all.iter().filter(|address| reach == Reach::Any || is_public(address.ip())).take(MAX_ADDRESSES);
    let mut failure = None;
    for address in allowed {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok((stream, !is_public(address.ip()))),
            Err(error) => failure = Some(error),
        }
    }
    Err(match failure {
        Some(error) => FetchError::Connect(url.clone(), error),
        None if all.is_empty() => FetchError::Name(url.clone(), io::Error::other("the list is empty")),
        None => FetchError::Private(url.clone()),
    })
}

/// Whether an address is of the public internet.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        // Shared by carriers (RFC 6598), assignments (RFC 6890), benchmarks (RFC 2544).
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19));
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let first = address.segments()[0];
    // Global unicast is 2000::/3. In it are 6to4 and Teredo, which embed other addresses, and documentation.
    let global = first & 0xe000 == 0x2000;
    let embeds = first == 0x2002 || (first == 0x2001 && address.segments()[1] == 0);
    let documentation = first == 0x2001 && address.segments()[1] == 0x0db8;
    global && !embeds && !documentation
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(CACHE_CONTROL)?.to_str().ok()?;
    let seconds = text.split(',').find_map(|part| part.trim().strip_prefix("max-age="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for address in ["140.82.112.3", "2606:50c0:8000::153", "::ffff:140.82.112.3"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
            "2001:db8::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_age_of_an_answer_is_read_among_other_rules() {
        let age =
            |text: &'static str| max_age(&HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static(text))]));
        assert_eq!(age("public, max-age=3600, must-revalidate"), Some(Duration::from_secs(3600)));
        assert_eq!(age("max-age=0"), Some(Duration::ZERO));
        for text in ["no-store", "max-age=-1", "max-age=x", "s-maxage=5"] {
            assert_eq!(age(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn settings_of_a_stranger_do_not_lead_into_this_network() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = HttpsUrl::parse(&format!("https://{}", listener.local_addr().unwrap())).unwrap();
        assert!(matches!(connect(&url, Reach::Public).await, Err(FetchError::Private(_))));
        let (_, private) = connect(&url, Reach::Any).await.unwrap();
        assert!(private, "an issuer in this network leads where it likes");
    }
}
