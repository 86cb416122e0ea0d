//! What somebody who is in no swarm of ours gets from a running node: a version, random numbers, refusals. Spoken with the
//! library's own transport, so that every byte is seen.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use ed25519_dalek::SigningKey;
use edge::{
    transport::{CloseCode, Closed, Connection, Endpoint, Exchange, Listen, TransportError},
    wire::{
        self, Budget, DemandAsked, DemandTold, Founding, Hello, Introduction, Invite, InviteId, Issued,
        JoinRequest, LeaveSwarm, Message, NotAdmitted, PUBLIC_SECRET, PeerId, PeersAsked, PeersTold,
        PowerSource, Pull, Refusal, RefusalReason, Refused, Release, Signed, SwarmId, TAGS, Ticket,
    },
};

use crate::{edge::Edge, namespace};

const WAIT: Duration = Duration::from_secs(20);
const BYTES_MAX: usize = 1 << 20;

/// Asks for as little work as one can.
fn pull() -> Pull {
    let (duty_permille, power) = (1000, PowerSource::Mains);
    let budget = Budget { threads: 1, duty_permille, tokens_per_s: 1, power, lasts_s: None };
    Pull { budget, models: Vec::new(), chunker: 1, tokens: 1, jobs: 1, wait_ms: 0 }
}

/// A node in a namespace of the test's own, and somebody who dials it.
struct Scene {
    node: PeerId,
    address: SocketAddr,
    stranger: Endpoint,
}

fn id_of(key: &SigningKey) -> PeerId {
    PeerId::from_bytes(key.verifying_key().to_bytes())
}

impl Scene {
    fn new(node: PeerId, port: u16) -> Self {
        let stranger = Endpoint::bind(&SigningKey::from_bytes(&[9; 32]), Listen::default()).unwrap();
        Self { node, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), stranger }
    }

    async fn dial(&self) -> Connection {
        self.stranger.dial(self.address, Some(self.node)).await.unwrap()
    }

    /// A connection on which both have said hello; what the node has shown.
    async fn met(&self) -> (Connection, Vec<u8>, Vec<u8>) {
        self.met_with(|_| vec![[7; 16]; TAGS]).await
    }

    /// As a peer of the public pool.
    async fn met_in_public(&self) -> (Connection, Vec<u8>, Vec<u8>) {
        let me = self.stranger.peer_id();
        self.met_with(|connection| {
            let mut tags = vec![[7; 16]; TAGS];
            tags[9] = PUBLIC_SECRET.tag(&connection.exporter(), &me);
            tags
        })
        .await
    }

    async fn met_with(
        &self,
        tags: impl FnOnce(&Connection) -> Vec<[u8; 16]>,
    ) -> (Connection, Vec<u8>, Vec<u8>) {
        let connection = self.dial().await;
        let mut exchange = connection.open().await.unwrap();
        let hello = Hello { boot: [1; 16], program: "0.0.0".into(), tags: tags(&connection) };
        send(&mut exchange, &wire::encode(&hello)).await;
        let theirs = exchange.receive(BYTES_MAX, WAIT).await.unwrap().unwrap();
        send(&mut exchange, &wire::encode(&Introduction { credentials: Vec::new() })).await;
        let shown = exchange.receive(BYTES_MAX, WAIT).await.unwrap().unwrap();
        (connection, theirs, shown)
    }
}

/// Says hello on a connection that the node may close before it answers.
async fn knock(connection: &Connection) {
    let said = async {
        let mut exchange = connection.open().await?;
        let hello = Hello { boot: [1; 16], program: "0.0.0".into(), tags: vec![[7; 16]; TAGS] };
        exchange.send(&wire::encode(&hello), BYTES_MAX, WAIT).await?;
        exchange.receive(BYTES_MAX, WAIT).await?;
        let nothing = Introduction { credentials: Vec::new() };
        exchange.send(&wire::encode(&nothing), BYTES_MAX, WAIT).await?;
        exchange.receive(BYTES_MAX, WAIT).await
    };
    let _: Result<_, TransportError> = said.await;
}

async fn send(exchange: &mut Exchange, frame: &[u8]) {
    exchange.send(frame, BYTES_MAX, WAIT).await.unwrap();
}

/// The answer to one frame.
async fn asked(connection: &Connection, frame: &[u8]) -> Result<Option<Vec<u8>>, TransportError> {
    let mut exchange = connection.open().await?;
    exchange.send(frame, BYTES_MAX, WAIT).await?;
    exchange.finish()?;
    exchange.receive(BYTES_MAX, WAIT).await
}

async fn refused(connection: &Connection, frame: &[u8]) -> RefusalReason {
    let answer = asked(connection, frame).await.unwrap().unwrap();
    wire::decode::<Refused>(&answer).unwrap().reason
}

