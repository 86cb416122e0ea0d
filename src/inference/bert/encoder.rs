//! The forward pass over one bin: sequences laid end to end as rows, without padding between them.
//!
//! Activations lie in panels `[features][rows]` of the kernel's rows, which is what a product takes on its left.
//! Every product is written straight to where the next step reads it, so nothing is packed between layers.
//! Rows behind the last sequence, up to a whole panel, are computed like tokens and read by nobody.

use std::{ops::Range, sync::Arc};

use super::{
    super::{EmbedError, Stop},
    graph::Sizes,
    kernel::{self, Floats, Multiplier, Panels, Place, Size, Start},
    lanes::{self, Norm},
    weights::{Dense, Layer, Weights, head_columns},
};

/// Rows of queries whose scores are held at once: with 256 keys 64 KiB, which stay in L2.
const QUERY_ROWS: usize = 64;
/// Wide features that go through the activation at once and are added up in the narrow product, so that what
/// lies between the two stays in L2. A whole number of panels for kernels of 4, 6, 8 and 12 columns.
const WIDE_FEATURES: usize = 384;
/// Bytes of a weight that one product runs over; with a panel of rows in L1 they stay in L2.
const WEIGHT_BYTES: usize = 256 << 10;

/// One thread's scratch memory over shared weights.
pub(super) struct Encoder {
    weights: Arc<Weights>,
    multiplier: Multiplier,
    scratch: Option<Scratch>,
}

/// Why a batch has no vectors, apart from [`Stop`].
#[derive(Debug, thiserror::Error)]
enum EncodeError {
    #[error(
        "token {id} at position {position} is not in the model, which has {words} words and {positions} positions"
    )]
    Token { id: u32, position: usize, words: usize, positions: usize },
    #[error("a sequence has no token")]
    Empty,
    #[error("no memory for {rows} rows")]
    Memory { rows: usize },
}

fn failed(error: EncodeError) -> EmbedError {
    EmbedError::Run(Box::new(error))
}

impl Encoder {
    pub(super) fn new(weights: Arc<Weights>) -> Self {
        let multiplier = weights.kernel.multiplier();
        Self { weights, multiplier, scratch: None }
    }

    /// Sequences of one bin, `[sequences][tokens]` -> `[sequences, hidden]`, L2-normalised.
    pub(super) fn run(&mut self, bin: &[&[u32]], stop: &Stop, out: &mut [f32]) -> Result<(), EmbedError> {
        let weights = Arc::clone(&self.weights);
        let mut spans = Vec::with_capacity(bin.len());
        let mut rows = 0;
        for sequence in bin {
            if sequence.is_empty() {
                return Err(failed(EncodeError::Empty));
            }
            spans.push(rows..rows + sequence.len());
            rows += sequence.len();
        }
        let panels = rows.div_ceil(weights.kernel.rows());
        if self.scratch.as_ref().is_none_or(|scratch| scratch.panels < panels) {
            self.scratch = None;
            let scratch =
                Scratch::new(&weights, panels).ok_or_else(|| failed(EncodeError::Memory { rows }))?;
            self.scratch = Some(scratch);
        }
        let Some(scratch) = self.scratch.as_mut() else { return Err(failed(EncodeError::Memory { rows })) };
        let mut pass = Pass { weights: &weights, multiplier: &mut self.multiplier, scratch, panels, stop };
        pass.embed(bin)?;
        for layer in &weights.layers {
            pass.attend(layer, &spans)?;
            pass.feed_forward(layer)?;
        }
        for (span, vector) in spans.iter().zip(out.chunks_exact_mut(weights.sizes.hidden)) {
            pass.pool(span, vector);
        }
        Ok(())
    }
}

/// Memory for bins of up to `panels` panels of rows.
struct Scratch {
    panels: usize,
    /// `[panels][hidden][rows]`: what goes from layer to layer.
    x: Floats,
    /// As `x`: what a layer adds to it.
    y: Floats,
    /// `[panels][2 · hidden][rows]`: queries, later the context in their place; and keys.
    queries: Floats,
    /// The keys again in panels `[rows / columns][hidden][columns]`, the right side of a product.
    keys: Floats,
    /// `[heads · head_columns / columns][rows][columns]`, the right side of another.
    values: Floats,
    /// `[query_panels][keys][rows]` of one head.
    scores: Floats,
    /// `[head_columns][rows]` of one head.
    context: Floats,
    /// `[panels][wide_block][rows]`
    wide: Floats,
    /// One float a row of a panel.
    sums: Vec<f32>,
}

