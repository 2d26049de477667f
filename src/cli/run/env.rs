//! Facts of the lease for its command: the `WHARFINGER_*` variables.

use crate::cli::text;
use crate::pb;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use wharfinger_adapter::access;

/// The variables of every command that runs under a lease. `server`: the address of the API.
pub(crate) fn variables(lease: &pb::Lease, server: &str) -> BTreeMap<String, String> {
    let mut vars = BTreeMap::new();
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            vars.insert(format!("WHARFINGER_{name}"), value.to_string());
        }
    };
    put("LEASE", &lease.id);
    put("TOKEN", &lease.fencing_token.to_string());
    put("RESOURCE", &lease.resource_id);
    put("POOL", &lease.pool);
    put("SERVER", server);
    put("ENDS_AT", &lease.ends_at.as_ref().and_then(text::rfc3339).unwrap_or_default());
    let access = lease.access_pairs();
    let known = |key: &str| access.get(key).map(String::as_str).unwrap_or_default();
    put("PATH", known(access::PATH));
    put("COMMIT", known(access::COMMIT));
    put("BASE", known(access::BASE));
    put("FENCE", known(access::FENCE));
    put("ROOT", known(access::ROOT));
    for (key, commit) in access.iter().filter(|(key, _)| key.starts_with("commit.")) {
        put(&name(key), commit);
    }
    vars
}

/// As a shell takes it: `commit.my-lib` is `COMMIT_MY_LIB`.
fn name(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Those, and how to reach the resource: for a command that runs here and works there.
pub(crate) fn variables_with_access(lease: &pb::Lease, server: &str) -> BTreeMap<String, String> {
    let mut vars = variables(lease, server);
    // Without the key: builds print their environment, and a key belongs into a file (see [`KeyFile`]).
    vars.extend(lease.access_pairs().into_iter().map(|(key, value)| (format!("WHARFINGER_{}", name(&key)), value)));
    vars
}

/// The private key that came with a lease, in a file that only we can read; removed when dropped.
#[derive(Debug)]
pub(crate) struct KeyFile(PathBuf);

impl KeyFile {
    /// The variable that names it.
    pub(crate) const VARIABLE: &str = "WHARFINGER_PRIVATE_KEY_FILE";

    /// Writes it, if there is one.
    pub(crate) fn write(lease: &pb::Lease) -> std::io::Result<Option<Self>> {
        let Some(key) = lease.private_key() else { return Ok(None) };
        let folder = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = folder.join(format!("wharfinger-{}-{}.key", lease.id, std::process::id()));
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let written = Self(path);
        file.write_all(key.as_bytes())?;
        // ssh does not take a key without its last line break.
        if !key.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok(Some(written))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_knows_its_lease() {
        let access = [
            ("transport", "ssh"),
            ("path", "/srv/c"),
            ("address", "10.0.0.1"),
            ("host_key", "ssh-ed25519 AAAA"),
            ("fence", "/srv/.wharfinger/fence.0"),
            ("commit.my-lib", "abc"),
        ]
        .map(|(k, v)| (k.into(), v.into()));
        let lease = pb::Lease {
            id: "lse_1".into(),
            resource_id: "res_1".into(),
            pool: "work".into(),
            fencing_token: 7,
            access: Some(pb::Access::from_pairs(access.into())),
            ends_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            ..pb::Lease::default()
        };
        let vars = variables(&lease, "http://x:1");
        assert_eq!(
            vars.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
            [
                "WHARFINGER_COMMIT_MY_LIB=abc",
                "WHARFINGER_ENDS_AT=2023-11-14T22:13:20.000Z",
                "WHARFINGER_FENCE=/srv/.wharfinger/fence.0",
                "WHARFINGER_LEASE=lse_1",
                "WHARFINGER_PATH=/srv/c",
                "WHARFINGER_POOL=work",
                "WHARFINGER_RESOURCE=res_1",
                "WHARFINGER_SERVER=http://x:1",
                "WHARFINGER_TOKEN=7",
            ]
        );
        let vars = variables_with_access(&lease, "http://x:1");
        assert_eq!(vars["WHARFINGER_HOST_KEY"], "ssh-ed25519 AAAA");
        assert_eq!(vars["WHARFINGER_ADDRESS"], "10.0.0.1");
    }
    #[test]
    fn a_key_is_in_a_file_and_not_in_the_environment() {
        use std::os::unix::fs::PermissionsExt;
        let credentials = Some(pb::Credentials { private_key: "secret".into() });
        let lease = pb::Lease { id: "lse_key".into(), credentials, ..pb::Lease::default() };
        assert!(variables_with_access(&lease, "").values().all(|value| !value.contains("secret")));
        let file = KeyFile::write(&lease).unwrap().unwrap();
        let path = file.path();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "secret\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(file);
        assert!(!std::path::Path::new(&path).exists());
        assert!(KeyFile::write(&pb::Lease::default()).unwrap().is_none());
    }
}
