//! The public pool: the one swarm that is open to all, so its id and its secret are known to all (DESIGN 2).
//!
//! Deliberately absent: members. Whoever shows the pool's tag is in it; nobody can be put out, and nothing of a closed
//! swarm follows from it.

use super::{SwarmId, SwarmSecret};

/// Stands for the pool wherever a swarm is named. No founding has this id: that would be 32 chosen bytes of BLAKE3.
pub const PUBLIC_SWARM: SwarmId = SwarmId::from_bytes(*b"edge/1 public pool: open to all.");

/// Its tags are made of this as those of any other swarm, so that a hello shows nobody else who is in it.
pub const PUBLIC_SECRET: SwarmSecret = SwarmSecret::from_bytes(*b"edge/1 public pool, not a secret");

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::wire::PeerId;

    /// Known to all: another one would be another pool.
    #[test]
    fn the_pool_is_frozen() {
        assert_eq!(PUBLIC_SWARM.to_string(), "mvsgozjpgeqha5lcnruwgidqn5xwyoran5ygk3raorxsaylmnqxa");
        let tag = PUBLIC_SECRET.tag(&[1; 32], &PeerId::from_bytes([2; 32]));
        assert_eq!(HEXLOWER.encode(&tag), "9aee63c8655f8bc58708ee8153c9a0fd");
    }
}
