//! A store of each format that people have on their disks: it opens, with all that is in it.
//!
//! `tests/fixtures/store-N` was written by the edge whose [`SCHEMA`] was `N`, and is never written anew: a change of a record
//! is a new version of that record, with a reader for the old one, or a new schema with a folder beside it.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use ed25519_dalek::SigningKey;

use super::{env::SCHEMA, *};
use crate::{
    proto::{
        Item,
        budget::{Account, Cost, LocalTime, Standing},
        membership::SwarmRecord,
    },
    wire::{
        Carry, ChunkOptions, ChunkSpan, ContentKey, Energy, EnergySource, JobSpec, ModelHash, Outcome,
        PeerId, Receipt, Run, RunId, RunState, SegmentResult, Signed, SwarmId, SwarmSecret, Syntax,
    },
};

/// LMDB's files do not move between word sizes, and these are of 64 bits.
const IS_READABLE: bool = cfg!(all(target_pointer_width = "64", target_endian = "little"));

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn content(n: u8) -> ContentKey {
    ContentKey::from_bytes([n; 32])
}

fn result(n: u8, computed_by: PeerId) -> SegmentResult {
    SegmentResult {
        computed_by,
        verified: n == 1,
        chunks: vec![ChunkSpan { start: 0, end: 9, tokens: 7 }],
        vectors: (0..384).map(|i| f32::from(n) + i as f32 / 1024.0).collect(),
    }
}

fn receipt(job: ContentKey) -> Signed {
    let receipt = Receipt {
        job,
        result: [2; 32],
        aggregator: PeerId::from_bytes([3; 32]),
        swarm: SwarmId::from_bytes([4; 32]),
        tokens: 300,
        cpu_ms: 1000,
        energy: Some(Energy { mj: 9, source: EnergySource::Model }),
    };
    Signed::sign(&key(), &receipt)
}

/// `state` is 0 queued, 1 running, 2 computed.
fn item(n: u8, state: u8) -> Item {
    let fields =
        (PeerId::from_bytes([3; 32]), u64::from(n), [5u8; 16], content(n), 300u32, false, state, 0u8);
    postcard::from_bytes(&postcard::to_allocvec(&fields).unwrap()).unwrap()
}

fn leased(n: u8) -> LeasedJob {
    let job = JobSpec {
        key: content(n),
        model: ModelHash::from_bytes([2; 32]),
        chunker: 1,
        options: ChunkOptions { tokens_max: 254, overlap_tokens: 0 },
        syntax: Syntax::Markdown,
        carry: Carry::default(),
        body_start: 0,
        text: "The lamp is lit at dusk.".into(),
    };
    LeasedJob { swarm: SwarmId::from_bytes([4; 32]), job }
}

/// Something of every kind that a store holds.
fn fill(store: &mut Store) {
    let peer = PeerId::from_bytes(key().verifying_key().to_bytes());
    store.put_results(&[(content(1), result(1, peer))]).unwrap();
    let committed =
        Committed { key: content(2), result: result(2, peer), receipt: Some(receipt(content(2))) };
    store.put_committed(&[committed]).unwrap();
    let run = Run {
        touched_ms: Some(1_793_491_200_000),
        state: RunState::DoneWithFailures,
        title: "notes".into(),
        model: ModelHash::from_bytes([2; 32]),
        documents: 3,
        segments: 2,
        text_bytes: 70_000,
        keys_hash: [5; 32],
    };
    store.put_run(&RunId::from_bytes([6; 32]), &run, &[content(1), content(2)]).unwrap();
    let outcome = Outcome::Result(result(5, peer), receipt(content(5)));
    let steps = [
        QueueWrite::Store(3, item(3, 0), leased(3)),
        QueueWrite::Store(4, item(4, 1), leased(4)),
        QueueWrite::Computed(5, item(5, 2), outcome),
        QueueWrite::Computed(6, item(6, 2), Outcome::Failed("the model has no such word".into())),
    ];
    store.write_queue(&steps).unwrap();
    let secret = SwarmSecret::from_bytes([9; 32]);
    let founded = SwarmRecord::found(&key(), "home".to_owned().try_into().unwrap(), [8; 16], secret);
    store.put_swarm(&founded).unwrap();
    store.put_port(23_343).unwrap();
    store.remember(&PeerId::from_bytes([3; 32]), "192.0.2.7:23343".parse().unwrap()).unwrap();
    store.remember(&PeerId::from_bytes([4; 32]), "[2001:db8::7]:23343".parse().unwrap()).unwrap();
    let letter = DeadLetter {
        reason: "three workers died of it".into(),
        swarm: Some(SwarmId::from_bytes([4; 32])),
        title: "notes".into(),
        died_ms: Some(1_793_491_200_000),
    };
    store.bury(&[(content(10), letter)]).unwrap();
    store.put_standing(Standing::Finishing).unwrap();
    let mut account = Account::default();
    let clock = LocalTime { day: 20_758, weekday: 5, minute: 0 };
    let energy = Some(Energy { mj: 9, source: EnergySource::Counter });
    let cost = Cost { jobs: 1, chunks: 2, tokens: 300, cpu_ms: 5, energy, idle_mj: 4, network_bytes: 6 };
    let row = account.book(Some(clock), SwarmId::from_bytes([4; 32]), &cost);
    store.put_account(&[row], 0).unwrap();
    store.put_public(Some(&["pool.example:23343".to_owned()])).unwrap();
    assert_eq!(store.begin().unwrap(), 1);
}

