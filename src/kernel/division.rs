//! Division of indices without a divide instruction: GPUs have none for integers, and a CPU adapter divides lane by lane.

/// The two words with which shaders divide an index below 2^31 by `d`: `quotient(i, words[0], words[1])` of layout.wgsl is `i / d` exactly.
/// (Granlund and Montgomery, Division by Invariant Integers using Multiplication, 1994.)
///
/// ```
/// let [magic, shift] = wgrad::kernel::divisor(7);
/// assert_eq!(((u64::from(magic) * 100) >> 32) as u32 >> shift, 100 / 7);
/// ```
pub fn divisor(d: usize) -> [u32; 2] {
    // What is divided is a place in a buffer, in elements: buffers are far below 2^31 elements, and a divisor above is as good as one just above.
    let d = u32::try_from(d).unwrap_or(u32::MAX).clamp(1, 1 << 31);
    if d.is_power_of_two() {
        // No magic: a shift alone.
        return [0, d.trailing_zeros()];
    }
    // 2^(log - 1) < d < 2^log, so the magic number lies between 2^31 and 2^32.
    let log = 32 - d.leading_zeros();
    let magic = (1u64 << (31 + log)) / u64::from(d) + 1;
    [magic as u32, log - 1]
}

#[cfg(test)]
mod tests {
    use super::divisor;

    /// What layout.wgsl does.
    fn quotient(n: u32, [magic, shift]: [u32; 2]) -> u32 {
        let high = ((u64::from(n) * u64::from(magic)) >> 32) as u32;
        (if magic == 0 { n } else { high }) >> shift
    }

    #[test]
    fn quotients_are_exact() {
        let mut divisors: Vec<usize> = (1..2000).collect();
        divisors.extend((1..31).flat_map(|s| [(1usize << s) - 1, 1 << s, (1 << s) + 1]));
        for d in divisors {
            let words = divisor(d);
            let numbers = (0..64u32).chain((1..64).flat_map(|k| {
                let multiple = (k * d as u64 * 7919) % (1 << 31);
                let multiple = (multiple - multiple % d as u64) as u32;
                [multiple.saturating_sub(1), multiple, multiple + 1]
            }));
            for n in numbers.chain([(1 << 31) - 1, (1 << 31) - 2, 1 << 30]).filter(|&n| n < 1 << 31) {
                assert_eq!(quotient(n, words), n / d as u32, "{n} / {d}");
            }
        }
    }
}
