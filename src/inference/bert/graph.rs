//! Recognises the graph that `models/export.py` writes, node by node; any other is refused, none is guessed at.
//!
//! Sizes come from the shapes of the constants, and everything that could change the meaning is compared: kinds,
//! order and wiring of the nodes, their attributes, the values of the small constants, types and shapes of all.

use std::{collections::HashMap, slice};

use tract_onnx::{
    pb::{
        AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
        tensor_proto::DataType, type_proto,
    },
    prelude::Framework,
};

/// The version of ONNX's operators that the export names.
const OPSET: i64 = 17;
/// Features of a token, in and between layers, at most. Nobody has published a larger encoder.
const FEATURES_MAX: usize = 32_768;
/// Rows of the word table and of the position table, at most.
const ROWS_MAX: usize = 4 << 20;
/// Layers, at most.
const LAYERS_MAX: usize = 256;

/// How large a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Rows of the word table.
    pub(super) words: usize,
    /// Rows of the position table: the longest sequence.
    pub(super) positions: usize,
    /// Features of a token.
    pub(super) hidden: usize,
    /// Features between the two dense layers.
    pub(super) wide: usize,
    /// Attention heads in a layer.
    pub(super) heads: usize,
    /// Layers.
    pub(super) layers: usize,
}

/// A recognised graph: its sizes, and its constants as little-endian bytes, to be taken one by one so that each
/// is freed once it is packed.
pub(super) struct Parts {
    pub(super) sizes: Sizes,
    pub(super) epsilon: f32,
    constants: HashMap<String, TensorProto>,
}

impl Parts {
    /// Decodes and recognises `model.onnx`; its output must be `[batch, dimension]`.
    pub(super) fn read(mut bytes: &[u8], dimension: usize) -> Option<Self> {
        Self::recognise(tract_onnx::onnx().proto_model_for_read(&mut bytes).ok()?, dimension)
    }

    /// Recognises a decoded model.
    pub(super) fn recognise(model: ModelProto, dimension: usize) -> Option<Self> {
        let graph = graph_of(model)?;
        let GraphProto { node, initializer, input, output, .. } = graph;
        let count = initializer.len();
        let constants: HashMap<_, _> = initializer.into_iter().map(|c| (c.name.clone(), c)).collect();
        let of_model = has_shape(&input, "input_ids", DataType::Int64, None)
            && has_shape(&output, "embedding", DataType::Float, Some(dimension));
        if !of_model || constants.len() != count {
            return None;
        }
        let sizes = sizes(&constants, &node)?;
        let mut parts = Self { sizes, epsilon: epsilon(&node)?, constants };
        let mut script = Script { nodes: node.iter(), epsilon: parts.epsilon };
        script.model(sizes.layers)?;
        (sizes.hidden == dimension && parts.small_constants_are_right() == Some(true)).then_some(parts)
    }

    /// `[rows, columns]` of f16, row by row.
    pub(super) fn take_halves(&mut self, name: &str, shape: [usize; 2]) -> Option<Vec<u8>> {
        self.take(name, DataType::Float16, &shape)
    }

    /// `shape` of f32.
    pub(super) fn take_floats(&mut self, name: &str, shape: &[usize]) -> Option<Vec<f32>> {
        let bytes = self.take(name, DataType::Float, shape)?;
        Some(bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect())
    }

    /// `[rows, columns]` of int8, row by row.
    pub(super) fn take_bytes(&mut self, name: &str, shape: [usize; 2]) -> Option<Vec<u8>> {
        self.take(name, DataType::Int8, &shape)
    }

