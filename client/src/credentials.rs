//! Sources of the caller's token: a file that is read again, a command, a CI product.

use crate::AuthToken;
use crate::clock::wall;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Uri, header};
use wharfinger_tls::WebTls;

/// Maximum length of a token, and of an answer with one, in bytes.
const MAX: u64 = 16 * 1024;
/// Maximum time of a command, and of a request to a CI product.
const TIME: Duration = Duration::from_secs(10);
/// Time for which a token without a readable `exp` is used.
const USUAL: Duration = Duration::from_secs(300);
/// O_NONBLOCK of Linux: a FIFO in place of a file must not hang its reader.
const NONBLOCK: i32 = 0o4000;

/// The reason why there is no token. No token is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The file cannot be used.
    #[error("the token file {} {why}", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The fault, as the end of a sentence.
        why: String,
    },
    /// The command gave no token.
    #[error("the command {program:?} for a token {why}")]
    Command {
        /// The program.
        program: String,
        /// The fault, as the end of a sentence.
        why: String,
    },
    /// The CI product gave no token.
    #[error("GitHub Actions gave no token: {0}")]
    Github(String),
}

/// A source of the caller's token. Cheap to clone; the clones share the present token. `Debug` prints no value.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    source: Source,
    /// The present token. One caller at a time asks the source.
    present: Mutex<Option<Present>>,
}

enum Source {
    File(PathBuf),
    Command(Vec<String>),
    Github { url: String, bearer: String, ca: Option<PathBuf> },
}

struct Present {
    token: AuthToken,
    holds: Holds,
}

/// How long a token is used.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holds {
    /// Until its file is another one: device, inode, length, seconds and nanoseconds of its last change.
    File([i64; 5]),
    Until(Instant),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match &self.0.source {
            Source::File(path) => format!("file {}", path.display()),
            Source::Command(argv) => format!("command {:?}", argv.first().map(String::as_str).unwrap_or_default()),
            Source::Github { .. } => "GitHub Actions".to_owned(),
        };
        f.debug_tuple("Credentials").field(&source).finish()
    }
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Credentials {}

impl Credentials {
    fn new(source: Source) -> Self {
        Self(Arc::new(Inner { source, present: Mutex::new(None) }))
    }

    /// The token in a file. It is read again when the file has changed.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::new(Source::File(path.into()))
    }

    /// The token that a program prints: its name and arguments, without a shell. It is asked again at 80 % of the time to the
    /// token's `exp`, and has ten seconds.
    pub fn command(argv: Vec<String>) -> Self {
        Self::new(Source::Command(argv))
    }

    /// Tokens of a job of GitHub Actions, by the values of its `ACTIONS_ID_TOKEN_REQUEST_URL` and
    /// `ACTIONS_ID_TOKEN_REQUEST_TOKEN`. `ca`: the file of the authorities of that server, or `None` for those of the machine.
    pub fn github(url: &str, bearer: &str, audience: &str, ca: Option<PathBuf>) -> Self {
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{separator}audience={}", escaped(audience));
        Self::new(Source::Github { url, bearer: bearer.to_owned(), ca })
    }

    /// The present token.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub async fn token(&self) -> Result<AuthToken, CredentialsError> {
        let mut present = self.0.present.lock().await;
        let stands = match (&*present, &self.0.source) {
            (Some(Present { holds: Holds::Until(at), .. }), _) => Instant::now() < *at,
            (Some(Present { holds: Holds::File(known), .. }), Source::File(path)) => {
                stamp(path).is_ok_and(|found| found == *known)
            }
            (Some(_) | None, _) => false,
        };
        if !stands {
            *present = None;
        }
        match &*present {
            Some(Present { token, .. }) => Ok(token.clone()),
            None => {
                let new = self.0.source.ask().await?;
                let token = new.token.clone();
                *present = Some(new);
                Ok(token)
            }
        }
    }

    /// Another token than the one that a server refused, if the source has one.
    pub(crate) async fn other_than(&self, refused: &AuthToken) -> Option<AuthToken> {
        {
            let mut present = self.0.present.lock().await;
            // Another call may have got one meanwhile.
            if present.as_ref().is_some_and(|present| present.token == *refused) {
                *present = None;
            }
        }
        self.token().await.ok().filter(|token| token != refused)
    }
}

impl Source {
    async fn ask(&self) -> Result<Present, CredentialsError> {
        match self {
            Source::File(path) => read(path),
            Source::Command(argv) => run(argv).await,
            Source::Github { url, bearer, ca } => {
                let asked = tokio::time::timeout(TIME, github(url, bearer, ca.as_deref())).await;
                let text = asked.unwrap_or_else(|_| Err(format!("no answer within {TIME:?}")));
                let text = text.map_err(CredentialsError::Github)?;
                let why = || CredentialsError::Github("its answer has a `value` that is no token".into());
                Ok(Present { token: AuthToken::new(&text).ok_or_else(why)?, holds: until(&text) })
            }
        }
    }
}

