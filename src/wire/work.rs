//! What aggregator and worker say to each other: pull, heartbeat, deliver, release (DESIGN 5).
//!
//! Every exchange is a stream of its own: one of these, and one answer. Lengths of time cross the wire, never times of
//! day: a Raspberry Pi has no clock battery.

use serde::{Deserialize, Serialize};

use super::frame::messages;
use super::{ContentKey, JobSpec, ModelHash, PeerId, SegmentResult, Signed, SignedKind, SwarmId};

/// Jobs in one answer at most: with the longest segment and its lead they stay below the frame's limit.
pub const LEASES_PER_PULL_MAX: usize = 32;
/// Models that a worker names.
pub const MODELS_MAX: usize = 16;
/// Leases that a worker holds of one aggregator at most.
pub const HOLDING_MAX: usize = 256;
/// Bytes of a reason.
pub const REASON_BYTES_MAX: usize = 300;
/// A long poll waits so long at most, in milliseconds; below the idle time-out of a connection.
pub const PULL_WAIT_MS_MAX: u32 = 25_000;

/// Where a device's power comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerSource {
    /// Nobody asked the sensors.
    Unknown,
    /// The mains.
    Mains,
    /// A battery.
    Battery,
    /// Power that its owner calls green.
    Green,
}

/// What a worker offers at this moment, coarse enough to tell nothing else of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Compute threads.
    pub threads: u16,
    /// Share of the time in which they run, in thousandths.
    pub duty_permille: u16,
    /// Tokens per second of all of them as measured; 0 where that is not known.
    pub tokens_per_s: u32,
    /// Where the power comes from.
    pub power: PowerSource,
    /// For how many more seconds this is offered; `None` where no end is known.
    pub lasts_s: Option<u32>,
}

/// A worker asks for work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// What it offers.
    pub budget: Budget,
    /// Models that it has, [`MODELS_MAX`] at most.
    pub models: Vec<ModelHash>,
    /// Version of the rules by which it cuts chunks.
    pub chunker: u8,
    /// It has room for so many tokens …
    pub tokens: u32,
    /// … and so many jobs.
    pub jobs: u16,
    /// It waits so long for work, in milliseconds.
    pub wait_ms: u32,
}

/// The right to a job, until its visibility timeout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Fencing number.
    pub attempt: u64,
    /// What the worker shows with its result: that this lease was given to it for this job.
    pub proof: [u8; 16],
    /// Whose members may see the text; the result belongs to them.
    pub swarm: SwarmId,
    /// Tokens, about.
    pub tokens: u32,
    /// Nothing else may run beside it: a process died that had it.
    pub alone: bool,
    /// The job.
    pub job: JobSpec,
}

/// The answer to a pull; empty where there was no work in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Leases, [`LEASES_PER_PULL_MAX`] at most.
    pub leases: Vec<Lease>,
}

/// How far a worker has come with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// It waits in the worker's queue.
    Queued,
    /// It is being computed.
    Running,
    /// Its result is on the worker's disk and on its way.
    Computed,
}

/// One lease in a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The lease.
    pub attempt: u64,
    /// How far it is.
    pub stage: Stage,
}

/// A worker lives and holds these leases of this aggregator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Tokens that it has embedded since it started: that they grow is its progress.
    pub tokens_done: u64,
    /// All that it holds, [`HOLDING_MAX`] at most.
    pub holding: Vec<Holding>,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// What is not wanted any more.
    pub attempts: Vec<u64>,
}

/// Where the figure of an energy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnergySource {
    /// A counter of the machine.
    Counter,
    /// Reckoned from CPU seconds and the kind of device.
    Model,
}

/// What a job cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Energy {
    /// Millijoules.
    pub mj: u64,
    /// Where the figure comes from.
    pub source: EnergySource,
}

