//! Graphs that are no BERT: one whose operators nobody else tries, and one with an operator that there is not.

use std::f64::consts::TAU;

use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType, type_proto,
};

use super::*;

const WORDS: usize = 50;
const FEATURES: usize = 12;

/// The value of a feature of a word, between -1 and 1.
fn feature(word: usize, feature: usize) -> f32 {
    let mixed = (word * FEATURES + feature + 1).wrapping_mul(0x9e37_79b9) as u32;
    (f64::from(mixed) / f64::from(u32::MAX) * 2.0 - 1.0) as f32
}

fn node(kind: &str, inputs: &[&str], output: &str, axis: Option<i64>) -> NodeProto {
    let axis = axis.map(|axis| AttributeProto {
        name: "axis".into(),
        r#type: AttributeType::Int as i32,
        i: axis,
        ..AttributeProto::default()
    });
    NodeProto {
        op_type: kind.into(),
        input: inputs.iter().map(|&name| name.into()).collect(),
        output: vec![output.into()],
        attribute: axis.into_iter().collect(),
        ..NodeProto::default()
    }
}

fn integers(name: &str, shape: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: DataType::Int64 as i32,
        dims: shape.to_vec(),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

/// A model that takes `input_ids` and gives `vector`.
fn model(nodes: Vec<NodeProto>, mut constants: Vec<TensorProto>) -> ModelProto {
    constants.push(TensorProto {
        name: "words".into(),
        data_type: DataType::Float as i32,
        dims: vec![WORDS as i64, FEATURES as i64],
        float_data: (0..WORDS).flat_map(|word| (0..FEATURES).map(move |at| feature(word, at))).collect(),
        ..TensorProto::default()
    });
    let value = |name: &str, kind: DataType| {
        let tensor = type_proto::Tensor { elem_type: kind as i32, shape: None };
        let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
        ValueInfoProto { name: name.into(), r#type: Some(r#type), ..ValueInfoProto::default() }
    };
    let graph = GraphProto {
        node: nodes,
        initializer: constants,
        input: vec![value("input_ids", DataType::Int64)],
        output: vec![value("vector", DataType::Float)],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { version: 17, ..OperatorSetIdProto::default() };
    ModelProto { graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() }
}

fn translated(model: &ModelProto) -> TractResult<InferenceModel> {
    tract_onnx::onnx().model_for_proto_model(model)
}

/// What mixes the tokens of FNet (arXiv 2105.03824) instead of attention: Fourier transforms over features and tokens, of
/// which the real part is taken, part 0; here at the second token. Part 1 is the imaginary one, which alone tells the
/// directions apart.
fn fourier(part: i64) -> ModelProto {
    let nodes = vec![
        node("Gather", &["words", "input_ids"], "embedded", Some(0)),
        node("Unsqueeze", &["embedded", "last"], "real", None),
        node("DFT", &["real"], "over_features", Some(2)),
        node("DFT", &["over_features"], "over_both", Some(1)),
        node("Gather", &["over_both", "part"], "mixed", Some(3)),
        node("Gather", &["mixed", "one"], "vector", Some(1)),
    ];
    let constants =
        vec![integers("last", &[1], &[3]), integers("part", &[], &[part]), integers("one", &[], &[1])];
    model(nodes, constants)
}

#[test]
fn transforms_of_any_length_are_right() {
    // Primes, a prime's powers, and products of different ones.
    let lengths = [2, 3, 4, 5, 7, 8, 9, 12, 30, 49, 60, 97, 128];
    let texts: Vec<Vec<u32>> = lengths
        .iter()
        .map(|&length| (0..length).map(|at| (at * 7 + length) % WORDS as u32).collect())
        .collect();
    let batch: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    for part in [0, 1] {
        let (plan, inputs) = build(translated(&fourier(part)).unwrap()).unwrap();
        let model =
            TractModel { plan, inputs, dimension: FEATURES, pooling: Pooling::Graph, normalized: true };
        let vectors = Arc::new(model).embedder().unwrap().embed(&batch, &Stop::default()).unwrap();
        for (text, vector) in texts.iter().zip(vectors.chunks_exact(FEATURES)) {
            for (at, &found) in vector.iter().enumerate() {
                let wrong_by = (f64::from(found) - by_definition(text, at)[part as usize]).abs();
                assert!(wrong_by < 1e-4, "part {part} of feature {at} of {} tokens: {found}", text.len());
            }
        }
    }
}

/// Both parts of a feature of the second token, term by term.
fn by_definition(text: &[u32], at: usize) -> [f64; 2] {
    let mut parts = [0.0; 2];
    for (token, &word) in text.iter().enumerate() {
        for other in 0..FEATURES {
            let turns = token as f64 / text.len() as f64 + (at * other) as f64 / FEATURES as f64;
            let (sin, cos) = (-TAU * turns).sin_cos();
            let value = f64::from(feature(word as usize, other));
            parts[0] += value * cos;
            parts[1] += value * sin;
        }
    }
    parts
}

#[test]
fn an_unknown_operator_is_named() {
    let nodes = vec![
        node("Gather", &["words", "input_ids"], "embedded", Some(0)),
        node("Thaumaturgy", &["embedded"], "vector", None),
    ];
    let error = translated(&model(nodes, Vec::new())).and_then(build).unwrap_err();
    assert!(format!("{error:#}").contains("Thaumaturgy"), "{error:#}");
}
