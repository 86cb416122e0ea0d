//! Bytes that outlive the connection they came by, with the signature of whoever stands for them.
//!
//! Deliberately absent: who may sign what. The signer is named by whoever opens; see `swarm` for the chain of right.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned};

use super::PeerId;

/// Longest body that is read at all, in bytes: a notice that lists 1,024 members, with all that it may put out and
/// revoke, takes 47 KiB.
pub const SIGNED_BYTES_MAX: usize = 48 * 1024;

/// A type that is signed: what keeps one kind's signature from being shown for another's.
pub trait SignedKind {
    /// Goes into what is signed; no two types share one, and none holds a zero byte.
    const KIND: &'static str;
    /// First byte of the body.
    const VERSION: u8;
    /// Longest body, in bytes; at most [`SIGNED_BYTES_MAX`].
    const BYTES_MAX: usize;
}

/// Why signed bytes do not open.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SignedError {
    /// Longer than its kind ever is.
    #[error("a signed {kind} of {bytes} bytes is longer than {bytes_max}")]
    TooLong {
        /// What it was opened as.
        kind: &'static str,
        /// Length found.
        bytes: usize,
        /// Length allowed.
        bytes_max: usize,
    },
    /// The id of the signer is no public key at all.
    #[error("{by} is no public key")]
    Key {
        /// Who was said to have signed.
        by: PeerId,
    },
    /// Somebody else signed, or other bytes, or another kind.
    #[error("the {kind} is not signed by {}", by.short())]
    Signature {
        /// What it was opened as.
        kind: &'static str,
        /// Who was said to have signed.
        by: PeerId,
    },
    /// Signed by another edge. Newer ones are refused, never guessed at.
    #[error("the {kind} has version {found}, this edge reads version {known}")]
    Version {
        /// What it was opened as.
        kind: &'static str,
        /// Version found.
        found: u8,
        /// Version that this program reads.
        known: u8,
    },
    /// The signature holds but the body is none of this type: a bug of whoever signed it.
    #[error("the {kind} does not decode")]
    Decode {
        /// What it was opened as.
        kind: &'static str,
        /// What postcard says.
        #[source]
        source: postcard::Error,
    },
    /// Bytes behind the body, which postcard would silently drop.
    #[error("the {kind} has {bytes} bytes too many")]
    Trailing {
        /// What it was opened as.
        kind: &'static str,
        /// Bytes behind the body.
        bytes: usize,
    },
}

/// A version byte, the postcard bytes of one value, and an Ed25519 signature over
/// `edge/1 KIND\0` and exactly these. Version 1, frozen.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    #[serde(deserialize_with = "bounded_body")]
    body: Vec<u8>,
    #[serde(with = "halves")]
    signature: [u8; 64],
}

impl Signed {
    /// Signs `value`. The same value under the same key gives the same bytes.
    pub fn sign<T: SignedKind + Serialize>(key: &SigningKey, value: &T) -> Self {
        #[expect(clippy::expect_used, reason = "a Vec grows, and no signed type refuses serialisation")]
        let body = postcard::to_extend(value, vec![T::VERSION]).expect("plain data always encodes");
        let signature = key.sign(&message::<T>(&body)).to_bytes();
        Self { body, signature }
    }

    /// The value, if `by` signed it. Nothing is decoded before the signature holds (`verify_strict`).
    ///
    /// # Errors
    /// [`SignedError`], in the order of its variants.
    pub fn open<T: SignedKind + DeserializeOwned>(&self, by: &PeerId) -> Result<T, SignedError> {
        let kind = T::KIND;
        if self.body.len() > T::BYTES_MAX {
            return Err(SignedError::TooLong { kind, bytes: self.body.len(), bytes_max: T::BYTES_MAX });
        }
        let key = VerifyingKey::from_bytes(by.as_bytes()).map_err(|_| SignedError::Key { by: *by })?;
        key.verify_strict(&message::<T>(&self.body), &Signature::from_bytes(&self.signature))
            .map_err(|_| SignedError::Signature { kind, by: *by })?;
        let (found, rest) = self.body.split_first().map_or((0, &[][..]), |(found, rest)| (*found, rest));
        if found != T::VERSION {
            return Err(SignedError::Version { kind, found, known: T::VERSION });
        }
        match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(SignedError::Trailing { kind, bytes: rest.len() }),
            Err(source) => Err(SignedError::Decode { kind, source }),
        }
    }

    /// The signed bytes, for views that other programs verify.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The signature, for views that other programs verify.
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature
    }
}

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signed({} bytes)", self.body.len())
    }
}

fn message<T: SignedKind>(body: &[u8]) -> Vec<u8> {
    [b"edge/1 ", T::KIND.as_bytes(), b"\0", body].concat()
}

fn bounded_body<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let body = Vec::deserialize(from)?;
    if body.len() > SIGNED_BYTES_MAX {
        return Err(de::Error::invalid_length(body.len(), &"a signed body of at most 48 KiB"));
    }
    Ok(body)
}

