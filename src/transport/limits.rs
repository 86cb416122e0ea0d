//! Every bound of the room with the why of its number, and QUIC's parameters made of them.

use std::time::Duration;

use quinn::{TransportConfig, VarInt};

/// Longest handshake: first packets lost three times (1 + 2 + 4 s), and a slow Pi to answer. A command that joins
/// a swarm prints `pending` after the same 10 s.
pub const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Handshakes under way, for us to answer, from which on an unproven address must first answer a Retry. A LAN that
/// wakes at once stays below it and saves the round trip; a flood of forged addresses costs no state above it.
pub const HALF_OPEN_RETRY: usize = 32;

/// Handshakes under way beyond which attempts are ignored; an honest peer asks again within the second. Each holds
/// at most about 100 KiB.
pub const HALF_OPEN_MAX: usize = 128;

/// Attempts that wait to be accepted. Each holds one datagram, and what follows it, see below.
const INCOMING_MAX: usize = 256;

/// Bytes kept for one attempt that waits: a client hello of ours is one datagram, the rest are repetitions.
const INCOMING_BYTES_MAX: u64 = 16 << 10;

/// Bytes kept for all attempts that wait.
const INCOMING_BYTES_TOTAL_MAX: u64 = 512 << 10;

/// Silence after which a connection counts as broken. It begins anew with our own next sign of life (RFC 9000, 10.1), so a
/// peer that vanishes is gone after this and [`KEEP_ALIVE`] at the latest: a minute.
pub const IDLE_WAIT_MAX: Duration = Duration::from_secs(40);

/// Silence after which a sign of life is sent: one may be lost before [`IDLE_WAIT_MAX`], and most NATs forget a
/// UDP flow after 30 s.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Exchanges a peer may have open at once: a long poll, a heartbeat, some deliveries, with room for as many again.
/// quinn grants new ones only once more than an eighth of these are over, so at most 13 may stay open for long.
pub const EXCHANGES_MAX: u32 = 16;

/// Unread bytes of one stream: 10 MB/s at a round trip of 100 ms, far above what vectors of a Pi need.
pub(super) const STREAM_BYTES_MAX: u32 = 1 << 20;

/// Unread bytes of one connection. What a peer can make us keep: 256 peers that all do their worst cost 1 GiB, one
/// stuck stream does not block the others.
const CONNECTION_BYTES_MAX: u32 = 4 << 20;

/// Sent bytes that a peer has not yet acknowledged, and that we keep.
const UNACKNOWLEDGED_BYTES_MAX: u64 = 4 << 20;

/// Handshake bytes kept out of order: a whole flight of raw public keys has under 1 KiB.
const CRYPTO_BYTES_MAX: usize = 8 << 10;

/// Longest wait for a peer to grant one more stream; a peer that never does must not hold us.
pub(super) const OPEN_WAIT_MAX: Duration = Duration::from_secs(10);

/// Longest wait for peers to hear that we leave. The goodbye is sent at once; the rest of the time answers packets
/// that were under way.
pub(super) const DRAIN_WAIT_MAX: Duration = Duration::from_secs(1);

/// A frame up to this length needs no place of its own: with every stream of 256 peers that comes to 208 MiB at worst,
/// and nearly all messages are shorter.
pub(super) const SHORT_FRAME_BYTES_MAX: usize = 64 << 10;

/// Bytes of longer frames that are kept at once, all peers together, until what they ask is answered: hundreds of usual
/// results, or five of the longest.
pub(super) const LONG_FRAMES_BYTES_MAX: usize = 64 << 20;

/// No frame is longer, whatever its reader takes; and one peer's long frames together have no more. The longest message has
/// 12 MiB, so that one never waits for itself, and it takes four peers that do their worst to keep others waiting.
pub const FRAME_BYTES_MAX: usize = LONG_FRAMES_BYTES_MAX / 4;

/// The least rate at which a frame is waited for beyond its wait: 1 Mbit/s, shared by four results on their way. The longest
/// message takes six and a half minutes then.
pub(super) const FRAME_BYTES_PER_S_MIN: u64 = 32 << 10;

/// Bytes taken from a stream in one step: a frame's memory grows by no more than has arrived.
pub(super) const PIECE_BYTES_MAX: usize = 64 << 10;

/// Parameters of every connection, dialled or accepted.
///
/// MTU discovery stays on: it has no timer of its own, but rides on packets that go out anyway, so an idle node does
/// not wake for it.
pub(super) fn connections() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(EXCHANGES_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_WAIT_MAX.as_millis() as u32).into()))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_BYTES_MAX))
        .receive_window(VarInt::from_u32(CONNECTION_BYTES_MAX))
        .send_window(UNACKNOWLEDGED_BYTES_MAX)
        .crypto_buffer_size(CRYPTO_BYTES_MAX)
        // It tells an onlooker the round trip, and us nothing.
        .allow_spin(false);
    config
}

/// Bounds what waits before anybody has looked at it.
pub(super) fn incoming(server: &mut quinn::ServerConfig) {
    server
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
}
