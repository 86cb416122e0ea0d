//! One exchange = one bidirectional stream of length-delimited frames: u32, big endian, then that many bytes.

use std::time::Duration;

use quinn::{ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    TransportError,
    limits::{FRAME_BYTES_MAX, PIECE_BYTES_MAX},
    memory::{Place, Share},
    patience::Patience,
};

/// Bytes of the length before a frame.
const PREFIX_BYTES: usize = 4;

/// Stream code: this side has no more interest.
const GIVEN_UP: VarInt = VarInt::from_u32(0);

/// Stream code: this side does not do what was asked.
const DECLINED: VarInt = VarInt::from_u32(1);

/// Both directions of one stream. Dropping it gives up what is not finished: the peer sees a reset, not an end.
#[derive(Debug)]
pub struct Exchange {
    send: SendStream,
    receive: RecvStream,
    outbound: Outbound,
    inbound: Inbound,
    share: Share,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outbound {
    /// Between two frames.
    Open,
    /// A frame was begun. Where this is found at the start of another, the first was cancelled.
    WithinFrame,
    Ended,
}

/// What has arrived of the next frame. It outlives a cancelled or timed-out receive.
#[derive(Debug, Default)]
struct Inbound {
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    body: Vec<u8>,
    /// Where a long frame lies: from before it grows until the next one is read or the exchange ends, for all that time
    /// what was made of it lies in memory.
    place: Option<Place>,
    /// QUIC tells of a reset once, and of an end from then on: the two must not be confused.
    failed: bool,
}

impl Exchange {
    pub(super) fn new(send: SendStream, receive: RecvStream, share: Share) -> Self {
        Self { send, receive, outbound: Outbound::Open, inbound: Inbound::default(), share }
    }

    /// Sends one frame of at most `bytes_max` bytes. After `wait` it must have been taken over by QUIC, which a peer that
    /// does not read prevents; a long one has more time, as long as it moves. Delivery is not awaited.
    ///
    /// Not cancel safe: a frame that was begun and not ended, by cancelling or by time-out, ends this direction.
    ///
    /// # Errors
    /// [`TransportError::TooLarge`] (nothing was sent), `TimedOut`, `Declined`, `GivenUp`, `Ended`, `Lost`.
    pub async fn send(
        &mut self,
        frame: &[u8],
        bytes_max: usize,
        wait: Duration,
    ) -> Result<(), TransportError> {
        let bytes = frame.len() as u64;
        let prefix = u32::try_from(bytes)
            .ok()
            .filter(|_| frame.len() <= bytes_max)
            .ok_or(TransportError::TooLarge { bytes, bytes_max })?
            .to_be_bytes();
        if self.outbound != Outbound::Open {
            self.abort(GIVEN_UP);
            return Err(TransportError::Ended);
        }
        self.outbound = Outbound::WithinFrame;
        match self.write([&prefix, frame], wait).await {
            Ok(()) => {
                self.outbound = Outbound::Open;
                Ok(())
            }
            Err(error) => {
                if let TransportError::TimedOut { .. } = error {
                    self.abort(GIVEN_UP);
                }
                Err(error)
            }
        }
    }

    async fn write(&mut self, parts: [&[u8]; 2], wait: Duration) -> Result<(), TransportError> {
        let mut patience = Patience::new(wait, Instant::now());
        for mut part in parts {
            while !part.is_empty() {
                let written = timeout_at(patience.ends(), self.send.write(part)).await;
                let bytes = written
                    .map_err(|_| TransportError::TimedOut { what: "take a frame" })?
                    .map_err(not_written)?;
                patience.moved(bytes, Instant::now());
                part = &part[bytes..];
            }
        }
        Ok(())
    }

