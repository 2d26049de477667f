//! Logins of a holder to its leased host by certificate: a key pair that is made here, and a certificate that is renewed at half of
//! its life.

use super::place::own_key;
use crate::cli::connect::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::client::{Client, ClientError};
use crate::pb;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use wharfinger_adapter::access;
use wharfinger_ssh::HolderCredential;

/// Minimum time between two certificates.
const AT_LEAST: Duration = Duration::from_secs(5);

/// The host of a lease as an SSH client needs it. All values are checked: they go into files and command lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) host_keys: Vec<String>,
}

impl Way {
    /// The way that `Login` answers with.
    fn of_login(answer: &pb::LoginResponse) -> Result<Self, String> {
        let port = u16::try_from(answer.port).ok().filter(|port| *port > 0).ok_or("the port is none")?;
        let way = Self {
            address: answer.address.clone(),
            port,
            user: answer.user.clone(),
            host_keys: answer.host_keys.clone(),
        };
        way.checked()
    }

    /// The way that a lease's access names, for pools whose holders have keys.
    pub(crate) fn of_lease(lease: &pb::Lease) -> Result<Self, String> {
        let pairs = lease.access_pairs();
        let known = |key: &str| pairs.get(key).cloned().unwrap_or_default();
        let port = known(access::PORT).parse().ok().filter(|port| *port > 0).ok_or("the port is none")?;
        let (address, user) = (known(access::ADDRESS), known(access::USER));
        Self { address, port, user, host_keys: vec![known(access::HOST_KEY)] }.checked()
    }

    fn checked(self) -> Result<Self, String> {
        let word = |text: &str, more: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if !word(&self.address, ".:_-%") {
            return Err(format!("the address {:?} is none", self.address));
        }
        if !word(&self.user, "._-") {
            return Err(format!("the user {:?} is none", self.user));
        }
        let key = |line: &String| line.chars().all(|c| c.is_ascii_graphic() || c == ' ') && line.contains(' ');
        if self.host_keys.is_empty() || !self.host_keys.iter().all(key) {
            return Err("the host has no key".into());
        }
        Ok(self)
    }
}

/// A key pair of ours with a certificate for one lease.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    lease: String,
    token: u64,
    pub(crate) credential: Arc<HolderCredential>,
    /// The certificate as it came.
    pub(crate) certificate: String,
    pub(crate) way: Way,
    /// Time from the answer to the next certificate.
    pub(crate) half_life: Duration,
}

impl Login {
    /// Logs in to the host of an active lease, with a key from this file or with a new one.
    pub(crate) async fn make(
        context: &Context,
        client: &Client,
        lease: &pb::Lease,
        identity: Option<&Path>,
    ) -> Result<Self, Failure> {
        let internal = |why: String| Failure::new(Exit::Internal, format!("no key pair can be made: {why}"));
        let credential = match identity {
            None => HolderCredential::make().map_err(internal)?,
            Some(path) => {
                let unusable = |why: String| Failure::new(Exit::BadData, format!("the key {}: {why}", path.display()));
                let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
                HolderCredential::read(&text).map_err(unusable)?
            }
        };
        Self::with(context, client, lease, Arc::new(credential)).await
    }

    /// Logs in with this key pair.
    pub(crate) async fn with(
        context: &Context,
        client: &Client,
        lease: &pb::Lease,
        credential: Arc<HolderCredential>,
    ) -> Result<Self, Failure> {
        match ask(client, &lease.id, lease.fencing_token, &credential).await {
            Ok((answer, way)) => {
                let half_life = half_life(&answer);
                let (lease, token, certificate) = (lease.id.clone(), lease.fencing_token, answer.certificate);
                Ok(Self { lease, token, credential, certificate, way, half_life })
            }
            Err(NoLogin::Refused(error)) => Err(context.failure(error)),
            Err(NoLogin::Wrong(why)) => {
                Err(Failure::new(Exit::Denied, format!("the server's answer is refused: {why}"))
                    .remedy("look at which server this is, and report it"))
            }
        }
    }