async fn not_admitted(connection: &Connection, request: &JoinRequest) -> Refusal {
    let answer = asked(connection, &wire::encode(request)).await.unwrap().unwrap();
    wire::decode::<NotAdmitted>(&answer).unwrap().refusal
}

/// Runs `body` against a node whose swarm's ticket is handed in; afterwards the node must still end as it should.
fn against_a_node(edge: &Edge, body: impl AsyncFnOnce(Scene, Ticket)) {
    against_a_node_that(&[], edge, body);
}

fn against_a_node_that(arguments: &[&str], edge: &Edge, body: impl AsyncFnOnce(Scene, Ticket)) {
    edge.run(["swarm", "create", "home"]).expect(0, &[]);
    let ticket = edge.run(["swarm", "invite", "home"]).expect(0, &[]).stdout;
    let node = edge.run(["id"]).expect(0, &[]).stdout.trim().parse().unwrap();
    let mut all = vec!["run", "--threads", "1", "--port", "4500"];
    all.extend(arguments);
    let running = edge.start(&all);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let scene = Scene::new(node, 4500);
        // It may not listen yet.
        while scene.stranger.dial(scene.address, Some(node)).await.is_err() {
            tokio::task::yield_now().await;
        }
        body(scene, ticket.trim().parse().unwrap()).await;
    });
    running.signal("TERM");
    running.wait().expect(0, &["giving back"]);
}

fn invite(key: &SigningKey, swarm: SwarmId, by: PeerId) -> Issued {
    let invite = Invite { swarm, id: InviteId::from_bytes([5; 16]), expires_ms: None, uses_max: 9, epoch: 0 };
    Issued { by, delegation: None, paper: Signed::sign(key, &invite) }
}

#[test]
fn strangers_learn_a_version_and_random_numbers() {
    namespace::alone("strangers::strangers_learn_a_version_and_random_numbers", || {
        let edge = Edge::new();
        against_a_node(&edge, async |scene, ticket| {
            let (connection, hello, shown) = scene.met().await;
            assert_eq!(shown, [1, 2, 0], "no credential at all");
            let hello_of = |frame: &[u8]| wire::decode::<Hello>(frame).unwrap();
            let (_, second, _) = scene.met().await;
            let (first, second) = (hello_of(&hello), hello_of(&second));
            assert_eq!((first.tags.len(), second.tags.len()), (TAGS, TAGS), "nobody counts its swarms");
            let is_new = |tag: &[u8; 16]| !first.tags.contains(tag);
            assert!(second.tags.iter().all(is_new), "nothing can be recognised on another connection");
            let text = String::from_utf8_lossy(&hello).into_owned();
            assert!(!text.contains("home") && text.contains(env!("CARGO_PKG_VERSION")));
            let swarm = *ticket.founding().id().as_bytes();
            assert!(!hello.windows(16).any(|bytes| bytes == &swarm[..16]));
            drop(connection);
        });
    });
}

#[test]
fn strangers_get_no_work_no_peers_and_no_membership() {
    namespace::alone("strangers::strangers_get_no_work_no_peers_and_no_membership", || {
        let edge = Edge::new();
        against_a_node(&edge, async |scene, ticket| {
            let (connection, ..) = scene.met().await;
            let swarm = ticket.founding().id();
            for frame in [
                wire::encode(&pull()),
                wire::encode(&PeersAsked {}),
                wire::encode(&Release { attempts: vec![1] }),
                wire::encode(&LeaveSwarm { swarm }),
                vec![1, 200],
            ] {
                assert_eq!(refused(&connection, &frame).await, RefusalReason::Stranger, "{frame:?}");
            }
            let mine = SigningKey::from_bytes(&[9; 32]);
            let founder = ticket.founding().founder;
            let elsewhere =
                Founding { founder: id_of(&mine), nonce: [1; 16], name: "other".parse().unwrap() }.id();
            let ask = async |swarm, invite| not_admitted(&connection, &JoinRequest { swarm, invite }).await;
            assert_eq!(ask(swarm, invite(&mine, swarm, founder)).await, Refusal::Forged);
            // Of a swarm that it is not in it says the same as of an invite of somebody else's.
            assert_eq!(ask(swarm, invite(&mine, swarm, id_of(&mine))).await, Refusal::NotAdmitting);
            assert_eq!(ask(elsewhere, invite(&mine, elsewhere, id_of(&mine))).await, Refusal::NotAdmitting);
            assert_eq!(ask(elsewhere, ticket.invite().clone()).await, Refusal::NotAdmitting);
            // The ticket itself lets one in, and only one.
            let request = JoinRequest { swarm, invite: ticket.invite().clone() };
            let admitted = asked(&connection, &wire::encode(&request)).await.unwrap().unwrap();
            assert_eq!(wire::kind(&admitted), Ok(wire::Admitted::KIND));
            let another = Endpoint::bind(&SigningKey::from_bytes(&[8; 32]), Listen::default()).unwrap();
            let second = Scene { stranger: another, ..scene };
            let (connection, ..) = second.met().await;
            assert_eq!(not_admitted(&connection, &request).await, Refusal::Exhausted);
        });
    });
}

