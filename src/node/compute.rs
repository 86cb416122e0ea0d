//! Compute threads for an actor: windows go in, outcomes come out of a channel; the model is loaded with the first.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::{
    inference::{Computed, Engine, Job, MakePace, ModelError, ModelFolder, Pool, Stop, WindowId},
    wire::PeerId,
};

/// The model is let go when there was nothing to compute for so long: loading it takes a second or two, and it is most of
/// what this program weighs.
const UNLOAD_AFTER: Duration = Duration::from_secs(120);

/// One loaded model for all who compute in this node: the weights are there once, and only while somebody has them.
#[derive(Clone)]
pub(super) struct SharedEngine {
    folder: ModelFolder,
    peer: PeerId,
    loaded: Arc<Mutex<Weak<Engine>>>,
    tokens_done: Arc<AtomicU64>,
}

impl fmt::Debug for SharedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedEngine").field("model", &self.folder.hash()).finish_non_exhaustive()
    }
}

impl SharedEngine {
    pub(super) fn new(folder: ModelFolder, peer: PeerId) -> Self {
        Self { folder, peer, loaded: Arc::default(), tokens_done: Arc::default() }
    }

    pub(super) fn folder(&self) -> &ModelFolder {
        &self.folder
    }

    /// Tokens embedded since the start of this node.
    pub(super) fn tokens_done(&self) -> u64 {
        self.tokens_done.load(Ordering::Relaxed)
    }

    /// Whether the model is in memory.
    pub(super) fn is_loaded(&self) -> bool {
        // Whoever loads holds the lock: then it is about to be.
        self.loaded.try_lock().map_or(true, |loaded| loaded.strong_count() > 0)
    }

    /// Loads the model where nobody has it; takes most of a second, more on a Raspberry Pi.
    fn get(&self) -> Result<Arc<Engine>, ModelError> {
        // Held while somebody loads, so that nobody else does.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = loaded.upgrade() {
            return Ok(engine);
        }
        let engine = Engine::load(&self.folder, self.peer)?.counting(Arc::clone(&self.tokens_done));
        let engine = Arc::new(engine);
        *loaded = Arc::downgrade(&engine);
        Ok(engine)
    }
}

/// What compute threads say.
#[derive(Debug)]
pub(super) enum ComputeEvent {
    /// The model is loaded and the threads run, or why not.
    Ready(Result<Threads, ComputeError>),
    /// A window has run.
    Computed(WindowId, Vec<Computed>),
    /// The threads have ended, and the model is out of memory where nobody else has it.
    LetGo,
}

/// Threads that run.
pub(super) struct Threads(Pool);

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Threads")
    }
}

