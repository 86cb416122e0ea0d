//! What crosses a socket or lies on disk: ids, records, messages, and their exact bytes.
//!
//! Deliberately absent: files, sockets, clocks, entropy. A type in this room is frozen once a release
//! has written it; a change is a new version with its upgrade.

mod demand;
mod frame;
mod id;
mod issued;
mod job;
mod join;
mod meet;
mod public;
mod record;
mod result;
mod run;
mod signed;
mod swarm;
mod ticket;
mod work;

pub use demand::{
    ADVERT_ADDRESSES_MAX, ADVERTS_TOLD_MAX, Advert, DEMAND_WAIT_MS_MAX, Demand, DemandAsked, DemandTold,
    Reached,
};
pub use frame::{FRAME_VERSION, FrameError, Message, decode, encode, kind};
pub use id::{ContentKey, IdError, InviteId, ModelHash, PeerId, RunId, SwarmId};
pub use issued::{Delegation, Issued, IssuedError, Paper};
pub use job::{Carry, ChunkOptions, Fence, JobSpec, Syntax};
pub use join::{Admitted, JoinRequest, Refusal};
pub use meet::{
    CREDENTIALS_MAX, Delegated, Hello, Introduction, LeaveSwarm, NotAdmitted, PEERS_TOLD_MAX,
    PROGRAM_BYTES_MAX, PeerAddress, PeersAsked, PeersTold, Renew, TAGS,
};
pub use public::{PUBLIC_SECRET, PUBLIC_SWARM};
pub use record::{RecordError, open, seal};
pub use result::{ChunkSpan, ResultError, SegmentResult, UNIT_NORM_TOLERANCE};
pub use run::{Run, RunState};
pub use signed::{SIGNED_BYTES_MAX, Signed, SignedError, SignedKind};
pub use swarm::{
    Credential, EpochNotice, Founding, MEMBERS_MAX, Membership, PUT_OUT_MAX, SWARM_NAME_CHARS_MAX, SwarmName,
    SwarmNameError, SwarmSecret,
};
pub use ticket::{ADMITTER_ADDRESSES_MAX, ADMITTERS_MAX, Invite, TICKET_CHARS_MAX, Ticket, TicketError};
pub use work::{
    Budget, Deliver, Delivered, Done, Energy, EnergySource, Granted, HOLDING_MAX, Heartbeat, Holding,
    LEASES_PER_PULL_MAX, Lease, MODELS_MAX, Outcome, PULL_WAIT_MS_MAX, PowerSource, Pull, REASON_BYTES_MAX,
    Receipt, RefusalReason, Refused, Release, Stage, Withdrawn,
};
