//! Compute threads over one engine, fed and emptied through bounded channels.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{Engine, Job, JobError, Pace, Stop, Took};
use crate::wire::{ContentKey, SegmentResult};

/// Windows that wait for each thread: one, so that no thread waits for its feeder.
const WINDOWS_WAITING_PER_THREAD: usize = 1;

/// One job's outcome.
#[derive(Debug)]
pub struct Computed {
    /// The job's key.
    pub key: ContentKey,
    /// Its result, or why there is none.
    pub result: Result<SegmentResult, JobError>,
    /// Its share of one thread's time.
    pub took: Took,
}

/// A window's name, given by whoever submits it.
pub type WindowId = u64;

/// Takes the outcomes of a window, on the thread that computed it; `false` where nobody wants them any more, which
/// ends the thread. It must not block for long: the thread computes nothing meanwhile.
type Deliver = dyn Fn(WindowId, Vec<Computed>) -> bool + Send + Sync;

/// Makes the pace of a thread, on that thread, before it does anything else.
pub type MakePace = dyn Fn() -> Box<dyn Pace> + Send + Sync;

/// Threads that compute. Dropping the pool asks them to stop and waits for them.
pub struct Pool {
    jobs: Option<SyncSender<(WindowId, Vec<Job>)>>,
    computed: Option<Receiver<Vec<Computed>>>,
    threads: Vec<JoinHandle<()>>,
    stop: Stop,
}

impl Pool {
    /// Starts `threads` threads that keep to a pace, whose outcomes are received here. They stop between two operators of
    /// the model once `stop` is asked.
    ///
    /// # Errors
    /// What the system says when it refuses a thread.
    pub fn start(engine: &Arc<Engine>, threads: usize, stop: Stop, pace: Arc<MakePace>) -> io::Result<Self> {
        let (sender, computed) = sync_channel(threads * (WINDOWS_WAITING_PER_THREAD + 1));
        let deliver = move |_, outcomes| sender.send(outcomes).is_ok();
        let mut pool = Self::start_into(engine, threads, stop, pace, deliver)?;
        pool.computed = Some(computed);
        Ok(pool)
    }

    /// Starts `threads` threads that keep to a pace and hand their outcomes to `deliver`.
    ///
    /// # Errors
    /// What the system says when it refuses a thread.
    pub fn start_into(
        engine: &Arc<Engine>,
        threads: usize,
        stop: Stop,
        pace: Arc<MakePace>,
        deliver: impl Fn(WindowId, Vec<Computed>) -> bool + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (jobs, feed) = sync_channel(threads * WINDOWS_WAITING_PER_THREAD);
        let feed = Arc::new(Mutex::new(feed));
        let deliver: Arc<Deliver> = Arc::new(deliver);
        let mut pool = Self { jobs: Some(jobs), computed: None, threads: Vec::new(), stop: stop.clone() };
        for n in 0..threads {
            let (engine, feed, deliver, stop) =
                (Arc::clone(engine), Arc::clone(&feed), Arc::clone(&deliver), stop.clone());
            let pace = Arc::clone(&pace);
            let body = move || compute(&engine, &feed, &mut *pace(), &*deliver, &stop);
            pool.threads.push(thread::Builder::new().name(format!("compute-{n}")).spawn(body)?);
        }
        Ok(pool)
    }

    /// Hands a window of jobs to the next free thread; gives it back where all are busy.
    pub fn try_submit(&self, id: WindowId, window: Vec<Job>) -> Result<(), Vec<Job>> {
        let Some(jobs) = &self.jobs else { return Err(window) };
        jobs.try_send((id, window)).map_err(|error| match error {
            TrySendError::Full((_, window)) | TrySendError::Disconnected((_, window)) => window,
        })
    }

    /// The next window's outcomes; `None` after `wait`, or when every thread has ended.
    pub fn receive(&self, wait: Duration) -> Option<Vec<Computed>> {
        self.computed.as_ref()?.recv_timeout(wait).ok()
    }

    /// Asks the threads to stop between two operators, and gives them no more jobs. Outcomes can still be
    /// received.
    pub fn stop(&mut self) {
        self.stop.ask();
        self.jobs = None;
    }

    /// Whether every thread has ended: after a stop, or because something is badly wrong.
    pub fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
        // A thread that waits to hand over what nobody will receive ends with an error.
        self.computed = None;
        for thread in self.threads.drain(..) {
            // A panic of the thread itself was logged by the hook; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn compute(
    engine: &Engine,
    feed: &Mutex<Receiver<(WindowId, Vec<Job>)>>,
    pace: &mut dyn Pace,
    deliver: &Deliver,
    stop: &Stop,
) {
    let mut embedder = match engine.embedder() {
        Ok(embedder) => embedder,
        Err(error) => return tracing::error!(%error, "compute thread does not start"),
    };
    while !stop.is_asked() {
        let next = feed.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((id, window)) = next else { return };
        let results = engine.run(&mut embedder, pace, &window, stop);
        let computed = window
            .into_iter()
            .zip(results)
            .map(|(job, (result, took))| Computed { key: job.key, result, took })
            .collect();
        if !deliver(id, computed) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        inference::{Carry, ChunkOptions, ModelFolder, Syntax, unpaced},
        wire::PeerId,
    };

    const OPTIONS: ChunkOptions = ChunkOptions { tokens_max: 254, overlap_tokens: 0 };

    fn engine() -> Arc<Engine> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/all-minilm-l6-v2");
        Arc::new(Engine::load(&ModelFolder::read(&path).unwrap(), PeerId::from_bytes([0; 32])).unwrap())
    }

    fn window(n: u8, text: &str) -> Vec<Job> {
        let key = ContentKey::from_bytes([n; 32]);
        let (syntax, carry) = (Syntax::Plain, Carry::default());
        vec![Job { key, text: text.to_owned(), body_start: 0, options: OPTIONS, syntax, carry }]
    }

    /// More results than the channel holds, and nobody who takes them: dropping must not wait for ever.
    #[test]
    fn a_pool_that_nobody_empties_can_be_dropped() {
        let pool = Pool::start(&engine(), 1, Stop::default(), unpaced()).unwrap();
        for n in 0..4 {
            let mut refused = Err(window(n, "A text."));
            while let Err(window) = refused {
                refused = pool.try_submit(0, window);
                thread::yield_now();
            }
        }
        drop(pool);
    }

    #[test]
    fn an_idle_pool_stops_and_refuses_more() {
        let mut pool = Pool::start(&engine(), 2, Stop::default(), unpaced()).unwrap();
        assert!(pool.try_submit(0, window(1, "A text.")).is_ok());
        while pool.receive(Duration::from_secs(60)).is_none() {}
        pool.stop();
        assert!(pool.try_submit(0, window(2, "A text.")).is_err());
        while !pool.is_over() {
            thread::yield_now();
        }
    }

    /// Stopped in the middle of a long window, its jobs come back as stopped.
    #[test]
    fn a_busy_pool_stops_inside_the_model() {
        let stop = Stop::default();
        let pool = Pool::start(&engine(), 1, stop.clone(), unpaced()).unwrap();
        assert!(pool.try_submit(0, window(1, &"The sea is calm and the lamp is lit. ".repeat(800))).is_ok());
        assert!(pool.receive(Duration::from_millis(50)).is_none());
        stop.ask();
        let computed = pool.receive(Duration::from_secs(60)).unwrap();
        assert!(matches!(computed[0].result, Err(JobError::Stopped)));
    }
}
