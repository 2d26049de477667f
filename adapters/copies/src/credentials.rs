//! What the remote wants to see before it gives or takes anything: a key, or a user and a password.
//!
//! It lies in a file on the broker's machine and is read anew for each command that talks to the remote, so it may be
//! changed at any time. It goes to the host over the standard input of that command's script and from there to git (see
//! `sh/credentials.sh`): it is in no argument, no environment and no file there, and gone when the command ends. It goes to
//! the hosts of the pool's own repositories and to no other, wherever a redirect or a submodule leads.

use serde::Deserialize;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use wharfinger_adapter::Failure;
use wharfinger_adapter::settings::ConfigProblem;

/// Where the broker finds what the remote wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// https: who we are.
    #[serde(default)]
    pub user: Option<String>,
    /// https: an absolute path on the broker's machine; the file's only line is the password or token.
    #[serde(default)]
    pub password_file: Option<String>,
    /// ssh: an absolute path on the broker's machine of a private key without a passphrase.
    #[serde(default)]
    pub ssh_key_file: Option<String>,
    /// Whom they are shown: see [`origin`].
    #[serde(skip)]
    origins: Vec<String>,
}

/// What a script reads from its standard input.
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

/// Files of secrets are small.
const LARGEST: u64 = 64 * 1024;

impl Credentials {
    /// A private key for ssh.
    pub fn ssh_key(file: impl Into<String>) -> Self {
        Self { ssh_key_file: Some(file.into()), ..Self::default() }
    }

    /// A user and a file with the password, for https.
    pub fn password(user: impl Into<String>, file: impl Into<String>) -> Self {
        Self { user: Some(user.into()), password_file: Some(file.into()), ..Self::default() }
    }

    /// The same, to be shown to the hosts of these addresses.
    pub(crate) fn bound_to<'a>(mut self, repositories: impl IntoIterator<Item = &'a str>) -> Self {
        self.origins = repositories.into_iter().filter_map(origin).collect();
        self
    }

    /// Refuses what could not work with these repositories, or what others can read.
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

    /// What a script is told that talks to this repository; nothing if it is not ours to tell.
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
        // ssh-add does not take a key without its last line break, nor `read` a line.
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        Ok(Some(Secret(text)))
    }

    /// Refuses what is not there, or what others can read.
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
        if !about.is_file() || about.len() > LARGEST {
            return Err(bad("is not a file, or a very large one", "name the file of the secret".into()));
        }
        // Its group may read it, as it does where secrets are mounted into containers.
        if about.permissions().mode() & 0o027 != 0 {
            return Err(bad("can be read by others", format!("run: chmod 600 {path}; then make a new secret")));
        }
        let text = std::fs::read(path).map_err(unreadable)?;
        // What is wrong with it is said without a word of it.
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

/// The problem as the failure of a call.
pub(crate) fn failure(problem: ConfigProblem) -> Failure {
    Failure::configuration("BAD_CREDENTIALS", format!("credentials: {problem}"))
}

/// Whom an address leads to: `https://host:port`, or `ssh host:port`. Nothing for what wants no credentials.
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
    fn they_are_shown_to_the_pools_own_hosts_alone() {
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
