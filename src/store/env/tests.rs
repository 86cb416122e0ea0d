//! The store against damage, growth and a model of what it should hold.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    store::Found,
    wire::{ChunkSpan, ContentKey, ModelHash, PeerId, Run, RunId, RunState, SegmentResult},
};

fn open(directory: &Path) -> Result<Opened, StoreError> {
    Store::open(directory, &DirectoryLock::take(directory, "test").unwrap())
}

fn key(n: u64) -> ContentKey {
    ContentKey::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn result(n: u64, floats: usize) -> SegmentResult {
    SegmentResult {
        computed_by: PeerId::from_bytes([n as u8; 32]),
        verified: true,
        chunks: vec![ChunkSpan { start: 0, end: 9, tokens: 7 }],
        vectors: (0..floats).map(|i| i as f32 + n as f32).collect(),
    }
}

fn run(touched_ms: Option<u64>, segments: u32) -> Run {
    Run {
        touched_ms,
        state: RunState::Done,
        title: "notes".into(),
        model: ModelHash::from_bytes([3; 32]),
        documents: 1,
        segments,
        text_bytes: 9,
        keys_hash: [0; 32],
    }
}

#[test]
fn what_was_put_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path()).unwrap().store;
    store.put_results(&[(key(1), result(1, 384)), (key(2), result(2, 0))]).unwrap();
    drop(store);
    let opened = open(directory.path()).unwrap();
    assert!(opened.set_aside.is_none());
    assert_eq!(opened.store.result(&key(1)).unwrap(), Found::Result(result(1, 384)));
    assert_eq!(opened.store.result(&key(3)).unwrap(), Found::Nothing);
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(directory.path().join(DATA_FILE)).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_map_grows_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path()).unwrap().store;
    for n in 0..60 {
        store.put_results(&[(key(n), result(n, 100_000))]).unwrap();
    }
    assert!(store.map_bytes > MAP_BYTES_START);
    drop(store);
    let store = open(directory.path()).unwrap().store;
    assert!((0..60).all(|n| store.result(&key(n)).unwrap() == Found::Result(result(n, 100_000))));
}

#[test]
fn a_store_at_its_ceiling_says_so_and_keeps_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path()).unwrap().store;
    // Where a store of 1 GiB stands on a 32-bit machine.
    store.map_bytes = MAP_BYTES_MAX;
    let kept = (0..).find_map(|n| store.put_results(&[(key(n), result(n, 100_000))]).err().map(|e| (n, e)));
    let Some((kept, StoreError::Ceiling { bytes: MAP_BYTES_MAX, .. })) = kept else { panic!("{kept:?}") };
    assert!((0..kept).all(|n| store.result(&key(n)).unwrap() == Found::Result(result(n, 100_000))));
    drop(store);
    let mut store = open(directory.path()).unwrap().store;
    store.put_results(&[(key(kept), result(kept, 100_000))]).unwrap();
    assert!(store.map_bytes > MAP_BYTES_START);
}

/// A 32-bit process may have no addresses for a map that is allowed.
#[test]
fn a_map_that_finds_no_addresses_is_a_ceiling_and_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path()).unwrap().store;
    store.put_results(&[(key(1), result(1, 8))]).unwrap();
    let told = store.grow_to("a test", usize::MAX - 0xffff);
    assert!(matches!(told, Err(StoreError::Ceiling { bytes: MAP_BYTES_START, .. })), "{told:?}");
    assert_eq!(store.result(&key(1)).unwrap(), Found::Result(result(1, 8)));
    store.put_results(&[(key(2), result(2, 8))]).unwrap();
    drop(store);
    let opened = open(directory.path()).unwrap();
    assert!(opened.set_aside.is_none());
    assert_eq!(opened.store.result(&key(2)).unwrap(), Found::Result(result(2, 8)));
}

/// The pages of a Raspberry Pi 5 have 16 KiB, those of other ARM kernels 64.
#[test]
fn every_map_has_a_whole_number_of_the_largest_pages() {
    for length in [0, 1, 4096, 16 << 20, (16 << 20) + 1, 3 << 29, u64::MAX] {
        let bytes = map_bytes_for(length);
        assert!(bytes.is_multiple_of(65_536) && bytes <= MAP_BYTES_MAX, "{length} -> {bytes}");
    }
}

#[test]
fn a_damaged_record_is_found_and_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path()).unwrap().store;
    store.put_results(&[(key(1), result(1, 8))]).unwrap();
    let record =
        store.read("test", |t, txn| Ok(t.results.get(txn, key(1).as_bytes())?.unwrap().to_vec())).unwrap();
    let mut wrong = record.clone();
    *wrong.last_mut().unwrap() ^= 1;
    store.write("test", |t, txn| t.results.put(txn, key(1).as_bytes(), &wrong)).unwrap();
    assert!(matches!(store.result(&key(1)).unwrap(), Found::Damaged(_)));
    store.put_results(&[(key(1), result(1, 8))]).unwrap();
    assert_eq!(store.result(&key(1)).unwrap(), Found::Result(result(1, 8)));
}

