//! What this processor can do at most: multiply-adds on registers, and memory read, written and copied by all threads. For benchmarks.

use super::Threads;
use std::hint::black_box;

/// Elements of a task over memory: 1 MiB.
const CHUNK: usize = 1 << 18;

/// Tasks for each thread, so that none waits long for another.
const TASKS: usize = 4;

/// `a = a x + y` over and over on as many independent values as hide the latency, `rounds` times in each task. How many operations that were, and whether
/// every value went to its fixed point.
pub fn fma(threads: &Threads, rounds: usize) -> (f64, bool) {
    let tasks = threads.count() * TASKS;
    let (kernel, values) = best();
    let mut ends = vec![0.0f32; tasks];
    threads.chunks(&mut ends, 1, |_, end| end[0] = kernel(rounds));
    (2.0 * (tasks * values * rounds) as f64, ends.iter().all(|e| *e == 2.0 * values as f32))
}

/// The kernel for this processor's widest registers, and how many values it works on.
fn best() -> (fn(usize) -> f32, usize) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was just found.
            return (|rounds| unsafe { avx512(rounds) }, 16 * CHAINS);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: both features were just found.
            return (|rounds| unsafe { avx2(rounds) }, 8 * CHAINS);
        }
    }
    (portable, 4 * PORTABLE_CHAINS)
}

/// Registers that are worked on side by side: what hides the latency of two units, and leaves registers for x and y.
const CHAINS: usize = 12;
/// The same where there may be 16 registers, and no instruction that takes three.
const PORTABLE_CHAINS: usize = 8;

// Written out, because of 192 separate values the compiler does not make 12 registers.
macro_rules! chains {
    ($name:ident, $features:literal, $splat:ident, $fma:ident, $store:ident, $lanes:literal) => {
        /// The sum of all values after `rounds` steps. With x = 0.5 and y = 1 each goes to 2, exactly.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        fn $name(rounds: usize) -> f32 {
            use std::arch::x86_64::{$fma, $splat, $store};
            let [x, y, start] = [0.5, 1.0, 1.5].map(|v| $splat(black_box(v)));
            let mut a = [start; CHAINS];
            for _ in 0..rounds {
                for v in &mut a {
                    *v = $fma(*v, x, y);
                }
            }
            let mut ends = [0.0f32; $lanes];
            let mut sum = 0.0;
            for v in a {
                // SAFETY: the array has as many elements as the register.
                unsafe { $store(ends.as_mut_ptr(), v) };
                sum += ends.iter().sum::<f32>();
            }
            sum
        }
    };
}
chains!(avx512, "avx512f", _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps, 16);
chains!(avx2, "avx2,fma", _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps, 8);

/// The same on any processor.
fn portable(rounds: usize) -> f32 {
    let (x, y) = (black_box(0.5f32), black_box(1.0f32));
    let mut a = [[black_box(1.5f32); 4]; PORTABLE_CHAINS];
    // Where the instruction is not always there, the function of that name is slow.
    let step = |v: f32| if cfg!(target_arch = "aarch64") { v.mul_add(x, y) } else { v * x + y };
    for _ in 0..rounds {
        for chain in &mut a {
            *chain = chain.map(step);
        }
    }
    a.iter().flatten().sum()
}

/// The sum of all elements.
pub fn read(threads: &Threads, from: &[f32]) -> f64 {
    let mut sums = vec![0.0f32; from.len().div_ceil(CHUNK)];
    threads.chunks(&mut sums, 1, |n, sum| {
        let part = &from[n * CHUNK..from.len().min((n + 1) * CHUNK)];
        let mut lanes = [0.0f32; 64];
        let (whole, rest) = part.as_chunks::<64>();
        for block in whole {
            for (lane, v) in lanes.iter_mut().zip(block) {
                *lane += v;
            }
        }
        sum[0] = lanes.iter().chain(rest).sum();
    });
    sums.iter().map(|s| f64::from(*s)).sum()
}

/// Every element becomes `value`.
pub fn write(threads: &Threads, to: &mut [f32], value: f32) {
    threads.chunks(to, CHUNK, |_, part| part.fill(value));
}

/// `to` becomes `from`, which is as long.
pub fn copy(threads: &Threads, from: &[f32], to: &mut [f32]) {
    threads.chunks(to, CHUNK, |start, part| part.copy_from_slice(&from[start..start + part.len()]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_do_what_they_say() {
        let threads = Threads::new(2).unwrap();
        let (flops, fixed) = fma(&threads, 64);
        assert!(fixed && flops > 0.0);
        let mut a = vec![0.0; CHUNK + 100];
        write(&threads, &mut a, 0.5);
        assert_eq!(read(&threads, &a), (CHUNK + 100) as f64 / 2.0);
        let mut b = vec![0.0; CHUNK + 100];
        copy(&threads, &a, &mut b);
        assert_eq!(a, b);
    }
}