    /// Keeps the certificate renewed, until the value is dropped or the lease is over. `renewed` gets each new one.
    pub(crate) fn keep(&self, client: &Client, renewed: impl Fn(&str) + Send + 'static) -> Renewal {
        let (client, login) = (client.clone(), self.clone());
        Renewal(tokio::spawn(async move {
            let mut wait = login.half_life;
            loop {
                tokio::time::sleep(wait.max(AT_LEAST)).await;
                wait = match ask(&client, &login.lease, login.token, &login.credential).await {
                    Ok((answer, _)) => {
                        renewed(&answer.certificate);
                        half_life(&answer)
                    }
                    // Its guard reports the end of a lease.
                    Err(NoLogin::Refused(ClientError::State(_) | ClientError::NotFound(_))) => return,
                    Err(_) => wait / 4,
                };
            }
        }))
    }
}

/// Renews the certificate of a login. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Renewal(tokio::task::JoinHandle<()>);

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

enum NoLogin {
    Refused(ClientError),
    /// The answer is none that was asked for.
    Wrong(String),
}

async fn ask(
    client: &Client,
    lease: &str,
    token: u64,
    credential: &HolderCredential,
) -> Result<(pb::LoginResponse, Way), NoLogin> {
    let public = credential.public_key().map_err(NoLogin::Wrong)?;
    let answer = client.login(lease, &public).await.map_err(NoLogin::Refused)?;
    let way = Way::of_login(&answer).map_err(NoLogin::Wrong)?;
    credential
        .take(&answer.certificate, lease, token)
        .map_err(|why| NoLogin::Wrong(format!("the certificate: {why}")))?;
    Ok((answer, way))
}

/// From the answer to the time of the next certificate, by the server's clock alone.
fn half_life(answer: &pb::LoginResponse) -> Duration {
    let seconds = |at: Option<prost_types::Timestamp>| at.map_or(0, |at| at.seconds);
    Duration::from_secs(u64::try_from(seconds(answer.valid_before) - seconds(answer.renew_at)).unwrap_or(0))
}

/// Files with which OpenSSH reaches the host of a lease, in a directory that only we can read.
#[derive(Debug)]
pub(crate) struct SshFiles {
    folder: PathBuf,
    /// They stay.
    kept: bool,
}

impl SshFiles {
    /// Makes the directory anew for one command. It is removed when the value is dropped.
    pub(crate) fn for_a_while(lease: &str) -> Result<Self, Failure> {
        let folder = runtime_folder().join(format!("wharfinger-{lease}-{}.ssh", std::process::id()));
        let files = Self { folder, kept: false };
        private_folder(&files.folder, false).map_err(|why| files.failure(&why))?;
        Ok(files)
    }

    /// The directory of a lease, which stays.
    pub(crate) fn kept(lease: &str) -> Result<Self, Failure> {
        let above = folder_of_user();
        let files = Self { folder: above.join(lease), kept: true };
        let made = private_folder(&above, true).and_then(|()| private_folder(&files.folder, true));
        made.map_err(|why| files.failure(&why))?;
        Ok(files)
    }

    /// Removes the directories of other leases for which this holds.
    pub(crate) fn forget_others(&self, forget: impl Fn(&SshFiles) -> bool) {
        let others =
            self.folder.parent().and_then(|above| std::fs::read_dir(above).ok()).into_iter().flatten().flatten();
        for folder in others.map(|entry| entry.path()).filter(|folder| *folder != self.folder) {
            let files = Self { folder, kept: true };
            if forget(&files) {
                files.remove();
            }
        }
    }

    fn failure(&self, why: &str) -> Failure {
        Failure::new(Exit::Internal, format!("the files in {} cannot be kept: {why}", self.folder.display()))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file, aside and by rename.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        write(&self.folder, name, text).map_err(|error| self.failure(&error.to_string()))
    }