    /// Whether all constants have been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.constants.is_empty()
    }

    fn take(&mut self, name: &str, kind: DataType, shape: &[usize]) -> Option<Vec<u8>> {
        let constant = self.constants.remove(name)?;
        let width = match kind {
            DataType::Int8 => 1,
            DataType::Float16 => 2,
            DataType::Float => 4,
            DataType::Int64 => 8,
            _ => return None,
        };
        let bytes = shape.iter().try_fold(width, |bytes: usize, &size| bytes.checked_mul(size))?;
        let right = constant.data_type == kind as i32
            && shape_of(&constant)? == shape
            && constant.raw_data.len() == bytes
            && constant.external_data.is_empty()
            && constant.data_location.is_none_or(|place| place == 0)
            && constant.segment.is_none();
        right.then_some(constant.raw_data)
    }

    fn take_integers(&mut self, name: &str, count: usize) -> Option<Vec<i64>> {
        let bytes = self.take(name, DataType::Int64, &[count])?;
        Some(bytes.as_chunks::<8>().0.iter().map(|eight| i64::from_le_bytes(*eight)).collect())
    }

    fn small_constants_are_right(&mut self) -> Option<bool> {
        let Sizes { hidden, heads, .. } = self.sizes;
        let head = hidden / heads;
        // All are f64 rounded to f32 in the export; a last place of difference would mean another model.
        let floats = [
            ("one", 1.0),
            ("half", 0.5),
            ("sqrt_two", std::f64::consts::SQRT_2 as f32),
            ("sqrt_head", (head as f64).sqrt() as f32),
        ];
        for (name, value) in floats {
            if self.take_floats(name, &[])? != [value] {
                return Some(false);
            }
        }
        let integers = [
            ("zeros", vec![0]),
            ("axis_0", vec![0]),
            ("split_heads", vec![0, 0, heads as i64, head as i64]),
            ("join_heads", vec![0, 0, hidden as i64]),
        ];
        for (name, values) in integers {
            if self.take_integers(name, values.len())? != values {
                return Some(false);
            }
        }
        Some(true)
    }
}

/// The graph of a model that holds one, of our version of operators, and nothing that could change it.
fn graph_of(model: ModelProto) -> Option<GraphProto> {
    let [opset] = model.opset_import.as_slice() else { return None };
    let plain = opset.domain.is_empty() && opset.version == OPSET && model.functions.is_empty();
    let graph = model.graph?;
    (plain && graph.sparse_initializer.is_empty() && graph.quantization_annotation.is_empty())
        .then_some(graph)
}

/// Whether `values` is the one value `name` of two dimensions, the second as large as `second` says.
fn has_shape(values: &[ValueInfoProto], name: &str, kind: DataType, second: Option<usize>) -> bool {
    use tract_onnx::pb::tensor_shape_proto::dimension::Value;
    let [value] = values else { return false };
    let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return false;
    };
    let dimensions = tensor.shape.as_ref().map_or(&[][..], |shape| &shape.dim);
    let [_, last] = dimensions else { return false };
    let fits = match (&last.value, second) {
        (Some(Value::DimValue(found)), Some(second)) => usize::try_from(*found) == Ok(second),
        (_, wanted) => wanted.is_none(),
    };
    value.name == name && tensor.elem_type == kind as i32 && fits
}

fn shape_of(constant: &TensorProto) -> Option<Vec<usize>> {
    constant.dims.iter().map(|&size| usize::try_from(size).ok()).collect()
}

/// Sizes from the shapes of constants, within bounds; whether all others agree is for `Parts::take` to find.
fn sizes(constants: &HashMap<String, TensorProto>, nodes: &[NodeProto]) -> Option<Sizes> {
    let shape = |name: &str| -> Option<[usize; 2]> { shape_of(constants.get(name)?)?.try_into().ok() };
    let [words, hidden] = shape("embeddings.word_embeddings.weight.i8")?;
    let [positions, _] = shape("embeddings.position_embeddings.weight.f16")?;
    let [_, wide] = shape("encoder.layer.0.intermediate.dense.weight.f16")?;
    let heads = constants
        .get("split_heads")?
        .raw_data
        .as_chunks::<8>()
        .0
        .get(2)
        .map(|eight| i64::from_le_bytes(*eight))?;
    let heads = usize::try_from(heads).ok()?;
    let layers = nodes.iter().filter(|node| node.op_type == "Softmax").count();
    let bounded = (1..=ROWS_MAX).contains(&words)
        && (1..=ROWS_MAX).contains(&positions)
        && (1..=FEATURES_MAX).contains(&hidden)
        && (1..=FEATURES_MAX).contains(&wide)
        && (1..=LAYERS_MAX).contains(&layers)
        && (1..=hidden).contains(&heads)
        && hidden.is_multiple_of(heads);
    bounded.then_some(Sizes { words, positions, hidden, wide, heads, layers })
}

