//! One question and one answer on a stream of its own.

use std::time::Duration;

use crate::{
    transport::{Connection, Exchange, TransportError, underway},
    wire::{self, FrameError, Message, Refused},
};

/// Longest wait until QUIC has taken a frame over, or for a pause on the way there.
pub(super) const SEND_WAIT: Duration = Duration::from_secs(20);
/// Longest wait for an answer that needs no work.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The connection or the stream failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The answer is none.
    #[error("the answer is malformed")]
    Frame(#[from] FrameError),
    /// The peer refused.
    #[error("the peer refused ({:?}), try again in {} ms", .0.reason, .0.retry_ms)]
    Refused(Refused),
    /// The peer does not let this node in.
    #[error(transparent)]
    NotAdmitted(crate::wire::Refusal),
    /// The peer ended the stream.
    #[error("the peer gave no answer")]
    Nothing,
}

/// Asks on a new stream; `wait` is for the answer, once the question is there. Cancelling it resets the stream, and the peer may have acted.
///
/// # Errors
/// [`AskError`].
pub(super) async fn ask<Q: Message, A: Message>(
    connection: &Connection,
    question: &Q,
    wait: Duration,
) -> Result<A, AskError> {
    let mut exchange = connection.open().await?;
    let frame = wire::encode(question);
    exchange.send(&frame, Q::BYTES_MAX, SEND_WAIT).await?;
    exchange.finish()?;
    // On a slow link much of a long question is still on its way; here it is not needed any more.
    let wait = wait + underway(frame.len());
    drop(frame);
    answer(&mut exchange, wait).await
}

/// Reads one message, or a refusal.
///
/// # Errors
/// [`AskError`].
pub(super) async fn answer<A: Message>(exchange: &mut Exchange, wait: Duration) -> Result<A, AskError> {
    let bytes_max = A::BYTES_MAX.max(Refused::BYTES_MAX);
    let Some(frame) = exchange.receive(bytes_max, wait).await? else { return Err(AskError::Nothing) };
    if wire::kind(&frame)? == Refused::KIND {
        return Err(AskError::Refused(wire::decode(&frame)?));
    }
    Ok(wire::decode(&frame)?)
}
