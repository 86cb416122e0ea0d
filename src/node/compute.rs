//! Compute threads for an actor: windows go in, outcomes come out of a channel; the model is loaded with the first.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
};

use tokio::sync::mpsc;

use crate::{
    inference::{Computed, Engine, Job, ModelError, ModelFolder, Pool, Stop, WindowId},
    wire::PeerId,
};

/// One loaded model for all who compute in this node: the weights are there once.
#[derive(Clone)]
pub(super) struct SharedEngine {
    folder: ModelFolder,
    peer: PeerId,
    loaded: Arc<OnceLock<Arc<Engine>>>,
    /// Held while somebody loads, so that nobody else does.
    loading: Arc<Mutex<()>>,
}

impl fmt::Debug for SharedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedEngine").field("model", &self.folder.hash()).finish_non_exhaustive()
    }
}

impl SharedEngine {
    pub(super) fn new(folder: ModelFolder, peer: PeerId) -> Self {
        Self { folder, peer, loaded: Arc::default(), loading: Arc::default() }
    }

    pub(super) fn folder(&self) -> &ModelFolder {
        &self.folder
    }

    /// Tokens embedded since the model was loaded.
    pub(super) fn tokens_done(&self) -> u64 {
        self.loaded.get().map_or(0, |engine| engine.tokens_done())
    }

    /// Loads the model where nobody has yet; takes most of a second, more on a Raspberry Pi.
    fn get(&self) -> Result<Arc<Engine>, ModelError> {
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = self.loaded.get() {
            return Ok(Arc::clone(engine));
        }
        let engine = Arc::new(Engine::load(&self.folder, self.peer)?);
        Ok(Arc::clone(self.loaded.get_or_init(|| engine)))
    }
}

/// What compute threads say.
#[derive(Debug)]
pub(super) enum ComputeEvent {
    /// The model is loaded and the threads run, or why not.
    Ready(Result<Threads, ComputeError>),
    /// A window has run.
    Computed(WindowId, Vec<Computed>),
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

/// Compute threads of one actor.
#[derive(Debug)]
pub(super) struct Compute {
    engine: SharedEngine,
    threads: usize,
    stop: Stop,
    events: mpsc::Sender<ComputeEvent>,
    state: State,
    /// Windows that no thread has room for yet; the actor hands over no more than it has threads, so they are few.
    waiting: VecDeque<(WindowId, Vec<Job>)>,
}

#[derive(Debug)]
enum State {
    Idle,
    Loading,
    Ready(Threads),
    /// The model does not load, or its threads have ended: nothing will ever run.
    Failed,
}

impl Compute {
    /// Events go to `events`, which needs room for two windows a thread.
    pub(super) fn new(engine: SharedEngine, threads: usize, events: mpsc::Sender<ComputeEvent>) -> Self {
        Self { engine, threads, stop: Stop::default(), events, state: State::Idle, waiting: VecDeque::new() }
    }

    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// Takes a window; it runs when a thread is free.
    pub(super) fn run(&mut self, window: WindowId, jobs: Vec<Job>) {
        self.waiting.push_back((window, jobs));
        match &self.state {
            State::Idle => self.load(),
            State::Loading | State::Failed => {}
            State::Ready(_) => self.feed(),
        }
    }

    /// Takes [`ComputeEvent::Ready`].
    ///
    /// # Errors
    /// [`ComputeError`]: nothing that waits will ever run.
    pub(super) fn ready(&mut self, threads: Result<Threads, ComputeError>) -> Result<(), ComputeError> {
        match threads {
            Ok(threads) => {
                self.state = State::Ready(threads);
                self.feed();
                Ok(())
            }
            Err(error) => {
                self.state = State::Failed;
                self.threads = 0;
                self.waiting.clear();
                Err(error)
            }
        }
    }

    /// Hands what waits to threads that are free. To be called after each window.
    pub(super) fn feed(&mut self) {
        let State::Ready(Threads(pool)) = &self.state else { return };
        while let Some((window, jobs)) = self.waiting.pop_front() {
            if let Err(jobs) = pool.try_submit(window, jobs) {
                return self.waiting.push_front((window, jobs));
            }
        }
    }

    /// Stops between two operators of the model; outcomes say `Stopped`. For good. Gives the windows that no thread
    /// has begun, and none will.
    pub(super) fn stop(&mut self) -> Vec<WindowId> {
        self.stop.ask();
        self.waiting.drain(..).map(|(window, _)| window).collect()
    }

    fn load(&mut self) {
        self.state = State::Loading;
        let (engine, events, threads, stop) =
            (self.engine.clone(), self.events.clone(), self.threads, self.stop.clone());
        let body = move || {
            let outcomes = events.clone();
            let deliver = move |window, computed| {
                outcomes.blocking_send(ComputeEvent::Computed(window, computed)).is_ok()
            };
            let ready = engine.get().map_err(ComputeError::Model).and_then(|engine| {
                Pool::start_into(&engine, threads, stop, deliver).map(Threads).map_err(ComputeError::Threads)
            });
            // Whoever asked may have gone.
            let _ = events.blocking_send(ComputeEvent::Ready(ready));
        };
        if let Err(error) = thread::Builder::new().name("model-load".into()).spawn(body) {
            let _ = self.events.try_send(ComputeEvent::Ready(Err(ComputeError::Threads(error))));
        }
    }
}
