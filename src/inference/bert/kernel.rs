//! tract-linalg's matrix kernels and the machine's vector instructions, behind calls that check their bounds.
//!
//! All `unsafe` of the crate's inference stands in this file and in `tiles`. A kernel works on panels: the left matrix is cut
//! into panels of `rows` rows, each `[depth][rows]`; the right one into panels of `columns` columns, each
//! `[depth][columns]`. Neither needs an edge: callers pad to whole panels.
#![expect(
    unsafe_code,
    reason = "tract-linalg's kernels take pointers, and vector instructions need a check at run time"
)]

use std::fmt;

use tract_linalg::{
    MmmDispatch,
    mmm::{
        AsInputValue, FusedSpec, MMMInputFormat, MMMInputValue, MatMatMul, OutputStoreSpec, PackedExoticFact,
        Query, ScratchSpace, retain_best,
    },
    pack::PackedFormat,
};
use tract_onnx::tract_core::{internal::*, tract_linalg};

pub(super) use super::level::{Level, gelu, layer_norm, softmax};
use super::tiles;

/// Bytes to which [`Floats`] are aligned: a cache line, and the widest vector.
const ALIGNMENT: usize = 64;
/// Floats that can be read behind the last of [`Floats`]: kernels fetch one step ahead, and the widest step
/// that [`Kernel::choose`] allows has 64.
const SLACK: usize = 128;
/// Rows of a panel, at most.
const PANEL_ROWS_MAX: usize = 64;

/// Floats in memory as kernels want it: aligned, and readable a step beyond the end.
pub(super) struct Floats {
    tensor: Tensor,
    len: usize,
}

impl Floats {
    /// `len` zeros; `None` where they do not fit into memory.
    pub(super) fn zeros(len: usize) -> Option<Self> {
        let shape = [len.checked_add(SLACK)?];
        let tensor = Tensor::zero_aligned_dt(f32::datum_type(), &shape, ALIGNMENT).ok()?;
        Some(Self { tensor, len })
    }

    /// All of them.
    pub(super) fn as_slice(&self) -> &[f32] {
        // SAFETY: `zeros` made a plain tensor of `len + SLACK` f32.
        unsafe { &self.tensor.as_slice_unchecked::<f32>()[..self.len] }
    }

    /// All of them, to be written.
    pub(super) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as in `as_slice`.
        unsafe { &mut self.tensor.as_slice_mut_unchecked::<f32>()[..self.len] }
    }
}

/// Panels inside [`Floats`]: the first begins at float `at`, the others `stride` floats apart.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub(super) floats: &'a Floats,
    pub(super) at: usize,
    pub(super) stride: usize,
}

/// [`Panels`] that have been checked, from the first float of the first on.
#[derive(Clone, Copy)]
pub(super) struct Aimed<'a> {
    pub(super) floats: &'a [f32],
    pub(super) stride: usize,
}

impl<'a> Panels<'a> {
    /// Checks that `panels` panels of `depth` steps of `step` floats lie inside, aligned.
    fn check(self, panels: usize, depth: usize, step: usize) -> Aimed<'a> {
        let end = self.at + (panels - 1) * self.stride + depth * step;
        assert!(end <= self.floats.len && step <= SLACK);
        // Aligned loads go by whole vectors, of which a step has a whole number if it has a power of two.
        let vector = (1 << (step * size_of::<f32>()).trailing_zeros()).min(ALIGNMENT);
        assert!((self.at * size_of::<f32>()).is_multiple_of(vector));
        assert!(panels == 1 || (self.stride * size_of::<f32>()).is_multiple_of(vector));
        Aimed { floats: &self.floats.as_slice()[self.at..], stride: self.stride }
    }
}

/// Where a product goes, in floats: element (row, column) of tile (i, j) lies at
/// `at + i·row_panel + row·row + j·column_panel + column·column`.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) at: usize,
    pub(super) row: usize,
    pub(super) row_panel: usize,
    pub(super) column: usize,
    pub(super) column_panel: usize,
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// Nothing.
    Zero,
    /// One float a column, from float `.1` on.
    Bias(&'a Floats, usize),
    /// What stands in its place, where the rows of a panel must lie side by side.
    Out,
}

/// How large a product is: `[row_panels · rows, depth] · [depth, columns]`.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) row_panels: usize,
    pub(super) depth: usize,
    pub(super) columns: usize,
}

/// The matrix kernel and the vector instructions that suit this machine.
#[derive(Clone)]
pub(super) struct Kernel {
    product: Product,
    rows: usize,
    columns: usize,
    level: Level,
}

