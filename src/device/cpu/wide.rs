//! Loops that are compiled twice: for every processor, and for vectors of eight. Which of the two runs changes no bits.

/// A loop. Its `run` must be `#[inline(always)]`, and so must what it calls, or it stays what it is for every processor.
pub trait Loop {
    /// What it gives.
    type Out;
    /// Run it.
    fn run(self) -> Self::Out;
}

/// Run a loop with the widest vectors that it was compiled for and the processor has.
#[inline]
pub fn widely<L: Loop>(l: L) -> L::Out {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { with_avx2(l) };
    }
    l.run()
}

/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn with_avx2<L: Loop>(l: L) -> L::Out {
    l.run()
}
