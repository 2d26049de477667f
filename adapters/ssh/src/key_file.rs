//! Files of private keys, looked at before they are read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use wharfinger_adapter::settings::ConfigProblem;

/// The fault of a file that should hold a private key, and its remedy.
pub fn key_file_problem(path: &Path) -> Option<ConfigProblem> {
    let name = path.display();
    let unreadable = |error: std::io::Error| {
        ConfigProblem::new(format!("the key file {name} cannot be read: {error}"), "let the broker's user read it")
    };
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let remedy = format!("make one with: ssh-keygen -t ed25519 -f {name}");
            return Some(ConfigProblem::new(format!("the key file {name} does not exist"), remedy));
        }
        Err(error) => return Some(unreadable(error)),
    };
    if !meta.is_file() {
        let remedy = "name the file with the private key";
        return Some(ConfigProblem::new(format!("the key file {name} is not a file"), remedy));
    }
    let mut head = Vec::new();
    if let Err(error) = File::open(path).and_then(|file| file.take(32).read_to_end(&mut head)) {
        return Some(unreadable(error));
    }
    if ["ssh-", "ecdsa-sha2-", "sk-"].iter().any(|kind| head.starts_with(kind.as_bytes())) {
        let private = path.with_extension("");
        let remedy = format!("name the file with the private key: {}", private.display());
        return Some(ConfigProblem::new(format!("the key file {name} holds a public key"), remedy));
    }
    let mode = meta.permissions().mode() & 0o777;
    // The group may read the file: so are secrets mounted into containers.
    if mode & 0o027 != 0 {
        let message = format!("the key file {name} has mode {mode:04o}, so others may use it");
        return Some(ConfigProblem::new(message, format!("run: chmod 600 {name}")));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let fault = |path: &Path| {
            let shown = |text: &str| text.replace(&folder.path().display().to_string(), "F");
            key_file_problem(path).map(|problem| (shown(&problem.message), shown(&problem.remedy)))
        };
        let some = |message: &str, remedy: &str| Some((message.to_string(), remedy.to_string()));
        let wanted = some("the key file F/key does not exist", "make one with: ssh-keygen -t ed25519 -f F/key");
        assert_eq!(fault(&path), wanted);
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let wanted = some("the key file F/key has mode 0644, so others may use it", "run: chmod 600 F/key");
        assert_eq!(fault(&path), wanted);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(fault(&path), None);
        let wanted = some("the key file F is not a file", "name the file with the private key");
        assert_eq!(fault(folder.path()), wanted);
        let public = folder.path().join("key.pub");
        std::fs::write(&public, "ssh-ed25519 AAAA me@here\n").unwrap();
        let wanted = some("the key file F/key.pub holds a public key", "name the file with the private key: F/key");
        assert_eq!(fault(&public), wanted);
    }
}