/// Who computed what, from what, at what cost; signed by the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The job.
    pub job: ContentKey,
    /// BLAKE3 of the result, as [`SegmentResult::hash`] takes it.
    pub result: [u8; 32],
    /// Who asked.
    pub aggregator: PeerId,
    /// In which swarm.
    pub swarm: SwarmId,
    /// Tokens embedded.
    pub tokens: u32,
    /// Milliseconds that one thread spent.
    pub cpu_ms: u32,
    /// Energy; `None` where nobody measured or reckoned it.
    pub energy: Option<Energy>,
}

impl SignedKind for Receipt {
    const KIND: &'static str = "receipt";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 256;
}

/// What a job came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Its result, and the signed [`Receipt`].
    Result(SegmentResult, Signed),
    /// Why the worker could not, for a person; [`REASON_BYTES_MAX`] at most.
    Failed(String),
}

/// A worker delivers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deliver {
    /// Fencing number of the lease.
    pub attempt: u64,
    /// As it came with the lease.
    pub proof: [u8; 16],
    /// The job.
    pub job: ContentKey,
    /// What it came to.
    pub outcome: Outcome,
}

/// The answer to a delivery: whatever it says, the worker is done with the job. It comes after the disk has the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivered {
    /// The result counts.
    Accepted,
    /// Another's was first, or nobody wants it any more.
    NotWanted,
    /// It can not be right, or the failure was noted.
    Noted,
}

/// A worker gives back what it has not begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Leases, [`HOLDING_MAX`] at most.
    pub attempts: Vec<u64>,
}

/// The answer where there is nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// Why an exchange is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalReason {
    /// The peer is not a member of any swarm that this exchange is for.
    Stranger,
    /// As many workers as can be served; come back later.
    Full,
    /// The message is none that this edge knows here.
    Unknown,
    /// The message is malformed, or claims what is not so.
    Wrong,
    /// The node is about to end.
    Leaving,
}

/// The answer to whatever can not be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub reason: RefusalReason,
    /// Milliseconds after which another try makes sense.
    pub retry_ms: u32,
}