/// The epsilon of the first layer norm; [`Script`] compares all others with it.
fn epsilon(nodes: &[NodeProto]) -> Option<f32> {
    let norm = nodes.iter().find(|node| node.op_type == "LayerNormalization")?;
    let epsilon = norm.attribute.iter().find(|attribute| attribute.name == "epsilon")?.f;
    (epsilon > 0.0 && epsilon < 1.0).then_some(epsilon)
}

/// An attribute of a node.
enum Attribute<'a> {
    Int(&'a str, i64),
    Ints(&'a str, &'a [i64]),
    Float(&'a str, f32),
}

impl Attribute<'_> {
    fn is(&self, found: &AttributeProto) -> bool {
        use tract_onnx::pb::attribute_proto::AttributeType::{Float, Int, Ints};
        let (name, kind, equal) = match *self {
            Attribute::Int(name, value) => (name, Int, found.i == value),
            Attribute::Ints(name, values) => (name, Ints, found.ints == values),
            Attribute::Float(name, value) => (name, Float, found.f == value),
        };
        found.name == name && found.r#type == kind as i32 && found.ref_attr_name.is_empty() && equal
    }
}

/// What `export.py` does, line by line, on nodes that must be the ones it would have added.
struct Script<'a> {
    nodes: slice::Iter<'a, NodeProto>,
    epsilon: f32,
}

/// ONNX's number for f32.
const F32: i64 = DataType::Float as i64;