#[test]
fn a_cut_off_or_strange_file_is_set_aside() {
    for damage in ["cut", "noise", "text", "head"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(DATA_FILE);
        let mut store = open(directory.path()).unwrap().store;
        store.put_results(&[(key(1), result(1, 50_000))]).unwrap();
        drop(store);
        match damage {
            "cut" => OpenOptions::new().write(true).open(&path).unwrap().set_len(20_000).unwrap(),
            "head" => OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap(),
            "noise" => fs::write(&path, [0xA5; 50_000]).unwrap(),
            _ => fs::write(&path, "this is no database").unwrap(),
        }
        let bytes = fs::metadata(&path).unwrap().len();
        let mut opened = open(directory.path()).unwrap();
        let (aside, why) = opened.set_aside.take().unwrap();
        assert_eq!(fs::metadata(&aside).unwrap().len(), bytes, "{damage}: {why}");
        assert_eq!(opened.store.result(&key(1)).unwrap(), Found::Nothing, "{damage}");
        opened.store.put_results(&[(key(1), result(1, 8))]).unwrap();
        drop(opened);
        assert!(open(directory.path()).unwrap().set_aside.is_none(), "{damage}");
    }
}

#[test]
fn two_deaths_while_opening_set_the_file_aside() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap().store.put_results(&[(key(1), result(1, 8))]).unwrap();
    fs::write(directory.path().join("opening"), "1").unwrap();
    assert!(open(directory.path()).unwrap().set_aside.is_none());
    fs::write(directory.path().join("opening"), "2").unwrap();
    assert!(open(directory.path()).unwrap().set_aside.is_some());
    assert!(open(directory.path()).unwrap().set_aside.is_none());
}

#[test]
fn a_newer_store_is_refused_and_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path()).unwrap().store;
    store.put_results(&[(key(1), result(1, 8))]).unwrap();
    let schema = |n: u32| wire::seal("meta", 1, b"schema", &n);
    store.write("test", |t, txn| t.meta.put(txn, b"schema", &schema(SCHEMA + 1))).unwrap();
    drop(store);
    let error = open(directory.path()).err().unwrap();
    assert!(matches!(error, StoreError::Newer { found: 2, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("update edge"), "{error}");
    assert!(matches!(open(directory.path()), Err(StoreError::Newer { .. })));
}

#[test]
fn gc_keeps_what_a_young_run_names() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path()).unwrap().store;
    let results: Vec<_> = (0..3000).map(|n| (key(n), result(n, 2))).collect();
    store.put_results(&results).unwrap();
    let keys: Vec<ContentKey> = (0..3000).map(key).collect();
    let (old, young, timeless) =
        (RunId::from_bytes([1; 32]), RunId::from_bytes([2; 32]), RunId::from_bytes([3; 32]));
    store.put_run(&old, &run(Some(1_000), 2_000), &keys[..2_000]).unwrap();
    store.put_run(&young, &run(Some(9_000), 1_500), &keys[500..2_000]).unwrap();
    store.put_run(&timeless, &run(None, 1), &keys[10..11]).unwrap();
    let report = store.gc(Some(10_000), Duration::from_secs(5), None).unwrap();
    assert_eq!((report.runs, report.results, report.results_kept), (1, 1_499, 1_501));
    assert!(store.run(&old).unwrap().is_none());
    assert_eq!(store.run(&young).unwrap(), Some(run(Some(9_000), 1_500)));
    assert_eq!(
        store.gc(None, Duration::from_secs(5), None).unwrap().runs,
        0,
        "without a clock nothing is too old"
    );
    let report = store.gc(None, Duration::ZERO, None).unwrap();
    assert_eq!((report.runs, report.results, report.results_kept), (2, 1_501, 0));
}

#[test]
fn a_run_with_fewer_keys_leaves_none_behind() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path()).unwrap().store;
    let id = RunId::from_bytes([1; 32]);
    let keys: Vec<ContentKey> = (0..2_500).map(key).collect();
    store.put_results(&[(key(2_400), result(1, 2))]).unwrap();
    store.put_run(&id, &run(Some(1), 2_500), &keys).unwrap();
    store.put_run(&id, &run(Some(1), 1), &keys[..1]).unwrap();
    assert_eq!(store.gc(Some(2), Duration::from_secs(9), None).unwrap().results, 1);
}

#[test]
fn compaction_gives_the_room_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path()).unwrap().store;
    for n in 0..20 {
        store.put_results(&[(key(n), result(n, 100_000))]).unwrap();
    }
    let before = store.report().unwrap();
    store.gc(None, Duration::ZERO, None).unwrap();
    let mut store = store.compacted().unwrap();
    let after = store.report().unwrap();
    assert!(after.disk_bytes * 10 < before.disk_bytes, "{before:?} {after:?}");
    assert_eq!((before.results, after.results), (20, 0));
    store.put_results(&[(key(1), result(1, 8))]).unwrap();
    assert_eq!(store.result(&key(1)).unwrap(), Found::Result(result(1, 8)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is written, in whatever batches, across restarts: the store is a map.
    #[test]
    fn behaves_like_a_map(batches in proptest::collection::vec(
        (proptest::collection::vec((0u64..40, 0usize..600), 0..8), any::<bool>()), 1..12)
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path()).unwrap().store;
        let mut model = BTreeMap::new();
        for (batch, restarts) in batches {
            let results: Vec<_> = batch.iter().map(|&(n, floats)| (key(n), result(n, floats))).collect();
            store.put_results(&results).unwrap();
            model.extend(results);
            if restarts {
                drop(store);
                store = open(directory.path()).unwrap().store;
            }
            for n in 0..40 {
                let expected = model.get(&key(n)).cloned().map_or(Found::Nothing, Found::Result);
                prop_assert_eq!(store.result(&key(n)).unwrap(), expected);
            }
        }
        prop_assert_eq!(store.report().unwrap().results, model.len() as u64);
    }
}
