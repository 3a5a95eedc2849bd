//! Whether what was timed computes what it should: compared with the CPU definition, element by element.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::{self, Tensor};
use crate::tensor::Data;

/// The device on which every operation runs as its definition, in f64.
pub fn definition() -> Result<Device> {
    Device::cpu_with(1, true)
}

/// The values of all, computed in one run.
pub fn values(results: &[Tensor]) -> Result<Vec<Data>> {
    if let Some(first) = results.first() {
        graph::flush(first.device())?;
    }
    results.iter().map(Tensor::to_data).collect()
}

/// Outputs against the definition's, by the rule of the operations' tests: `k * eps * scale`, with `k = 4 + 2 sqrt(terms)` for sums of so many terms
/// (of each output, the last for all that follow) and the largest value of a tensor as its scale.
///
/// # Errors
/// The first tensor that is off, its worst element and both values.
pub fn compare(name: &str, got: &[Data], want: &[Data], terms: &[usize]) -> Result<()> {
    compare_as(name, got, want, &[], terms)
}

/// The same where results hang on which side of a kink a value lies: an output may be as far off as four times what others got right, too, were (`peers`, of the
/// same work by kernels that are known), but not by a hundredth of its scale.
///
/// # Errors
/// Those of [`compare`].
pub fn compare_as(name: &str, got: &[Data], want: &[Data], peers: &[Data], terms: &[usize]) -> Result<()> {
    if got.len() != want.len() {
        return Err(Error::internal(format!("{name}: {} outputs, the definition has {}", got.len(), want.len())));
    }
    for (n, (got, want)) in got.iter().zip(want).enumerate() {
        let (got, want) = (got.to_f64(), want.to_f64());
        if got.len() != want.len() {
            return Err(Error::internal(format!("{name}: output {n} has {} elements, the definition's has {}", got.len(), want.len())));
        }
        let scale = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let terms = terms.get(n).or(terms.last()).copied().unwrap_or(1);
        let bound = (4.0 + 2.0 * (terms as f64).sqrt()) * f64::from(f32::EPSILON) * scale;
        let apart = |peer: &Data| peer.to_f64().iter().zip(&want).map(|(p, w)| (p - w).abs()).fold(0.0f64, f64::max);
        let bound = bound.max(peers.get(n).map_or(0.0, |p| (4.0 * apart(p)).min(1e-2 * scale)));
        let off = |i: &usize| {
            let difference = (got[*i] - want[*i]).abs();
            // A NaN is never within a bound.
            if difference <= bound { 0.0 } else { difference.max(f64::MIN_POSITIVE) }
        };
        let worst = (0..got.len()).filter(|i| off(i) > 0.0).max_by(|a, b| off(a).total_cmp(&off(b)));
        if let Some(i) = worst {
            let (got, want) = (got[i], want[i]);
            return Err(Error::internal(format!("{name}: wrong result: output {n}, element {i} is {got:e}, the definition gives {want:e} (bound {bound:e})")));
        }
    }
    Ok(())
}

