//! The encoder against the f64 reference and against tract, its independence of neighbours, and damaged graphs.

use std::{panic::catch_unwind, path::Path, sync::LazyLock, thread, time::Duration};

use tract_onnx::{
    pb::{ModelProto, TensorProto, tensor_proto::DataType},
    prelude::Framework,
};

use super::{graph::Sizes, kernel::Kernel, *};
use crate::inference::{ModelFolder, TractModel};

const DIMENSION: usize = 384;

fn folder() -> ModelFolder {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/all-minilm-l6-v2");
    ModelFolder::read(&path).unwrap()
}

fn tract() -> TractModel {
    let (path, bytes) = folder().graph().unwrap();
    TractModel::from_onnx(&folder(), path, bytes).unwrap()
}

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| folder().graph().unwrap().1);
static MODEL: LazyLock<Arc<BertModel>> =
    LazyLock::new(|| Arc::new(BertModel::from_onnx(&BYTES, DIMENSION).unwrap()));

fn embed(batch: &[&[u32]]) -> Vec<f32> {
    MODEL.embedder().embed(batch, &Stop::default()).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Sequences of words from a generator, with the model's special tokens around them.
fn sequences(lengths: impl IntoIterator<Item = usize>) -> Vec<Vec<u32>> {
    let mut state = 42_u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1000 + (state >> 33) as u32 % 28_000
    };
    let sequence = |length: usize| {
        let mut ids: Vec<u32> = (0..length).map(|_| word()).collect();
        ids[0] = 101;
        ids[length - 1] = 102;
        ids
    };
    lengths.into_iter().map(sequence).collect()
}

fn slices(sequences: &[Vec<u32>]) -> Vec<&[u32]> {
    sequences.iter().map(Vec::as_slice).collect()
}

#[test]
fn is_close_to_the_reference() {
    let folder = folder();
    let golden: Vec<(&[u32], Vec<f32>)> =
        folder.manifest().golden().map(|(_, ids, vector)| (ids, vector)).collect();
    let batch: Vec<&[u32]> = golden.iter().map(|(ids, _)| *ids).collect();
    let vectors = embed(&batch);
    let cosines: Vec<f64> = golden
        .iter()
        .zip(vectors.chunks_exact(DIMENSION))
        .map(|((_, wanted), found)| cosine(wanted, found))
        .collect();
    assert!(cosines.iter().all(|&cosine| cosine >= 0.999), "{cosines:?}");
    assert!(cosines.iter().sum::<f64>() / cosines.len() as f64 >= 0.9999, "{cosines:?}");
}

/// A Pi runs other kernels than the machine that this was written on: all that can run here must be right, tract's
/// among them, which serve wherever there is none of our own.
#[test]
fn every_kernel_is_close_to_the_reference() {
    let folder = folder();
    let golden: Vec<(&[u32], Vec<f32>)> =
        folder.manifest().golden().map(|(_, ids, vector)| (ids, vector)).collect();
    let batch: Vec<&[u32]> = golden.iter().map(|(ids, _)| *ids).collect();
    let mut names = Vec::new();
    for level in Level::available() {
        let model = Arc::new(BertModel::at_level(&BYTES, DIMENSION, level).unwrap());
        names.push(model.weights.kernel.name().to_owned());
        let vectors = model.embedder().embed(&batch, &Stop::default()).unwrap();
        for ((_, wanted), found) in golden.iter().zip(vectors.chunks_exact(DIMENSION)) {
            assert!(cosine(wanted, found) >= 0.999, "{names:?}: {}", cosine(wanted, found));
        }
    }
    names.dedup();
    assert_eq!(names.len(), Level::available().len(), "{names:?}");
}

/// Where there is no kernel of our own it is one of tract's, and which depends on the processor: some have panels
/// of columns that divide a head, as all on ARM do, and some have not.
#[test]
fn every_kernel_of_tract_computes_the_same() {
    let sequences = sequences([40, 3, 75, 130]);
    let batch = slices(&sequences);
    let wanted = embed(&batch);
    let Sizes { hidden, wide, .. } = MODEL.weights.sizes;
    for kernel in Kernel::of_tract(Level::detect(), 256, hidden, wide) {
        let name = kernel.name().to_owned();
        let weights = Weights::pack_for(Parts::read(&BYTES, DIMENSION).unwrap(), kernel);
        let weights = Arc::new(weights.unwrap_or_else(|| panic!("{name} does not pack")));
        let found = Arc::new(BertModel { weights }).embedder().embed(&batch, &Stop::default()).unwrap();
        for (wanted, found) in wanted.chunks_exact(DIMENSION).zip(found.chunks_exact(DIMENSION)) {
            assert!(cosine(wanted, found) >= 0.999_999, "{name}: {}", cosine(wanted, found));
        }
    }
}

