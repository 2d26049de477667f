//! User data of an instance: its host key, the login of the broker, and the backstop that ends an abandoned instance.
//!
//! Cloud-init reads YAML, of which JSON is a subset, so text of the configuration stays a value.

use crate::config::Config;
use serde_json::json;
use wharfinger_adapter::{Failure, quote};
use wharfinger_ssh::{HostKey, HostKeyType};

/// EC2's maximum size of user data.
const BYTES_MAX: usize = 16 * 1024;

/// File that each kept connection touches regularly.
pub(crate) const HEARTBEAT: &str = "/run/wharfinger/seen";

/// File with the script of the first boot.
const FIRST_CONTACT: &str = "/var/lib/wharfinger/first-contact";

/// Placeholder of the private host key in the stored text.
const HOST_KEY: &str = "@HOST_KEY@";

/// Returns the user data as it is stored, without the private host key. See [`filled`].
///
/// # Errors
/// `USER_DATA_TOO_LONG` (configuration).
pub(crate) fn stored(config: &Config, host_key: &HostKey, authorized: &str) -> Result<String, Failure> {
    // The length is checked with the key.
    user_data(config, host_key, authorized)?;
    let without = HostKey { private: HOST_KEY.to_string(), public: host_key.public.clone() };
    user_data(config, &without, authorized)
}

/// Returns the user data for EC2, with the private host key. Text that an older version stored has its key.
pub(crate) fn filled(stored: &str, host_key: &HostKey) -> String {
    let kind = type_of(host_key).as_str();
    let place = |key: &str| format!("\"{kind}_private\": {}", json!(key));
    stored.replacen(&place(HOST_KEY), &place(&host_key.private), 1)
}

fn type_of(host_key: &HostKey) -> HostKeyType {
    HostKeyType::of(&host_key.public).unwrap_or_default()
}

/// Returns cloud-init's text for one instance.
///
/// # Errors
/// `USER_DATA_TOO_LONG` (configuration).
fn user_data(config: &Config, host_key: &HostKey, authorized: &str) -> Result<String, Failure> {
    let user = config.ssh.user.as_deref().unwrap_or("root");
    let mut run: Vec<String> = vec![format!("install -d -o {} /run/wharfinger && touch {HEARTBEAT}", quote(user))];
    if config.backstop_minutes > 0 {
        // systemd ends the instance: `shutdown +N` would be announced as a scheduled end of the host.
        let check = format!(
            "[ -n \"$(find {HEARTBEAT} -mmin -{} 2>/dev/null)\" ] || systemctl poweroff",
            config.backstop_minutes
        );
        run.push(format!(
            "systemd-run --unit=wharfinger-backstop --on-active={0}min --on-unit-active=5min /bin/sh -c {1}",
            config.backstop_minutes,
            quote(&check)
        ));
    }
    let kind = type_of(host_key).as_str();
    let metadata = if config.open_metadata { "open" } else { "closed" };
    run.push(format!(
        "systemd-run --unit=wharfinger-first-contact /bin/sh {FIRST_CONTACT} {kind} {} {metadata}",
        quote(user)
    ));
    run.extend(config.setup.iter().cloned());
    let data = json!({
        "ssh_deletekeys": true,
        "ssh_genkeytypes": [],
        "ssh_keys": { format!("{kind}_private"): host_key.private, format!("{kind}_public"): host_key.public },
        "disable_root": user != "root",
        "users": ["default", { "name": user, "ssh_authorized_keys": [authorized] }],
        "write_files": [{ "path": FIRST_CONTACT, "permissions": "0700", "content": include_str!("sh/first_contact.sh") }],
        "runcmd": run,
    });
    let text = format!("#cloud-config\n{data:#}\n");
    if text.len() > BYTES_MAX {
        let text = format!(
            "the user data has {} bytes, and EC2's maximum is {BYTES_MAX}; shorten `setup`, or move it into the image",
            text.len()
        );
        return Err(Failure::configuration("USER_DATA_TOO_LONG", text));
    }
    Ok(text)
}

/// Returns the command that runs on the host every few seconds over the kept connection. It touches the heartbeat file, asks the metadata
/// service, and prints its announcement as a line of [`wharfinger_host::announce`]. It fails without a clear answer, and the
/// previous announcement stays.
///
/// `WHARFINGER_IMDS` and `WHARFINGER_SEEN` are for hosts outside of EC2.
pub(crate) fn imds_command(imds: &str) -> String {
    // The address is text of the configuration, so it is an argument.
    format!("set -- {} {}\n{ANNOUNCED}", quote(imds), quote(HEARTBEAT))
}

/// Returns the command that prints the instance's id.
pub(crate) fn identity_command(imds: &str) -> String {
    format!("set -- {}\n{IDENTITY}", quote(imds))
}

const ANNOUNCED: &str =
    concat!(include_str!("sh/seen.sh"), include_str!("sh/imds.sh"), include_str!("sh/announced.sh"));

const IDENTITY: &str = concat!(include_str!("sh/imds.sh"), include_str!("sh/identity.sh"));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::GOOD;

    #[test]
    fn user_data_has_one_host_key_one_user_and_the_backstop() {
        let mut config: Config = toml::from_str(GOOD).unwrap();
        config.setup = vec!["echo '\"}]' # no way out".into()];
        let key = HostKey { private: "-----BEGIN\nsecret".into(), public: "ssh-ed25519 AAAA".into() };
        let text = user_data(&config, &key, "ssh-ed25519 BBBB").unwrap();
        let body: serde_json::Value = serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        assert_eq!(body["ssh_keys"]["ed25519_private"], "-----BEGIN\nsecret");
        assert_eq!(body["users"][1]["ssh_authorized_keys"][0], "ssh-ed25519 BBBB");
        let run = body["runcmd"].as_array().unwrap();
        assert!(run[1].as_str().unwrap().contains("-mmin -360"), "{run:?}");
        assert_eq!(
            run[2],
            format!("systemd-run --unit=wharfinger-first-contact /bin/sh {FIRST_CONTACT} ed25519 build closed")
        );
        assert_eq!(body["write_files"][0]["path"], FIRST_CONTACT);
        assert_eq!(run[3], "echo '\"}]' # no way out");
        let kept = stored(&config, &key, "ssh-ed25519 BBBB").unwrap();
        assert!(!kept.contains("secret") && kept.contains("ssh-ed25519 AAAA"), "{kept}");
        assert_eq!(filled(&kept, &key), text);
        assert_eq!(filled(&text, &key), text, "what an older version stored");
        let ecdsa = HostKey { private: "secret".into(), public: "ecdsa-sha2-nistp256 AAAA".into() };
        let kept = stored(&config, &ecdsa, "ssh-ed25519 BBBB").unwrap();
        assert!(kept.contains("\"ecdsa_private\": \"@HOST_KEY@\"") && !kept.contains("ed25519_p"), "{kept}");
        assert_eq!(filled(&kept, &ecdsa), user_data(&config, &ecdsa, "ssh-ed25519 BBBB").unwrap());
        config.backstop_minutes = 0;
        assert!(!user_data(&config, &key, "k").unwrap().contains("poweroff"));
        config.setup = vec!["x".repeat(17_000)];
        assert_eq!(user_data(&config, &key, "k").unwrap_err().reason, "USER_DATA_TOO_LONG");
    }
}