/// A matrix product that is too large for the definition, `[m, k] x [k, n]`: some of its rows in f64, and each of its rows by its product with vectors of signs.
/// `rounded` is the distance from 1 to the next of the numbers that its factors are rounded to, 0 where they are not; sums are of f32.
///
/// # Errors
/// The row that is off.
pub fn product(got: &[f32], a: &[f32], b: &[f32], [m, k, n]: [usize; 3], rounded: f64) -> Result<()> {
    const ROWS: usize = 8;
    const VECTORS: u32 = 2;
    let norm = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    // Three times what elements of a row are on average, told from its factors: what is wrong must not widen its own bound. Sums of k terms lose more the longer
    // they are; the roundings of factors, which have both signs, are lost among the terms.
    let of_b = norm(b) / ((k * n) as f64).sqrt();
    let bound = |row: usize| ((4.0 + 2.0 * (k as f64).sqrt()) * f64::from(f32::EPSILON) + 2.0 * rounded) * 3.0 * norm(&a[row * k..][..k]) * of_b;
    // A NaN is never within a bound.
    let within = |got: f64, want: f64, bound: f64| (got - want).abs() <= bound;
    let wrong = |row: usize, got: f64, want: f64| Error::internal(format!("wrong result: row {row}: {got:e}, not {want:e}"));
    for row in (0..ROWS).map(|r| r * (m - 1) / (ROWS - 1)) {
        let mut want = vec![0.0f64; n];
        for (x, line) in a[row * k..][..k].iter().zip(b.chunks_exact(n)) {
            want.iter_mut().zip(line).for_each(|(w, y)| *w += f64::from(*x) * f64::from(*y));
        }
        let off = got[row * n..][..n].iter().zip(&want).find(|(g, w)| !within(f64::from(**g), **w, bound(row)));
        if let Some((g, w)) = off {
            return Err(wrong(row, f64::from(*g), *w));
        }
    }
    let dot = |x: &[f32], y: &[f64]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * y).sum::<f64>();
    for seed in 0..VECTORS {
        let signs: Vec<f64> = super::data::uniform(n, 100 + seed).iter().map(|v| f64::from(*v).signum()).collect();
        let through: Vec<f64> = b.chunks_exact(n).map(|line| dot(line, &signs)).collect();
        for (row, line) in got.chunks_exact(n).enumerate() {
            let (got, want) = (dot(line, &signs), dot(&a[row * k..][..k], &through));
            // The errors of n elements add up like their signs do.
            if !within(got, want, bound(row) * (n as f64).sqrt() * 2.0) {
                return Err(wrong(row, got, want));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_element_is_named() {
        let want = Data::from(vec![1.0f32, 2.0, 4.0]);
        assert!(compare("x", std::slice::from_ref(&want), std::slice::from_ref(&want), &[1]).is_ok());
        for wrong in [f32::NAN, 4.001] {
            let got = Data::from(vec![1.0f32, 2.0, wrong]);
            let e = compare("x", &[got], std::slice::from_ref(&want), &[1]).unwrap_err().to_string();
            assert!(e.contains("output 0, element 2"), "{e}");
        }
        assert!(compare("x", &[], &[want], &[1]).is_err());
    }

    #[test]
    fn a_wrong_element_of_a_large_product_is_found() {
        let (m, k, n) = (40, 33, 48);
        let (a, b) = (super::super::data::uniform(m * k, 1), super::super::data::uniform(k * n, 2));
        let at = |i: usize| (0..k).map(|l| f64::from(a[i / n * k + l]) * f64::from(b[l * n + i % n])).sum::<f64>() as f32;
        let mut got: Vec<f32> = (0..m * n).map(at).collect();
        product(&got, &a, &b, [m, k, n], 0.0).unwrap();
        // In a row that is not among those computed whole, and where factors are rounded to f16; the larger it is, the surer.
        for (wrong, rounded) in [(0.1, 0.0), (1.0, 2f32.powi(-10)), (1e30, 2f32.powi(-10))] {
            let right = std::mem::replace(&mut got[17 * n + 3], wrong);
            assert!(product(&got, &a, &b, [m, k, n], f64::from(rounded)).unwrap_err().to_string().contains("row 17"), "{wrong}, not {right}");
            got[17 * n + 3] = right;
        }
    }

    #[test]
    fn a_product_of_rounded_factors_is_within_its_bound() {
        let [m, k, n] = [9, 300, 70];
        let (a, b) = (super::super::data::uniform(m * k, 1), super::super::data::uniform(k * n, 2));
        let half = |v: &f32| f64::from(crate::tensor::F16::from(*v).to_f32());
        let at = |i: usize| (0..k).map(|l| half(&a[i / n * k + l]) * half(&b[l * n + i % n])).sum::<f64>() as f32;
        let got: Vec<f32> = (0..m * n).map(at).collect();
        product(&got, &a, &b, [m, k, n], 2f64.powi(-10)).unwrap();
        assert!(product(&got, &a, &b, [m, k, n], 0.0).is_err());
    }
}
