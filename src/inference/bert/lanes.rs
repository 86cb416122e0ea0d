//! What stands between the matrix products, on panels `[features][rows]`: rows side by side in vector lanes.
//!
//! Sums run along the features of each lane, so nothing is ever added across lanes, a row's result does not
//! depend on its lane, and the compiler makes vectors of these plain loops. [`super::kernel`] compiles them for
//! each level of vector instructions; `FUSED` says whether that level multiplies and adds in one instruction.

use std::array;

/// Scale, bias and epsilon of a layer norm.
pub(super) struct Norm {
    pub(super) scale: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) epsilon: f32,
}

/// `panel <- norm(panel + added)` over the features of each row; both are `[features][rows]`, and `added` may
/// be empty.
#[inline(always)]
pub(super) fn layer_norm<const FUSED: bool>(panel: &mut [f32], added: &[f32], rows: usize, norm: &Norm) {
    match rows {
        _ if rows.is_multiple_of(16) => layer_norm_by::<16, FUSED>(panel, added, rows, norm),
        _ if rows.is_multiple_of(8) => layer_norm_by::<8, FUSED>(panel, added, rows, norm),
        _ => layer_norm_by::<4, FUSED>(panel, added, rows, norm),
    }
}

#[inline(always)]
fn layer_norm_by<const N: usize, const FUSED: bool>(
    panel: &mut [f32],
    added: &[f32],
    rows: usize,
    norm: &Norm,
) {
    let (vectors, _) = panel.as_chunks_mut::<N>();
    let (added, _) = added.as_chunks::<N>();
    let step = rows / N;
    let share = 1.0 / norm.scale.len() as f32;
    for lane in 0..step {
        let mut mean = [0.0; N];
        let mut more = added.iter().skip(lane).step_by(step);
        for x in vectors.iter_mut().skip(lane).step_by(step) {
            if let Some(more) = more.next() {
                *x = array::from_fn(|i| x[i] + more[i]);
            }
            mean = array::from_fn(|i| mean[i] + x[i]);
        }
        mean.iter_mut().for_each(|mean| *mean *= share);
        let mut rate = [0.0; N];
        for x in vectors.iter().skip(lane).step_by(step) {
            let apart: [f32; N] = array::from_fn(|i| x[i] - mean[i]);
            rate = array::from_fn(|i| fused::<FUSED>(apart[i], apart[i], rate[i]));
        }
        rate.iter_mut().for_each(|rate| *rate = 1.0 / (*rate * share + norm.epsilon).sqrt());
        let parameters = norm.scale.iter().zip(&norm.bias);
        for (x, (&scale, &bias)) in vectors.iter_mut().skip(lane).step_by(step).zip(parameters) {
            *x = array::from_fn(|i| fused::<FUSED>((x[i] - mean[i]) * rate[i], scale, bias));
        }
    }
}

/// `panel <- exp(scale · (panel - maximum))` of a panel `[keys][rows]`, with the maximum over the keys of each
/// row; `sums`, one a row, gets what to divide by.
#[inline(always)]
pub(super) fn softmax<const FUSED: bool>(panel: &mut [f32], scale: f32, sums: &mut [f32]) {
    match sums.len() {
        rows if rows.is_multiple_of(16) => softmax_by::<16, FUSED>(panel, scale, sums),
        rows if rows.is_multiple_of(8) => softmax_by::<8, FUSED>(panel, scale, sums),
        _ => softmax_by::<4, FUSED>(panel, scale, sums),
    }
}

#[inline(always)]
fn softmax_by<const N: usize, const FUSED: bool>(panel: &mut [f32], scale: f32, sums: &mut [f32]) {
    let step = sums.len() / N;
    let (vectors, _) = panel.as_chunks_mut::<N>();
    let (sums, _) = sums.as_chunks_mut::<N>();
    for (lane, sums) in sums.iter_mut().enumerate() {
        let mut most = [f32::MIN; N];
        for x in vectors.iter().skip(lane).step_by(step) {
            most = array::from_fn(|i| most[i].max(x[i]));
        }
        let mut sum = [0.0; N];
        for x in vectors.iter_mut().skip(lane).step_by(step) {
            let share: [f32; N] = array::from_fn(|i| exp::<FUSED>((x[i] - most[i]) * scale));
            sum = array::from_fn(|i| sum[i] + share[i]);
            *x = share;
        }
        *sums = sum;
    }
}

