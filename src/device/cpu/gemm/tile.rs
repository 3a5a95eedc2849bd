//! The innermost loop of matrix products: a block of the result that stays in registers while a sum runs. One text, compiled for each width of vectors.

use std::sync::LazyLock;

/// What a processor's vectors are to the loops.
trait Lanes: Copy {
    /// Elements of a vector.
    const N: usize;
    /// # Safety
    /// The processor has these vectors; so of all functions below.
    unsafe fn zero() -> Self;
    /// # Safety
    /// `N` elements may be read.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// An element may be read.
    unsafe fn splat(from: *const f32) -> Self;
    /// # Safety
    /// `N` elements may be written.
    unsafe fn store(self, to: *mut f32);
    /// # Safety
    /// As above.
    unsafe fn add(self, other: Self) -> Self;
    /// `self + a b`
    ///
    /// # Safety
    /// As above.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
}

/// Vectors that every processor has, as the compiler makes them.
#[derive(Clone, Copy)]
struct Plain([f32; 4]);

impl Lanes for Plain {
    const N: usize = 4;
    // Safety: as in the trait.
    #[inline(always)]
    unsafe fn zero() -> Self {
        Plain([0.0; 4])
    }
    // Safety: as in the trait.
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Plain(unsafe { from.cast::<[f32; 4]>().read() })
    }
    // Safety: as in the trait.
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Plain([unsafe { *from }; 4])
    }
    // Safety: as in the trait.
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 4]>().write(self.0) }
    }
    // Safety: as in the trait.
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Plain(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
    // Safety: as in the trait.
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        Plain(std::array::from_fn(|i| self.0[i] + a.0[i] * b.0[i]))
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! lanes {
    ($type:ty, $n:literal, $zero:ident, $load:ident, $splat:ident, $store:ident, $add:ident, $fma:ident) => {
        impl Lanes for $type {
            const N: usize = $n;
            // Safety: as in the trait.
            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the caller's promise.
                unsafe { $zero() }
            }
            // Safety: as in the trait.
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: the caller's promise.
                unsafe { $load(from) }
            }
            // Safety: as in the trait.
            #[inline(always)]
            unsafe fn splat(from: *const f32) -> Self {
                // SAFETY: the caller's promise.
                unsafe { $splat(*from) }
            }
            // Safety: as in the trait.
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: the caller's promise.
                unsafe { $store(to, self) }
            }
            // Safety: as in the trait.
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { $add(self, other) }
            }
            // Safety: as in the trait.
            #[inline(always)]
            unsafe fn fma(self, a: Self, b: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { $fma(a, b, self) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
#[cfg(target_arch = "x86_64")]
lanes!(__m256, 8, _mm256_setzero_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_fmadd_ps);
#[cfg(target_arch = "x86_64")]
lanes!(__m512, 16, _mm512_setzero_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_fmadd_ps);
#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;

/// NEON, which every aarch64 has.
#[cfg(target_arch = "aarch64")]
impl Lanes for float32x4_t {
    const N: usize = 4;
    // Safety: as in the trait.
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's promise.
        unsafe { vdupq_n_f32(0.0) }
    }
    // Safety: as in the trait.
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vld1q_f32(from) }
    }
    // Safety: as in the trait.
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vld1q_dup_f32(from) }
    }
    // Safety: as in the trait.
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { vst1q_f32(to, self) }
    }
    // Safety: as in the trait.
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vaddq_f32(self, other) }
    }
    // Safety: as in the trait.
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vfmaq_f32(self, a, b) }
    }
}

/// The most rows of a block on any processor.
pub(super) const MOST_ROWS: usize = 8;
/// The most elements of a block's row on any processor.
pub(super) const MOST_COLS: usize = 32;

/// What a block sums: `runs` runs of `depth` terms.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    /// Row `r` of the left operand begins at `a[r]`; a term is `step` elements from the next, a run `run` elements.
    pub a: [*const f32; MOST_ROWS],
    pub step: usize,
    pub run: usize,
    pub runs: usize,
    pub depth: usize,
    /// The right operand: a term's row of the block's width is `b_row` elements from the next, through all runs; or where `at` says, from `b` on.
    pub b: *const f32,
    pub b_row: usize,
    pub at: *const usize,
    /// Where the block lies, and from one of its rows to the next.
    pub c: *mut f32,
    pub c_row: usize,
    /// Whether the sums are added to what is there.
    pub add: bool,
}

