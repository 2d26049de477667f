//! An issuer of tokens for tests: keys, tokens made by hand, and an HTTPS server of its keys that can be made to fail.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::disallowed_methods, reason = "tokens are made by the clock of the machine")]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Encodes as base64url without padding.
pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The present time in seconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// A key pair with a name.
pub(crate) struct Signer {
    pub(crate) kid: String,
    pair: Pair,
}

impl Signer {
    pub(crate) fn rsa(kid: &str) -> Self {
        Self { kid: kid.into(), pair: Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()) }
    }

    pub(crate) fn p256(kid: &str) -> Self {
        Self { kid: kid.into(), pair: Pair::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()) }
    }

    pub(crate) fn p384(kid: &str) -> Self {
        Self { kid: kid.into(), pair: Pair::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap()) }
    }

    pub(crate) fn ed(kid: &str) -> Self {
        Self { kid: kid.into(), pair: Pair::Ed(Ed25519KeyPair::generate().unwrap()) }
    }

    /// The usual algorithm of the key.
    pub(crate) fn alg(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::P384(_) => "ES384",
            Pair::Ed(_) => "EdDSA",
        }
    }

    /// The public key as DER, or as it is.
    pub(crate) fn public(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::P256(pair) | Pair::P384(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// The public key as JWK.
    pub(crate) fn jwk(&self) -> Value {
        let public = self.public();
        let point = |curve: &str| {
            let (x, y) = public[1..].split_at(public.len() / 2);
            json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y), "kid": self.kid })
        };
        match self.pair {
            Pair::Rsa(_) => {
                // SEQUENCE (4 bytes), INTEGER (4 bytes), a zero, the modulus, INTEGER (2 bytes), the exponent.
                let (n, e) = public[9..].split_at(256);
                json!({ "kty": "RSA", "n": encode(n), "e": encode(&e[2..]), "kid": self.kid, "use": "sig", "alg": "RS256" })
            }
            Pair::P256(_) => point("P-256"),
            Pair::P384(_) => point("P-384"),
            Pair::Ed(_) => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&public), "kid": self.kid }),
        }
    }

    pub(crate) fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Pair::P256(pair) | Pair::P384(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    pub(crate) fn pss(&self, message: &[u8]) -> Vec<u8> {
        let Pair::Rsa(pair) = &self.pair else { panic!("an RSA key") };
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }

    /// A token with exactly these texts.
    pub(crate) fn raw(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header), encode(claims));
        format!("{signed}.{}", encode(self.signature(signed.as_bytes())))
    }

    /// A token with the usual header.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.raw(&json!({ "alg": self.alg(), "typ": "JWT", "kid": self.kid }).to_string(), &claims.to_string())
    }
}

/// The claims of a job of GitHub Actions.
pub(crate) fn github(issuer: &str, audience: &str) -> Value {
    let now = now();
    json!({
        "iss": issuer, "aud": audience, "sub": "repo:acme@9919/web@1296269:ref:refs/heads/main",
        "iat": now, "nbf": now - 60, "exp": now + 300, "jti": format!("{now}"),
        "repository": "acme/web", "repository_id": "1296269", "repository_owner": "acme", "repository_owner_id": "9919",
        "run_id": "777", "run_attempt": "1", "ref": "refs/heads/main", "event_name": "push",
        "runner_environment": "self-hosted", "workflow": "ci",
    })
}

/// Claims with others in place of some. `null` takes one out.
pub(crate) fn with(claims: &Value, changes: &Value) -> Value {
    let mut claims = claims.clone();
    let members = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    claims
}

/// The server's treatment of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Serve,
    Status(u16),
    /// Closes each connection before TLS.
    Down,
    /// Never answers.
    Hang,
    /// Answers for the keys with this text.
    Keys(String),
    /// Answers with this number of bytes.
    Large(usize),
    /// Redirects to this place.
    Redirect(String),
    /// Redirects `/keys` to `/moved`, where the keys are.
    Moved,
    /// Settings of another issuer.
    Other,
    /// Settings that name this URL of keys.
    JwksUri(String),
}

struct State {
    mode: Mode,
    keys: Vec<Value>,
    requests: Vec<String>,
    /// The token that `/token` issues, as GitHub Actions does.
    token: Option<String>,
    /// Makes the answer to a form that changes a code into a token: its status and text, by the head and the body of the request.
    exchange: Option<Arc<Exchange>>,
    stop: bool,
}

type Exchange = dyn Fn(&str, &str) -> (u16, String) + Send + Sync;