impl Scratch {
    fn new(weights: &Weights, panels: usize) -> Option<Self> {
        let Sizes { hidden, wide, heads, .. } = weights.sizes;
        let (panel, columns) = (weights.kernel.rows(), weights.kernel.columns());
        let rows = panels.checked_mul(panel)?;
        let head = head_columns(weights.sizes, &weights.kernel);
        // A sequence's first and last panel of keys may hold others' rows too.
        let keys = rows.checked_add(2 * columns)?;
        let of = |features: usize| Floats::zeros(rows.checked_mul(features)?);
        Some(Self {
            panels,
            x: of(hidden)?,
            y: of(hidden)?,
            queries: of(2 * hidden)?,
            keys: Floats::zeros(keys.checked_mul(hidden)?)?,
            values: of(heads * head)?,
            scores: Floats::zeros(keys.checked_mul(query_panels(panel) * panel)?)?,
            context: Floats::zeros(head * panel)?,
            wide: of(wide.min(wide_block(columns)))?,
            sums: vec![0.0; panel],
        })
    }
}

/// One bin on its way.
struct Pass<'a> {
    weights: &'a Weights,
    multiplier: &'a mut Multiplier,
    scratch: &'a mut Scratch,
    panels: usize,
    stop: &'a Stop,
}

impl Pass<'_> {
    fn check(&self) -> Result<(), EmbedError> {
        if self.stop.is_asked() { Err(EmbedError::Stopped) } else { Ok(()) }
    }

    /// Token ids -> `x`.
    fn embed(&mut self, bin: &[&[u32]]) -> Result<(), EmbedError> {
        let weights = self.weights;
        let (rows, Sizes { hidden, words, positions, .. }) = (weights.kernel.rows(), weights.sizes);
        let x = &mut self.scratch.x.as_mut_slice()[..self.panels * hidden * rows];
        x.fill(0.0);
        let tokens = bin.iter().flat_map(|sequence| sequence.iter().enumerate());
        for (row, (position, &id)) in tokens.enumerate() {
            let unknown = EncodeError::Token { id, position, words, positions };
            let features = weights.embedding(id, position).ok_or_else(|| failed(unknown))?;
            let panel = &mut x[row / rows * hidden * rows..][..hidden * rows];
            let lane = panel.iter_mut().skip(row % rows).step_by(rows);
            lane.zip(features).for_each(|(x, feature)| *x = feature);
        }
        for panel in x.chunks_exact_mut(hidden * rows) {
            kernel::layer_norm(weights.kernel.level(), panel, &[], rows, &weights.embedded);
        }
        Ok(())
    }

    /// `x <- norm(x + attention(x))`
    fn attend(&mut self, layer: &Layer, spans: &[Range<usize>]) -> Result<(), EmbedError> {
        let (rows, hidden) = (self.weights.kernel.rows(), self.weights.sizes.hidden);
        let columns = self.weights.kernel.columns();
        let heads = self.weights.sizes.heads * head_columns(self.weights.sizes, &self.weights.kernel);
        let stop = self.stop;
        let scratch = &mut *self.scratch;
        let mut product = Product { multiplier: self.multiplier, panels: self.panels, stop };
        let x = Panels { floats: &scratch.x, at: 0, stride: hidden * rows };
        let place = tiles(rows, columns, 2 * hidden);
        product.run(x, &layer.sources, 0..hidden, 0..2 * hidden, &mut scratch.queries, place)?;
        let place = Place {
            at: 0,
            row: columns,
            row_panel: rows * columns,
            column: 1,
            column_panel: scratch.panels * rows * columns,
        };
        product.run(
            x,
            &layer.sources,
            0..hidden,
            2 * hidden..2 * hidden + heads,
            &mut scratch.values,
            place,
        )?;
        self.turn_keys();
        for head in 0..self.weights.sizes.heads {
            for span in spans {
                self.check()?;
                self.attend_by(head, span);
            }
        }
        let scratch = &mut *self.scratch;
        let mut product = Product { multiplier: self.multiplier, panels: self.panels, stop };
        let context = Panels { floats: &scratch.queries, at: 0, stride: 2 * hidden * rows };
        let place = tiles(rows, columns, hidden);
        product.run(context, &layer.attention, 0..hidden, 0..hidden, &mut scratch.y, place)?;
        self.add(&layer.attended);
        Ok(())
    }

    /// Keys from panels of rows to panels of columns.
    fn turn_keys(&mut self) {
        let (rows, columns) = (self.weights.kernel.rows(), self.weights.kernel.columns());
        let hidden = self.weights.sizes.hidden;
        let from = self.scratch.queries.as_slice();
        let to = self.scratch.keys.as_mut_slice().chunks_exact_mut(hidden * columns);
        for (panel, to) in to.enumerate().take((self.panels * rows).div_ceil(columns)) {
            // A panel of columns may begin in one panel of rows and end in the next.
            let mut taken = 0;
            while taken < columns {
                let row = panel * columns + taken;
                let (lane, count) = (row % rows, (rows - row % rows).min(columns - taken));
                if row / rows < self.panels {
                    let from = &from[(row / rows * 2 + 1) * hidden * rows..][..hidden * rows];
                    lanes::move_lanes(from, rows, lane, to, columns, taken, count);
                }
                taken += count;
            }
        }
    }

    /// Attention of one head inside one sequence; its context takes the place of its queries.
    ///
    /// The first and the last panel of queries, and the first and the last of keys, may hold rows of neighbours.
    /// Their scores are computed too, for products know whole panels only, but no sum runs over them, and of
    /// the context only the sequence's own rows are kept.
    fn attend_by(&mut self, head: usize, span: &Range<usize>) {
        let (rows, columns) = (self.weights.kernel.rows(), self.weights.kernel.columns());
        let Sizes { hidden, heads, .. } = self.weights.sizes;
        let size = hidden / heads;
        let head_columns = head_columns(self.weights.sizes, &self.weights.kernel);
        let level = self.weights.kernel.level();
        let scale = 1.0 / (size as f32).sqrt();
        let scratch = &mut *self.scratch;
        let key_panels = span.start / columns..span.end.div_ceil(columns);
        let keys = key_panels.len() * columns;
        let skipped = span.start - key_panels.start * columns;
        let own = skipped * rows..(skipped + span.len()) * rows;
        let all = span.start / rows..span.end.div_ceil(rows);
        for first in all.clone().step_by(query_panels(rows)) {
            let panels = first..all.end.min(first + query_panels(rows));
            let queries = Panels {
                floats: &scratch.queries,
                at: (first * 2 * hidden + head * size) * rows,
                stride: 2 * hidden * rows,
            };
            let right = Panels {
                floats: &scratch.keys,
                at: (key_panels.start * hidden + head * size) * columns,
                stride: hidden * columns,
            };
            let sizes = Size { row_panels: panels.len(), depth: size, columns: keys };
            self.multiplier.multiply(
                sizes,
                queries,
                right,
                Start::Zero,
                &mut scratch.scores,
                tiles(rows, columns, keys),
            );
            let stride = scratch.panels * rows * columns;
            let values = Panels {
                floats: &scratch.values,
                at: head * head_columns / columns * stride + span.start * columns,
                stride,
            };
            for panel in panels {
                let at = (panel - first) * keys * rows;
                let scores = &mut scratch.scores.as_mut_slice()[at..][own.clone()];
                kernel::softmax(level, scores, scale, &mut scratch.sums);
                let shares = Panels { floats: &scratch.scores, at: at + own.start, stride: 0 };
                let sizes = Size { row_panels: 1, depth: span.len(), columns: head_columns };
                let place = tiles(rows, columns, head_columns);
                self.multiplier.multiply(sizes, shares, values, Start::Zero, &mut scratch.context, place);
                // The sums of values are divided here, rather than the far more shares.
                scratch.sums.iter_mut().for_each(|sum| *sum = 1.0 / *sum);
                let lanes = lanes_of(span, panel, rows);
                let to = (panel * 2 * hidden + head * size) * rows;
                let to = &mut scratch.queries.as_mut_slice()[to..][..size * rows];
                let from = scratch.context.as_slice().chunks_exact(rows);
                for (to, from) in to.chunks_exact_mut(rows).zip(from) {
                    let both = to[lanes.clone()].iter_mut().zip(&from[lanes.clone()]);
                    both.zip(&scratch.sums[lanes.clone()]).for_each(|((to, from), sum)| *to = from * sum);
                }
            }
        }
    }

    /// `x <- norm(x + narrow(gelu(wide(x))))`
    fn feed_forward(&mut self, layer: &Layer) -> Result<(), EmbedError> {
        let (rows, columns) = (self.weights.kernel.rows(), self.weights.kernel.columns());
        let Sizes { hidden, wide, .. } = self.weights.sizes;
        let level = self.weights.kernel.level();
        let scratch = &mut *self.scratch;
        let mut product = Product { multiplier: self.multiplier, panels: self.panels, stop: self.stop };
        let x = Panels { floats: &scratch.x, at: 0, stride: hidden * rows };
        let place = tiles(rows, columns, hidden);
        let block = wide_block(columns);
        for start in (0..wide).step_by(block) {
            let range = start..wide.min(start + block);
            let features = range.len();
            let between = tiles(rows, columns, features);
            product.run(x, &layer.wide, 0..hidden, range.clone(), &mut scratch.wide, between)?;
            kernel::gelu(level, &mut scratch.wide.as_mut_slice()[..self.panels * features * rows]);
            let between = Panels { floats: &scratch.wide, at: 0, stride: features * rows };
            product.run(between, &layer.narrow, range, 0..hidden, &mut scratch.y, place)?;
        }
        self.add(&layer.output);
        Ok(())
    }

    /// `x <- norm(x + y)`
    fn add(&mut self, norm: &Norm) {
        let (rows, hidden) = (self.weights.kernel.rows(), self.weights.sizes.hidden);
        let x = self.scratch.x.as_mut_slice().chunks_exact_mut(hidden * rows).take(self.panels);
        for (x, y) in x.zip(self.scratch.y.as_slice().chunks_exact(hidden * rows)) {
            kernel::layer_norm(self.weights.kernel.level(), x, y, rows, norm);
        }
    }

    /// The mean of `x` over the rows `span`, then made of length 1.
    fn pool(&self, span: &Range<usize>, vector: &mut [f32]) {
        let (rows, hidden) = (self.weights.kernel.rows(), self.weights.sizes.hidden);
        vector.fill(0.0);
        for panel in span.start / rows..span.end.div_ceil(rows) {
            let lanes = lanes_of(span, panel, rows);
            let x = &self.scratch.x.as_slice()[panel * hidden * rows..][..hidden * rows];
            for (sum, x) in vector.iter_mut().zip(x.chunks_exact(rows)) {
                *sum += x[lanes.clone()].iter().sum::<f32>();
            }
        }
        let tokens = span.len() as f32;
        vector.iter_mut().for_each(|x| *x /= tokens);
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        if norm > 0.0 {
            vector.iter_mut().for_each(|x| *x /= norm);
        }
    }
}

