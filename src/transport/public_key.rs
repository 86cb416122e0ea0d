//! Ed25519 public keys as TLS shows them: the SubjectPublicKeyInfo of RFC 8410, to the byte.
//!
//! No ASN.1 parser: there is one way to write such a key, and all others are refused.

use ed25519_dalek::{Signature, VerifyingKey};

use crate::wire::PeerId;

/// SEQUENCE of 42 bytes { SEQUENCE { OID 1.3.101.112 }, BIT STRING of 32 bytes }: RFC 8410 §4.
const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The 44 bytes that show `peer`'s key.
pub(super) fn to_spki(peer: &PeerId) -> Vec<u8> {
    [&PREFIX[..], peer.as_bytes()].concat()
}

/// The key in `spki`; none if it is not exactly an Ed25519 key, or one of the few with which a signature proves
/// nothing (RFC 8032 §5.1.7 leaves these to the reader).
pub(super) fn from_spki(spki: &[u8]) -> Option<VerifyingKey> {
    let bytes: &[u8; 32] = spki.strip_prefix(&PREFIX)?.try_into().ok()?;
    VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak())
}

/// The peer whose key is in `spki`, under the rules of [`from_spki`].
pub(super) fn peer_from_spki(spki: &[u8]) -> Option<PeerId> {
    from_spki(spki).map(|key| PeerId::from_bytes(key.to_bytes()))
}

/// The peer that signed `message`; none if the key or the signature is not in order.
pub(super) fn signer(spki: &[u8], message: &[u8], signature: &[u8]) -> Option<PeerId> {
    let key = from_spki(spki)?;
    key.verify_strict(message, &Signature::from_slice(signature).ok()?).ok()?;
    Some(PeerId::from_bytes(key.to_bytes()))
}

#[cfg(test)]
mod tests {
    use data_encoding::{BASE64, HEXLOWER};
    use ed25519_dalek::{Signer, SigningKey};
    use proptest::prelude::*;

    use super::*;

    /// RFC 8410 §10.1.
    const RFC_8410: &str = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";

    #[test]
    fn the_example_of_rfc_8410_is_read_and_written() {
        let spki = BASE64.decode(RFC_8410.as_bytes()).unwrap();
        let peer = peer_from_spki(&spki).unwrap();
        assert_eq!(
            HEXLOWER.encode(peer.as_bytes()),
            "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"
        );
        assert_eq!(to_spki(&peer), spki);
    }

    #[test]
    fn every_other_byte_string_is_refused() {
        let spki = BASE64.decode(RFC_8410.as_bytes()).unwrap();
        for at in 0..PREFIX.len() {
            let mut wrong = spki.clone();
            wrong[at] ^= 1;
            assert_eq!(peer_from_spki(&wrong), None, "byte {at}");
        }
        assert_eq!(peer_from_spki(&spki[..43]), None);
        assert_eq!(peer_from_spki(&[&spki[..], &[0]].concat()), None);
        assert_eq!(peer_from_spki(&[]), None);
    }

    #[test]
    fn keys_of_small_order_are_refused() {
        // The points of order 1, 2, 4, 8, and two ways to write the neutral one that RFC 8032 forbids.
        for key in [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "0100000000000000000000000000000000000000000000000000000000000080",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ] {
            let bytes: [u8; 32] = HEXLOWER.decode(key.as_bytes()).unwrap().try_into().unwrap();
            assert_eq!(from_spki(&to_spki(&PeerId::from_bytes(bytes))), None, "{key}");
        }
    }

    #[test]
    fn only_the_holder_signs() {
        let (holder, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let peer = PeerId::from_bytes(holder.verifying_key().to_bytes());
        let spki = to_spki(&peer);
        let signature = holder.sign(b"message").to_bytes();
        assert_eq!(signer(&spki, b"message", &signature), Some(peer));
        assert_eq!(signer(&spki, b"another", &signature), None);
        assert_eq!(signer(&spki, b"message", &other.sign(b"message").to_bytes()), None);
        assert_eq!(signer(&spki, b"message", &signature[..63]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(spki in prop::collection::vec(any::<u8>(), 0..80), tail in any::<[u8; 32]>(), signature in prop::collection::vec(any::<u8>(), 60..70)) {
            signer(&spki, b"message", &signature);
            prop_assert_eq!(signer(&to_spki(&PeerId::from_bytes(tail)), b"message", &signature), None);
        }
    }
}
