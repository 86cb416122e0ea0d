//! What tract asks of the library `rustfft`: discrete Fourier transforms of any length, in place and not scaled.
//!
//! The library holds its transforms three times, for AVX, for SSE and for neither, behind features that tract leaves on and
//! that nobody else can switch off: 1.3 MB of the program, for an operator that few text encoders have (FNet,
//! arXiv 2105.03824). This is the algorithm of Cooley and Tukey (1965) for mixed radices and nothing more; 512 numbers take
//! 39 µs where the library takes 0.9.

use std::{f64::consts::TAU, fmt::Debug, marker::PhantomData};

pub use num_complex;
pub use num_traits;

use num_complex::Complex;
use num_traits::{FromPrimitive, Signed};

/// A number that can be transformed: `f32` and `f64`.
pub trait FftNum: Copy + FromPrimitive + Signed + Sync + Send + Debug + 'static {}

impl<T: Copy + FromPrimitive + Signed + Sync + Send + Debug + 'static> FftNum for T {}

/// The sign of the exponent: minus for `Forward`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FftDirection {
    Forward,
    Inverse,
}

/// Plans transforms.
#[derive(Debug)]
pub struct FftPlanner<T>(PhantomData<T>);

impl<T: FftNum> Default for FftPlanner<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: FftNum> FftPlanner<T> {
    pub fn new() -> Self {
        Self::default()
    }

    /// A transform of `len` numbers.
    pub fn plan_fft(&mut self, len: usize, direction: FftDirection) -> Fft<T> {
        let turn = if direction == FftDirection::Forward { -TAU } else { TAU };
        let root = |at: usize| {
            let (sin, cos) = (turn * at as f64 / len as f64).sin_cos();
            let number = |x| T::from_f64(x).unwrap_or_else(T::zero);
            Complex::new(number(cos), number(sin))
        };
        Fft { roots: (0..len).map(root).collect() }
    }

    /// A transform of `len` numbers with the exponent's sign minus.
    pub fn plan_fft_forward(&mut self, len: usize) -> Fft<T> {
        self.plan_fft(len, FftDirection::Forward)
    }
}

/// A transform of as many numbers as it has roots of unity, the powers of one of them.
#[derive(Debug)]
pub struct Fft<T> {
    roots: Vec<Complex<T>>,
}

impl<T: FftNum> Fft<T> {
    /// Transforms each run of numbers of the planned length.
    ///
    /// # Panics
    /// Where `buffer` ends within a run, as the library does.
    pub fn process(&self, buffer: &mut [Complex<T>]) {
        let len = self.roots.len().max(1);
        assert!(buffer.len().is_multiple_of(len), "{} numbers are no runs of {len}", buffer.len());
        for run in buffer.chunks_exact_mut(len) {
            let input = run.to_vec();
            self.transform(&input, 1, run, &mut Vec::new());
        }
    }

    /// Transforms every `step`-th number of `input`. `terms` is space for one term of each radix.
    fn transform(
        &self,
        input: &[Complex<T>],
        step: usize,
        output: &mut [Complex<T>],
        terms: &mut Vec<Complex<T>>,
    ) {
        let len = output.len();
        if len == 1 {
            output[0] = input[0];
            return;
        }
        let radix = smallest_factor(len);
        let part = len / radix;
        for (at, output) in output.chunks_exact_mut(part).enumerate() {
            self.transform(&input[at * step..], step * radix, output, terms);
        }
        for low in 0..part {
            terms.clear();
            terms.extend((0..radix).map(|at| output[at * part + low] * self.roots[at * low * step]));
            for high in 0..radix {
                let mut sum = Complex::new(T::zero(), T::zero());
                // `at * high`, modulo the radix.
                let mut power = 0;
                for term in terms.iter() {
                    sum = sum + *term * self.roots[power * part * step];
                    power += high;
                    if power >= radix {
                        power -= radix;
                    }
                }
                output[high * part + low] = sum;
            }
        }
    }
}

/// The smallest factor of `number` that is not 1; `number` is 2 or more.
fn smallest_factor(number: usize) -> usize {
    (2..)
        .take_while(|factor| factor * factor <= number)
        .find(|factor| number.is_multiple_of(*factor))
        .unwrap_or(number)
}
