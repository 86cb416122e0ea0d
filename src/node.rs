//! Carries out: opens the store, finds models, runs jobs here and with others, keeps results.
//!
//! Deliberately absent: what a person sees, and the paths of documents. Those are read and written by `cli`, with the
//! caller's rights; a node sees segments and gives results.

mod aggregator;
mod ask;
mod bootstrap;
mod caught;
mod checks;
mod clock;
mod compute;
mod control;
mod disk;
mod governor;
mod local;
mod mesh;
mod models;
mod own_limits;
mod pool;
mod priority;
mod running;
mod runs;
mod supervisor;
mod swarms;
mod valve;
mod worker;

pub use crate::{
    discovery::{BOOTSTRAP_PORT, BootstrapAddress, own_addresses},
    power::{Described, GreenSource, State as DescribedState},
    transport::free_port,
};
pub use aggregator::{
    AggregatorClient, AggregatorTotals, ClientAbout, ClientDesk, ClientEvent, ClientId, ClientInfo,
};
pub use ask::AskError;
pub use checks::{Checked, check_machine, describe_sensors};
pub use clock::wall_clock_ms;
pub use compute::ComputeError;
pub use control::{Control, NodeStatus, Order};
pub use disk::{Disk, DiskError};
pub use governor::{BudgetStatus, Lending};
pub use local::{Failure, LocalRun, Outcome, RunError, Runner, said_of_waiting};
pub use mesh::PeerInfo;
pub use models::{ModelPlace, ModelsError, add_model, find_model, list_models, model_places};
pub use priority::session_gives_way;
pub use running::{Node, NodeOptions};
pub use supervisor::{SUPERVISOR_VARIABLES, Supervisor, SupervisorError};
pub use swarms::{Change, InviteView, SwarmAnswer, SwarmCommand, SwarmView, SwarmsError, decide, place};
pub use worker::WorkerCounts;

/// Why a node ends that nobody asked to.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The store failed: nothing can be promised any more.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The network.
    #[error(transparent)]
    Transport(crate::transport::TransportError),
    /// A thread, or entropy.
    #[error("the system refused a thread or random bytes")]
    Thread(#[source] std::io::Error),
    /// It has ended, or one of its parts has: the log says why.
    #[error("the node has ended; the log says why")]
    Ended,
}
