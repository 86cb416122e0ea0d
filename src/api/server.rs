//! The serving end of the control socket, on a thread of its own.

use std::{
    fmt, io,
    sync::mpsc as std_mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, Path, Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::{net::UnixListener, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    SocketError, SocketPlace,
    bounded::Bounded,
    call::{self, Answer, Call},
    rights::{self, Caller},
    sessions::Sessions,
    socket::Made,
    view::{
        Count, DeadView, Gc, GcView, ItemView, JobView, Keys, LendOrder, ModelView, PeerView, Problem,
        Status, StoreView,
    },
};
use crate::{
    inference::CHUNKER_VERSION,
    node::{ClientAbout, Control, DiskError, NodeError, Order, SwarmCommand, SwarmsError, place},
    proto::membership::Swarms,
    wire::{ContentKey, JobSpec},
};

/// Bytes of a question: the keys of two million segments.
const QUESTION_BYTES_MAX: usize = 64 << 20;
/// Characters of what a command says that it works on.
const TITLE_CHARACTERS_MAX: usize = 200;
/// Longest time from a question's head to its answer: a sweep of a large store on an SD card takes long.
const ANSWER_MAX: Duration = Duration::from_secs(300);
const OTHER_VERSION: &str = "the running node is of another version than this command; start it anew";
/// How long connections may take to end when the node ends.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// Serves until it is dropped.
pub struct Server {
    place: SocketPlace,
    made: Made,
    sessions: Sessions,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// What every answer needs.
#[derive(Clone)]
struct Desk {
    control: Control,
    sessions: Sessions,
    /// Who runs the node.
    owner: u32,
    /// Every user may look, and a group may do the rest.
    is_shared: bool,
}

impl Server {
    /// Listens at `place`. The caller holds the lock of the node's directory.
    ///
    /// # Errors
    /// [`SocketError`], also where the system refuses a thread.
    pub fn start(control: Control, place: SocketPlace) -> Result<Self, SocketError> {
        let (listener, made) = place.bind()?;
        let failed = |source| SocketError::Bind { path: place.path().to_owned(), source };
        let (owner, is_shared) = (rights::own_user(), place.is_shared());
        let (sessions, stop) = (Sessions::default(), CancellationToken::new());
        let desk = Desk { control, sessions: sessions.clone(), owner, is_shared };
        let (ready, started) = std_mpsc::sync_channel(1);
        let body = {
            let stop = stop.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = match runtime {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let listener = {
                    let _within = runtime.enter();
                    UnixListener::from_std(listener)
                };
                match listener {
                    Ok(listener) => {
                        let _ = ready.send(Ok(()));
                        runtime.block_on(serve(listener, desk, stop));
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            }
        };
        let thread = thread::Builder::new().name("control".into()).spawn(body).map_err(failed)?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self { place, made, sessions, stop, thread: Some(thread) }),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(failed(io::Error::other("its thread ended"))),
        }
    }

    /// Commands that ask for jobs here now.
    pub fn clients(&self) -> usize {
        self.sessions.count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.place.remove(self.made);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("place", &self.place).finish_non_exhaustive()
    }
}

async fn serve(listener: UnixListener, desk: Desk, stop: CancellationToken) {
    let (sessions, owner, is_shared) = (desk.sessions.clone(), desk.owner, desk.is_shared);
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/peers", get(peers))
        .route("/v1/queue", get(queue))
        .route("/v1/queue/give-back", post(give_back))
        .route("/v1/dead", get(dead))
        .route("/v1/dead/retry", post(retry))
        .route("/v1/jobs", get(jobs))
        .route("/v1/jobs/{id}/cancel", post(cancel))
        .route("/v1/store", get(store))
        .route("/v1/store/gc", post(gc))
        .route("/v1/swarms", post(swarms))
        .route("/v1/lend", post(lend))
        .route("/v1/call", post(called))
        .fallback(|| async { Failure::usage(StatusCode::NOT_FOUND, "there is no such page here") })
        .layer(middleware::from_fn_with_state(desk.clone(), judge))
        .layer(DefaultBodyLimit::max(QUESTION_BYTES_MAX))
        .with_state(desk);
    let bounded = Bounded::new(listener, owner, is_shared);
    let service = router.into_make_service_with_connect_info::<Caller>();
    let asked = stop.clone();
    let stopping = sessions.stopping.clone();
    let served = axum::serve(bounded, service).with_graceful_shutdown(async move {
        asked.cancelled().await;
        stopping.cancel();
    });
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN_WAIT).await;
    };
    tokio::select! {
        ended = served => {
            if let Err(error) = ended {
                tracing::error!(%error, "the control socket ended");
            }
        }
        () = late => {}
    }
    sessions.clear();
}