/// Who multiplies.
#[derive(Clone)]
enum Product {
    /// A kernel of tract-linalg, which has one for every machine, and which of its packings to use.
    Tract(Box<dyn MatMatMul>, usize),
    /// A kernel of [`tiles`], only where [`Level::detect`] found its instructions.
    Own(&'static str, tiles::Kernel),
}

impl Kernel {
    /// The best kernel for products `[rows, hidden] · [hidden, wide]` and back, of whose panels of columns both
    /// `hidden` and `wide` have a whole number.
    pub(super) fn choose(level: Level, rows: usize, hidden: usize, wide: usize) -> Option<Self> {
        if let Some((name, rows, columns, kernel)) = level.tile()
            && hidden.is_multiple_of(columns)
            && wide.is_multiple_of(columns)
        {
            return Some(Self { product: Product::Own(name, kernel), rows, columns, level });
        }
        Self::of_tract(level, rows, hidden, wide).into_iter().next()
    }

    /// tract's kernels that fit, the one that it would choose first.
    pub(super) fn of_tract(level: Level, rows: usize, hidden: usize, wide: usize) -> Vec<Self> {
        let dispatch = MmmDispatch::native();
        let f32 = f32::datum_type();
        let mut query = Query::plain(f32, Some(rows), Some(hidden), Some(wide));
        (query.store, query.allow_extractor) = (Some(f32), false);
        let mut suitable = dispatch.suitable(&query);
        suitable.retain(|(mmm, packing, _)| {
            let (left, right) = &mmm.packings()[*packing];
            let plain = |format: &dyn MMMInputFormat, r| {
                format.downcast_ref::<PackedFormat>().is_some_and(|format| format.dt == f32 && format.r == r)
            };
            let (mr, nr) = (mmm.mr(), mmm.nr());
            let whole =
                nr > 1 && hidden.is_multiple_of(nr) && wide.is_multiple_of(nr) && mr.is_multiple_of(4);
            whole && mr <= PANEL_ROWS_MAX && !mmm.emulated() && plain(&**left, mr) && plain(&**right, nr)
        });
        retain_best(&mut suitable);
        let preferred = dispatch.preferred(&query, &suitable);
        suitable.sort_by_key(|(mmm, _, _)| std::cmp::Reverse((mmm.mr() * mmm.nr(), mmm.nr())));
        let kernel = |(mmm, packing, _)| {
            let mmm: Box<dyn MatMatMul> = mmm;
            let (rows, columns) = (mmm.mr(), mmm.nr());
            Self { product: Product::Tract(mmm, packing), rows, columns, level }
        };
        preferred.into_iter().chain(suitable).map(kernel).collect()
    }

    /// Its name, for logs.
    pub(super) fn name(&self) -> &str {
        match &self.product {
            Product::Tract(mmm, _) => mmm.name(),
            Product::Own(name, _) => name,
        }
    }

    /// Rows of a left panel.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of a right panel.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// The vector instructions.
    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// One thread's use of it.
    pub(super) fn multiplier(&self) -> Multiplier {
        let tract = match &self.product {
            Product::Own(..) => None,
            Product::Tract(mmm, packing) => {
                let (left, right) = &mmm.packings()[*packing];
                // SAFETY: the scratch is used with this kernel only.
                let scratch = unsafe { mmm.allocate_scratch_space() };
                Some(Tract { scratch, left: Operand::new(left.clone()), right: Operand::new(right.clone()) })
            }
        };
        Multiplier { kernel: self.clone(), tract }
    }
}

/// One thread's use of a kernel.
pub(super) struct Multiplier {
    kernel: Kernel,
    tract: Option<Tract>,
}

struct Tract {
    scratch: Box<dyn ScratchSpace>,
    left: Operand,
    right: Operand,
}

impl Multiplier {
    /// Columns of a right panel.
    pub(super) fn columns(&self) -> usize {
        self.kernel.columns()
    }