/// All that can be read.
#[derive(Debug, PartialEq)]
struct Content {
    results: Vec<(Found, Option<(PeerId, Signed)>)>,
    runs: Vec<(RunId, Run)>,
    queue: Vec<(u64, Item, Option<LeasedJob>, Option<Outcome>)>,
    swarms: (Vec<SwarmRecord>, usize),
    port: Option<u16>,
    met: Vec<(PeerId, Vec<SocketAddr>)>,
    dead: Vec<(ContentKey, DeadLetter)>,
    lending: (Standing, Account),
    public: Option<Vec<String>>,
    starts: u32,
}

fn content_of(store: &mut Store) -> Content {
    // What no run names would be swept, results with it.
    let swept = store.gc(None, Duration::from_secs(9), None).unwrap();
    assert_eq!((swept.runs, swept.results, swept.results_kept), (0, 0, 2));
    let result = |n| (store.result(&content(n)).unwrap(), store.receipt(&content(n)).unwrap());
    let results: Vec<_> = [1, 2].map(result).into();
    assert!(results.iter().all(|(found, _)| matches!(found, Found::Result(_))) && results[1].1.is_some());
    let item = |(id, item)| (id, item, store.queued_job(id).unwrap(), store.outcome(id).unwrap());
    let queue: Vec<_> = store.queue().unwrap().into_iter().map(item).collect();
    assert_eq!(queue.len(), 4);
    Content {
        results,
        runs: store.runs().unwrap(),
        queue,
        swarms: store.swarms().unwrap(),
        port: store.port().unwrap(),
        met: store.met().unwrap(),
        dead: store.dead_letters().unwrap(),
        lending: (store.standing().unwrap(), store.account().unwrap()),
        public: store.public().unwrap(),
        starts: store.begin().unwrap(),
    }
}

fn open(directory: &Path) -> Store {
    let opened = Store::open(directory, &DirectoryLock::take(directory, "test").unwrap()).unwrap();
    assert!(opened.set_aside.is_none(), "{:?}", opened.set_aside);
    opened.store
}

/// The fixture of the present format is written where there is none and `UPDATE` is set, never over an old one.
#[test]
fn the_store_of_an_older_edge_opens_with_all_that_is_in_it() {
    if !IS_READABLE {
        return;
    }
    let new = tempfile::tempdir().unwrap();
    let mut fresh = open(new.path());
    fill(&mut fresh);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let present = fixtures.join(format!("store-{SCHEMA}"));
    if !present.exists() && std::env::var_os("UPDATE").is_some() {
        drop(fresh);
        Identity::of(key()).write(new.path()).unwrap();
        keep(new.path(), &present);
        fresh = open(new.path());
    }
    assert!(
        present.exists(),
        "the present format has no fixture: look, then run UPDATE=1 cargo test formats"
    );
    let expected = content_of(&mut fresh);
    let mut schemas = 0;
    for fixture in fs::read_dir(&fixtures).unwrap() {
        let (fixture, old) = (fixture.unwrap().path(), tempfile::tempdir().unwrap());
        for file in fs::read_dir(&fixture).unwrap() {
            let file = file.unwrap().path();
            let copy = old.path().join(file.file_name().unwrap());
            fs::copy(&file, &copy).unwrap();
            // As edge leaves it; git keeps no such rights.
            fs::set_permissions(copy, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let mut store = open(old.path());
        assert_eq!(content_of(&mut store), expected, "{}", fixture.display());
        let identity = Identity::load(old.path()).unwrap();
        assert_eq!(identity.signing_key().to_bytes(), key().to_bytes());
        // It is written to as well.
        store.put_results(&[(content(11), result(1, identity.peer_id()))]).unwrap();
        schemas += 1;
    }
    assert_eq!(schemas, SCHEMA);
}

/// What a data directory has, as a fixture.
fn keep(directory: &Path, fixture: &Path) {
    fs::create_dir_all(fixture).unwrap();
    for file in [DATA_FILE, "identity.pem"] {
        fs::copy(directory.join(file), fixture.join(file)).unwrap();
    }
    // The file is as long as its map; what it holds are its first pages.
    let path = fixture.join(DATA_FILE);
    let used = fs::read(&path).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len((used as u64 / 4096 + 1) * 4096).unwrap();
}