messages! {
    Pull 16 1024;
    // A segment has 32 KiB and its lead 4 KiB at most.
    Granted 17 (LEASES_PER_PULL_MAX * 40 * 1024);
    Heartbeat 18 (16 + HOLDING_MAX * 11);
    Withdrawn 19 (16 + HOLDING_MAX * 10);
    // 36 KiB in chunks of one byte a token and 8 tokens come to 4,600 vectors; of 384 floats that is 7 MB.
    Deliver 20 (12 << 20);
    Delivered 21 16;
    Release 22 (16 + HOLDING_MAX * 10);
    Done 23 16;
    Refused 24 16;
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{self, Carry, ChunkOptions, ChunkSpan, Message, Syntax};

    fn budget() -> Budget {
        let power = PowerSource::Battery;
        Budget { threads: 4, duty_permille: 500, tokens_per_s: 3000, power, lasts_s: Some(60) }
    }

    fn lease(text: String) -> Lease {
        let job = JobSpec {
            key: ContentKey::from_bytes([1; 32]),
            model: ModelHash::from_bytes([2; 32]),
            chunker: 1,
            options: ChunkOptions { tokens_max: 254, overlap_tokens: 0 },
            syntax: Syntax::Markdown,
            carry: Carry::default(),
            body_start: 0,
            text,
        };
        let swarm = SwarmId::from_bytes([3; 32]);
        Lease { attempt: 7, proof: [4; 16], swarm, tokens: 5, alone: true, job }
    }

    fn receipt() -> Receipt {
        Receipt {
            job: ContentKey::from_bytes([1; 32]),
            result: [2; 32],
            aggregator: PeerId::from_bytes([3; 32]),
            swarm: SwarmId::from_bytes([4; 32]),
            tokens: 300,
            cpu_ms: 1000,
            energy: Some(Energy { mj: 9, source: EnergySource::Model }),
        }
    }

    /// These bytes cross sockets: a change here is a new version.
    #[test]
    fn bytes_of_version_1() {
        let hex = |frame: Vec<u8>| HEXLOWER.encode(&frame);
        let pull = Pull {
            budget: budget(),
            models: vec![ModelHash::from_bytes([2; 32])],
            chunker: 1,
            tokens: 8192,
            jobs: 20,
            wait_ms: 25_000,
        };
        assert_eq!(
            hex(wire::encode(&pull)),
            format!("011004f403b81702013c01{}01804014a8c301", "02".repeat(32))
        );
        let granted = Granted { leases: vec![lease("hi".into())] };
        let [one, two, three, four] = ["01", "02", "03", "04"].map(|byte| byte.repeat(32));
        assert_eq!(
            hex(wire::encode(&granted)),
            format!("01110107{}{three}0501{one}{two}01fe010001000000026869", &four[..32])
        );
        let heartbeat =
            Heartbeat { tokens_done: 300, holding: vec![Holding { attempt: 7, stage: Stage::Running }] };
        assert_eq!(hex(wire::encode(&heartbeat)), "0112ac02010701");
        assert_eq!(hex(wire::encode(&Withdrawn { attempts: vec![7] })), "01130107");
        let outcome = Outcome::Failed("why".into());
        let deliver = Deliver { attempt: 7, proof: [4; 16], job: ContentKey::from_bytes([1; 32]), outcome };
        assert_eq!(hex(wire::encode(&deliver)), format!("011407{}{one}0103776879", &four[..32]));
        assert_eq!(hex(wire::encode(&Delivered::NotWanted)), "011501");
        assert_eq!(hex(wire::encode(&Release { attempts: vec![7] })), "01160107");
        assert_eq!(hex(wire::encode(&Done {})), "0117");
        let refused = Refused { reason: RefusalReason::Full, retry_ms: 5000 };
        assert_eq!(hex(wire::encode(&refused)), "0118018827");
        let signed = Signed::sign(&SigningKey::from_bytes(&[7; 32]), &receipt());
        assert_eq!(HEXLOWER.encode(signed.body()), format!("01{one}{two}{three}{four}ac02e807010901"));
    }

    /// A bound below what is right would end work; above it, memory is a peer's to spend.
    #[test]
    fn the_largest_of_each_fits_its_frame() {
        let granted = Granted { leases: vec![lease("x".repeat(36 * 1024)); LEASES_PER_PULL_MAX] };
        assert!(wire::encode(&granted).len() <= Granted::BYTES_MAX);
        let holding = vec![Holding { attempt: u64::MAX, stage: Stage::Computed }; HOLDING_MAX];
        let heartbeat = Heartbeat { tokens_done: u64::MAX, holding };
        assert!(wire::encode(&heartbeat).len() <= Heartbeat::BYTES_MAX);
        let release = Release { attempts: vec![u64::MAX; HOLDING_MAX] };
        assert!(wire::encode(&release).len() <= Release::BYTES_MAX);
        let models = vec![ModelHash::from_bytes([2; 32]); MODELS_MAX];
        let pull = Pull {
            budget: budget(),
            models,
            chunker: u8::MAX,
            tokens: u32::MAX,
            jobs: u16::MAX,
            wait_ms: u32::MAX,
        };
        assert!(wire::encode(&pull).len() <= Pull::BYTES_MAX);
        let chunks = vec![ChunkSpan { start: 36_000, end: 36_800, tokens: 256 }; 4600];
        let vectors = vec![0.5; 4600 * 384];
        let result =
            SegmentResult { computed_by: PeerId::from_bytes([1; 32]), verified: false, chunks, vectors };
        let outcome = Outcome::Result(result, Signed::sign(&SigningKey::from_bytes(&[7; 32]), &receipt()));
        let job = ContentKey::from_bytes([1; 32]);
        let deliver = Deliver { attempt: u64::MAX, proof: [4; 16], job, outcome };
        assert!(wire::encode(&deliver).len() <= Deliver::BYTES_MAX);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 16u8..25, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let frame = [&[1, kind][..], &bytes].concat();
            let _ = wire::decode::<Pull>(&frame);
            let _ = wire::decode::<Granted>(&frame);
            let _ = wire::decode::<Heartbeat>(&frame);
            let _ = wire::decode::<Deliver>(&frame);
            let _ = wire::decode::<Refused>(&frame);
        }
    }
}
