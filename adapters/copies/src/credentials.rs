//! Credentials for the remote: an ssh key, or a user and a password.
//!
//! The secret is in a file on the broker's machine. The adapter reads it for each command that connects to the remote, so the file
//! may change at any time. The secret reaches the script of the command by standard input, and git from there
//! (`sh/credentials.sh`). It is in no argument, environment variable or file of the host, and is gone when the command ends. It is
//! sent to the servers of the pool's own repositories alone, not to the target of a redirect or of a submodule.

use serde::Deserialize;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use wharfinger_adapter::Failure;
use wharfinger_adapter::settings::ConfigProblem;

/// The files with the credentials of a pool: either `ssh_key_file`, or `user` and `password_file`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The user for https.
    #[serde(default)]
    pub user: Option<String>,
    /// Absolute path on the broker's machine. The only line of the file is the password or token for https.
    #[serde(default)]
    pub password_file: Option<String>,
    /// Absolute path on the broker's machine. The file is a private key without a passphrase for ssh.
    #[serde(default)]
    pub ssh_key_file: Option<String>,
    /// The servers that get the credentials, as returned by [`origin`].
    #[serde(skip)]
    origins: Vec<String>,
}

/// The standard input of a script, in the format of `sh/credentials.sh`.
pub(crate) struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl Secret {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Maximum size of a file with a secret, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

impl Credentials {
    /// Returns credentials with a private key for ssh. `file`: its absolute path.
    pub fn ssh_key(file: impl Into<String>) -> Self {
        Self { ssh_key_file: Some(file.into()), ..Self::default() }
    }

    /// Returns credentials with a user and a password for https. `file`: the absolute path of the file with the password.
    pub fn password(user: impl Into<String>, file: impl Into<String>) -> Self {
        Self { user: Some(user.into()), password_file: Some(file.into()), ..Self::default() }
    }

    /// Returns the credentials for the servers of these addresses.
    pub(crate) fn bound_to<'a>(mut self, repositories: impl IntoIterator<Item = &'a str>) -> Self {
        self.origins = repositories.into_iter().filter_map(origin).collect();
        self
    }

    /// Refuses credentials that fit none of these repositories, and files that cannot be used or that others can read.
    pub(crate) fn validate<'a>(&self, repositories: impl IntoIterator<Item = &'a str>) -> Result<(), ConfigProblem> {
        let scheme = match (&self.user, &self.password_file, &self.ssh_key_file) {
            (None, None, Some(_)) => "ssh",
            (Some(user), Some(_), None) => {
                if user.is_empty() || user.chars().any(char::is_control) {
                    let message = "`user` is empty or has control characters";
                    return Err(ConfigProblem::new(message, "write the account's name").at(["user"]));
                }
                "https"
            }
            _ => return Err(incomplete()),
        };
        if !repositories.into_iter().any(|repository| origin(repository).is_some_and(|o| o.starts_with(scheme))) {
            return Err(ConfigProblem::new(
                format!("no repository of the pool is reached over {scheme}"),
                "leave the credentials out",
            ));
        }
        self.secret().map(drop)
    }

    /// Returns the standard input of a script that connects to this repository. `None` if its server gets no credentials.
    pub(crate) fn input(&self, repository: &str, limit: Duration) -> Result<Option<Secret>, Failure> {
        let Some(origin) = origin(repository).filter(|origin| self.origins.contains(origin)) else { return Ok(None) };
        let ssh = self.ssh_key_file.is_some();
        if origin.starts_with("ssh") != ssh {
            return Ok(None);
        }
        let secret = self.secret().map_err(failure)?;
        let mut text = match (&self.user, ssh) {
            (Some(user), false) => format!("https {origin}\n{user}\n").into_bytes(),
            _ => format!("ssh {}\n", limit.as_secs().max(1)).into_bytes(),
        };
        text.extend(secret);
        // ssh-add refuses a key without a newline at its end, and `read` fails at a line without one.
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        Ok(Some(Secret(text)))
    }

    /// Refuses files that cannot be used or that others can read.
    ///
    /// # Errors
    /// `BAD_CREDENTIALS` (configuration).
    pub(crate) fn readable(&self) -> Result<(), Failure> {
        self.secret().map(drop).map_err(failure)
    }

    fn secret(&self) -> Result<Vec<u8>, ConfigProblem> {
        let (key, path) = match (&self.ssh_key_file, &self.password_file) {
            (Some(path), _) => ("ssh_key_file", path),
            (None, Some(path)) => ("password_file", path),
            (None, None) => return Err(incomplete()),
        };
        let bad =
            |fault: &str, remedy: String| ConfigProblem::new(format!("`{key}` {path:?} {fault}"), remedy).at([key]);
        if !path.starts_with('/') {
            return Err(bad("is not an absolute path", "name a file on the broker's machine".into()));
        }
        let unreadable =
            |error: std::io::Error| bad(&format!("cannot be read: {error}"), "let the broker's user read it".into());
        let about = std::fs::metadata(path).map_err(unreadable)?;
        if !about.is_file() || about.len() > FILE_BYTES_MAX {
            return Err(bad("is not a file, or a very large one", "name the file of the secret".into()));
        }
        // The group may read the file: so it is where secrets are mounted into containers.
        if about.permissions().mode() & 0o027 != 0 {
            return Err(bad("can be read by others", format!("run: chmod 600 {path}; then make a new secret")));
        }
        let text = std::fs::read(path).map_err(unreadable)?;
        // The message has no part of the secret.
        if key == "ssh_key_file" {
            if !text.starts_with(b"-----BEGIN ") {
                return Err(bad("does not hold a private key", "make one with ssh-keygen".into()));
            }
            return Ok(text);
        }
        let line = text.trim_ascii_end();
        if line.is_empty() || line.iter().any(u8::is_ascii_control) {
            return Err(bad("does not hold one line", "write the password there and nothing else".into()));
        }
        Ok(line.to_vec())
    }
}