#[test]
fn malformed_messages_cost_only_themselves() {
    namespace::alone("strangers::malformed_messages_cost_only_themselves", || {
        let edge = Edge::new();
        against_a_node(&edge, async |scene, _| {
            let (connection, ..) = scene.met().await;
            assert_eq!(refused(&connection, &[9, 16]).await, RefusalReason::Wrong, "another version");
            assert_eq!(refused(&connection, &[1]).await, RefusalReason::Wrong, "cut off");
            assert_eq!(refused(&connection, &[1, 5, 0xff, 0xff]).await, RefusalReason::Wrong, "no body");
            let long = [&[1, 5][..], &[0; 60_000]].concat();
            assert!(asked(&connection, &long).await.is_err(), "longer than any question of a stranger");
            // One that says nothing, and one that stops in the middle, keep nobody from being answered.
            let silent = scene.dial().await;
            let mut half = connection.open().await.unwrap();
            half.send(&[1, 5], BYTES_MAX, WAIT).await.unwrap();
            assert_eq!(refused(&connection, &[1, 3]).await, RefusalReason::Stranger);
            // Who begins with something else than hello is not spoken with.
            let mut exchange = silent.open().await.unwrap();
            send(&mut exchange, &wire::encode(&PeersAsked {})).await;
            assert!(!matches!(exchange.receive(BYTES_MAX, WAIT).await, Ok(Some(_))));
            let (connection, ..) = scene.met().await;
            assert_eq!(refused(&connection, &[1, 3]).await, RefusalReason::Stranger);
        });
    });
}

#[test]
fn who_asks_to_join_too_often_waits() {
    namespace::alone("strangers::who_asks_to_join_too_often_waits", || {
        let edge = Edge::new();
        against_a_node(&edge, async |scene, ticket| {
            let (connection, ..) = scene.met().await;
            let mine = SigningKey::from_bytes(&[9; 32]);
            let (swarm, founder) = (ticket.founding().id(), ticket.founding().founder);
            let forged = wire::encode(&JoinRequest { swarm, invite: invite(&mine, swarm, founder) });
            let mut answered = 0;
            let retry_ms = loop {
                let answer = asked(&connection, &forged).await.unwrap().unwrap();
                match wire::decode::<Refused>(&answer) {
                    Ok(Refused { reason: RefusalReason::Full, retry_ms }) => break retry_ms,
                    _ => assert_eq!(wire::decode::<NotAdmitted>(&answer).unwrap().refusal, Refusal::Forged),
                }
                answered += 1;
                assert!(answered < 100, "nobody is checked so often");
            };
            assert!((1000..=5000).contains(&retry_ms), "{retry_ms}");
            // It keeps out nobody but itself.
            let another = Endpoint::bind(&SigningKey::from_bytes(&[8; 32]), Listen::default()).unwrap();
            let second = Scene { stranger: another, ..scene };
            let (connection, ..) = second.met().await;
            let request = JoinRequest { swarm, invite: ticket.invite().clone() };
            let admitted = asked(&connection, &wire::encode(&request)).await.unwrap().unwrap();
            assert_eq!(wire::kind(&admitted), Ok(wire::Admitted::KIND));
        });
    });
}