/// Who may only look gets nothing else; what is too long is not read.
async fn judge(
    State(desk): State<Desk>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > QUESTION_BYTES_MAX) {
        let why = format!("a question has {QUESTION_BYTES_MAX} bytes at most");
        return Failure::usage(StatusCode::PAYLOAD_TOO_LARGE, &why).into_response();
    }
    let group = if desk.is_shared { rights::group() } else { String::new() };
    let may_look = desk.is_shared && request.uri().path() == "/v1/status";
    if may_look || caller.may_all(desk.owner, &group) {
        return match timeout(ANSWER_MAX, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Failure::usage(StatusCode::REQUEST_TIMEOUT, "not answered in time").into_response(),
        };
    }
    let why = "only root and members of the group `edge` may do this with the system's node";
    Failure::usage(StatusCode::FORBIDDEN, why).into_response()
}

type Answered<T> = Result<Json<T>, Failure>;

async fn status(State(desk): State<Desk>) -> Answered<Status> {
    let status = desk.control.status().await?;
    let manifest = desk.control.folder().manifest();
    let hash = desk.control.folder().hash().to_string();
    let model = ModelView { name: manifest.name.clone(), hash, loaded: status.is_model_loaded };
    Ok(Json(Status::of(&status, vec![model])))
}

async fn peers(State(desk): State<Desk>) -> Answered<Vec<PeerView>> {
    Ok(Json(desk.control.peers().await?.iter().map(PeerView::of).collect()))
}

async fn queue(State(desk): State<Desk>) -> Answered<Vec<ItemView>> {
    Ok(Json(desk.control.queue().await?.iter().map(ItemView::of).collect()))
}

async fn give_back(State(desk): State<Desk>) -> Answered<Count> {
    Ok(Json(Count { count: desk.control.give_back().await? as u64 }))
}

async fn dead(State(desk): State<Desk>) -> Answered<Vec<DeadView>> {
    let letters = desk.control.disk().call(|store| store.dead_letters()).await?;
    Ok(Json(letters.iter().map(|(key, letter)| DeadView::of(key, letter)).collect()))
}

async fn retry(State(desk): State<Desk>, Json(asked): Json<Keys>) -> Answered<Count> {
    let letters = desk.control.disk().call(|store| store.dead_letters()).await?;
    let all: Vec<ContentKey> = letters.into_iter().map(|(key, _)| key).collect();
    let keys = asked.of(&all).map_err(|why| Failure::usage(StatusCode::BAD_REQUEST, &why))?;
    Ok(Json(Count { count: desk.control.raise(keys).await? }))
}

async fn jobs(State(desk): State<Desk>) -> Answered<Vec<JobView>> {
    Ok(Json(desk.control.clients().await?.iter().map(JobView::of).collect()))
}

async fn cancel(State(desk): State<Desk>, Path(id): Path<u64>) -> Answered<Count> {
    if !desk.control.cancel(id).await? {
        let why = format!("there is no job {id}; `edge jobs` shows them");
        return Err(Failure::usage(StatusCode::NOT_FOUND, &why));
    }
    Ok(Json(Count { count: 1 }))
}

async fn store(State(desk): State<Desk>) -> Answered<StoreView> {
    Ok(Json(desk.control.disk().call(|store| StoreView::of(store)).await?))
}

async fn gc(State(desk): State<Desk>, Json(asked): Json<Gc>) -> Answered<GcView> {
    if !desk.control.clients().await?.is_empty() {
        let why = "a command is at work on this node, which needs what is stored; try when it has ended";
        return Err(Failure::usage(StatusCode::CONFLICT, why));
    }
    let keep = Duration::from_secs(86_400u64.saturating_mul(asked.days));
    let gone = desk.control.disk().call(move |store| GcView::carry_out(store, asked.now_ms, keep)).await?;
    Ok(Json(gone))
}

async fn swarms(State(desk): State<Desk>, Json(command): Json<SwarmCommand>) -> Result<Response, Failure> {
    let answer = desk.control.swarm(command).await??;
    Ok(Json(answer).into_response())
}

async fn lend(State(desk): State<Desk>, Json(order): Json<LendOrder>) -> Answered<Status> {
    let order = match order {
        LendOrder::Pause { seconds } => Order::Pause(seconds.map(Duration::from_secs)),
        LendOrder::Resume => Order::Resume,
        LendOrder::Finish => Order::Finish,
    };
    if !desk.control.order(order).await? {
        let why = "this node lends nothing in any case: it was started without threads for others";
        return Err(Failure::usage(StatusCode::CONFLICT, why));
    }
    status(State(desk)).await
}

