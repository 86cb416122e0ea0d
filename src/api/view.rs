//! What people and programs see: the JSON of the control socket and of `--json`.

mod lending;

use std::{cmp::Reverse, fs, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub use lending::{BudgetView, ReasonView, SensorsView, TodayView};

pub use crate::node::SwarmView;
use crate::{
    node::{BudgetStatus, ClientInfo, NodeStatus, PeerInfo},
    proto::{Item, ItemState, budget::Admission, membership::SwarmRecord},
    store::{DeadLetter, GcReport, Store, StoreError, StoreReport},
    wire::{ContentKey, Run, RunId, RunState},
};

/// Version of this JSON: another one means something else by the same name.
pub const VERSION: u32 = 1;

/// `edge status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Of the node.
    pub peer_id: String,
    /// Of its program.
    pub version: String,
    /// Its process.
    pub process: u32,
    /// UDP port.
    pub port: u16,
    /// Seconds since it started; 0 where none runs.
    pub uptime_s: u64,
    /// `not running`, `idle`, `computing`, `paused`, or `finishing`.
    pub state: String,
    /// Why it lends less than all, also while it computes for its owner.
    pub paused_because: Option<String>,
    /// What it lends.
    pub budget: BudgetView,
    /// What its process costs.
    pub load: Load,
    /// What the sensors said last; nothing where nothing is lent in any case.
    pub sensors: Option<SensorsView>,
    /// What work for others took today.
    pub today: TodayView,
    /// Work for others.
    pub queue: QueueView,
    /// Work that was asked for here.
    pub aggregator: AggregatorView,
    /// Its swarms.
    pub swarms: Vec<SwarmView>,
    /// Who is connected.
    pub peers: Vec<PeerView>,
    /// What it can run.
    pub models: Vec<ModelView>,
    /// Since it started.
    pub totals: Totals,
}

/// What a node's process costs the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// CPU seconds since it started.
    pub cpu_seconds: f64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
}

/// Jobs of others that are here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueView {
    /// They wait for a thread.
    pub queued: usize,
    /// A thread has them.
    pub running: usize,
    /// Their results wait for being taken.
    pub outbox: usize,
    /// Failed here since the start.
    pub dead: u64,
}

/// Jobs that were asked for here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AggregatorView {
    /// They wait for a worker.
    pub ready: usize,
    /// A worker has them.
    pub leased: usize,
    /// Done since the start.
    pub done: u64,
    /// Dead letters that are kept.
    pub dead: usize,
    /// Why this node's own threads compute none of it, where they wait.
    pub waits_because: Option<String>,
}

/// A connected peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// Who.
    pub peer_id: String,
    /// Where.
    pub address: String,
    /// Version of its program.
    pub version: String,
    /// Names of the swarms that both are in.
    pub swarms: Vec<String>,
    /// For how long, in seconds.
    pub connected_s: u64,
    /// Round trip in milliseconds.
    pub rtt_ms: f64,
}

/// A model that is here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelView {
    /// Its name.
    pub name: String,
    /// Its hash.
    pub hash: String,
    /// Whether it is in memory.
    pub loaded: bool,
}

/// What a node has done for others since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Jobs.
    pub jobs: u64,
    /// Tokens.
    pub tokens: u64,
    /// CPU time of the compute threads.
    pub cpu_ms: u64,
}

/// A job of another that is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemView {
    /// Content key.
    pub key: String,
    /// Whose.
    pub aggregator: String,
    /// `queued`, `running`, or `computed`.
    pub state: String,
    /// Tokens, about.
    pub tokens: u32,
    /// Nothing else may run beside it.
    pub alone: bool,
}

/// A job that failed for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadView {
    /// Content key.
    pub key: String,
    /// Why.
    pub reason: String,
    /// Of what.
    pub title: String,
    /// When, in milliseconds since 1970.
    pub died_ms: Option<u64>,
}

/// A command that works here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// For `edge cancel`.
    pub id: u64,
    /// What it works on.
    pub title: String,
    /// Its process.
    pub process: u32,
    /// Who shares the work; `local` for this machine alone.
    pub swarm: String,
    /// Seconds since it came.
    pub since_s: u64,
    /// Segments that are asked for and not done.
    pub open: u64,
    /// Segments that are done.
    pub done: u64,
    /// Segments that failed for good.
    pub dead: u64,
    /// Chunks of those that are done.
    pub chunks: u64,
}