#[test]
fn a_peer_of_the_public_pool_gets_its_peers_and_nothing_of_a_closed_swarm() {
    namespace::alone(
        "strangers::a_peer_of_the_public_pool_gets_its_peers_and_nothing_of_a_closed_swarm",
        || {
            let edge = Edge::new();
            against_a_node_that(&["--swarm", "public"], &edge, async |scene, ticket| {
                let other =
                    |seed| Endpoint::bind(&SigningKey::from_bytes(&[seed; 32]), Listen::default()).unwrap();
                let second = Scene { stranger: other(8), ..scene };
                let third = Scene { stranger: other(7), ..scene };
                let (connection, _, shown) = scene.met_in_public().await;
                assert_eq!(shown, [1, 2, 0], "of its closed swarm it shows nothing");
                let (_other, ..) = second.met_in_public().await;
                let (outside, ..) = third.met().await;
                // A peer is asked for others itself, and listed once it is served.
                let list = async || asked(&connection, &wire::encode(&PeersAsked {})).await.unwrap().unwrap();
                let told: PeersTold = wire::decode(&list().await).unwrap();
                let ids: Vec<PeerId> = told.peers.iter().map(|peer| peer.peer).collect();
                assert_eq!(ids, [second.stranger.peer_id()], "neither itself nor who is not in the pool");
                assert!(told.peers.iter().all(|peer| peer.age_s == 0));
                assert_eq!(refused(&outside, &wire::encode(&PeersAsked {})).await, RefusalReason::Stranger);
                // A few lists, then one a minute.
                for _ in 0..2 {
                    assert_eq!(wire::kind(&list().await), Ok(PeersTold::KIND));
                }
                let later: Refused = wire::decode(&list().await).unwrap();
                assert_eq!(later.reason, RefusalReason::Full);
                assert!((30_000..=60_000).contains(&later.retry_ms), "{later:?}");
                // Nothing else is answered: not even work of the pool, where nobody can place any yet.
                let swarm = ticket.founding().id();
                for frame in [
                    wire::encode(&pull()),
                    wire::encode(&DemandAsked { after: 0, wait_ms: 0 }),
                    wire::encode(&DemandTold { upto: 0, adverts: Vec::new() }),
                    wire::encode(&Release { attempts: vec![1] }),
                    wire::encode(&LeaveSwarm { swarm }),
                    vec![1, 200],
                ] {
                    assert_eq!(refused(&connection, &frame).await, RefusalReason::Stranger, "{frame:?}");
                }
            });
            edge.run(["swarm", "list"]).expect(0, &[]);
            edge.run(["swarm", "join", "public", "--bootstrap", "nobody"]).expect(2, &["nobody"]);
            edge.run(["swarm", "join", "public"]).expect(0, &["in the public pool"]);
            assert!(edge.run(["swarm", "list"]).expect(0, &[]).stdout.contains("public"));
            edge.run(["swarm", "leave", "public"]).expect(0, &["left the public pool"]);
            assert!(!edge.run(["swarm", "list"]).expect(0, &[]).stdout.contains("public"));
        },
    );
}

#[test]
fn a_joiner_gets_in_though_strangers_hold_all_places() {
    namespace::alone("strangers::a_joiner_gets_in_though_strangers_hold_all_places", || {
        let (edge, joiner) = (Edge::new(), Edge::new());
        against_a_node(&edge, async |scene, ticket| {
            let mut strangers = Vec::new();
            for seed in 10..42 {
                let stranger =
                    Endpoint::bind(&SigningKey::from_bytes(&[seed; 32]), Listen::default()).unwrap();
                let scene = Scene { stranger, ..scene };
                let (connection, ..) = scene.met().await;
                strangers.push((scene, connection));
            }
            let one_more = scene.dial().await;
            knock(&one_more).await;
            assert_eq!(one_more.closed().await, Closed::ByPeer(CloseCode::Full));
            // Its first try finds no place either; after a few seconds it comes back, and who has said nothing goes.
            let joined = tokio::task::spawn_blocking(move || {
                let running = joiner.start(&["run", "--threads", "1"]);
                let begun = std::time::Instant::now();
                let until = |what: &str, is_so: &dyn Fn() -> bool| {
                    while !is_so() {
                        assert!(begun.elapsed() < Duration::from_secs(80), "{what}");
                        std::thread::park_timeout(Duration::from_millis(100));
                    }
                };
                until("it runs", &|| joiner.run(["status"]).code == 0);
                joiner.run(["swarm", "join", &ticket.to_string()]).expect(0, &[]);
                until("it is let in", &|| {
                    let list = joiner.run(["swarm", "list", "--json"]).expect(0, &[]).stdout;
                    serde_json::from_str::<serde_json::Value>(&list).unwrap()[0]["role"] == "member"
                });
                running.signal("TERM");
                running.wait().expect(0, &[]);
            });
            joined.await.unwrap();
            let mut made_room = 0;
            for (_, connection) in strangers.iter().filter(|(_, connection)| connection.is_closed()) {
                made_room += u32::from(connection.closed().await == Closed::ByPeer(CloseCode::Full));
            }
            assert!(made_room > 0, "nobody made room");
        });
    });
}

#[test]
fn one_peer_has_one_second_connection_that_waits() {
    namespace::alone("strangers::one_peer_has_one_second_connection_that_waits", || {
        let edge = Edge::new();
        against_a_node(&edge, async |scene, _| {
            let (first, ..) = scene.met().await;
            // What takes long comes first: the second waits for a second.
            let third = scene.dial().await;
            let (second, ..) = scene.met().await;
            knock(&third).await;
            assert_eq!(third.closed().await, Closed::ByPeer(CloseCode::Duplicate));
            // The second takes the place of the first, for its dialler has kept both.
            assert_eq!(first.closed().await, Closed::ByPeer(CloseCode::Duplicate));
            assert_eq!(refused(&second, &wire::encode(&PeersAsked {})).await, RefusalReason::Stranger);
        });
    });
}
