//! The first login to an instance: with the host key of its user data, which others can read, and for one purpose. The broker learns the
//! key that the instance made for itself, stores it, and lets the instance use it. Then the key of the user data counts no longer.

use crate::pool::Pool;
use crate::record::Host;
use std::sync::Arc;
use std::time::Duration;
use wharfinger_adapter::{Command, Exit, Failure, Shell, ShellError};
use wharfinger_ssh::{HostKeyType, KeySource, Target};

/// Time for one command of the first login.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

const STATE: &str = include_str!("sh/boot_state.sh");
const INSTALL: &str = include_str!("sh/install_key.sh");

/// Returns the public key that the instance made for itself, in OpenSSH format.
///
/// # Errors
/// `HOST_KEY_MISMATCH` if the instance does not show the key of its user data, `METADATA_OPEN` (configuration), `BOOTING` (resource) while
/// its first boot has not made the key, and those of a login.
pub(crate) async fn own_key(pool: &Pool, host: &Host, address: &str) -> Result<String, Failure> {
    let shell = shell(pool, host, address)?;
    let output = shell.run(Command::sh(STATE).timeout(COMMAND_LIMIT)).await.map_err(failed)?;
    if output.exit != Exit::Code(0) {
        let text = format!(
            "the first boot has not made a host key yet ({}); /var/log/cloud-init-output.log on the instance says how far it is",
            output.complaint()
        );
        return Err(Failure::resource("BOOTING", text));
    }
    let state = BootState::read(&output.text(), &host.host_key)?;
    if !state.metadata_closed && !pool.config.open_metadata {
        let text = "the first boot could not close the metadata service to holders; the image needs `ip` (iproute2) and a kernel \
                    with policy routing, or set open_metadata = true if holders may read it";
        return Err(Failure::configuration("METADATA_OPEN", text));
    }
    Ok(state.host_key)
}

/// Lets the instance use its own key. `Ok`: its sshd was asked to.
///
/// # Errors
/// As [`own_key`]; `HOST_KEY_NOT_INSTALLED` (configuration) if the instance does not do it in time.
pub(crate) async fn install(pool: &Pool, host: &Host, address: &str) -> Result<(), Failure> {
    let shell = shell(pool, host, address)?;
    let output = shell.run(Command::sh(INSTALL).timeout(COMMAND_LIMIT)).await.map_err(failed)?;
    if output.exit == Exit::Code(0) {
        return Ok(());
    }
    Err(not_installed(host, &output.complaint()))
}

/// The failure of an instance whose sshd does not show the instance's own key.
pub(crate) fn not_installed(host: &Host, why: &str) -> Failure {
    let text = format!(
        "the instance does not use its own host key ({why}); sshd has to be ssh.service or sshd.service, and its host key \
         /etc/ssh/ssh_host_{}_key",
        HostKeyType::of(&host.host_key).unwrap_or_default().as_str()
    );
    Failure::configuration("HOST_KEY_NOT_INSTALLED", text)
}

/// A connection that accepts the key of the user data. It is closed with the last command.
fn shell(pool: &Pool, host: &Host, address: &str) -> Result<Arc<dyn Shell>, Failure> {
    let ssh = &pool.config.ssh;
    let target = Target {
        name: host.instance.clone(),
        address: address.to_string(),
        port: ssh.port,
        user: ssh.user.clone().unwrap_or_else(|| "root".to_string()),
        key: KeySource::File(pool.config.login_key()?.to_path_buf()),
        host_key: host.host_key.clone(),
        proxy_command: ssh.proxy_command.clone(),
    };
    wharfinger_ssh::connect_shell(&target).map_err(failed)
}

fn failed(error: ShellError) -> Failure {
    let text = error.to_string();
    match error {
        ShellError::WrongHost(_) => Failure::configuration("HOST_KEY_MISMATCH", text),
        ShellError::Refused(_) => Failure::configuration("AUTH_FAILED", text),
        ShellError::NotReached(_) | ShellError::Unreachable(_) | ShellError::Closed(_) => {
            Failure::resource("UNREACHABLE", text)
        }
        ShellError::NotStarted(_) | ShellError::File(_) => Failure::resource("COMMAND_NOT_STARTED", text),
    }
}

/// The state of a first boot, as the instance prints it.
#[derive(Debug, PartialEq, Eq)]
struct BootState {
    host_key: String,
    metadata_closed: bool,
}

impl BootState {
    /// Parses the text. The key has to be of the type of the one in the user data, and another one.
    fn read(text: &str, bootstrap: &str) -> Result<Self, Failure> {
        let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let unusable = |why: String| {
            Failure::resource("BOOT_STATE", format!("the instance reports no usable key of its own: {why}"))
        };
        let line = of("host_key").ok_or_else(|| unusable("there is none".into()))?;
        let host_key = wharfinger_ssh::public_key(line).map_err(|why| unusable(why.message))?;
        if HostKeyType::of(&host_key) != HostKeyType::of(bootstrap) {
            return Err(unusable("it is of another type".into()));
        }
        if wharfinger_ssh::public_key(bootstrap).is_ok_and(|bootstrap| bootstrap == host_key) {
            return Err(unusable("it is that of the user data".into()));
        }
        Ok(Self { host_key, metadata_closed: of("metadata") == Some("closed") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_one_key_of_its_own_and_says_whether_the_service_is_closed() {
        let key = |kind| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("key");
            std::fs::write(&path, wharfinger_ssh::host_key().unwrap().private).unwrap();
            wharfinger_ssh::host_key_from(&path, "name", kind).unwrap().public
        };
        let (bootstrap, own) = (key(HostKeyType::Ed25519), key(HostKeyType::Ed25519));
        let read = |text: &str| BootState::read(text, &bootstrap);
        let closed = read(&format!("host_key {own} a comment\nmetadata closed\n")).unwrap();
        assert_eq!(closed, BootState { host_key: own.clone(), metadata_closed: true });
        for open in ["metadata open\n", "metadata failed\n", "metadata closed?\n", ""] {
            assert!(!read(&format!("host_key {own}\n{open}")).unwrap().metadata_closed, "{open}");
        }
        let ecdsa = key(HostKeyType::Ecdsa);
        for (text, why) in [
            (String::new(), "none"),
            ("host_key ssh-ed25519 AAAA\n".into(), "key"),
            (format!("host_key {ecdsa}\n"), "type"),
            (format!("host_key {bootstrap} another comment\n"), "user data"),
        ] {
            let failure = read(&text).unwrap_err();
            assert_eq!(failure.reason, "BOOT_STATE");
            assert!(failure.message.contains(why), "{text}: {}", failure.message);
        }
    }
}