impl Script<'_> {
    fn model(&mut self, layers: usize) -> Option<()> {
        let word = "embeddings.word_embeddings.weight";
        let axis_0 = [Attribute::Int("axis", 0)];
        self.add("Gather", "words.i8", &[&format!("{word}.i8"), "input_ids"], &axis_0)?;
        self.add("Gather", "words.scale", &[&format!("{word}.scale"), "input_ids"], &axis_0)?;
        self.add("Cast", "words.f32", &["words.i8"], &[Attribute::Int("to", F32)])?;
        self.add("Mul", "words", &["words.f32", "words.scale"], &[])?;
        let position = "embeddings.position_embeddings.weight";
        self.half(position)?;
        self.add("Shape", "tokens", &["input_ids"], &[Attribute::Int("end", 2), Attribute::Int("start", 1)])?;
        self.add("Slice", "positions", &[position, "zeros", "tokens", "axis_0"], &[])?;
        self.add("Add", "embedded.sum", &["words", "positions"], &[])?;
        self.layer_norm("embedded", "embedded.sum", "embeddings.LayerNorm")?;
        let mut x = "embedded".to_owned();
        for layer in 0..layers {
            x = self.layer(layer, &x)?;
        }
        let axes = |keep| [Attribute::Ints("axes", &[1]), Attribute::Int("keepdims", keep)];
        self.add("ReduceMean", "mean", &[&x], &axes(0))?;
        self.add("ReduceL2", "length", &["mean"], &axes(1))?;
        self.add("Div", "embedding", &["mean", "length"], &[])?;
        self.nodes.next().is_none().then_some(())
    }

    /// One layer on `x`; gives the name of its output.
    fn layer(&mut self, layer: usize, x: &str) -> Option<String> {
        let (key, at) = (
            |name: &str| format!("encoder.layer.{layer}.{name}"),
            |name: &str| format!("layer.{layer}.{name}"),
        );
        for (part, order) in [("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])] {
            let (name, heads) = (at(part), at(&format!("{part}.heads")));
            self.dense(&name, x, &key(&format!("attention.self.{part}")))?;
            self.add("Reshape", &heads, &[&name, "split_heads"], &[])?;
            self.add(
                "Transpose",
                &at(&format!("{part}.turned")),
                &[&heads],
                &[Attribute::Ints("perm", &order)],
            )?;
        }
        let last = [Attribute::Int("axis", -1)];
        self.add("MatMul", &at("scores.matmul"), &[&at("query.turned"), &at("key.turned")], &[])?;
        self.add("Div", &at("scores"), &[&at("scores.matmul"), "sqrt_head"], &[])?;
        self.add("Softmax", &at("shares"), &[&at("scores")], &last)?;
        self.add("MatMul", &at("context.heads"), &[&at("shares"), &at("value.turned")], &[])?;
        let turn = [Attribute::Ints("perm", &[0, 2, 1, 3])];
        self.add("Transpose", &at("context.turned"), &[&at("context.heads")], &turn)?;
        self.add("Reshape", &at("context"), &[&at("context.turned"), "join_heads"], &[])?;
        self.dense(&at("attention"), &at("context"), &key("attention.output.dense"))?;
        self.add("Add", &at("attention.sum"), &[&at("attention"), x], &[])?;
        self.layer_norm(&at("attended"), &at("attention.sum"), &key("attention.output.LayerNorm"))?;
        self.dense(&at("wide"), &at("attended"), &key("intermediate.dense"))?;
        self.add("Div", &at("gelu.div"), &[&at("wide"), "sqrt_two"], &[])?;
        self.add("Erf", &at("gelu.erf"), &[&at("gelu.div")], &[])?;
        self.add("Add", &at("gelu.add"), &[&at("gelu.erf"), "one"], &[])?;
        self.add("Mul", &at("gelu.mul"), &[&at("wide"), &at("gelu.add")], &[])?;
        self.add("Mul", &at("gelu"), &[&at("gelu.mul"), "half"], &[])?;
        self.dense(&at("narrow"), &at("gelu"), &key("output.dense"))?;
        self.add("Add", &at("output.sum"), &[&at("narrow"), &at("attended")], &[])?;
        self.layer_norm(&at("output"), &at("output.sum"), &key("output.LayerNorm"))?;
        Some(at("output"))
    }

    fn half(&mut self, name: &str) -> Option<()> {
        self.add("Cast", name, &[&format!("{name}.f16")], &[Attribute::Int("to", F32)])
    }

    fn layer_norm(&mut self, name: &str, x: &str, key: &str) -> Option<()> {
        let attributes = [Attribute::Int("axis", -1), Attribute::Float("epsilon", self.epsilon)];
        self.add(
            "LayerNormalization",
            name,
            &[x, &format!("{key}.weight"), &format!("{key}.bias")],
            &attributes,
        )
    }

    fn dense(&mut self, name: &str, x: &str, key: &str) -> Option<()> {
        let (weight, product) = (format!("{key}.weight"), format!("{name}.matmul"));
        self.half(&weight)?;
        self.add("MatMul", &product, &[x, &weight], &[])?;
        self.add("Add", name, &[&product, &format!("{key}.bias")], &[])
    }

    /// The next node must be this one. Attributes stand in the order of their names.
    fn add(&mut self, kind: &str, name: &str, inputs: &[&str], attributes: &[Attribute<'_>]) -> Option<()> {
        let node = self.nodes.next()?;
        let same = node.op_type == kind
            && node.domain.is_empty()
            && node.input == inputs
            && node.output == [name]
            && node.attribute.len() == attributes.len()
            && attributes.iter().zip(&node.attribute).all(|(wanted, found)| wanted.is(found));
        same.then_some(())
    }
}