/// `edge store info`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreView {
    /// The file.
    pub path: PathBuf,
    /// Bytes that it takes on the disk.
    pub disk_bytes: u64,
    /// Bytes of it that hold something.
    pub used_bytes: u64,
    /// Results stored.
    pub results: u64,
    /// Runs remembered, the newest first.
    pub runs: Vec<RunView>,
}

/// A run that is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// Its id.
    pub id: String,
    /// What was named.
    pub title: String,
    /// `not finished`, `done`, or `done, some failed`.
    pub state: String,
    /// When it was repeated last, in milliseconds since 1970.
    pub touched_ms: Option<u64>,
    /// Documents.
    pub documents: u32,
    /// Segments.
    pub segments: u32,
    /// Bytes of text.
    pub text_bytes: u64,
}

/// `edge store gc`: what is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gc {
    /// Runs that nobody repeated for so many days.
    pub days: u64,
    /// By this clock, in milliseconds since 1970; without one nothing is too old.
    pub now_ms: Option<u64>,
}

/// `edge store gc`: what has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcView {
    /// Runs.
    pub runs_removed: u64,
    /// Results.
    pub results_removed: u64,
    /// Results that stay.
    pub results_kept: u64,
    /// The file before …
    pub disk_bytes_before: u64,
    /// … and after.
    pub disk_bytes_after: u64,
}

/// How many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// So many.
    pub count: u64,
}

/// Which dead letters are to be tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Content keys in hex, or their beginnings; none means all.
    pub keys: Vec<String>,
}

/// What the owner orders about lending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum LendOrder {
    /// Rest, for so many seconds; for good without them.
    Pause {
        /// How long.
        seconds: Option<u64>,
    },
    /// Lend again.
    Resume,
    /// Complete what is begun, and take nothing new.
    Finish,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// For a person.
    pub error: String,
    /// The question was wrong, not the node.
    pub usage: bool,
}

impl Status {
    /// Of a running node, in this process.
    pub fn of(status: &NodeStatus, models: Vec<ModelView>) -> Self {
        let (worker, ledger) = (&status.worker, &status.aggregator);
        let refused = |record: &SwarmRecord| status.refused.get(&record.id());
        let swarms = status.swarms.iter().map(|record| SwarmView::of(record).refused_for(refused(record)));
        let lending = status.lending.as_ref();
        let budget = BudgetView::of(lending, worker);
        let is_computing = worker.queue.running > 0 || ledger.leased > 0;
        Self {
            peer_id: status.peer.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: std::process::id(),
            port: status.port,
            uptime_s: status.uptime.as_secs(),
            state: state(lending, is_computing).to_owned(),
            paused_because: budget.why(),
            budget,
            load: Load::of_this_process(),
            sensors: lending.and_then(SensorsView::of),
            today: lending.map(TodayView::of).unwrap_or_default(),
            queue: QueueView {
                queued: worker.queue.queued,
                running: worker.queue.running,
                outbox: worker.queue.outbox,
                dead: worker.jobs_failed,
            },
            aggregator: AggregatorView {
                ready: ledger.ready,
                leased: ledger.leased,
                done: status.totals.done,
                dead: status.totals.dead_letters,
                waits_because: status.own_waits_because.clone(),
            },
            swarms: swarms.chain(status.is_public.then(SwarmView::of_pool)).collect(),
            peers: status.peers.iter().map(PeerView::of).collect(),
            models,
            totals: Totals {
                jobs: worker.jobs_done,
                tokens: worker.tokens_done,
                cpu_ms: worker.cpu.as_millis() as u64,
            },
        }
    }
}

fn state(lending: Option<&BudgetStatus>, is_computing: bool) -> &'static str {
    let admission = lending.map_or(Admission::All, |lending| lending.budget.admission);
    match admission {
        _ if is_computing => "computing",
        Admission::All => "idle",
        Admission::Begun => "finishing",
        Admission::Nothing => "paused",
    }
}