/// Which lanes of the panel `panel` are rows of `span`.
fn lanes_of(span: &Range<usize>, panel: usize, rows: usize) -> Range<usize> {
    let start = panel * rows;
    span.start.max(start) - start..span.end.min(start + rows) - start
}

/// Wide features that are computed at once, a whole number of panels of columns.
fn wide_block(columns: usize) -> usize {
    WIDE_FEATURES.next_multiple_of(columns)
}

/// Panels of queries whose scores are held at once.
fn query_panels(rows: usize) -> usize {
    (QUERY_ROWS / rows).max(1)
}

/// Panels `[features][rows]`, one after the other.
fn tiles(rows: usize, columns: usize, features: usize) -> Place {
    Place { at: 0, row: 1, row_panel: features * rows, column: rows, column_panel: columns * rows }
}

/// Products of a whole bin with weights.
struct Product<'a> {
    multiplier: &'a mut Multiplier,
    panels: usize,
    stop: &'a Stop,
}

impl Product<'_> {
    /// `out <- left · weight + bias` for the rows `inputs` and the columns `outputs` of the weight, a block of
    /// columns after the other, so that a block stays in L2 while all rows go over it. Inputs after the first
    /// are added to what is there.
    fn run(
        &mut self,
        left: Panels<'_>,
        dense: &Dense,
        inputs: Range<usize>,
        outputs: Range<usize>,
        out: &mut Floats,
        place: Place,
    ) -> Result<(), EmbedError> {
        let columns = self.multiplier.columns();
        let stride = dense.inputs * columns;
        let block = (WEIGHT_BYTES / (inputs.len() * columns * size_of::<f32>())).max(1) * columns;
        for column in outputs.clone().step_by(block) {
            if self.stop.is_asked() {
                return Err(EmbedError::Stopped);
            }
            let count = block.min(outputs.end - column);
            let at = column / columns * stride + inputs.start * columns;
            let right = Panels { floats: &dense.weight, at, stride };
            let size = Size { row_panels: self.panels, depth: inputs.len(), columns: count };
            let start = if inputs.start == 0 { Start::Bias(&dense.bias, column) } else { Start::Out };
            let at = place.at + (column - outputs.start) / columns * place.column_panel;
            self.multiplier.multiply(size, left, right, start, out, Place { at, ..place });
        }
        Ok(())
    }
}