/// Serde knows arrays up to 32: in postcard two halves are the same 64 bytes.
mod halves {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(signature: &[u8; 64], to: S) -> Result<S::Ok, S::Error> {
        let (mut r, mut s) = ([0; 32], [0; 32]);
        r.copy_from_slice(&signature[..32]);
        s.copy_from_slice(&signature[32..]);
        (r, s).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 64], D::Error> {
        let (r, s) = <([u8; 32], [u8; 32])>::deserialize(from)?;
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice(&s);
        Ok(signature)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note(u32, String);

    impl SignedKind for Note {
        const KIND: &'static str = "note";
        const VERSION: u8 = 1;
        const BYTES_MAX: usize = 16;
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Other(u32, String);

    impl SignedKind for Other {
        const KIND: &'static str = "other";
        const VERSION: u8 = 1;
        const BYTES_MAX: usize = 16;
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Newer(u32);

    impl SignedKind for Newer {
        const KIND: &'static str = "note";
        const VERSION: u8 = 2;
        const BYTES_MAX: usize = 16;
    }

    fn key() -> (SigningKey, PeerId) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let id = PeerId::from_bytes(key.verifying_key().to_bytes());
        (key, id)
    }

    #[test]
    fn opens_for_its_signer_and_kind_and_for_nobody_else() {
        let (key, id) = key();
        let signed = Signed::sign(&key, &Note(300, "hi".into()));
        assert_eq!(signed.open(&id), Ok(Note(300, "hi".into())));
        assert_eq!(signed.open::<Other>(&id), Err(SignedError::Signature { kind: "other", by: id }));
        let stranger = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        let by = PeerId::from_bytes(stranger);
        assert_eq!(signed.open::<Note>(&by), Err(SignedError::Signature { kind: "note", by }));
        // Of all 32 bytes about half are no point of the curve.
        let by = PeerId::from_bytes([2; 32]);
        assert_eq!(signed.open::<Note>(&by), Err(SignedError::Key { by }));
    }

    /// The neutral element as a key lets anybody sign anything, were the check not strict.
    #[test]
    fn a_weak_key_signs_nothing() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let by = PeerId::from_bytes(neutral);
        let mut signature = [0; 64];
        signature[0] = 1;
        let signed = Signed { body: vec![1, 1, 0], signature };
        assert_eq!(signed.open::<Note>(&by), Err(SignedError::Signature { kind: "note", by }));
    }

    #[test]
    fn what_is_signed_and_still_wrong_says_how() {
        let (key, id) = key();
        let newer = Signed::sign(&key, &Newer(300));
        assert_eq!(newer.open::<Note>(&id), Err(SignedError::Version { kind: "note", found: 2, known: 1 }));
        let long = Signed::sign(&key, &Note(1, "x".repeat(40)));
        assert_eq!(
            long.open::<Note>(&id),
            Err(SignedError::TooLong { kind: "note", bytes: 43, bytes_max: 16 })
        );
        let raw = |body: &[u8]| Signed {
            body: body.to_vec(),
            signature: key.sign(&message::<Note>(body)).to_bytes(),
        };
        assert_eq!(
            raw(&[]).open::<Note>(&id),
            Err(SignedError::Version { kind: "note", found: 0, known: 1 })
        );
        assert!(matches!(raw(&[1, 1, 9]).open::<Note>(&id), Err(SignedError::Decode { .. })));
        assert_eq!(
            raw(&[1, 1, 0, 5, 5]).open::<Note>(&id),
            Err(SignedError::Trailing { kind: "note", bytes: 2 })
        );
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let (key, id) = key();
        let bytes = postcard::to_allocvec(&Signed::sign(&key, &Note(300, "hi".into()))).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let opened = postcard::from_bytes::<Signed>(&wrong).map(|s| s.open::<Note>(&id).is_ok());
            assert_ne!(opened, Ok(true), "bit {bit}");
        }
    }

    /// These bytes cross sockets and lie on people's disks: a change here is a new version.
    #[test]
    fn bytes_of_version_1() {
        let bytes = postcard::to_allocvec(&Signed::sign(&key().0, &Note(300, "hi".into()))).unwrap();
        assert_eq!(
            HEXLOWER.encode(&bytes),
            "0601ac0202686952ab4cf697d85f6066589941e9aae028188477dd97935b9ae1a5ef121a1c5c7828fb41706c478c5bc1d3abc035c65b433eb223a7a12961f0dbd7e1a7d30ce80f"
        );
    }

    #[test]
    fn a_body_that_is_too_long_is_not_read() {
        let signed = Signed { body: vec![0; SIGNED_BYTES_MAX + 1], signature: [0; 64] };
        let bytes = postcard::to_allocvec(&signed).unwrap();
        assert!(postcard::from_bytes::<Signed>(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(signed) = postcard::from_bytes::<Signed>(&bytes) {
                prop_assert!(signed.open::<Note>(&key().1).is_err());
            }
            let signed = Signed { body: bytes.clone(), signature: [3; 64] };
            prop_assert!(signed.open::<Note>(&key().1).is_err());
            // Signed rightly and filled with anything: what decodes is refused or a value, never a panic.
            let signature = key().0.sign(&message::<Note>(&bytes)).to_bytes();
            let _ = Signed { body: bytes, signature }.open::<Note>(&key().1);
        }
    }
}