/// Why nothing can be computed.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// The model does not load.
    #[error("cannot load the model")]
    Model(#[source] ModelError),
    /// The system refused a thread.
    #[error("cannot start compute threads")]
    Threads(#[source] io::Error),
}

/// Compute threads of one actor: started with its first window, and let go when it has none for a while.
pub(super) struct Compute {
    engine: SharedEngine,
    threads: usize,
    /// Threads there were before the model did not load.
    threads_max: usize,
    pace: Arc<MakePace>,
    stop: Stop,
    events: mpsc::Sender<ComputeEvent>,
    state: State,
    /// Windows that no thread has room for yet; the actor hands over no more than it has threads, so they are few.
    waiting: VecDeque<(WindowId, Vec<Job>)>,
    /// Windows that threads have, or that lie before them.
    handed: BTreeSet<WindowId>,
    /// Since when there has been nothing to do.
    idle_since: Instant,
}

impl fmt::Debug for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compute")
            .field("threads", &self.threads)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum State {
    /// No threads.
    Idle,
    Loading {
        /// They are let go as soon as they are there.
        is_unwanted: bool,
    },
    Ready(Threads),
    /// They are being let go.
    Ending,
    /// The model does not load, or its threads have ended: nothing will ever run.
    Failed,
}

impl Compute {
    /// Events go to `events`, which needs room for two windows a thread and one more. Threads run at the pace that `pace`
    /// makes for each.
    pub(super) fn new(
        engine: SharedEngine,
        threads: usize,
        pace: Arc<MakePace>,
        events: mpsc::Sender<ComputeEvent>,
    ) -> Self {
        let (stop, waiting, handed) = (Stop::default(), VecDeque::new(), BTreeSet::new());
        let (state, idle_since) = (State::Idle, Instant::now());
        Self { engine, threads, threads_max: threads, pace, stop, events, state, waiting, handed, idle_since }
    }

    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// Takes a window; it runs when a thread is free.
    pub(super) fn run(&mut self, window: WindowId, jobs: Vec<Job>) {
        self.waiting.push_back((window, jobs));
        match &self.state {
            State::Idle => self.load(),
            State::Loading { .. } | State::Ending | State::Failed => {}
            State::Ready(_) => self.feed(),
        }
    }

    /// Takes [`ComputeEvent::Ready`].
    ///
    /// # Errors
    /// [`ComputeError`]: nothing that waits will ever run.
    pub(super) fn ready(&mut self, threads: Result<Threads, ComputeError>) -> Result<(), ComputeError> {
        let is_unwanted = matches!(self.state, State::Loading { is_unwanted: true });
        match threads {
            Ok(threads) => {
                self.state = State::Ready(threads);
                if is_unwanted {
                    self.end();
                }
                self.feed();
                Ok(())
            }
            Err(error) => {
                self.state = State::Failed;
                self.waiting.clear();
                Err(error)
            }
        }
    }

    /// Nothing will ever run here.
    pub(super) fn give_up(&mut self) {
        self.threads = 0;
    }

    /// The model may load by now.
    pub(super) fn retry(&mut self) {
        if matches!(self.state, State::Failed) {
            (self.state, self.threads) = (State::Idle, self.threads_max);
        }
    }

    /// Hands what waits to threads that are free.
    fn feed(&mut self) {
        let State::Ready(Threads(pool)) = &self.state else { return };
        while let Some((window, jobs)) = self.waiting.pop_front() {
            if let Err(jobs) = pool.try_submit(window, jobs) {
                return self.waiting.push_front((window, jobs));
            }
            self.handed.insert(window);
        }
    }

    /// Takes [`ComputeEvent::Computed`]: a thread is free.
    pub(super) fn computed(&mut self, window: WindowId) {
        self.handed.remove(&window);
        self.idle_since = Instant::now();
        self.feed();
    }

    /// Stops between two operators of the model; outcomes say `Stopped`. For good. Gives the windows that no thread
    /// has begun, and none will.
    pub(super) fn stop(&mut self) -> Vec<WindowId> {
        self.stop.ask();
        self.waiting.drain(..).map(|(window, _)| window).collect()
    }

    /// When [`Compute::let_go`] is due because there is nothing to do.
    pub(super) fn let_go_at(&self) -> Option<Instant> {
        let is_idle = self.handed.is_empty() && self.waiting.is_empty();
        (is_idle && matches!(self.state, State::Ready(_))).then(|| self.idle_since + UNLOAD_AFTER)
    }

    /// As [`Compute::stop`], but what comes later runs, when the threads are there anew. What they have is told as usual, and
    /// [`ComputeEvent::LetGo`] comes after it.
    pub(super) fn let_go(&mut self) -> Vec<WindowId> {
        match &mut self.state {
            State::Ready(_) => self.end(),
            State::Loading { is_unwanted } => *is_unwanted = true,
            State::Idle | State::Ending | State::Failed => {}
        }
        self.waiting.drain(..).map(|(window, _)| window).collect()
    }

    /// Ends the threads beside this actor: they may take a moment to notice.
    fn end(&mut self) {
        let State::Ready(threads) = std::mem::replace(&mut self.state, State::Ending) else { return };
        std::mem::take(&mut self.stop).ask();
        let events = self.events.clone();
        let body = move || {
            drop(threads);
            trim();
            // Whoever asked may have gone.
            let _ = events.blocking_send(ComputeEvent::LetGo);
        };
        if let Err(error) = thread::Builder::new().name("model-unload".into()).spawn(body) {
            // The threads were dropped with the closure: that took a moment, and it is over.
            tracing::warn!(%error, "no thread to end compute threads on");
            let _ = self.events.try_send(ComputeEvent::LetGo);
        }
    }

    /// Takes [`ComputeEvent::LetGo`]; gives the windows that no thread had begun, though they lay before it.
    pub(super) fn ended(&mut self) -> Vec<WindowId> {
        if matches!(self.state, State::Ending) {
            self.state = State::Idle;
            if !self.waiting.is_empty() {
                self.load();
            }
        }
        std::mem::take(&mut self.handed).into_iter().collect()
    }

    fn load(&mut self) {
        self.state = State::Loading { is_unwanted: false };
        let (engine, events, threads, stop) =
            (self.engine.clone(), self.events.clone(), self.threads, self.stop.clone());
        let pace = Arc::clone(&self.pace);
        let body = move || {
            let outcomes = events.clone();
            let deliver = move |window, computed| {
                outcomes.blocking_send(ComputeEvent::Computed(window, computed)).is_ok()
            };
            let ready = engine.get().map_err(ComputeError::Model).and_then(|engine| {
                let pool = Pool::start_into(&engine, threads, stop, pace, deliver);
                pool.map(Threads).map_err(ComputeError::Threads)
            });
            // Whoever asked may have gone.
            let _ = events.blocking_send(ComputeEvent::Ready(ready));
        };
        if let Err(error) = thread::Builder::new().name("model-load".into()).spawn(body) {
            let _ = self.events.try_send(ComputeEvent::Ready(Err(ComputeError::Threads(error))));
        }
    }
}

/// Gives freed memory back to the system: a model is a hundred megabytes, of which malloc(3) keeps parts for later.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, and locks what it touches.
    #[expect(unsafe_code, reason = "a call of the C library")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{
        inference::{Carry, ChunkOptions, Pace, Syntax},
        node::valve::Valve,
        wire::ContentKey,
    };

    /// Name, nice value and policy of the calling thread: fields 2, 19 and 41 of proc(5).
    fn runs_at() -> (String, String, String) {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (head, tail) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        (head.split_once('(').unwrap().1.to_owned(), fields[16].to_owned(), fields[38].to_owned())
    }

    /// Looks how the thread runs that has just computed.
    struct Watched {
        pace: Box<dyn Pace>,
        seen: Arc<Mutex<BTreeSet<(String, String, String)>>>,
    }

    impl Pace for Watched {
        fn enter(&mut self, stop: &Stop) -> usize {
            self.pace.enter(stop)
        }

        fn leave(&mut self, tokens: usize, cpu: Duration) {
            self.seen.lock().unwrap().insert(runs_at());
            self.pace.leave(tokens, cpu);
        }
    }

    /// The ways in which the threads of a valve were seen to compute one job with the real model.
    async fn ways(gives_way: bool) -> BTreeSet<(String, String, String)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/all-minilm-l6-v2");
        let engine = SharedEngine::new(ModelFolder::read(&folder).unwrap(), PeerId::from_bytes([1; 32]));
        let (valve, seen) = (Valve::new(1, gives_way), Arc::new(Mutex::default()));
        valve.set(1, 1000);
        let pace = {
            let seen = Arc::clone(&seen);
            Arc::new(move || -> Box<dyn Pace> {
                Box::new(Watched { pace: valve.pace(), seen: Arc::clone(&seen) })
            })
        };
        let (events, mut said) = mpsc::channel(8);
        let mut compute = Compute::new(engine, 1, pace, events);
        let job = Job {
            key: ContentKey::from_bytes([2; 32]),
            text: "Whoever lends a machine must not notice it.".into(),
            body_start: 0,
            options: ChunkOptions { tokens_max: 254, overlap_tokens: 0 },
            syntax: Syntax::Plain,
            carry: Carry::default(),
        };
        compute.run(1, vec![job]);
        loop {
            match said.recv().await.unwrap() {
                ComputeEvent::Ready(threads) => compute.ready(threads).unwrap(),
                ComputeEvent::Computed(_, computed) => {
                    assert!(computed.iter().all(|one| one.result.is_ok()), "{computed:?}");
                    break;
                }
                ComputeEvent::LetGo => {}
            }
        }
        seen.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn who_computes_for_others_gives_way_where_the_owner_says_so_and_nobody_else_does() {
        let before = runs_at();
        let way = |nice: &str, policy: &str| {
            BTreeSet::from([("compute-0".to_owned(), nice.to_owned(), policy.to_owned())])
        };
        assert_eq!(ways(true).await, way("19", "5"));
        assert_eq!(ways(false).await, way(&before.1, &before.2));
        assert_eq!(runs_at(), before);
    }
}
