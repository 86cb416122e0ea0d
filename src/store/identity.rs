//! The Ed25519 key of a node, in a file of its own with mode 0600.
//!
//! The file is PKCS#8 PEM (RFC 8410), so that `openssl pkey -in identity.pem -noout -text` reads it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use ed25519_dalek::{
    SigningKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey},
};

use super::sync_folder;
use crate::wire::PeerId;

const FILE: &str = "identity.pem";
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// A key in PEM takes 167 bytes; a much longer file is something else.
const FILE_BYTES_MAX: u64 = 4096;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file can not be read or made.
    #[error("cannot {action} the identity {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The key file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others could read the key.
    #[error("the identity {0} can be read by others (mode {1:04o}): if nobody has, run `chmod 600 {0}`; else remove it, and edge makes a new one", path.display(), mode)]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no key.
    #[error("the identity {} holds no Ed25519 key in PKCS#8 PEM; restore it from a copy, or remove it and edge makes a new one", path.display())]
    Malformed {
        /// The key file.
        path: PathBuf,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes for a new identity")]
    Entropy(#[source] getrandom::Error),
}

impl IdentityError {
    /// Whether there simply is no identity yet.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io { action: "read", source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A key pair, and the peer that it makes.
pub struct Identity {
    key: SigningKey,
}

impl Identity {
    /// Reads the identity of a data directory.
    ///
    /// # Errors
    /// [`IdentityError`]; an absent one is [`io::ErrorKind::NotFound`] in `Io`.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        let path = directory.join(FILE);
        let io = |source| IdentityError::Io { action: "read", path: path.clone(), source };
        let metadata = fs::metadata(&path).map_err(io)?;
        if metadata.len() > FILE_BYTES_MAX {
            return Err(IdentityError::Malformed { path });
        }
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Exposed { path, mode });
        }
        let bytes = fs::read(&path).map_err(io)?;
        match parse(&bytes) {
            Some(key) => Ok(Self { key }),
            None => Err(IdentityError::Malformed { path }),
        }
    }

    /// Reads the identity of a data directory, or makes one there. A crash in between leaves none or a
    /// whole one.
    ///
    /// # Errors
    /// [`IdentityError`]; a damaged key is never replaced.
    pub fn load_or_create(directory: &Path) -> Result<Self, IdentityError> {
        match Self::load(directory) {
            Err(error) if error.is_absent() => {}
            other => return other,
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(IdentityError::Entropy)?;
        let identity = Self { key: SigningKey::from_bytes(&seed) };
        identity.write(directory)?;
        Ok(identity)
    }

    /// The public half.
    /// The key pair, for who signs and proves: it must not leave the process.
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// The peer.
    pub fn peer_id(&self) -> PeerId {
        PeerId::from_bytes(self.key.verifying_key().to_bytes())
    }

    /// A key that is given.
    #[cfg(test)]
    pub(super) fn of(key: SigningKey) -> Self {
        Self { key }
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), IdentityError> {
        let path = directory.join(FILE);
        let io = |source| IdentityError::Io { action: "make", path: path.clone(), source };
        #[expect(clippy::expect_used, reason = "32 bytes always encode")]
        let der = self.key.to_pkcs8_der().expect("an Ed25519 key encodes");
        let pem = format!("{BEGIN}\n{}\n{END}\n", BASE64.encode(der.as_bytes()));
        let new = directory.join(format!("{FILE}.new"));
        // Left behind by a crash, if at all: never a key that anybody has seen.
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(io)?;
        file.write_all(pem.as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)?;
        fs::rename(&new, &path).map_err(io)?;
        sync_folder(directory).map_err(io)
    }
}

fn parse(pem: &[u8]) -> Option<SigningKey> {
    let text = std::str::from_utf8(pem).ok()?;
    let body: String = text.trim().strip_prefix(BEGIN)?.strip_suffix(END)?.split_whitespace().collect();
    SigningKey::from_pkcs8_der(&BASE64.decode(body.as_bytes()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_identity_persists_with_mode_0600() {
        let directory = tempfile::tempdir().unwrap();
        let made = Identity::load_or_create(directory.path()).unwrap().peer_id();
        assert_eq!(Identity::load_or_create(directory.path()).unwrap().peer_id(), made);
        let mode = fs::metadata(directory.path().join(FILE)).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn a_wrong_key_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let made = Identity::load_or_create(directory.path()).unwrap().peer_id();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load_or_create(directory.path()).err().unwrap().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Identity::load(directory.path()).unwrap().peer_id(), made);
        for wrong in ["", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----", &"x".repeat(10_000)] {
            fs::write(&path, wrong).unwrap();
            let error = Identity::load_or_create(directory.path()).err().unwrap();
            assert!(matches!(error, IdentityError::Malformed { .. }), "{error}");
            assert_eq!(fs::read(&path).unwrap(), wrong.as_bytes());
        }
    }
}
