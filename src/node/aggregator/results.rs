//! Results on their way from a worker to the disk: what is checked of each, what is written together, and who is told
//! afterwards.

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::oneshot;

use super::{Asked, Client, ClientEvent, ClientId};
use crate::{
    proto::{Attempt, Verdict},
    store::{Committed, DeadLetter, Found, Store, StoreError},
    wire::{ContentKey, Delivered, Outcome, PeerId, Receipt, SegmentResult, Signed, SwarmId},
};

/// The longest text of a job, as a length that no right chunk exceeds.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// Proves leases without remembering them, so that a result is known to be from whoever held one even after
/// this process has started anew: a keyed hash that nobody else can make.
pub(super) struct Proofs([u8; 32]);

impl Proofs {
    /// `secret` is the identity's own.
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self(blake3::derive_key("edge 2026-11 proof of a lease, version 1", secret))
    }

    pub(super) fn proof(&self, worker: &PeerId, attempt: Attempt, job: &ContentKey) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(worker.as_bytes()).update(&attempt.to_le_bytes()).update(job.as_bytes());
        let mut proof = [0; 16];
        proof.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        proof
    }

    pub(super) fn holds(
        &self,
        worker: &PeerId,
        attempt: Attempt,
        job: &ContentKey,
        proof: &[u8; 16],
    ) -> bool {
        // Compared as hashes, so that the time it takes tells nothing.
        blake3::hash(&self.proof(worker, attempt, job)) == blake3::hash(proof)
    }
}

/// What a delivery is held against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) job: ContentKey,
    /// As it was asked for; `None` where nobody asks for it any more.
    pub(super) asked: Option<&'a Asked>,
    pub(super) worker: PeerId,
    /// Where the worker is a member now.
    pub(super) swarms: &'a [SwarmId],
    pub(super) aggregator: PeerId,
    pub(super) dimension: usize,
}

impl Expected<'_> {
    /// Whether a receipt is for this job, from this node, and for work in a swarm where it may have been leased to one
    /// who is still a member.
    fn is_met(&self, receipt: &Receipt) -> bool {
        let is_swarm = self.swarms.contains(&receipt.swarm)
            && self.asked.is_none_or(|asked| asked.may_have_been_for(&receipt.swarm));
        is_swarm && receipt.job == self.job && receipt.aggregator == self.aggregator
    }
}

/// A result that has passed the cheap checks.
#[derive(Debug)]
pub(super) struct Arrival {
    key: ContentKey,
    result: SegmentResult,
    receipt: Option<Signed>,
    elapsed: Duration,
}

impl Arrival {
    /// A result of this node's own threads.
    pub(super) fn own(key: ContentKey, result: SegmentResult, elapsed: Duration) -> Self {
        Self { key, result, receipt: None, elapsed }
    }

    /// The cheap checks of DESIGN 6.
    pub(super) fn judge(outcome: Outcome, expected: &Expected<'_>) -> (Verdict, Option<Self>) {
        let Expected { job, asked, worker, dimension, .. } = *expected;
        let spec = asked.map(|asked| &*asked.spec);
        let (mut result, signed) = match outcome {
            Outcome::Failed(reason) => return (Verdict::Failed(legible(&reason)), None),
            Outcome::Result(result, signed) => (result, signed),
        };
        let wrong = |what: String| (Verdict::Failed(what), None);
        // Whoever asks for it later checks it against its text.
        let text_bytes = spec.map_or(TEXT_BYTES_MAX, |spec| spec.text.len());
        if let Err(error) = result.check(text_bytes, dimension) {
            return wrong(format!("its result is wrong: {error}"));
        }
        if let Some(spec) = spec
            && let Err(error) = result.check_text(&spec.text, spec.body_start as usize)
        {
            return wrong(format!("its result is wrong: {error}"));
        }
        let receipt: Receipt = match signed.open(&worker) {
            Ok(receipt) => receipt,
            Err(error) => return wrong(format!("its receipt is wrong: {error}")),
        };
        if !expected.is_met(&receipt) || receipt.result != result.hash() {
            return wrong("its receipt is for something else".into());
        }
        result.computed_by = worker;
        result.verified = false;
        let elapsed = Duration::from_millis(u64::from(receipt.cpu_ms));
        (Verdict::Right, Some(Self { key: job, result, receipt: Some(signed), elapsed }))
    }
}