/// # Safety
/// The processor has `L`; every element that `sum` names may be read (a, b: `V` vectors a term) or written (c: `R` rows of `V` vectors). `FOUND`: rows of
/// the right operand lie where `sum.at` says, of which there are `depth`, and there is one run.
#[inline(always)]
unsafe fn tile<L: Lanes, const R: usize, const V: usize, const FOUND: bool>(sum: &Sum) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [[L::zero(); V]; R];
        let (mut b, mut base) = (sum.b, 0usize);
        for _ in 0..sum.runs {
            let mut at = base;
            for p in 0..sum.depth {
                if FOUND {
                    b = sum.b.add(*sum.at.add(p));
                }
                let row: [L; V] = std::array::from_fn(|v| L::load(b.add(v * L::N)));
                for (acc, a) in acc.iter_mut().zip(&sum.a) {
                    let a = L::splat(a.add(at));
                    for (acc, b) in acc.iter_mut().zip(row) {
                        *acc = acc.fma(a, b);
                    }
                }
                at += sum.step;
                if !FOUND {
                    b = b.wrapping_add(sum.b_row);
                }
            }
            base += sum.run;
        }
        for (r, acc) in acc.iter().enumerate() {
            for (v, acc) in acc.iter().enumerate() {
                let to = sum.c.add(r * sum.c_row + v * L::N);
                if sum.add { L::load(to).add(*acc).store(to) } else { acc.store(to) }
            }
        }
    }
}

/// A block's loop.
///
/// # Safety
/// As `tile`.
pub(super) type Tile = unsafe fn(&Sum);

/// The loops for a processor.
pub(super) struct Tiles {
    /// Elements of a vector: a block's row is one of them or two.
    pub lanes: usize,
    /// The most rows of a block.
    pub rows: usize,
    /// By where the right operand's rows lie (one after the other, or anywhere), vectors of a row (1 or 2), rows (from 1 on).
    tiles: [[[Tile; MOST_ROWS]; 2]; 2],
}

impl Tiles {
    /// The loop for blocks of so many rows, one or two vectors wide; `found` as `tile` says.
    pub fn get(&self, rows: usize, vectors: usize, found: bool) -> Tile {
        self.tiles[usize::from(found)][vectors - 1][rows - 1]
    }
}

/// A table of loops; where a processor has fewer than eight rows of registers, the rest of the table is the largest again and never asked for.
macro_rules! table {
    ($tile:ident: $($rows:literal)*) => {
        [[[$($tile::<$rows, 1, false>),*], [$($tile::<$rows, 2, false>),*]], [[$($tile::<$rows, 1, true>),*], [$($tile::<$rows, 2, true>),*]]]
    };
}

macro_rules! compiled {
    ($name:ident, $lanes:ty $(, $features:literal)?) => {
        /// # Safety
        /// As `tile`.
        $(#[target_feature(enable = $features)])?
        unsafe fn $name<const R: usize, const V: usize, const FOUND: bool>(sum: &Sum) {
            // SAFETY: the caller's promise.
            unsafe { tile::<$lanes, R, V, FOUND>(sum) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
compiled!(tile_512, __m512, "avx512f");
#[cfg(target_arch = "x86_64")]
compiled!(tile_256, __m256, "avx2,fma");
#[cfg(target_arch = "aarch64")]
compiled!(tile_neon, float32x4_t);
#[cfg_attr(target_arch = "aarch64", allow(dead_code, reason = "the tests run it everywhere"))]
mod plain {
    use super::*;
    compiled!(tile_plain, Plain);
    pub(super) static PLAIN: Tiles = Tiles { lanes: 4, rows: 6, tiles: table!(tile_plain: 1 2 3 4 5 6 6 6) };
}

#[cfg(target_arch = "x86_64")]
static WIDE: Tiles = Tiles { lanes: 16, rows: 8, tiles: table!(tile_512: 1 2 3 4 5 6 7 8) };
#[cfg(target_arch = "x86_64")]
static MIDDLE: Tiles = Tiles { lanes: 8, rows: 6, tiles: table!(tile_256: 1 2 3 4 5 6 6 6) };
#[cfg(target_arch = "aarch64")]
static NEON: Tiles = Tiles { lanes: 4, rows: 8, tiles: table!(tile_neon: 1 2 3 4 5 6 7 8) };

/// Every set of loops that this processor can run, the best first.
pub(super) fn all() -> Vec<&'static Tiles> {
    #[cfg(target_arch = "x86_64")]
    {
        let wide = is_x86_feature_detected!("avx512f").then_some(&WIDE);
        let middle = (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(&MIDDLE);
        wide.into_iter().chain(middle).chain([&plain::PLAIN]).collect()
    }
    #[cfg(target_arch = "aarch64")]
    return vec![&NEON, &plain::PLAIN];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    vec![&plain::PLAIN]
}

/// The best of them.
pub(super) fn tiles() -> &'static Tiles {
    static BEST: LazyLock<&Tiles> = LazyLock::new(|| all()[0]);
    *BEST
}