/// The identity of a file's content, as far as the file system knows.
fn stamp(path: &Path) -> Result<[i64; 5], std::io::Error> {
    std::fs::metadata(path).map(|about| stamp_of(&about))
}

fn stamp_of(about: &std::fs::Metadata) -> [i64; 5] {
    let (device, inode, length) = (about.dev(), about.ino(), about.len());
    [device as i64, inode as i64, length as i64, about.mtime(), about.mtime_nsec()]
}

fn read(path: &Path) -> Result<Present, CredentialsError> {
    let fault = |why: String| CredentialsError::File { path: path.into(), why };
    let unreadable = |error: std::io::Error| fault(format!("cannot be read: {error}"));
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).custom_flags(NONBLOCK).open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() || about.len() > MAX {
        return Err(fault(format!("is no regular file of at most {MAX} bytes")));
    }
    let mut text = String::new();
    file.take(MAX).read_to_string(&mut text).map_err(unreadable)?;
    let token = AuthToken::new(&text).ok_or_else(|| fault("holds no token".into()))?;
    Ok(Present { token, holds: Holds::File(stamp_of(&about)) })
}

async fn run(argv: &[String]) -> Result<Present, CredentialsError> {
    let (program, arguments) = argv.split_first().map_or(("", &[][..]), |(program, rest)| (program.as_str(), rest));
    let fault = |why: String| CredentialsError::Command { program: program.into(), why };
    let mut command = tokio::process::Command::new(program);
    // Its errors are for the user.
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| fault(format!("cannot be started: {error}")))?;
    let output = child.stdout.take();
    let ended = async {
        let mut text = String::new();
        if let Some(output) = output {
            output.take(MAX + 1).read_to_string(&mut text).await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, text))
    };
    let (status, text) = match tokio::time::timeout(TIME, ended).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) => return Err(fault(format!("failed: {error}"))),
        Err(_) => return Err(fault(format!("did not end within {TIME:?}"))),
    };
    if !status.success() {
        return Err(fault(format!("failed: {status}")));
    }
    let token = AuthToken::new(&text).filter(|_| text.len() as u64 <= MAX);
    Ok(Present { token: token.ok_or_else(|| fault("printed no token".into()))?, holds: until(&text) })
}

/// A token is used for 80 % of its time. Nothing of it is verified: the server does that.
fn until(text: &str) -> Holds {
    let expires = || {
        let claims = URL_SAFE_NO_PAD.decode(text.trim().split('.').nth(1)?).ok()?;
        let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
        let expires = UNIX_EPOCH.checked_add(Duration::from_secs(claims.get("exp")?.as_u64()?))?;
        Some(expires.duration_since(wall()).unwrap_or_default().mul_f64(0.8))
    };
    Holds::Until(Instant::now() + expires().unwrap_or(USUAL).min(Duration::from_secs(86_400)))
}

/// Asks GitHub Actions for a token. The error is the end of a sentence.
async fn github(url: &str, bearer: &str, ca: Option<&Path>) -> Result<String, String> {
    let uri: Uri = url.parse().map_err(|_| "ACTIONS_ID_TOKEN_REQUEST_URL is no URL".to_owned())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
    let host = host.ok_or("ACTIONS_ID_TOKEN_REQUEST_URL does not begin with https://")?;
    let text = |error: &dyn std::error::Error| format!("{host}: {error}");
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = tokio::net::TcpStream::connect((bare, uri.port_u16().unwrap_or(443))).await;
    let stream = stream.map_err(|error| text(&error))?;
    let tls = WebTls::load(ca).map_err(|error| error.to_string())?;
    let stream = tls.connect(bare, stream).await.map_err(|error| text(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let mut authorization = header::HeaderValue::from_str(&format!("bearer {bearer}"))
        .map_err(|_| "ACTIONS_ID_TOKEN_REQUEST_TOKEN is no token".to_owned())?;
    authorization.set_sensitive(true);
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, uri.authority().map(|authority| authority.as_str()).unwrap_or_default())
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("wharfinger/", env!("CARGO_PKG_VERSION")))
        .header(header::AUTHORIZATION, authorization)
        .body(Empty::<Bytes>::new())
        .map_err(|error| text(&error))?;
    let (head, body) = sender.send_request(request).await.map_err(|error| text(&error))?.into_parts();
    if !head.status.is_success() {
        return Err(format!("{host} answered {}; does the job have `permissions: id-token: write`?", head.status));
    }
    let body = Limited::new(body, MAX as usize).collect().await.map_err(|error| format!("{host}: {error}"))?;
    let answer: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    answer.get("value").and_then(|value| value.as_str()).map(str::to_owned).ok_or(format!("{host} sent no `value`"))
}

/// A text as part of a query.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'~');
    let escape = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests;
