//! Every id is bytes with a type of its own, so that a run is never taken for a model.

use std::fmt;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};

/// Why a text is no id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdError {
    /// A peer or swarm id is 52 characters of lower-case base32 (RFC 4648 without padding), that of an invite 26.
    #[error("a {kind} id has {wanted} characters of a-z and 2-7, this has {found}")]
    Length {
        /// What it is the id of.
        kind: &'static str,
        /// Characters that such an id has.
        wanted: usize,
        /// Characters found.
        found: usize,
    },
    /// A character outside the alphabet, or bits set behind the last byte.
    #[error("character {at} is none that a {kind} id has")]
    Character {
        /// What it is the id of.
        kind: &'static str,
        /// Position, counted from 1.
        at: usize,
    },
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident[$bytes:literal]) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Takes the bytes as they are.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The bytes, in the order in which they are stored and sent.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

id! {
    /// Ed25519 public key of a peer. Shown as 52 characters of lower-case base32.
    PeerId[32]
}
id! {
    /// BLAKE3 of all that decides a segment's result: text, options, chunker, model. Shown in hex.
    ContentKey[32]
}
id! {
    /// BLAKE3 of all that decides a model's vectors: graph, tokenizer, limits. Shown in hex.
    ModelHash[32]
}
id! {
    /// BLAKE3 of what a run was asked: inputs, options, model. The same command has the same id. Shown in hex.
    RunId[32]
}

id! {
    /// BLAKE3 of a swarm's founding, and so bound to its founder's key. Shown as 52 characters of lower-case base32.
    SwarmId[32]
}
id! {
    /// Random bytes that name an invite. Shown as 26 characters of lower-case base32.
    InviteId[16]
}

macro_rules! base32_display {
    ($($name:ident, $kind:literal, $characters:literal;)*) => { $(
        impl $name {
            /// What people read in tables: the first 8 characters.
            pub fn short(&self) -> String {
                self.to_string()[..8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let (kind, wanted) = ($kind, $characters);
                if text.len() != wanted {
                    return Err(IdError::Length { kind, wanted, found: text.chars().count() });
                }
                if let Some(at) = text.bytes().position(|b| !matches!(b, b'a'..=b'z' | b'2'..=b'7')) {
                    return Err(IdError::Character { kind, at: at + 1 });
                }
                let bytes = BASE32_NOPAD
                    .decode(text.to_ascii_uppercase().as_bytes())
                    .map_err(|error| IdError::Character { kind, at: error.position + 1 })?;
                bytes.try_into().map(Self).map_err(|_| IdError::Length { kind, wanted, found: text.len() })
            }
        }
    )* };
}
base32_display! {
    PeerId, "peer", 52;
    SwarmId, "swarm", 52;
    InviteId, "invite", 26;
}

macro_rules! hex_display {
    ($($name:ident),*) => { $(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&HEXLOWER.encode(&self.0))
            }
        }
    )* };
}
hex_display!(ContentKey, ModelHash, RunId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_reads_what_it_wrote() {
        let id = PeerId::from_bytes([7; 32]);
        let text = id.to_string();
        assert_eq!(text.len(), 52);
        assert_eq!(text, "a4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dq");
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(id.short(), "a4dqobyh");
    }

    #[test]
    fn a_wrong_peer_id_says_where() {
        assert_eq!("abc".parse::<PeerId>(), Err(IdError::Length { kind: "peer", wanted: 52, found: 3 }));
        let mut text = PeerId::from_bytes([7; 32]).to_string();
        text.replace_range(4..5, "!");
        assert_eq!(text.parse::<PeerId>(), Err(IdError::Character { kind: "peer", at: 5 }));
        // 52 characters carry 260 bits: the last four must be zero, or one key would have two names.
        let mut text = PeerId::from_bytes([7; 32]).to_string();
        text.replace_range(51..52, "b");
        assert!(text.parse::<PeerId>().is_err());
        assert!("é".repeat(26).parse::<PeerId>().is_err());
    }

    #[test]
    fn ids_of_swarms_and_invites_read_what_they_wrote() {
        let (swarm, invite) = (SwarmId::from_bytes([9; 32]), InviteId::from_bytes([9; 16]));
        assert_eq!(swarm.to_string().parse(), Ok(swarm));
        assert_eq!(invite.to_string().parse(), Ok(invite));
        assert_eq!(invite.to_string(), "beeqscijbeeqscijbeeqscijbe");
        assert_eq!(
            swarm.to_string().parse::<InviteId>(),
            Err(IdError::Length { kind: "invite", wanted: 26, found: 52 })
        );
    }
}
