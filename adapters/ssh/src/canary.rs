//! Trials of a host's set-up by logins: wrong certificates must be refused, and a right one taken.
//!
//! All of them are made over one connection, the right one last, so that sshd sees no failed connection (PerSourcePenalties).

use crate::authority::{Authority, Wanted};
use crate::connection::{Connection, Live};
use crate::error::{Kind, SshError};
use crate::logins::{Grant, Logins, wall_s};
use crate::remote;
use russh::client::AuthResult;
use russh::keys::{Algorithm, Certificate, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use std::sync::Arc;
use tokio::runtime::Handle;
use wharfinger_adapter::Failure;

/// Time for which a host lets a canary in, in seconds.
const SECONDS: u64 = 120;

/// The age of an expired certificate, in seconds: more than clocks may differ.
const OLD: u64 = 3600;

/// What is tried on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trials {
    /// A right certificate alone.
    Right,
    /// Wrong ones too.
    All,
}

/// One attempt to log in.
struct Attempt {
    what: &'static str,
    /// `None`: the key alone.
    certificate: Option<Certificate>,
}

/// Tries to log in to a host as holders do.
///
/// # Errors
/// `SSH_TRUST_BROKEN` (configuration) if a wrong certificate is taken; `LOGIN_REFUSED` (configuration) if the right one is not;
/// `CA_UNUSABLE` (configuration); or the error of the host.
pub(crate) async fn prove(logins: &Logins<'_>, trials: Trials) -> Result<(), Failure> {
    let user = logins.authority.canary();
    // A name that no lease has.
    let lease = format!("canary-{}", &remote::nonce()[..16]);
    let (right, wrong, key) = certificates(logins.authority, &lease, trials).await?;
    let grant =
        Grant { user: &user, lease: &lease, token: 1, seconds: SECONDS, fence: "/nonexistent/fence.0", dir: "/" };
    logins.grant(&grant).await?;
    let result = attempts(&logins.shell.connection, &user, &key, &wrong, right).await;
    // Also after a failure. The note ends by itself where this fails.
    let revoked = logins.revoke(&user, &lease, 1).await;
    result?;
    revoked.map(drop)
}

type Signed = (Certificate, Vec<Attempt>, Arc<PrivateKey>);

/// Signs the certificates of the trials: the right one, and the wrong ones.
async fn certificates(authority: &Authority, lease: &str, trials: Trials) -> Result<Signed, Failure> {
    let (authority, lease, runtime) = (authority.clone(), lease.to_string(), Handle::current());
    let user = authority.canary();
    let sign = move || -> Result<Signed, String> {
        let fresh = || PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519);
        let key = fresh().map_err(|error| error.to_string())?;
        let public: PublicKey = key.public_key().clone();
        let now = wall_s();
        let other = format!("{lease}-other");
        let lease = [lease.as_str()];
        let right = || Wanted {
            key: &public,
            serial: 1,
            key_id: "wharfinger/canary".into(),
            principals: &lease,
            valid_after: now.saturating_sub(60),
            valid_before: now + SECONDS,
            permit: &[],
        };
        let mut wrong = Vec::new();
        if trials == Trials::All {
            let mut add = |what, certificate| wrong.push(Attempt { what, certificate });
            let past =
                Wanted { valid_after: now.saturating_sub(2 * OLD), valid_before: now.saturating_sub(OLD), ..right() };
            let other = [other.as_str()];
            add(
                "a certificate for another lease",
                Some(authority.sign(&Wanted { principals: &other, ..right() }, &runtime)?),
            );
            let by_name = [user.as_str()];
            let named = Wanted { principals: &by_name, ..right() };
            add("a certificate for the user's name", Some(authority.sign(&named, &runtime)?));
            add("an expired certificate", Some(authority.sign(&past, &runtime)?));
            let stranger = fresh().map_err(|error| error.to_string())?;
            add("a certificate of another authority", Some(right().signed_by(&stranger)?));
            add("a key without a certificate", None);
        }
        Ok((authority.sign(&right(), &runtime)?, wrong, Arc::new(key)))
    };
    let signed = tokio::task::spawn_blocking(sign).await.map_err(|error| error.to_string()).flatten();
    signed.map_err(|why| Failure::configuration("CA_UNUSABLE", format!("the authority of the pool: {why}")))
}

/// Tries the wrong certificates and then the right one.
async fn attempts(
    connection: &Arc<Connection>,
    user: &str,
    key: &Arc<PrivateKey>,
    wrong: &[Attempt],
    right: Certificate,
) -> Result<(), Failure> {
    let host = &connection.endpoint.name;
    let mut live = None;
    for attempt in wrong {
        if try_once(connection, &mut live, user, key, attempt.certificate.as_ref()).await? {
            let text = format!(
                "host {host} lets {user} in with {}: its sshd_config is not that of `wharfinger host-setup`, or another line \
                 there overrides it; nothing is leased there until it refuses",
                attempt.what
            );
            return Err(Failure::configuration("SSH_TRUST_BROKEN", text));
        }
    }
    if try_once(connection, &mut live, user, key, Some(&right)).await? {
        return Ok(());
    }
    let text = format!(
        "host {host} refuses {user} with a right certificate: its sshd does not trust the pool's authority, or AllowUsers, \
         AllowGroups or PAM keep the user out; run the output of `wharfinger host-setup` there, and look at the log of sshd"
    );
    Err(Failure::configuration("LOGIN_REFUSED", text))
}

/// Whether the host lets the user in. A connection that sshd has closed (MaxAuthTries) is replaced once.
async fn try_once(
    connection: &Arc<Connection>,
    live: &mut Option<Live>,
    user: &str,
    key: &Arc<PrivateKey>,
    certificate: Option<&Certificate>,
) -> Result<bool, Failure> {
    let fresh = live.is_none();
    match answer(connection, live, user, key, certificate).await {
        Err(error) if !fresh && error.kind == Kind::Lost => {
            *live = None;
            Ok(answer(connection, live, user, key, certificate).await?)
        }
        other => Ok(other?),
    }
}

async fn answer(
    connection: &Arc<Connection>,
    live: &mut Option<Live>,
    user: &str,
    key: &Arc<PrivateKey>,
    certificate: Option<&Certificate>,
) -> Result<bool, SshError> {
    let live = match live {
        Some(live) => live,
        None => live.insert(connection.greeted().await?),
    };
    let asked = match certificate {
        Some(certificate) => live.handle().authenticate_openssh_cert(user, Arc::clone(key), certificate.clone()).await,
        None => {
            let key = PrivateKeyWithHashAlg::new(Arc::clone(key), None);
            live.handle().authenticate_publickey(user, key).await
        }
    };
    match asked {
        Ok(AuthResult::Success) => Ok(true),
        Ok(AuthResult::Failure { remaining_methods, .. }) if !remaining_methods.is_empty() || live.is_open() => {
            Ok(false)
        }
        Ok(AuthResult::Failure { .. }) | Err(_) => {
            let text =
                format!("{}: the connection broke during a login: {}", connection.endpoint.place(), live.reason());
            Err(SshError::new(Kind::Lost, text))
        }
    }
}