#[test]
fn is_equal_to_tract() {
    let sequences = sequences([1, 2, 3, 255, 256].into_iter().chain((0..45).map(|i| 1 + i * 37 % 256)));
    let batch = slices(&sequences);
    let tract = Arc::new(tract());
    let wanted = tract.embedder().unwrap().embed(&batch, &Stop::default()).unwrap();
    let found = embed(&batch);
    assert_eq!(wanted.len(), found.len());
    for (ids, (wanted, found)) in
        batch.iter().zip(wanted.chunks_exact(DIMENSION).zip(found.chunks_exact(DIMENSION)))
    {
        let cosine = cosine(wanted, found);
        assert!(cosine >= 0.99999, "{} tokens: {cosine}", ids.len());
        assert!((found.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }
}

#[test]
fn a_row_depends_on_nothing_but_its_tokens() {
    // Bins begin and end everywhere, and one sequence is longer than a bin.
    let sequences = sequences([7, 31, 64, 1, 33, 90, 100, 5, 256, 12, 300, 2]);
    let batch = slices(&sequences);
    let together = embed(&batch);
    assert_eq!(embed(&batch), together, "the same batch, the same vectors");
    for (alone, together) in batch.iter().map(|ids| embed(&[ids])).zip(together.chunks_exact(DIMENSION)) {
        for (a, b) in alone.iter().zip(together) {
            assert!((a - b).abs() <= 1e-5, "{a} {b}");
        }
    }
    assert!(embed(&[]).is_empty());
}

#[test]
fn refuses_what_the_model_does_not_have() {
    let mut embedder = MODEL.embedder();
    let long = vec![1000; 513];
    for batch in [&[30_522][..], &[u32::MAX], &[], &long] {
        let error = embedder.embed(&[&[101, 102], batch], &Stop::default()).unwrap_err();
        assert!(matches!(error, EmbedError::Run(_)), "{error:?}");
    }
    assert_eq!(embedder.embed(&[&[101, 102]], &Stop::default()).unwrap(), embed(&[&[101, 102]]));
}

#[test]
fn stops() {
    let (sequences, stop) = (sequences([256; 400]), Stop::default());
    stop.ask();
    let mut embedder = MODEL.embedder();
    assert!(matches!(embedder.embed(&slices(&sequences), &stop), Err(EmbedError::Stopped)));
    let stop = Stop::default();
    thread::scope(|scope| {
        let running = scope.spawn(|| MODEL.embedder().embed(&slices(&sequences), &stop));
        // No time is right or wrong here: asked early or late, 400 sequences take longer.
        thread::park_timeout(Duration::from_millis(50));
        stop.ask();
        assert!(matches!(running.join().unwrap(), Err(EmbedError::Stopped)));
    });
    assert_eq!(embedder.embed(&[&[101, 102]], &Stop::default()).unwrap(), embed(&[&[101, 102]]));
}

#[test]
fn a_damaged_file_is_refused_or_loads_but_never_panics() {
    let load = |bytes: &[u8]| catch_unwind(|| BertModel::from_onnx(bytes, DIMENSION).is_some()).unwrap();
    assert!(!load(&[]));
    for part in [1, 2, 3, 5, 9, 1000, 1_000_000] {
        assert!(!load(&BYTES[..BYTES.len() / part - 1]));
    }
    assert!(BertModel::from_onnx(&BYTES, DIMENSION + 1).is_none());
    // Most of the file is weights, where a flipped bit is another weight. What says what they are stands at the
    // beginning, where the nodes are, and around each constant.
    let mut damaged = BYTES.clone();
    for at in (0..24_000).step_by(397).chain((0..BYTES.len()).rev().step_by(2_000_003)) {
        damaged[at] ^= 1 << (at % 8);
        load(&damaged);
        damaged[at] = BYTES[at];
    }
}

/// The sizes of a model that packs in no time; every constant is zero but those that must not be.
fn tiny() -> ModelProto {
    let mut model = tract_onnx::onnx().proto_model_for_read(&mut BYTES.as_slice()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    for constant in &mut graph.initializer {
        let of = |size: i64| match size {
            30_522 => 50,
            512 => 20,
            384 => 48,
            1536 => 96,
            other => other,
        };
        constant.dims.iter_mut().for_each(|size| *size = of(*size));
        if constant.data_type != DataType::Int64 as i32 && !constant.dims.is_empty() {
            let width =
                [(1, 4), (3, 1), (10, 2)].iter().find(|(kind, _)| *kind == constant.data_type).unwrap().1;
            constant.raw_data.truncate(constant.dims.iter().product::<i64>() as usize * width);
        }
        let integers =
            |values: [i64; 4], count| values[..count].iter().flat_map(|x| x.to_le_bytes()).collect();
        match constant.name.as_str() {
            "sqrt_head" => constant.raw_data = 2.0_f32.to_le_bytes().to_vec(),
            "split_heads" => constant.raw_data = integers([0, 0, 12, 4], 4),
            "join_heads" => constant.raw_data = integers([0, 0, 48, 0], 3),
            _ => {}
        }
    }
    use tract_onnx::pb::{tensor_shape_proto::dimension::Value, type_proto};
    let r#type = graph.output[0].r#type.as_mut().unwrap();
    let Some(type_proto::Value::TensorType(tensor)) = r#type.value.as_mut() else { panic!("no tensor") };
    tensor.shape.as_mut().unwrap().dim[1].value = Some(Value::DimValue(48));
    model
}

fn loads(model: ModelProto) -> bool {
    Parts::recognise(model, 48).and_then(|parts| Weights::pack(parts, Level::detect())).is_some()
}

fn constant<'a>(model: &'a mut ModelProto, name: &str) -> &'a mut TensorProto {
    let constants = &mut model.graph.as_mut().unwrap().initializer;
    constants.iter_mut().find(|constant| constant.name == name).unwrap()
}

#[test]
fn any_other_constant_is_refused() {
    let whole = tiny();
    assert!(loads(whole.clone()));
    for at in 0..whole.graph.as_ref().unwrap().initializer.len() {
        let edited = |edit: &dyn Fn(&mut TensorProto)| {
            let mut model = whole.clone();
            edit(&mut model.graph.as_mut().unwrap().initializer[at]);
            !loads(model)
        };
        let name = &whole.graph.as_ref().unwrap().initializer[at].name;
        assert!(edited(&|constant| constant.dims.push(1)), "{name}");
        assert!(edited(&|constant| constant.dims.push(-1)), "{name}");
        assert!(edited(&|constant| constant.dims.push(i64::MAX)), "{name}");
        assert!(edited(&|constant| constant.data_type = 11), "{name}");
        assert!(edited(&|constant| constant.name.push('x')), "{name}");
        assert!(edited(&|constant| _ = constant.raw_data.pop()), "{name}");
        assert!(edited(&|constant| constant.data_location = Some(1)), "{name}");
        assert!(edited(&|constant| constant.raw_data.extend([0; 8])), "{name}");
        if let [rows, columns] = whole.graph.as_ref().unwrap().initializer[at].dims[..] {
            assert!(rows == columns || edited(&|constant| constant.dims.swap(0, 1)), "{name}");
        }
    }
    for name in ["one", "half", "sqrt_two", "sqrt_head", "zeros", "axis_0", "split_heads", "join_heads"] {
        let mut model = whole.clone();
        constant(&mut model, name).raw_data[3] ^= 1;
        assert!(!loads(model), "{name}");
    }
    let mut model = whole.clone();
    constant(&mut model, "split_heads").raw_data[16] = 5;
    assert!(!loads(model), "5 heads do not divide 48 features");
    let mut model = whole;
    constant(&mut model, "split_heads").raw_data[16] = 0;
    assert!(!loads(model), "no heads");
}

#[test]
fn any_other_node_is_refused() {
    let whole = tiny();
    for at in 0..whole.graph.as_ref().unwrap().node.len() {
        let edited = |edit: &dyn Fn(&mut tract_onnx::pb::NodeProto)| {
            let mut model = whole.clone();
            edit(&mut model.graph.as_mut().unwrap().node[at]);
            !loads(model)
        };
        assert!(edited(&|node| node.op_type = "Tanh".into()), "{at}");
        assert!(edited(&|node| node.domain = "other".into()), "{at}");
        assert!(edited(&|node| _ = node.input.pop()), "{at}");
        assert!(edited(&|node| node.input[0] = "input_ids2".into()), "{at}");
        assert!(edited(&|node| node.output.push("more".into())), "{at}");
        assert!(edited(&|node| node.attribute.push(Default::default())), "{at}");
        assert!(
            edited(&|node| node.attribute.iter_mut().for_each(|a| (a.i, a.f) = (a.i + 3, 0.5)))
                || whole.graph.as_ref().unwrap().node[at].attribute.iter().all(|a| !a.ints.is_empty()),
            "{at}"
        );
        let mut model = whole.clone();
        model.graph.as_mut().unwrap().node.remove(at);
        assert!(!loads(model), "{at}");
    }
    let mut model = whole.clone();
    let mask = model.graph.as_ref().unwrap().input[0].clone();
    model.graph.as_mut().unwrap().input.push(mask);
    assert!(!loads(model), "a second input");
    let mut model = whole.clone();
    model.opset_import[0].version = 18;
    assert!(!loads(model), "another version of operators");
    let mut model = whole;
    model.graph = None;
    assert!(!loads(model), "no graph");
}