    /// The next frame, of at most `bytes_max` bytes and [`FRAME_BYTES_MAX`]; `None` where the peer has finished. All of it
    /// must be here after `wait`; a long one has more time, as long as it moves. Memory grows with what arrives, not with what the length promises; a long frame
    /// waits until there is a place for all of it, and has it until the next call or the end of the exchange. Cancel
    /// safe: what has arrived is kept for the next call, after a time-out as well.
    ///
    /// # Errors
    /// [`TransportError::TooLarge`] (the peer is told to stop), `Truncated`, `TimedOut`, `Declined`, `GivenUp`,
    /// `Ended`, `Lost`.
    pub async fn receive(
        &mut self,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Option<Vec<u8>>, TransportError> {
        if self.inbound.failed {
            return Err(TransportError::Ended);
        }
        let frame = self.inbound.read(&mut self.receive, &self.share, bytes_max, wait).await;
        // What has arrived in time is kept.
        if !matches!(frame, Ok(_) | Err(TransportError::TimedOut { .. })) {
            self.inbound = Inbound { failed: true, ..Inbound::default() };
        }
        if let Err(TransportError::TooLarge { .. }) = frame {
            // It fails only on a stream that is over.
            let _ = self.receive.stop(DECLINED);
        }
        frame
    }

    /// Says that no frame follows. What was sent is still delivered, even if the exchange is dropped now.
    ///
    /// # Errors
    /// [`TransportError::Ended`] if this direction was ended before, or the last frame is not whole.
    pub fn finish(&mut self) -> Result<(), TransportError> {
        if self.outbound != Outbound::Open {
            self.abort(GIVEN_UP);
            return Err(TransportError::Ended);
        }
        self.outbound = Outbound::Ended;
        self.send.finish().map_err(|_| TransportError::Ended)
    }

    /// After [`Exchange::finish`]: waits until the peer's QUIC has all that was sent, so that closing the connection
    /// loses nothing of it on the way. Cancel safe.
    ///
    /// # Errors
    /// `TimedOut`, `Declined`, `GivenUp`, `Lost`.
    pub async fn delivered(&mut self, wait: Duration) -> Result<(), TransportError> {
        match timeout(wait, self.send.stopped()).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(code))) => Err(given_up(code)),
            Ok(Err(StoppedError::ConnectionLost(error))) => Err(TransportError::lost(error)),
            Ok(Err(StoppedError::ZeroRttRejected)) => Err(TransportError::Ended),
            Err(_) => Err(TransportError::TimedOut { what: "acknowledge what was sent" }),
        }
    }

    /// Ends the exchange in both directions: we do not do what is asked. The connection stays.
    pub fn decline(mut self) {
        self.abort(DECLINED);
        // It fails only on a stream that is over.
        let _ = self.receive.stop(DECLINED);
    }

    fn abort(&mut self, code: VarInt) {
        if self.outbound != Outbound::Ended {
            self.outbound = Outbound::Ended;
            // It fails only on a stream that is over.
            let _ = self.send.reset(code);
        }
    }

    /// The bare stream, for tests that misbehave.
    #[cfg(test)]
    pub(super) fn bare(&mut self) -> (&mut SendStream, &mut RecvStream) {
        (&mut self.send, &mut self.receive)
    }

    /// Bytes of memory held for a frame that is not whole.
    #[cfg(test)]
    pub(super) fn inbound_bytes(&self) -> usize {
        self.inbound.body.capacity()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // By itself QUIC would finish the stream, as if all had been said. The other direction it stops, with code 0.
        self.abort(GIVEN_UP);
    }
}

impl Inbound {
    /// Cancel safe: every step keeps what it took from the stream.
    async fn read(
        &mut self,
        stream: &mut RecvStream,
        share: &Share,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Option<Vec<u8>>, TransportError> {
        if self.prefix_bytes == 0 {
            self.place = None;
        }
        let bytes_max = bytes_max.min(FRAME_BYTES_MAX);
        let mut patience = Patience::new(wait, Instant::now());
        let late = |_| TransportError::TimedOut { what: "send a frame" };
        while self.prefix_bytes < PREFIX_BYTES {
            let read = stream.read(&mut self.prefix[self.prefix_bytes..]);
            match timeout_at(patience.ends(), read).await.map_err(late)?.map_err(not_read)? {
                Some(bytes) => self.prefix_bytes += bytes,
                None if self.prefix_bytes == 0 => return Ok(None),
                None => return Err(TransportError::Truncated),
            }
        }
        let length = u32::from_be_bytes(self.prefix);
        let bytes = usize::try_from(length)
            .ok()
            .filter(|bytes| *bytes <= bytes_max)
            .ok_or(TransportError::TooLarge { bytes: length.into(), bytes_max })?;
        if self.place.is_none() {
            self.place = timeout_at(patience.ends(), share.place(bytes)).await.map_err(late)?;
        }
        while self.body.len() < bytes {
            let piece = (bytes - self.body.len()).min(PIECE_BYTES_MAX);
            let read = stream.read_chunk(piece, true);
            match timeout_at(patience.ends(), read).await.map_err(late)?.map_err(not_read)? {
                Some(chunk) => {
                    patience.moved(chunk.bytes.len(), Instant::now());
                    self.body.extend_from_slice(&chunk.bytes);
                }
                None => return Err(TransportError::Truncated),
            }
        }
        self.prefix_bytes = 0;
        Ok(Some(std::mem::take(&mut self.body)))
    }
}

fn given_up(code: VarInt) -> TransportError {
    if code == DECLINED {
        TransportError::Declined
    } else {
        TransportError::GivenUp { code: code.into_inner() }
    }
}

fn not_written(error: WriteError) -> TransportError {
    match error {
        WriteError::Stopped(code) => given_up(code),
        WriteError::ConnectionLost(error) => TransportError::lost(error),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => TransportError::Ended,
    }
}

fn not_read(error: ReadError) -> TransportError {
    match error {
        ReadError::Reset(code) => given_up(code),
        ReadError::ConnectionLost(error) => TransportError::lost(error),
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
            TransportError::Ended
        }
    }
}
