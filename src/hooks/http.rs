//! One delivery over HTTP/1.1: a new connection, one POST, no redirection, and a bounded part of the answer.

use super::message::plain;
use super::settings::{Endpoint, HookUrl, Source};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;
use wharfinger_tls::WebTls;

/// Maximum number of bytes that are read of an answer's body. Only a refusal's is read at all, for the log.
const MAX_ANSWER: usize = 4096;
/// Maximum length of an answer in the log, in characters.
const SHOWN: usize = 200;
/// Maximum length of a file with a URL or a secret, in bytes.
const MAX_FILE: u64 = 16 * 1024;
/// Maximum number of addresses of one server that are tried.
const MAX_ADDRESSES: usize = 4;

/// The result of one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The receiver has it.
    Done,
    /// The receiver does not answer or does not want it now: again later.
    Later {
        /// The reason, for the log.
        why: String,
        /// The time for which the receiver asked.
        after: Option<Duration>,
    },
    /// The receiver refuses this message.
    Refused(String),
}

impl Delivery {
    pub(super) fn later(why: impl Into<String>) -> Self {
        Self::Later { why: why.into(), after: None }
    }
}

/// Headers of a message beside its own.
pub(super) type Headers = Vec<(&'static str, String)>;

/// Posts a message.
pub(super) async fn post(
    to: &Endpoint,
    content_type: &'static str,
    headers: &Headers,
    body: Vec<u8>,
    limit: Duration,
) -> Delivery {
    match tokio::time::timeout(limit, try_post(to, content_type, headers, body)).await {
        Ok(Ok(delivery)) => delivery,
        Ok(Err(why)) => Delivery::later(why),
        Err(_) => Delivery::later(format!("no answer within {limit:?}")),
    }
}

async fn try_post(
    to: &Endpoint,
    content_type: &'static str,
    headers: &Headers,
    body: Vec<u8>,
) -> Result<Delivery, String> {
    let url = match &to.url {
        Source::Here(url) => url.clone(),
        Source::File(path) => {
            let text = first_line(path).await?;
            HookUrl::parse(&text).map_err(|fault| format!("the URL in {} {fault}", path.display()))?
        }
    };
    let mut request = Request::post(url.path())
        .header(HOST, url.authority())
        .header(CONNECTION, "close")
        .header(CONTENT_TYPE, content_type)
        .header(USER_AGENT, concat!("wharfinger/", env!("CARGO_PKG_VERSION")));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    if let Some(file) = &to.bearer_file {
        let token = first_line(file).await?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| format!("the token in {} has characters that no token has", file.display()))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request =
        request.body(Full::new(Bytes::from(body))).map_err(|error| format!("the request cannot be made: {error}"))?;
    let stream = connect(&url).await?;
    if url.is_https() {
        let tls = WebTls::load(to.ca_file.as_deref()).map_err(|problem| problem.to_string())?;
        let stream = tls.connect(url.host(), stream).await.map_err(|error| format!("{url}: {error}"))?;
        send(&url, stream, request).await
    } else {
        send(&url, stream, request).await
    }
}

async fn connect(url: &HookUrl) -> Result<TcpStream, String> {
    let found = tokio::net::lookup_host((url.host(), url.port())).await;
    let mut failure = format!("{url}: its name has no address");
    for address in found.map_err(|error| format!("{url}: its name has no address: {error}"))?.take(MAX_ADDRESSES) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = format!("{url}: no connection: {error}"),
        }
    }
    Err(failure)
}

async fn send<S>(url: &HookUrl, stream: S, request: Request<Full<Bytes>>) -> Result<Delivery, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| format!("{url}: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(16 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
    if head.status.is_success() {
        return Ok(Delivery::Done);
    }
    let said = plain(&String::from_utf8_lossy(&begin(body).await), SHOWN);
    let why = match said.trim() {
        "" => format!("{url} answered {}", head.status),
        said => format!("{url} answered {}: {said}", head.status),
    };
    let seconds = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Ok(match head.status {
        // These are about the message. All others are about the receiver or the way to it, and may get well.
        StatusCode::BAD_REQUEST
        | StatusCode::CONFLICT
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY => Delivery::Refused(why),
        status if status.is_redirection() => {
            Delivery::later(format!("{why} (a redirection, which is not followed: write the URL that it leads to)"))
        }
        _ => Delivery::Later { why, after: seconds.map(Duration::from_secs) },
    })
}

/// The first bytes of an answer.
async fn begin(mut body: Incoming) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < MAX_ANSWER && !body.is_end_stream() {
        let Some(Ok(frame)) = body.frame().await else { break };
        if let Some(bytes) = frame.data_ref() {
            read.extend_from_slice(&bytes[..bytes.len().min(MAX_ANSWER - read.len())]);
        }
    }
    read
}

/// The first line of a small file.
pub(super) async fn first_line(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("the file {} cannot be read: {error}", path.display());
    let about = tokio::fs::metadata(path).await.map_err(failed)?;
    if !about.is_file() || about.len() > MAX_FILE {
        return Err(format!("{} is no file of at most {MAX_FILE} bytes", path.display()));
    }
    let text = tokio::fs::read_to_string(path).await.map_err(failed)?;
    match text.lines().next().map(str::trim) {
        None | Some("") => Err(format!("the file {} is empty", path.display())),
        Some(line) => Ok(line.to_owned()),
    }
}

/// Connects to the receiver, and sends nothing.
pub(super) async fn reach(to: &Endpoint, limit: Duration) -> Result<String, String> {
    let attempt = async {
        let url = match &to.url {
            Source::Here(url) => url.clone(),
            Source::File(path) => HookUrl::parse(&first_line(path).await?).map_err(|fault| fault.to_string())?,
        };
        let stream = connect(&url).await?;
        if url.is_https() {
            let tls = WebTls::load(to.ca_file.as_deref()).map_err(|problem| problem.to_string())?;
            tls.connect(url.host(), stream).await.map_err(|error| format!("{url}: {error}"))?;
        }
        Ok(format!("{url} answers; nothing was sent"))
    };
    tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}