/// What a peer wrote, made fit for a terminal and a log.
fn legible(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean[..clean.floor_char_boundary(crate::wire::REASON_BYTES_MAX)].to_owned()
}

type Answer = oneshot::Sender<Option<Delivered>>;

/// What a batch of messages came to: one transaction, and then the answers.
#[derive(Debug, Default)]
pub(super) struct Batch {
    arrivals: BTreeMap<Attempt, (Option<Arrival>, Option<Answer>)>,
    records: Vec<Committed>,
    unasked: Vec<Committed>,
    pub(super) buried: Vec<(ContentKey, DeadLetter)>,
    pub(super) raised: Vec<ContentKey>,
    /// Who asked for that, and for how many it came to.
    pub(super) counted: Vec<(oneshot::Sender<u64>, u64)>,
    answers: Vec<(Answer, Option<Delivered>)>,
    events: Vec<(ClientId, ClientEvent)>,
}

/// What the disk is to have before anybody is told.
pub(super) struct Written {
    records: Vec<Committed>,
    unasked: Vec<Committed>,
    buried: Vec<(ContentKey, DeadLetter)>,
    raised: Vec<ContentKey>,
}

impl Written {
    pub(super) fn is_empty(&self) -> bool {
        let Self { records, unasked, buried, raised } = self;
        records.is_empty() && unasked.is_empty() && buried.is_empty() && raised.is_empty()
    }

    /// Writes it; gives the dead letters that made room for others.
    ///
    /// # Errors
    /// What the store may say.
    pub(super) fn write(self, store: &mut Store) -> Result<Vec<ContentKey>, StoreError> {
        let Self { mut records, unasked, buried, raised } = self;
        for late in unasked {
            if store.result(&late.key)? == Found::Nothing {
                records.push(late);
            }
        }
        if !records.is_empty() {
            store.put_committed(&records)?;
        }
        if !raised.is_empty() {
            store.raise(&raised)?;
        }
        if buried.is_empty() { Ok(Vec::new()) } else { store.bury(&buried) }
    }
}

/// Who is to be told, once the disk has it.
pub(super) struct Told {
    counted: Vec<(oneshot::Sender<u64>, u64)>,
    answers: Vec<(Answer, Option<Delivered>)>,
    events: Vec<(ClientId, ClientEvent)>,
}

impl Batch {
    /// A delivery that the ledger will decide about next.
    pub(super) fn arrived(&mut self, attempt: Attempt, arrival: Option<Arrival>, answer: Option<Answer>) {
        self.arrivals.insert(attempt, (arrival, answer));
    }

    /// The ledger takes it.
    pub(super) fn commit(
        &mut self,
        attempt: Attempt,
        job: ContentKey,
        worker: PeerId,
        clients: Vec<ClientId>,
    ) {
        let Some((arrival, answer)) = self.arrivals.remove(&attempt) else { return };
        self.answers.extend(answer.map(|answer| (answer, Some(Delivered::Accepted))));
        let Some(Arrival { result, receipt, elapsed, .. }) = arrival else { return };
        let chunks = result.chunks.len() as u64;
        let tokens = result.chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum();
        self.records.push(Committed { key: job, result, receipt });
        for client in clients {
            self.events.push((client, ClientEvent::Done { key: job, worker, chunks, tokens, elapsed }));
        }
    }

    /// Nobody asks for it now. What a worker finished while this process was away is kept all the same, where there is
    /// nothing yet: the same command will ask for it.
    pub(super) fn unasked(&mut self, attempt: Attempt) {
        let Some((arrival, answer)) = self.arrivals.remove(&attempt) else { return };
        self.answers.extend(answer.map(|answer| (answer, Some(Delivered::NotWanted))));
        if let Some(Arrival { key, result, receipt, .. }) = arrival {
            self.unasked.push(Committed { key, result, receipt });
        }
    }

