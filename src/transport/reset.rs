//! What lets a peer notice at once that this node has been started anew: stateless resets (RFC 9000 §10.3) whose tokens
//! follow from the identity, so that the next life of the process can give those of the one before.

use std::{sync::Arc, time::Duration};

use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig,
    crypto::{CryptoError, HmacKey},
};

/// Bytes of our connection ids.
const CID_BYTES: usize = 8;
/// Between two resets: a flood of rubbish is answered fifty times a second, each time with less than it sent.
const RESET_MIN: Duration = Duration::from_millis(20);

/// What tokens are made with, derived from the identity's secret.
#[derive(Clone)]
pub(super) struct ResetKey([u8; 32]);

impl ResetKey {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self(blake3::derive_key("edge 2026-11 tokens of stateless resets, version 1", secret))
    }

    /// QUIC's settings of an endpoint; `drawn` must be new for each.
    pub(super) fn endpoint(&self, drawn: [u8; 32]) -> EndpointConfig {
        let mut config = EndpointConfig::new(Arc::new(self.clone()));
        config.min_reset_interval(RESET_MIN).cid_generator(move || Box::new(Cids { key: drawn, next: 0 }));
        config
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // Hashes are compared in the same time whatever they are.
        let signature = blake3::Hash::from_slice(signature).map_err(|_| CryptoError)?;
        if blake3::keyed_hash(&self.0, data) == signature { Ok(()) } else { Err(CryptoError) }
    }
}

/// Connection ids that tell an onlooker nothing, not even which of them are one node's. quinn's own would not be known
/// again by the next life, which then sends no reset.
struct Cids {
    key: [u8; 32],
    next: u64,
}

impl ConnectionIdGenerator for Cids {
    fn generate_cid(&mut self) -> ConnectionId {
        let hash = blake3::keyed_hash(&self.key, &self.next.to_le_bytes());
        self.next += 1;
        ConnectionId::new(&hash.as_bytes()[..CID_BYTES])
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
