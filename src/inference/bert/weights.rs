//! Weights of a recognised graph, widened to f32 and packed once as the kernels want them.
//!
//! The word table stays int8 with a scale a row, a quarter of its size in f32: of it a batch reads few rows.

use tract_onnx::tract_core::internal::f16;

use super::{
    graph::{Parts, Sizes},
    kernel::{Floats, Kernel, Level},
    lanes::Norm,
};

/// Rows that [`Kernel::choose`] is asked for: about those of a bin.
const ROWS_TYPICAL: usize = 256;

/// All that a forward pass reads.
pub(super) struct Weights {
    pub(super) sizes: Sizes,
    pub(super) kernel: Kernel,
    /// `[words, hidden]` int8, and a scale for each row.
    words: Vec<u8>,
    word_scales: Vec<f32>,
    /// `[positions, hidden]`
    positions: Vec<f32>,
    pub(super) embedded: Norm,
    pub(super) layers: Vec<Layer>,
}

/// The weights of one layer.
pub(super) struct Layer {
    /// `[hidden, 2 · hidden + heads · head_columns]`: queries, keys and values side by side. The values of each
    /// head are filled up with zeros to whole panels, so that a head's panels are its own.
    pub(super) sources: Dense,
    pub(super) attention: Dense,
    pub(super) attended: Norm,
    pub(super) wide: Dense,
    pub(super) narrow: Dense,
    pub(super) output: Norm,
}

/// A matrix `[inputs, outputs]` in panels of the kernel's columns, and its bias `[outputs]`.
pub(super) struct Dense {
    pub(super) weight: Floats,
    pub(super) bias: Floats,
    pub(super) inputs: usize,
}

impl Weights {
    /// Packs what the parts hold for a kernel of `level`; `None` where a tensor is missing, of another type or shape, or left over, or
    /// where no kernel fits.
    pub(super) fn pack(parts: Parts, level: Level) -> Option<Self> {
        let Sizes { hidden, wide, .. } = parts.sizes;
        let kernel = Kernel::choose(level, ROWS_TYPICAL, hidden, wide)?;
        Self::pack_for(parts, kernel)
    }

    /// As [`Weights::pack`], for a kernel that fits.
    pub(super) fn pack_for(mut parts: Parts, kernel: Kernel) -> Option<Self> {
        let sizes = parts.sizes;
        let hidden = sizes.hidden;
        let word = "embeddings.word_embeddings.weight";
        let words = parts.take_bytes(&format!("{word}.i8"), [sizes.words, hidden])?;
        let word_scales = parts.take_floats(&format!("{word}.scale"), &[sizes.words, 1])?;
        let position = "embeddings.position_embeddings.weight.f16";
        let positions = parts.take_halves(position, [sizes.positions, hidden])?;
        let positions =
            positions.as_chunks::<2>().0.iter().map(|two| f16::from_le_bytes(*two).to_f32()).collect();
        let embedded = norm(&mut parts, "embeddings.LayerNorm", hidden)?;
        let layers =
            (0..sizes.layers).map(|at| Layer::pack(&mut parts, &kernel, at)).collect::<Option<_>>()?;
        let weights = Self { sizes, kernel, words, word_scales, positions, embedded, layers };
        parts.is_empty().then_some(weights)
    }

    /// `table[word] + positions[position]`, feature by feature; `None` beyond the tables.
    pub(super) fn embedding(&self, word: u32, position: usize) -> Option<impl Iterator<Item = f32>> {
        let hidden = self.sizes.hidden;
        let word = usize::try_from(word).ok()?;
        let scale = *self.word_scales.get(word)?;
        let row = &self.words[word * hidden..][..hidden];
        let position = self.positions.get(position * hidden..)?.get(..hidden)?;
        Some(row.iter().zip(position).map(move |(&byte, &position)| f32::from(byte as i8) * scale + position))
    }
}

impl Layer {
    fn pack(parts: &mut Parts, kernel: &Kernel, layer: usize) -> Option<Self> {
        let Sizes { hidden, wide, heads, .. } = parts.sizes;
        let key = |name: &str| format!("encoder.layer.{layer}.{name}");
        let head = [hidden / heads, head_columns(parts.sizes, kernel)];
        let mut sources = Dense::zeros(hidden, 2 * hidden + heads * head[1])?;
        for (at, part) in ["query", "key", "value"].into_iter().enumerate() {
            let head = if part == "value" { head } else { [hidden; 2] };
            sources.fill(
                parts,
                kernel,
                &key(&format!("attention.self.{part}")),
                (at * hidden, hidden),
                head,
            )?;
        }
        let mut dense = |name: &str, inputs, outputs| {
            let mut dense = Dense::zeros(inputs, outputs)?;
            dense.fill(parts, kernel, &key(name), (0, outputs), [outputs; 2])?;
            Some(dense)
        };
        let attention = dense("attention.output.dense", hidden, hidden)?;
        let widen = dense("intermediate.dense", hidden, wide)?;
        let narrow = dense("output.dense", wide, hidden)?;
        let attended = norm(parts, &key("attention.output.LayerNorm"), hidden)?;
        let output = norm(parts, &key("output.LayerNorm"), hidden)?;
        Some(Self { sources, attention, attended, wide: widen, narrow, output })
    }
}

/// Columns of a head in whole panels.
pub(super) fn head_columns(sizes: Sizes, kernel: &Kernel) -> usize {
    (sizes.hidden / sizes.heads).next_multiple_of(kernel.columns())
}

impl Dense {
    fn zeros(inputs: usize, outputs: usize) -> Option<Self> {
        Some(Self {
            weight: Floats::zeros(inputs.checked_mul(outputs)?)?,
            bias: Floats::zeros(outputs)?,
            inputs,
        })
    }

    /// Takes the matrix `[inputs, outputs]` and the bias `key` and packs them from column `start` on. Each run of
    /// `from` of its columns gets `to`, of which the last stay zero.
    fn fill(
        &mut self,
        parts: &mut Parts,
        kernel: &Kernel,
        key: &str,
        (start, outputs): (usize, usize),
        [from, to]: [usize; 2],
    ) -> Option<()> {
        let (inputs, columns) = (self.inputs, kernel.columns());
        let place = |column: usize| start + column / from * to + column % from;
        let halves = parts.take_halves(&format!("{key}.weight.f16"), [inputs, outputs])?;
        let weight = self.weight.as_mut_slice();
        for (row, halves) in halves.as_chunks::<2>().0.chunks_exact(outputs).enumerate() {
            for (column, half) in halves.iter().enumerate() {
                let column = place(column);
                let at = column / columns * inputs * columns + row * columns + column % columns;
                weight[at] = f16::from_le_bytes(*half).to_f32();
            }
        }
        let floats = parts.take_floats(&format!("{key}.bias"), &[outputs])?;
        floats.iter().enumerate().for_each(|(column, &bias)| self.bias.as_mut_slice()[place(column)] = bias);
        Some(())
    }
}

fn norm(parts: &mut Parts, key: &str, hidden: usize) -> Option<Norm> {
    let scale = parts.take_floats(&format!("{key}.weight"), &[hidden])?;
    let bias = parts.take_floats(&format!("{key}.bias"), &[hidden])?;
    Some(Norm { scale, bias, epsilon: parts.epsilon })
}
