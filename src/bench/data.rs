//! The data of the workloads: pure functions of an index, so that every peer, in whatever language, computes on the same bits.

use crate::device::Device;
use crate::error::Result;
use crate::graph::Tensor;

fn hash(i: u32) -> u32 {
    let mut x = i.wrapping_mul(0x9e37_79b9);
    x ^= x >> 16;
    x = x.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 13;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

/// Uniform in [-0.5, 0.5).
fn unit(i: u32) -> f32 {
    (f64::from(hash(i) >> 8) / f64::from(1u32 << 24) - 0.5) as f32
}

/// `n` values of the stream `seed`.
pub fn uniform(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32).map(|i| unit(i.wrapping_add(seed.wrapping_mul(0x0100_0193)))).collect()
}

/// A tensor of the stream `seed`.
pub fn tensor(shape: &[usize], seed: u32, device: &Device) -> Result<Tensor> {
    Tensor::new(uniform(shape.iter().product(), seed), shape, device)
}

/// Batches of noise plus a template of each of ten classes: data that can be learned. Values `[batch * dim]` and labels `[batch]` of each.
pub fn class_batches(batches: usize, batch: usize, dim: usize) -> impl Iterator<Item = (Vec<f32>, Vec<i32>)> {
    (0..batches).map(move |b| {
        let mut x = uniform(batch * dim, 1000 + b as u32);
        let labels: Vec<usize> = (0..batch).map(|r| (b * batch + r) % 10).collect();
        for (row, class) in x.chunks_exact_mut(dim).zip(&labels) {
            for (j, v) in row.iter_mut().enumerate() {
                *v += 0.5 * unit((class * dim + j) as u32 ^ 0x5a5a_0000);
            }
        }
        (x, labels.into_iter().map(|c| c as i32).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the peers' own programs give: theirs in Python and in Rust were compared bit by bit.
    #[test]
    fn the_bits_are_those_of_the_peers() {
        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&uniform(3, 1)), UNIFORM);
        let (x, y) = class_batches(2, 12, 5).nth(1).unwrap();
        assert_eq!(bits(&x[55..58]), CLASSES);
        assert_eq!(y, [2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3]);
    }

    const UNIFORM: [u32; 3] = [0x3ec8250e, 0xbead2410, 0xbefb8654];
    const CLASSES: [u32; 3] = [0x3e5de5a4, 0x3da91384, 0xbd942b90];
}
