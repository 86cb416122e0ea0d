//! Matrix kernels of our own, for x86-64 only: tract-linalg's keep 12 of 32 vectors of sums and write floats one by
//! one there, which costs a third of the time (75 against 111 GFLOP/s for its best two on a Cascade Lake).
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "vector instructions and the pointers they take")
)]

use super::kernel::{Aimed, Place, Start};

/// `out <- left · right + start` for `[row panels, depth, column panels]`.
pub(super) type Kernel = unsafe fn([usize; 3], Aimed<'_>, Aimed<'_>, Start<'_>, &mut [f32], Place);

/// Steps that rows are fetched ahead.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 8;

#[cfg(target_arch = "x86_64")]
macro_rules! kernel {
    ($name:ident, $features:literal, $lanes:literal, $columns:literal, $zero:ident, $load:ident, $store:ident,
     $set:ident, $fma:ident) => {
        /// Tiles of two vectors of rows by as many columns as leave registers for the operands. A panel of the
        /// right side stays in L1 while all rows go over it.
        ///
        /// # Safety
        /// The machine has the instructions; the panels lie inside `left` and `right`, the bias inside its
        /// floats, the product in `out`; and `Start::Out` comes only with rows side by side.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name(
            [row_panels, depth, column_panels]: [usize; 3],
            left: Aimed<'_>,
            right: Aimed<'_>,
            start: Start<'_>,
            out: &mut [f32],
            place: Place,
        ) {
            use std::{arch::x86_64::*, mem::MaybeUninit};
            for column in 0..column_panels {
                for row in 0..row_panels {
                    let at = place.at + row * place.row_panel + column * place.column_panel;
                    // SAFETY: every pointer stays inside its slice, by the caller's promise.
                    unsafe {
                        let mut a = left.floats.as_ptr().add(row * left.stride);
                        let mut b = right.floats.as_ptr().add(column * right.stride);
                        let out = out.as_mut_ptr().add(at);
                        let mut sums = [[$zero(); 2]; $columns];
                        match start {
                            Start::Zero => {}
                            Start::Bias(bias, at) => {
                                let bias = bias.as_slice().as_ptr().add(at + column * $columns);
                                for c in 0..$columns {
                                    sums[c] = [$set(*bias.add(c)); 2];
                                }
                            }
                            Start::Out => {
                                for c in 0..$columns {
                                    let out = out.add(c * place.column);
                                    sums[c] = [$load(out), $load(out.add($lanes))];
                                }
                            }
                        }
                        for _ in 0..depth {
                            // A panel of rows may come from L2; there is time to fetch it.
                            _mm_prefetch::<_MM_HINT_T0>(a.wrapping_add(AHEAD * 2 * $lanes).cast());
                            if $lanes == 16 {
                                _mm_prefetch::<_MM_HINT_T0>(a.wrapping_add(AHEAD * 2 * $lanes + 16).cast());
                            }
                            let rows = [$load(a), $load(a.add($lanes))];
                            for c in 0..$columns {
                                let x = $set(*b.add(c));
                                sums[c] = [$fma(rows[0], x, sums[c][0]), $fma(rows[1], x, sums[c][1])];
                            }
                            a = a.add(2 * $lanes);
                            b = b.add($columns);
                        }
                        // A loop this plain is unrolled, and only then do the sums stay in registers.
                        let mut apart = MaybeUninit::<[f32; 2 * $lanes * $columns]>::uninit();
                        let (to, step) = match place.row {
                            1 => (out, place.column),
                            _ => (apart.as_mut_ptr().cast(), 2 * $lanes),
                        };
                        for c in 0..$columns {
                            $store(to.add(c * step), sums[c][0]);
                            $store(to.add(c * step + $lanes), sums[c][1]);
                        }
                        if place.row != 1 {
                            for (c, lanes) in apart.assume_init_ref().chunks_exact(2 * $lanes).enumerate() {
                                for (row, x) in lanes.iter().enumerate() {
                                    *out.add(row * place.row + c * place.column) = *x;
                                }
                            }
                        }
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernel!(
    avx512,
    "avx512f",
    16,
    12,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps
);
#[cfg(target_arch = "x86_64")]
kernel!(
    avx2,
    "avx2,fma",
    8,
    6,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps
);