    /// `out <- left · right + start`
    ///
    /// # Panics
    /// Where an operand or the place does not lie inside its floats, or a panel is not whole: bugs of ours.
    pub(super) fn multiply(
        &mut self,
        size: Size,
        left: Panels<'_>,
        right: Panels<'_>,
        start: Start<'_>,
        out: &mut Floats,
        place: Place,
    ) {
        let (rows, columns) = (self.kernel.rows, self.kernel.columns);
        let column_panels = size.columns / columns;
        assert!(
            size.row_panels > 0
                && size.depth > 0
                && column_panels > 0
                && size.columns.is_multiple_of(columns)
        );
        let left = left.check(size.row_panels, size.depth, rows);
        let right = right.check(column_panels, size.depth, columns);
        let last = place.at
            + (size.row_panels - 1) * place.row_panel
            + (rows - 1) * place.row
            + (column_panels - 1) * place.column_panel
            + (columns - 1) * place.column;
        assert!(
            last < out.len
                && place.row_panel.is_multiple_of(place.row)
                && place.column_panel.is_multiple_of(place.column)
        );
        match start {
            Start::Zero => {}
            Start::Bias(bias, at) => assert!(at + size.columns <= bias.len),
            Start::Out => assert!(place.row == 1),
        }
        match (&self.kernel.product, &mut self.tract) {
            (Product::Own(_, kernel), _) => {
                // SAFETY: the instructions are there (`Level::tile`); all panels of both operands lie inside
                // their floats (`check`) and every element of the product inside `out` (asserted). `out` is
                // borrowed exclusively, so the operands are other memory.
                unsafe {
                    kernel(
                        [size.row_panels, size.depth, column_panels],
                        left,
                        right,
                        start,
                        out.as_mut_slice(),
                        place,
                    )
                }
            }
            // SAFETY: as above; and no tile has an edge.
            (Product::Tract(mmm, packing), Some(tract)) => unsafe {
                tract.multiply(&**mmm, *packing, size, [left, right], start, out, place);
            },
            (Product::Tract(..), None) => unreachable!("`Kernel::multiplier` makes both"),
        }
    }
}

impl Tract {
    /// # Safety
    /// All panels of both operands, all of the bias, and every element of the product lie inside their memory.
    #[expect(clippy::too_many_arguments, reason = "the operands of one product, and who multiplies")]
    unsafe fn multiply(
        &mut self,
        mmm: &dyn MatMatMul,
        packing: usize,
        size: Size,
        [left, right]: [Aimed<'_>; 2],
        start: Start<'_>,
        out: &mut Floats,
        place: Place,
    ) {
        self.left.aim(left, size.row_panels, size.depth);
        self.right.aim(right, size.columns / mmm.nr(), size.depth);
        let bytes = |floats: usize| (floats * size_of::<f32>()) as isize;
        // tract multiplies these strides by `mr` and `nr` to find the next tile. Saying how many rows and columns
        // apart the next tile would be, were memory one matrix, lets it write into panels of any distance.
        let spec = OutputStoreSpec::Strides {
            row_byte_stride: bytes(place.row),
            col_byte_stride: bytes(place.column),
            mr: place.row_panel / place.row,
            nr: place.column_panel / place.column,
        };
        let (one, strides, columns) = ([1], [1], [size.columns]);
        // SAFETY: `place.at` lies inside `out`, which stays borrowed, exclusively, until the end of the call.
        let store =
            unsafe { spec.wrap(&TensorView::from_bytes(&out.tensor, bytes(place.at), &one, &strides)) };
        let product = FusedSpec::AddMatMul {
            a: AsInputValue::Borrowed(&self.left),
            b: AsInputValue::Borrowed(&self.right),
            packing,
        };
        let added = match start {
            Start::Zero => None,
            // SAFETY: the bias has a float for each column from `at` on.
            Start::Bias(bias, at) => Some(FusedSpec::BinPerCol(
                unsafe { TensorView::from_bytes(&bias.tensor, bytes(at), &columns, &strides) },
                tract_linalg::BinOp::Add,
            )),
            Start::Out => Some(FusedSpec::AddUnicast(store)),
        };
        let steps: TVec<_> =
            [Some(product), added, Some(FusedSpec::Store(store))].into_iter().flatten().collect();
        // SAFETY: the caller's promise.
        let result = unsafe {
            mmm.run_with_scratch_space(size.row_panels * mmm.mr(), size.columns, &mut *self.scratch, &steps)
        };
        // Kernels fail on operations that they do not know; these they all do.
        assert!(result.is_ok(), "{}: {result:?}", mmm.name());
    }
}

/// Packed panels in borrowed memory, as tract sees them. It points somewhere only during a
/// [`Multiplier::multiply`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Operand {
    start: *const f32,
    stride: usize,
    panels: usize,
    fact: Fact,
}

/// [`PackedExoticFact`] without its unused parts would do; tract asks for the whole.
type Fact = PackedExoticFact;

// SAFETY: the pointer is only followed by kernels inside `Multiplier::multiply`, which borrows what it points to.
unsafe impl Send for Operand {}
// SAFETY: as above.
unsafe impl Sync for Operand {}

impl Operand {
    fn new(format: Box<dyn MMMInputFormat>) -> Self {
        Self { start: std::ptr::null(), stride: 0, panels: 0, fact: Fact { format, mn: 0.to_dim(), k: 0 } }
    }

    fn aim(&mut self, place: Aimed<'_>, panels: usize, depth: usize) {
        self.start = place.floats.as_ptr();
        (self.stride, self.panels, self.fact.k) = (place.stride, panels, depth);
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} panels of {}", self.panels, self.fact)
    }
}

impl MMMInputValue for Operand {
    fn format(&self) -> &dyn MMMInputFormat {
        &*self.fact.format
    }

    fn scratch_panel_buffer_layout(&self) -> Option<std::alloc::Layout> {
        None
    }

    fn panel_bytes(&self, panel: usize, _: Option<*mut u8>) -> TractResult<*const u8> {
        Ok(self.start.wrapping_add(panel * self.stride).cast())
    }

    fn mn(&self) -> usize {
        self.panels * self.fact.format.r()
    }

    fn k(&self) -> usize {
        self.fact.k
    }

    fn exotic_fact(&self) -> &dyn ExoticFact {
        &self.fact
    }

    fn extract_at_mn_f16(&self, _: usize, _: &mut [f16]) -> TractResult<()> {
        bail!("nobody asks for a part of it")
    }

    fn extract_at_mn_f32(&self, _: usize, _: &mut [f32]) -> TractResult<()> {
        bail!("nobody asks for a part of it")
    }
}
