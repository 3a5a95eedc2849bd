//! Philox 4x32-10, the counter-based generator of all randomness: the same bits on the CPU, on a GPU (shaders/philox.wgsl) and in a browser.
//!
//! A random node has a pair (seed, offset). Element `i` of it uses the key `seed` (low half, high half) and
//!
//! - for uniforms: the counter `[i / 4, 0, offset low, offset high]`, word `i % 4`; four elements share a call;
//! - for normals: the counter `[i / 2, 0, offset low, offset high]`, words `2 (i % 2)` and `2 (i % 2) + 1`; two elements share a call.
//!
//! So any element can be computed alone, and whatever is done in between changes nothing.

/// The four random words that belong to a key and a counter.
#[inline]
pub fn philox(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let [mut k0, mut k1] = key;
    let mut c = counter;
    for _ in 0..10 {
        let a = u64::from(c[0]) * 0xD251_1F53;
        let b = u64::from(c[2]) * 0xCD9E_8D57;
        c = [(b >> 32) as u32 ^ c[1] ^ k0, b as u32, (a >> 32) as u32 ^ c[3] ^ k1, a as u32];
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    c
}

/// The words that four uniform elements (or two normal ones) of the node (seed, offset) share.
#[inline]
pub(crate) fn four(seed: u64, offset: u64, block: usize) -> [u32; 4] {
    philox([seed as u32, (seed >> 32) as u32], [block as u32, 0, offset as u32, (offset >> 32) as u32])
}

/// The word of element `i` of the node (seed, offset).
#[inline]
pub fn word(seed: u64, offset: u64, i: usize) -> u32 {
    four(seed, offset, i / 4)[i % 4]
}

/// The two words of element `i` of the node (seed, offset), for draws that need two.
#[inline]
pub fn pair(seed: u64, offset: u64, i: usize) -> [u32; 2] {
    let w = four(seed, offset, i / 2);
    let k = 2 * (i % 2);
    [w[k], w[k + 1]]
}

/// A float in [0, 1) from the word's upper 24 bits: exact, and the same in f32 and f64.
#[inline]
pub fn uniform(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A standard normal from two words, by Box and Muller: `sqrt(-2 log u) cos(2 pi v)` with u in (0, 1] and v in [0, 1), each of 24 bits.
#[inline]
pub fn normal(words: [u32; 2]) -> f64 {
    let u = f64::from((words[0] >> 8) + 1) / 16_777_216.0;
    // The angle is reduced in integers: q quarter turns and a rest of at most an eighth turn. So zeros of the cosine are exact zeros.
    let a = words[1] >> 8;
    let q = (a + 0x20_0000) >> 22;
    let r = f64::from(a as i32 - (q << 22) as i32) * (std::f64::consts::FRAC_PI_2 / 4_194_304.0);
    let y = if q & 1 == 1 { r.sin() } else { r.cos() };
    let y = if (q + 1) & 2 == 2 { -y } else { y };
    (-2.0 * u.ln()).sqrt() * y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_known_answers_of_random123() {
        assert_eq!(philox([0; 2], [0; 4]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 2], [u32::MAX; 4]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(philox([0xa4093822, 0x299f31d0], [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344]), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn uniforms_and_normals_have_their_moments() {
        let n = 100_000;
        let (mut u, mut m, mut v) = (0.0, 0.0, 0.0);
        for i in 0..n {
            let x = uniform(word(7, 3, i));
            assert!((0.0..1.0).contains(&x));
            u += f64::from(x);
            let z = normal(pair(7, 3, i));
            m += z;
            v += z * z;
        }
        let n = n as f64;
        assert!((u / n - 0.5).abs() < 0.003, "mean {}", u / n);
        assert!((m / n).abs() < 0.01, "mean {}", m / n);
        assert!((v / n - 1.0).abs() < 0.02, "variance {}", v / n);
    }

    #[test]
    fn normals_are_finite_at_the_ends() {
        for words in [[0, 0], [u32::MAX, 0], [0, u32::MAX], [u32::MAX, u32::MAX], [0, 1 << 30], [0, 3 << 30]] {
            assert!(normal(words).is_finite());
        }
        assert!(normal([0, 0]) > 5.7);
        // A quarter turn is an exact zero.
        assert_eq!(normal([0, 1 << 30]), 0.0);
    }
}