    /// Writes what a login needs: key, certificate, and the keys of the host under the name of the lease.
    pub(crate) fn write_login(&self, login: &Login) -> Result<(), Failure> {
        let secret = login.credential.private_key().map_err(|why| self.failure(&why))?;
        self.write("key", &secret)?;
        self.write_certificate(&login.certificate)?;
        self.write_host_keys(&login.lease, &login.way)
    }

    pub(crate) fn write_certificate(&self, certificate: &str) -> Result<(), Failure> {
        self.write("key-cert.pub", &format!("{}\n", certificate.trim_end()))
    }

    pub(crate) fn write_host_keys(&self, lease: &str, way: &Way) -> Result<(), Failure> {
        let lines: String = way.host_keys.iter().map(|key| format!("{lease} {key}\n")).collect();
        self.write("known_hosts", &lines)
    }

    /// A function that writes each new certificate.
    pub(crate) fn certificate_writer(&self) -> impl Fn(&str) + Send + 'static {
        let folder = self.folder.clone();
        move |certificate| {
            if let Err(error) = write(&folder, "key-cert.pub", &format!("{}\n", certificate.trim_end())) {
                tracing::warn!(%error, "the certificate of the lease cannot be written");
            }
        }
    }

    /// The settings of OpenSSH for the host of a lease, each a keyword and its value. `key`: another file than `key` here.
    pub(crate) fn settings(
        &self,
        lease: &str,
        way: &Way,
        key: Option<&Path>,
        proxy: Option<&str>,
    ) -> Vec<(&'static str, String)> {
        let quoted = |path: &Path| format!("\"{}\"", path.display());
        let own = self.path("key");
        let key = key.map(Path::to_path_buf).or_else(|| own.exists().then_some(own));
        let certificate = self.path("key-cert.pub");
        let mut settings = vec![
            ("Port", way.port.to_string()),
            ("User", way.user.clone()),
            ("UserKnownHostsFile", quoted(&self.path("known_hosts"))),
            ("GlobalKnownHostsFile", "/dev/null".into()),
            ("HostKeyAlias", lease.into()),
            ("StrictHostKeyChecking", "yes".into()),
            ("UpdateHostKeys", "no".into()),
        ];
        if let Some(key) = key {
            settings.extend([("IdentityFile", quoted(&key)), ("IdentitiesOnly", "yes".into())]);
        }
        if certificate.exists() {
            settings.push(("CertificateFile", quoted(&certificate)));
        }
        settings.extend(proxy.map(|proxy| ("ProxyCommand", proxy.into())));
        settings
    }

    /// The block of an OpenSSH configuration for the host of a lease, by the name of the lease.
    pub(crate) fn host_block(&self, lease: &str, way: &Way, key: Option<&Path>, proxy: Option<&str>) -> String {
        let mut text = format!("Host {lease}\n    HostName {}\n", way.address);
        for (keyword, value) in self.settings(lease, way, key, proxy) {
            text.push_str(&format!("    {keyword} {value}\n"));
        }
        text
    }

    /// Removes the directory.
    pub(crate) fn remove(&self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Drop for SshFiles {
    fn drop(&mut self) {
        if !self.kept {
            self.remove();
        }
    }
}

fn runtime_folder() -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()).map_or_else(std::env::temp_dir, PathBuf::from)
}

fn folder_of_user() -> PathBuf {
    runtime_folder().join(format!("wharfinger-{}", own_id()))
}

/// A directory of this user alone, for small files that several processes share.
///
/// # Errors
/// It cannot be made, or another user could write there.
pub(crate) fn private_folder_of_user() -> Result<PathBuf, String> {
    let folder = folder_of_user();
    private_folder(&folder, true).map(|()| folder)
}

