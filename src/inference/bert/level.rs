//! Which vector instructions this machine has, and the loops that are compiled once for each.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "vector instructions need a check at run time")
)]

use super::{lanes, tiles};

/// Vector instructions beyond what the build takes for granted. Only [`Level::detect`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level(Instructions);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Baseline,
}

impl Level {
    /// Name, rows, columns and code of our own kernel.
    pub(super) fn tile(self) -> Option<(&'static str, usize, usize, tiles::Kernel)> {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => Some(("avx512 32x12", 32, 12, tiles::avx512)),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => Some(("avx2 16x6", 16, 6, tiles::avx2)),
            Instructions::Baseline => None,
        }
    }

    /// What this machine has, best last.
    #[cfg(test)]
    pub(super) fn available() -> Vec<Self> {
        match Self::detect().0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => {
                vec![Self(Instructions::Baseline), Self(Instructions::Avx2), Self::detect()]
            }
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => vec![Self(Instructions::Baseline), Self::detect()],
            Instructions::Baseline => vec![Self::detect()],
        }
    }

    /// The best that this machine has.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 && is_x86_feature_detected!("avx512f") {
                return Self(Instructions::Avx512);
            }
            if avx2 {
                return Self(Instructions::Avx2);
            }
        }
        Self(Instructions::Baseline)
    }
}

/// Compiles a loop of [`lanes`] once for each level, and chooses among them at run time.
macro_rules! for_each_level {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*);)*) => {$(
        $(#[$doc])*
        pub(super) fn $name(level: Level, $($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            fn avx512($($argument: $type),*) {
                lanes::$name::<true>($($argument),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) {
                lanes::$name::<true>($($argument),*);
            }
            match level.0 {
                // SAFETY: `Level::detect` found the instructions.
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx512 => unsafe { avx512($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx2 => unsafe { avx2($($argument),*) },
                // Without the instruction a fused multiplication is a call of libm; ARMv8 always has it.
                Instructions::Baseline => lanes::$name::<{ cfg!(target_arch = "aarch64") }>($($argument),*),
            }
        }
    )*};
}

for_each_level! {
    /// See [`lanes::gelu`].
    gelu(values: &mut [f32]);
    /// See [`lanes::layer_norm`].
    layer_norm(panel: &mut [f32], added: &[f32], rows: usize, norm: &lanes::Norm);
    /// See [`lanes::softmax`].
    softmax(panel: &mut [f32], scale: f32, sums: &mut [f32]);
}