    /// The ledger does not take it, or has noted it; `None` refuses.
    pub(super) fn answer(&mut self, attempt: Attempt, answer: Option<Delivered>) {
        if let Some((_, Some(waiting))) = self.arrivals.remove(&attempt) {
            self.answers.push((waiting, answer));
        }
    }

    /// Tells a client.
    pub(super) fn tell(&mut self, client: ClientId, event: ClientEvent) {
        self.events.push((client, event));
    }

    /// What is written first, and who is told then.
    pub(super) fn split(self) -> (Written, Told) {
        let Self { records, unasked, buried, raised, counted, answers, events, .. } = self;
        (Written { records, unasked, buried, raised }, Told { counted, answers, events })
    }
}

impl Told {
    /// Tells them; gives the clients that are gone, or do not listen.
    pub(super) fn carry_out(self, clients: &mut BTreeMap<ClientId, Client>) -> Vec<ClientId> {
        for (waiting, answer) in self.answers {
            // A worker that is gone asks again.
            let _ = waiting.send(answer);
        }
        for (waiting, count) in self.counted {
            let _ = waiting.send(count);
        }
        let mut deaf = Vec::new();
        for (client, event) in self.events {
            let is_told = clients.get_mut(&client).is_some_and(|client| client.tell(event));
            if !is_told && !deaf.contains(&client) {
                deaf.push(client);
            }
        }
        deaf
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::wire::{Carry, ChunkOptions, ChunkSpan, JobSpec, ModelHash, Syntax};

    fn swarm(n: u8) -> SwarmId {
        SwarmId::from_bytes([n; 32])
    }

    #[test]
    fn a_receipt_is_for_what_was_asked() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let worker = PeerId::from_bytes(key.verifying_key().to_bytes());
        let (job, aggregator) = (ContentKey::from_bytes([2; 32]), PeerId::from_bytes([3; 32]));
        let spec = JobSpec {
            key: job,
            model: ModelHash::from_bytes([4; 32]),
            chunker: 1,
            options: ChunkOptions { tokens_max: 254, overlap_tokens: 0 },
            syntax: Syntax::Plain,
            carry: Carry::default(),
            body_start: 0,
            text: "text".into(),
        };
        let chunks = vec![ChunkSpan { start: 0, end: 4, tokens: 3 }];
        let result = SegmentResult { computed_by: worker, verified: true, chunks, vectors: vec![1.0, 0.0] };
        let receipt = Receipt {
            job,
            result: result.hash(),
            aggregator,
            swarm: swarm(1),
            tokens: 3,
            cpu_ms: 5,
            energy: None,
        };
        let is_right = |asked: Option<Option<SwarmId>>, change: &dyn Fn(&mut Receipt)| {
            let mut receipt = receipt.clone();
            change(&mut receipt);
            let outcome = Outcome::Result(result.clone(), Signed::sign(&key, &receipt));
            let asked = asked.map(|swarm| Asked::new(spec.clone(), 1, swarm));
            let asked = asked.as_ref();
            let swarms = &[swarm(1), swarm(2)];
            let expected = Expected { job, asked, worker, swarms, aggregator, dimension: 2 };
            let (verdict, arrival) = Arrival::judge(outcome, &expected);
            assert_eq!(arrival.is_some(), verdict == Verdict::Right);
            assert!(arrival.is_none_or(|arrival| !arrival.result.verified));
            verdict == Verdict::Right
        };
        let asked = Some(Some(swarm(1)));
        assert!(is_right(asked, &|_| {}));
        assert!(!is_right(asked, &|receipt| receipt.swarm = swarm(2)), "it worked for another swarm");
        assert!(!is_right(asked, &|receipt| receipt.job = ContentKey::from_bytes([9; 32])));
        assert!(!is_right(asked, &|receipt| receipt.aggregator = worker));
        assert!(!is_right(asked, &|receipt| receipt.result = [0; 32]));
        // Of what is no longer asked for, or no longer of others, one of its own swarms is believed.
        for asked in [None, Some(None)] {
            assert!(is_right(asked, &|receipt| receipt.swarm = swarm(2)));
            assert!(!is_right(asked, &|receipt| receipt.swarm = swarm(3)));
        }
    }
}