impl Keys {
    /// Which of these are meant.
    ///
    /// # Errors
    /// For a person: a beginning that none or several have.
    pub fn of(&self, all: &[ContentKey]) -> Result<Vec<ContentKey>, String> {
        if self.keys.is_empty() {
            return Ok(all.to_vec());
        }
        let one = |what: &String| {
            let is_meant = |key: &&ContentKey| !what.is_empty() && key.to_string().starts_with(what.as_str());
            let found: Vec<_> = all.iter().filter(is_meant).collect();
            match found[..] {
                [key] => Ok(*key),
                _ => Err(format!(
                    "`{what}` stands for {} dead letters; `edge queue dead` shows them",
                    found.len()
                )),
            }
        };
        self.keys.iter().map(one).collect()
    }
}

impl StoreView {
    /// Of an open store.
    ///
    /// # Errors
    /// What reading may say.
    pub fn of(store: &Store) -> Result<Self, StoreError> {
        let (report, mut runs) = (store.report()?, store.runs()?);
        runs.sort_by_key(|(id, run)| (Reverse(run.touched_ms), *id));
        let StoreReport { path, disk_bytes, used_bytes, results, .. } = report;
        let runs = runs.iter().map(|(id, run)| RunView::of(id, run)).collect();
        Ok(Self { path, disk_bytes, used_bytes, results, runs })
    }
}

impl RunView {
    fn of(id: &RunId, run: &Run) -> Self {
        let state = match run.state {
            RunState::Begun => "not finished",
            RunState::Done => "done",
            RunState::DoneWithFailures => "done, some failed",
        };
        Self {
            id: id.to_string(),
            title: run.title.clone(),
            state: state.to_owned(),
            touched_ms: run.touched_ms,
            documents: run.documents,
            segments: run.segments,
            text_bytes: run.text_bytes,
        }
    }
}

impl GcView {
    /// Removes what is old. The file shrinks only where the store can be copied, which nobody may have open meanwhile.
    ///
    /// # Errors
    /// What the store may say.
    pub fn carry_out(store: &mut Store, now_ms: Option<u64>, keep: Duration) -> Result<Self, StoreError> {
        let disk_bytes_before = store.report()?.disk_bytes;
        let GcReport { runs, results, results_kept } = store.gc(now_ms, keep, None)?;
        let disk_bytes_after = store.report()?.disk_bytes;
        Ok(Self {
            runs_removed: runs,
            results_removed: results,
            results_kept,
            disk_bytes_before,
            disk_bytes_after,
        })
    }
}

impl Load {
    fn of_this_process() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu = Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0));
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib: u64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        let memory_bytes = kib * 1024;
        Self { cpu_seconds: cpu.as_secs_f64(), memory_bytes }
    }
}

impl PeerView {
    /// Of a connected peer.
    pub fn of(info: &PeerInfo) -> Self {
        Self {
            peer_id: info.peer.to_string(),
            address: info.address.to_string(),
            version: info.program.clone(),
            swarms: info.swarms.clone(),
            connected_s: info.since.as_secs(),
            rtt_ms: (info.rtt.as_secs_f64() * 1e4).round() / 10.0,
        }
    }
}

impl ItemView {
    /// Of an item.
    pub fn of(item: &Item) -> Self {
        let state = match item.state {
            ItemState::Queued => "queued",
            ItemState::Running => "running",
            ItemState::Computed => "computed",
        };
        Self {
            key: item.key.to_string(),
            aggregator: item.aggregator.to_string(),
            state: state.to_owned(),
            tokens: item.tokens,
            alone: item.alone,
        }
    }
}

impl DeadView {
    /// Of a letter.
    pub fn of(key: &ContentKey, letter: &DeadLetter) -> Self {
        let DeadLetter { reason, title, died_ms, .. } = letter.clone();
        Self { key: key.to_string(), reason, title, died_ms }
    }
}

impl JobView {
    /// Of a client.
    pub fn of(info: &ClientInfo) -> Self {
        let ClientInfo { id, about, since, open, done, dead, chunks } = info.clone();
        let swarm = about.swarm.unwrap_or_else(|| "local".to_owned());
        let (title, process) = (about.title, about.process);
        Self { id, title, process, swarm, since_s: since.as_secs(), open, done, dead, chunks }
    }
}