async fn called(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> Result<Response, Failure> {
    if headers.get(call::HEADER).is_none_or(|version| version != call::VERSION) {
        return Err(Failure::usage(StatusCode::UPGRADE_REQUIRED, OTHER_VERSION));
    }
    let call = postcard::from_bytes(&body)
        .map_err(|_| Failure::usage(StatusCode::BAD_REQUEST, "the question does not open"))?;
    let answer = answer(&desk, call).await?;
    let bytes = postcard::to_allocvec(&answer)
        .map_err(|error| Failure::internal(&format!("the answer is none: {error}")))?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

async fn answer(desk: &Desk, call: Call) -> Result<Answer, Failure> {
    let disk = desk.control.disk();
    Ok(match call {
        Call::Attach { .. } => attach(desk, call).await?,
        Call::Submit { client, jobs } => {
            let model = desk.control.folder().hash();
            let is_ours = |job: &JobSpec| job.model == model && job.chunker == CHUNKER_VERSION;
            if !jobs.iter().all(is_ours) {
                return Err(Failure::usage(StatusCode::CONFLICT, OTHER_VERSION));
            }
            desk.sessions.submit(client, jobs).await?
        }
        Call::Events { client, wait_ms } => desk.sessions.events(client, wait_ms).await,
        Call::Detach { client } => {
            if desk.sessions.remove(client).await {
                Answer::Kept
            } else {
                Answer::Unknown
            }
        }
        Call::Known { run } => Answer::Known(disk.run(run).await?),
        Call::Begin { id, run, keys } => {
            disk.begin_run(id, run, keys).await?;
            Answer::Kept
        }
        Call::End { id, run } => {
            disk.end_run(id, run).await?;
            Answer::Kept
        }
        // What others have been told is done they must still find.
        Call::Sweep { .. } if desk.sessions.count() > 1 => Answer::Swept(None),
        Call::Sweep { now_ms, keep_s, current } => {
            let report = disk.sweep(now_ms, Duration::from_secs(keep_s), current).await?;
            Answer::Swept(report.map(|report| (report.runs, report.results, report.results_kept)))
        }
        Call::Result { key, text_bytes } => {
            let dimension = desk.control.folder().manifest().dimension;
            let found = disk.result(key, text_bytes as usize, dimension).await?;
            Answer::Result(found.map(Box::new))
        }
    })
}

async fn attach(desk: &Desk, call: Call) -> Result<Answer, Failure> {
    let Call::Attach { title, process, swarm, retries_dead, model } = call else {
        return Err(Failure::internal("no question to attach"));
    };
    let own = desk.control.folder();
    if own.hash() != model {
        let name = &own.manifest().name;
        let why = format!("the running node has the model {name} and no other; start it anew with --model");
        return Err(Failure::usage(StatusCode::CONFLICT, &why));
    }
    let status = desk.control.status().await?;
    let mut book = Swarms::default();
    for record in status.swarms {
        // There are no more than were put in before.
        let _ = book.put(record);
    }
    let placement = place(&book, &swarm)?;
    if placement.is_some_and(|id| status.refused.contains_key(&id)) {
        return Err(SwarmsError::Kicked { what: swarm }.into());
    }
    let record = placement.and_then(|id| book.get(&id));
    let name = record.map(|record| record.founding().name.to_string());
    let is_plain = |c: &char| !c.is_control();
    let title = title.chars().filter(is_plain).take(TITLE_CHARACTERS_MAX).collect();
    let about = ClientAbout { title, process, swarm: name.clone(), retries_dead };
    let client = desk.control.attach(about).await?;
    let Some(session) = desk.sessions.add(client, placement) else {
        let why = "too many commands ask this node for jobs; wait for one to end";
        return Err(Failure::usage(StatusCode::TOO_MANY_REQUESTS, why));
    };
    let threads = status.own_threads as u32;
    Ok(Answer::Attached { client: session, peer: desk.control.peer(), threads, swarm: name })
}

/// What went wrong, as the answer.
struct Failure(StatusCode, Problem);

impl Failure {
    fn usage(code: StatusCode, error: &str) -> Self {
        Self(code, Problem { error: error.to_owned(), usage: true })
    }

    fn internal(error: &str) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, Problem { error: error.to_owned(), usage: false })
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<NodeError> for Failure {
    fn from(_: NodeError) -> Self {
        let error = "the node ends".to_owned();
        Self(StatusCode::SERVICE_UNAVAILABLE, Problem { error, usage: false })
    }
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Self {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        Self::internal(&format!("{error}{}", source.unwrap_or_default()))
    }
}

impl From<SwarmsError> for Failure {
    fn from(error: SwarmsError) -> Self {
        let text = error.to_string();
        if error.is_usage() { Self::usage(StatusCode::BAD_REQUEST, &text) } else { Self::internal(&text) }
    }
}
