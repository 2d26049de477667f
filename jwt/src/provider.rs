//! Sign-in of people by an issuer: the authorization code flow of OpenID Connect (Core 1.0, section 3.1) with PKCE (RFC 7636).
//!
//! [`Provider::begin`] gives the URL to which a browser is sent. [`Provider::finish`] changes the code that the browser brings back into an ID
//! token, over TLS with the issuer's server. The token is verified as any other one, by [`Verifier`](crate::Verifier).

use crate::compact::Compact;
use crate::fetch::{FetchError, Reach, Settings, TIME, post};
use crate::json::Json;
use crate::url::HttpsUrl;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use form_urlencoded::{Serializer, byte_serialize};
use hyper::header::HeaderValue;
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use wharfinger_tls::{TlsProblem, WebTls};

/// Time for which the endpoints of an issuer are remembered.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Time after a fetch of the endpoints that failed, in which no other one begins: strangers drive no fetches.
const REST: Duration = Duration::from_secs(2);
/// Maximum length of a text of the issuer in a message, in bytes.
const MAX_SAID: usize = 200;

/// The settings of a sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderSettings {
    /// The `iss` of its tokens.
    pub issuer: Arc<str>,
    /// The file of the authorities that sign the certificate of its server. `None`: those that this machine trusts.
    pub ca_file: Option<PathBuf>,
    /// Hosts that its endpoints may have beside its own.
    pub hosts: Vec<String>,
    /// The id of this client, which is the `aud` of the tokens.
    pub client_id: Arc<str>,
    /// The file whose first line is the secret of this client. `None`: it has none, and PKCE alone protects the code.
    pub client_secret_file: Option<PathBuf>,
    /// The scopes that are asked for, `openid` among them.
    pub scopes: Vec<String>,
    /// The URL to which the issuer sends the browser back.
    pub redirect: String,
}

/// The reason why a sign-in failed.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The issuer's server cannot be reached, or its settings are of no use.
    #[error("the issuer cannot be asked: {0}")]
    Unreachable(String),
    /// The issuer refused the code or this client.
    #[error("the issuer refused the code: {0}")]
    Refused(String),
    /// The answer has no ID token of this sign-in.
    #[error("the issuer's answer {0}")]
    Answer(&'static str),
    /// The secret of this client cannot be read.
    #[error("the file of the client's secret cannot be read: {0}")]
    Secret(io::Error),
    /// This machine gives no random numbers.
    #[error("this machine gives no random numbers")]
    Random,
}