/// `x <- x · (1 + erf(x / √2)) / 2`, to about 3e-7 of `x`.
#[inline(always)]
pub(super) fn gelu<const FUSED: bool>(values: &mut [f32]) {
    let (vectors, rest) = values.as_chunks_mut::<16>();
    for x in vectors {
        *x = array::from_fn(|i| gelu_of::<FUSED>(x[i]));
    }
    rest.iter_mut().for_each(|x| *x = gelu_of::<FUSED>(*x));
}

/// With erf(t) = 1 - p(t)⁻¹⁶ for t >= 0 (Abramowitz and Stegun 7.1.28, to 3e-7), both signs come to
/// max(x, 0) - |x| / 2 · p(|x| / √2)⁻¹⁶, which loses nothing where erf is near -1.
#[inline(always)]
fn gelu_of<const FUSED: bool>(x: f32) -> f32 {
    const P: [f32; 6] =
        [0.000_043_063_8, 0.000_276_567_2, 0.000_152_014_3, 0.009_270_527, 0.042_282_01, 0.070_523_076];
    let size = x.abs();
    let t = size * std::f32::consts::FRAC_1_SQRT_2;
    let mut p = P[0];
    for &coefficient in &P[1..] {
        p = fused::<FUSED>(p, t, coefficient);
    }
    p = fused::<FUSED>(p, t, 1.0);
    p *= p;
    p *= p;
    p *= p;
    p *= p;
    (if x > 0.0 { x } else { 0.0 }) - 0.5 * size / p
}

/// eˣ for x <= 0, to 2e-7 of itself; below -87 it stays at e⁻⁸⁷, so that no slow denormal comes out.
#[inline(always)]
fn exp<const FUSED: bool>(x: f32) -> f32 {
    /// Adding 1.5 · 2²³ rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2, of which the first part times any exponent is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    /// Of Cephes' expf, highest power first.
    const P: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];
    let x = if x > -87.0 { x } else { -87.0 };
    let rounded = fused::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let exponent = rounded - ROUND;
    let rest = fused::<FUSED>(exponent, -LN_2[0], x);
    let rest = fused::<FUSED>(exponent, -LN_2[1], rest);
    let mut p = P[0];
    for &coefficient in &P[1..] {
        p = fused::<FUSED>(p, rest, coefficient);
    }
    let p = fused::<FUSED>(p, rest * rest, rest) + 1.0;
    // 127, the bias of the exponent, moves up with it.
    p * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23))
}

/// Copies `count` lanes from lane `start` of the panel `[features][rows]` to lane `at` of `[features][columns]`.
pub(super) fn move_lanes(
    from: &[f32],
    rows: usize,
    start: usize,
    to: &mut [f32],
    columns: usize,
    at: usize,
    count: usize,
) {
    // A count known when it is compiled makes a copy of one or two instructions; otherwise it is a call.
    match count {
        4 => move_lanes_by::<4>(from, rows, start, to, columns, at),
        6 => move_lanes_by::<6>(from, rows, start, to, columns, at),
        8 => move_lanes_by::<8>(from, rows, start, to, columns, at),
        12 => move_lanes_by::<12>(from, rows, start, to, columns, at),
        _ => {
            for (to, from) in to.chunks_exact_mut(columns).zip(from.chunks_exact(rows)) {
                to[at..at + count].copy_from_slice(&from[start..start + count]);
            }
        }
    }
}

fn move_lanes_by<const N: usize>(
    from: &[f32],
    rows: usize,
    start: usize,
    to: &mut [f32],
    columns: usize,
    at: usize,
) {
    for (to, from) in to.chunks_exact_mut(columns).zip(from.chunks_exact(rows)) {
        to[at..at + N].copy_from_slice(&from[start..start + N]);
    }
}

/// `a · b + c`
#[inline(always)]
fn fused<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}