fn own_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Makes a directory with mode 0700. One that is there already must be ours alone: its name can be guessed.
fn private_folder(path: &Path, may_exist: bool) -> Result<(), String> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if may_exist && error.kind() == std::io::ErrorKind::AlreadyExists => {
            let about = std::fs::symlink_metadata(path).map_err(|error| error.to_string())?;
            if about.is_dir() && about.uid() == own_id() && about.mode() & 0o077 == 0 {
                return Ok(());
            }
            Err("another user could read or write there".into())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn write(folder: &Path, name: &str, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let aside = folder.join(format!("{name}.{}.new", std::process::id()));
    let _ = std::fs::remove_file(&aside);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    file.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        file.write_all(b"\n")?;
    }
    std::fs::rename(&aside, folder.join(name))
}

/// The key for a lease whose pool signs no certificates: that of the lease, written here, or one of the user's own.
pub(crate) fn key_without_login(files: &SshFiles, lease: &pb::Lease) -> Result<PathBuf, Failure> {
    if let Some(text) = lease.private_key() {
        files.write("key", text)?;
        return Ok(files.path("key"));
    }
    own_key().ok_or_else(|| super::place::no_key(lease, &lease.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> pb::LoginResponse {
        pb::LoginResponse {
            address: "10.0.0.1".into(),
            port: 22,
            user: "wfslot0".into(),
            host_keys: vec!["ssh-ed25519 AAAA".into()],
            ..pb::LoginResponse::default()
        }
    }

    #[test]
    fn a_way_that_would_be_an_option_or_a_line_of_its_own_is_refused() {
        assert_eq!(Way::of_login(&answer()).unwrap().user, "wfslot0");
        let with = |change: &dyn Fn(&mut pb::LoginResponse)| {
            let mut answer = answer();
            change(&mut answer);
            Way::of_login(&answer)
        };
        assert!(with(&|a| a.address = "fe80::1%eth0".into()).is_ok());
        for bad in ["-oProxyCommand=id", "a b", "a\nProxyCommand id", "", "a;b", "$(id)", "\"a"] {
            assert!(with(&|a| a.address = bad.into()).is_err(), "{bad:?}");
            assert!(with(&|a| a.user = bad.into()).is_err(), "{bad:?}");
        }
        for bad in ["", "ssh-ed25519 AAAA\n* ssh-ed25519 BBBB", "ssh-ed25519"] {
            assert!(with(&|a| a.host_keys = vec![bad.into()]).is_err(), "{bad:?}");
        }
        assert!(with(&|a| a.host_keys.clear()).is_err());
        for bad in [0, -1, 70_000] {
            assert!(with(&|a| a.port = bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_are_the_users_alone_and_do_not_stay() {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let files = SshFiles::for_a_while("lse_files").unwrap();
        let folder = files.path("");
        files.write("key", "secret").unwrap();
        assert_eq!((mode(&folder), mode(&files.path("key"))), (0o700, 0o600));
        assert_eq!(std::fs::read_to_string(files.path("key")).unwrap(), "secret\n");
        let way = Way::of_login(&answer()).unwrap();
        files.write_host_keys("lse_files", &way).unwrap();
        let block = files.host_block("lse_files", &way, None, None);
        assert!(block.starts_with("Host lse_files\n    HostName 10.0.0.1\n    Port 22\n    User wfslot0\n"), "{block}");
        assert!(!block.contains("CertificateFile") && !block.contains("ProxyCommand"), "{block}");
        files.write_certificate("ssh-ed25519-cert-v01@openssh.com AAAA").unwrap();
        let block = files.host_block("lse_files", &way, None, Some("nc %h %p"));
        assert!(block.contains("CertificateFile") && block.contains("ProxyCommand nc %h %p"), "{block}");
        assert!(SshFiles::for_a_while("lse_files").is_err(), "one that is there is not taken");
        drop(files);
        assert!(!folder.exists());
    }
}