impl From<FetchError> for ProviderError {
    fn from(error: FetchError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// A sign-in that began.
#[derive(Debug)]
pub struct Begun {
    /// The URL to which the browser is sent.
    pub url: String,
    /// The `state` that it brings back.
    pub state: String,
    /// The part of it that stays here.
    pub pending: Pending,
}

/// The secrets of a sign-in that has begun.
pub struct Pending {
    verifier: String,
    nonce: String,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

#[derive(Clone)]
struct Endpoints {
    authorization: HttpsUrl,
    token: HttpsUrl,
    reach: Reach,
}

/// The endpoints or the failure that were found last, and when.
type Found = (Instant, Result<Endpoints, String>);

/// Signs people in by one issuer.
pub struct Provider {
    settings: ProviderSettings,
    found: Mutex<Option<Found>>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

impl Provider {
    /// A provider with these settings. Nothing is fetched before the first sign-in.
    pub fn new(settings: ProviderSettings) -> Self {
        Self { settings, found: Mutex::new(None) }
    }

    /// The host of the issuer, for people.
    pub fn host(&self) -> &str {
        let rest = self.settings.issuer.strip_prefix("https://").unwrap_or(&self.settings.issuer);
        rest.split('/').next().unwrap_or_default()
    }

    /// Begins a sign-in.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`], [`ProviderError::Random`].
    pub async fn begin(&self) -> Result<Begun, ProviderError> {
        let endpoints = self.endpoints().await?;
        let (state, nonce, verifier) = (random()?, random()?, random()?);
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
        let query = Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", &self.settings.redirect)
            .append_pair("scope", &self.settings.scopes.join(" "))
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .finish();
        let at = endpoints.authorization.to_string();
        let mark = if at.contains('?') { '&' } else { '?' };
        Ok(Begun { url: format!("{at}{mark}{query}"), state, pending: Pending { verifier, nonce } })
    }

    /// Changes a code into the ID token of the person. Its signature and its claims are not verified yet, but for the nonce.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub async fn finish(&self, pending: &Pending, code: &str) -> Result<String, ProviderError> {
        let endpoints = self.endpoints().await?;
        let form = Serializer::new(String::new())
            .append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", &self.settings.redirect)
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("code_verifier", &pending.verifier)
            .finish();
        let tls = self.tls()?;
        let (url, reach, proof) = (&endpoints.token, endpoints.reach, self.proof().await?);
        let answer = tokio::time::timeout(TIME, post(&tls, url, reach, proof, form)).await;
        let (status, body) = answer.map_err(|_| FetchError::TimedOut)??;
        let json = Json::parse(&body).map_err(|_| ProviderError::Answer("is no JSON"));
        let text = |json: &Json, name: &str| Some(json.as_object()?.get(name)?.as_text()?.to_owned());
        if !status.is_success() {
            let error = json.ok().and_then(|json| {
                let (error, more) = (text(&json, "error")?, text(&json, "error_description").unwrap_or_default());
                Some(clipped(&format!("{error} {more}")))
            });
            return Err(ProviderError::Refused(error.unwrap_or_else(|| status.to_string())));
        }
        let token = text(&json?, "id_token").ok_or(ProviderError::Answer("has no `id_token`"))?;
        let parts =
            Compact::parse(&token).map_err(|_| ProviderError::Answer("has an `id_token` that is no signed token"))?;
        let nonce = Json::parse(&parts.claims).ok().and_then(|claims| text(&claims, "nonce"));
        if nonce.as_deref() != Some(&*pending.nonce) {
            return Err(ProviderError::Answer("has an `id_token` of another sign-in: its `nonce` is not equal"));
        }
        Ok(token)
    }

    fn tls(&self) -> Result<WebTls, ProviderError> {
        let failed = |problem: TlsProblem| ProviderError::from(FetchError::Authorities(problem));
        WebTls::load(self.settings.ca_file.as_deref()).map_err(failed)
    }

    /// The proof of this client (RFC 6749, section 2.3.1). `None`: it has no secret.
    async fn proof(&self) -> Result<Option<HeaderValue>, ProviderError> {
        let Some(path) = &self.settings.client_secret_file else { return Ok(None) };
        let text = tokio::fs::read_to_string(path).await.map_err(ProviderError::Secret)?;
        let part = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let pair =
            format!("{}:{}", part(&self.settings.client_id), part(text.lines().next().unwrap_or_default().trim()));
        let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
            .map_err(|_| ProviderError::Answer("cannot be had: the proof of this client is no header"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn endpoints(&self) -> Result<Endpoints, ProviderError> {
        let mut found = self.found.lock().await;
        match &*found {
            Some((at, Ok(endpoints))) if at.elapsed() < REMEMBERED => return Ok(endpoints.clone()),
            Some((at, Err(error))) if at.elapsed() < REST => return Err(ProviderError::Unreachable(error.clone())),
            _ => {}
        }
        let tls = self.tls()?;
        let fetched = match tokio::time::timeout(TIME, Settings::fetch(&tls, &self.settings.issuer)).await {
            Err(_) => Err(FetchError::TimedOut.into()),
            Ok(settings) => settings.map_err(Box::new).and_then(|settings| {
                let endpoint = |name| settings.endpoint(name, &self.settings.hosts);
                let (authorization, token) = (endpoint("authorization_endpoint")?, endpoint("token_endpoint")?);
                Ok(Endpoints { authorization, token, reach: settings.reach })
            }),
        };
        let fetched = fetched.map_err(|error| error.to_string());
        *found = Some((Instant::now(), fetched.clone()));
        fetched.map_err(ProviderError::Unreachable)
    }
}

/// 256 random bits.
fn random() -> Result<String, ProviderError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| ProviderError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// A text of the issuer, for a message.
fn clipped(text: &str) -> String {
    let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= MAX_SAID).unwrap_or(text.len());
    text[..end].to_owned()
}
