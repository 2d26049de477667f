//! Files of certificates, keys and revocation lists in PEM (RFC 7468).

use crate::problem::{Setting, TlsProblem};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Maximum length of a file, in bytes. The bundle of a large farm has some 100 KiB.
const LARGEST: u64 = 4 * 1024 * 1024;
/// O_NONBLOCK of Linux: a FIFO in place of a file must not hang its reader.
const NONBLOCK: i32 = 0o4000;

/// The bytes of all files of one load. Parsing reads from here, so that a file that changes meanwhile is not read twice.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    bytes: BTreeMap<PathBuf, Vec<u8>>,
}

impl Files {
    /// Reads these files. A private key that other users may read is refused.
    pub(crate) fn read<'a>(list: impl IntoIterator<Item = (Setting, &'a Path)>) -> Result<Self, TlsProblem> {
        let mut bytes = BTreeMap::new();
        for (setting, path) in list {
            bytes.insert(path.to_path_buf(), read(setting, path)?);
        }
        Ok(Files { bytes })
    }

    /// SHA-256 over all files.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for (path, content) in &self.bytes {
            digest.update(path.as_os_str().as_encoded_bytes());
            digest.update((content.len() as u64).to_be_bytes());
            digest.update(content);
        }
        digest.finalize().into()
    }

    fn of(&self, path: &Path) -> &[u8] {
        self.bytes.get(path).map(Vec::as_slice).unwrap_or_default()
    }

    /// At least one certificate.
    pub(crate) fn certificates(
        &self,
        setting: Setting,
        path: &Path,
    ) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.of(path)).collect();
        match parsed {
            Ok(list) if !list.is_empty() => Ok(list),
            Ok(_) => Err(no_pem(setting, path, "CERTIFICATE")),
            Err(error) => Err(bad_pem(setting, path, &error)),
        }
    }

    /// The first private key.
    pub(crate) fn key(&self, path: &Path) -> Result<PrivateKeyDer<'static>, TlsProblem> {
        match PrivateKeyDer::from_pem_slice(self.of(path)) {
            Ok(key) => Ok(key),
            Err(rustls::pki_types::pem::Error::NoItemsFound) => Err(no_pem(Setting::Key, path, "PRIVATE KEY")),
            Err(error) => Err(bad_pem(Setting::Key, path, &error)),
        }
    }

    /// At least one revocation list.
    pub(crate) fn lists(&self, path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsProblem> {
        let parsed: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(self.of(path)).collect();
        match parsed {
            Ok(list) if !list.is_empty() => Ok(list),
            Ok(_) => Err(no_pem(Setting::Crl, path, "X509 CRL")),
            Err(error) => Err(bad_pem(Setting::Crl, path, &error)),
        }
    }
}

fn no_pem(setting: Setting, path: &Path, kind: &str) -> TlsProblem {
    TlsProblem::file(
        setting,
        path,
        format!("has no block \"-----BEGIN {kind}-----\""),
        "write it in PEM, unencrypted; openssl converts other forms",
    )
}

fn bad_pem(setting: Setting, path: &Path, error: &rustls::pki_types::pem::Error) -> TlsProblem {
    TlsProblem::file(setting, path, format!("is not PEM ({error:?})"), "write the whole file anew, in PEM")
}

fn read(setting: Setting, path: &Path) -> Result<Vec<u8>, TlsProblem> {
    let unreadable = |error: std::io::Error| {
        TlsProblem::file(
            setting,
            path,
            format!("cannot be read: {error}"),
            "let the user of this process read it, or correct the path",
        )
    };
    let file = std::fs::OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err(TlsProblem::file(setting, path, "is not a file", "name a file in PEM"));
    }
    if about.len() > LARGEST {
        let message = format!("has {} bytes; at most {LARGEST} are read", about.len());
        return Err(TlsProblem::file(setting, path, message, "name a file in PEM"));
    }
    if setting == Setting::Key {
        let mode = about.permissions().mode() & 0o777;
        // Its group may read a key of root: the user of a service is in it.
        let allowed = if about.uid() == 0 { 0o640 } else { 0o600 };
        if mode & !allowed != 0 {
            let message = format!("has mode {mode:04o}, so that other users can read or write it");
            return Err(TlsProblem::file(setting, path, message, format!("chmod {allowed:04o} {}", path.display())));
        }
    }
    let mut content = Vec::new();
    file.take(LARGEST).read_to_end(&mut content).map_err(unreadable)?;
    Ok(content)
}