/// An issuer with an HTTPS server on loopback.
pub(crate) struct Issuer {
    /// Its `iss`.
    pub(crate) url: String,
    /// The file of the authority that signs its certificate.
    pub(crate) ca: PathBuf,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Issuer {
    /// Starts a server with these keys. Its files are in this folder; all servers of one folder have one authority.
    pub(crate) fn start(folder: &Path, keys: &[&Signer]) -> Self {
        let clock = SystemTime::now();
        let home = folder.join("issuer-ca");
        let authority = if home.exists() {
            wharfinger_tls::pki::Authority::open(&home, clock).unwrap()
        } else {
            wharfinger_tls::pki::Authority::init(&home, "issuer", clock).unwrap()
        };
        let into = (0..).map(|number| folder.join(format!("issuer-{number}"))).find(|path| !path.exists()).unwrap();
        let pair = authority.server(&into, &["127.0.0.1".into()], None, Duration::from_secs(3600), clock).unwrap();
        let chain = CertificateDer::pem_file_iter(&pair.certificate).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            mode: Mode::Serve,
            keys: keys.iter().map(|key| key.jwk()).collect(),
            requests: Vec::new(),
            token: None,
            exchange: None,
            stop: false,
        };
        let state = Arc::new(Mutex::new(state));
        let (config, shared, url) = (Arc::new(config), state.clone(), format!("https://{address}"));
        let own = url.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.lock().unwrap().stop {
                    return;
                }
                let (config, shared, own) = (config.clone(), shared.clone(), own.clone());
                std::thread::spawn(move || stream.map(|stream| answer(stream, &config, &shared, &own)));
            }
        });
        Self { url, ca: folder.join("issuer-ca/ca.pem"), address, state }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }

    pub(crate) fn set_keys(&self, keys: &[&Signer]) {
        self.state.lock().unwrap().keys = keys.iter().map(|key| key.jwk()).collect();
    }

    /// Issues this token to those who ask `/token`.
    pub(crate) fn issue(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.into());
    }

    /// Answers forms at `/oauth/token` with this.
    pub(crate) fn exchange(&self, answer: impl Fn(&str, &str) -> (u16, String) + Send + Sync + 'static) {
        self.state.lock().unwrap().exchange = Some(Arc::new(answer));
    }

    /// The paths that were asked for.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.state.lock().unwrap().stop = true;
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers one request. An error closes the connection.
fn answer(stream: TcpStream, config: &Arc<rustls::ServerConfig>, state: &Mutex<State>, own: &str) -> Option<()> {
    let mode = state.lock().unwrap().mode.clone();
    if mode == Mode::Down {
        return None;
    }
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(config.clone()).ok()?, stream);
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < 8192 {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).ok()?;
    let path = request.split(' ').nth(1)?.to_owned();
    state.lock().unwrap().requests.push(path.clone());
    let keys = json!({ "keys": state.lock().unwrap().keys }).to_string();
    let settings = |issuer: &str, keys: &str| {
        let (authorize, token) = (format!("{own}/authorize?tenant=1"), format!("{own}/oauth/token"));
        json!({ "issuer": issuer, "jwks_uri": keys, "authorization_endpoint": authorize, "token_endpoint": token })
            .to_string()
    };
    let at = format!("{own}/keys");
    let token = state.lock().unwrap().token.clone();
    let (status, extra, body) = match (mode, path.as_str()) {
        (_, path) if path.starts_with("/token") => {
            match token.filter(|_| request.contains("uthorization: bearer secret")) {
                Some(token) => (200, String::new(), json!({ "value": token }).to_string()),
                None => (403, String::new(), "{}".into()),
            }
        }
        (_, "/oauth/token") => {
            let length = request.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
            let mut form = vec![0; length];
            stream.read_exact(&mut form).ok()?;
            let exchange = state.lock().unwrap().exchange.clone()?;
            let (status, text) = exchange(&request, &String::from_utf8(form).ok()?);
            (status, String::new(), text)
        }
        (Mode::Hang, _) => {
            for _ in 0..100 {
                std::thread::sleep(Duration::from_millis(100));
                if state.lock().unwrap().stop {
                    break;
                }
            }
            return None;
        }
        (Mode::Status(status), _) => (status, String::new(), "{}".into()),
        (Mode::Redirect(place), _) => (302, format!("location: {place}\r\n"), String::new()),
        (Mode::Moved, "/keys") => (307, "location: /moved\r\n".into(), String::new()),
        (Mode::Moved, "/moved") => (200, String::new(), keys),
        (Mode::Other, "/.well-known/openid-configuration") => (200, String::new(), settings("https://other", &at)),
        (Mode::JwksUri(at), "/.well-known/openid-configuration") => (200, String::new(), settings(own, &at)),
        (_, "/.well-known/openid-configuration") => (200, String::new(), settings(own, &at)),
        (Mode::Keys(text), _) => (200, String::new(), text),
        (Mode::Large(length), _) => (200, String::new(), "x".repeat(length)),
        (Mode::Serve | Mode::Moved | Mode::Other | Mode::JwksUri(_), _) => (200, String::new(), keys),
        (Mode::Down, _) => return None,
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\n{extra}content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    stream.conn.send_close_notify();
    stream.flush().ok()
}