fn incomplete() -> ConfigProblem {
    ConfigProblem::new("the credentials are incomplete", "give ssh_key_file, or user and password_file")
}

/// Returns the problem as the failure of a call.
pub(crate) fn failure(problem: ConfigProblem) -> Failure {
    Failure::configuration("BAD_CREDENTIALS", format!("credentials: {problem}"))
}

/// The server of an address: `https://host:port`, or `ssh host:port`. `None` for a transport without credentials.
fn origin(repository: &str) -> Option<String> {
    let host = |authority: &str| authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_ascii_lowercase();
    if repository.starts_with('/') {
        return None;
    }
    match repository.split_once("://") {
        Some((scheme, rest)) => {
            let authority = host(rest.split('/').next().unwrap_or_default());
            match scheme {
                "https" => Some(format!("https://{authority}")),
                "ssh" => Some(format!("ssh {authority}")),
                _ => None,
            }
        }
        None => repository.split_once(':').map(|(authority, _)| format!("ssh {}", host(authority))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTPS: &str = "https://bot@Example.org:8443/a.git";

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret");
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its mode");
        let path = path.to_str().expect("a path").to_string();
        (dir, path)
    }

    #[test]
    fn mistakes_are_found_before_a_lease_is() {
        let (_a, password) = file("s3cret\n", 0o600);
        let (_b, open) = file("s3cret\n", 0o644);
        let (_c, lines) = file("s3cret\nmore\n", 0o600);
        let (_d, empty) = file("\n", 0o600);
        let (_e, key) = file("-----BEGIN OPENSSH PRIVATE KEY-----\ns3cret\n", 0o600);
        assert_eq!(Credentials::password("bot", &password).validate([HTTPS]), Ok(()));
        assert_eq!(Credentials::ssh_key(&key).validate(["git@example.org:a.git"]), Ok(()));
        assert_eq!(Credentials::ssh_key(&key).validate([HTTPS, "ssh://git@example.org/a.git"]), Ok(()));
        let both = Credentials { ssh_key_file: Some(key.clone()), ..Credentials::password("bot", &password) };
        for (credentials, repository, part) in [
            (Credentials::default(), HTTPS, "give ssh_key_file, or"),
            (both, HTTPS, "give ssh_key_file, or"),
            (
                Credentials { password_file: None, ..Credentials::password("bot", &password) },
                HTTPS,
                "give ssh_key_file",
            ),
            (Credentials::password("", &password), HTTPS, "`user` is empty"),
            (Credentials::password("a\nb", &password), HTTPS, "control characters"),
            (Credentials::password("bot", &password), "/srv/a.git", "over https"),
            (Credentials::ssh_key(&key), HTTPS, "over ssh"),
            (Credentials::password("bot", "/no/such"), HTTPS, "cannot be read"),
            (Credentials::password("bot", "/proc"), HTTPS, "is not a file"),
            (Credentials::password("bot", "relative"), HTTPS, "not an absolute path"),
            (Credentials::password("bot", &open), HTTPS, "by others"),
            (Credentials::password("bot", &lines), HTTPS, "one line"),
            (Credentials::password("bot", &empty), HTTPS, "one line"),
            (Credentials::ssh_key(&password), "git@example.org:a.git", "not hold a private key"),
        ] {
            let text = credentials.validate([repository]).expect_err(part).to_string();
            assert!(text.contains(part) && !text.contains("s3cret"), "{part}: {text}");
        }
    }

    #[test]
    fn credentials_are_sent_to_the_pools_own_hosts_alone() {
        let (_dir, password) = file("s3cret", 0o600);
        let ours = Credentials::password("bot", &password).bound_to([HTTPS, "git@example.org:a.git"]);
        let input = |repository: &str| {
            let found = ours.input(repository, Duration::from_secs(60)).expect("it can be read");
            found.map(|secret| String::from_utf8(secret.into_bytes()).expect("text"))
        };
        let expected = Some("https https://example.org:8443\nbot\ns3cret\n".to_string());
        assert_eq!(input("https://example.org:8443/other.git"), expected);
        for foreign in [
            "https://example.org/a.git",
            "https://example.org:8443@evil.org/a.git",
            "https://evil.org/example.org:8443",
            "https://example.org:8443.evil.org/a.git",
            "git@example.org:a.git",
            "/srv/a.git",
            "file:///srv/a.git",
        ] {
            assert_eq!(input(foreign), None, "{foreign}");
        }
        let said = format!("{ours:?} {:?}", ours.input(HTTPS, Duration::from_secs(60)).expect("it can be read"));
        assert!(!said.contains("s3cret"), "{said}");
    }
}
