//! Whether what was timed computes what it should: compared with the CPU definition, element by element.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Data;

/// The device on which every operation runs as its definition, in f64.
pub fn definition() -> Result<Device> {
    Device::cpu_with(1, true)
}

/// Outputs against the definition's, by the rule of the operations' tests: `k * eps * scale`, with `k = 4 + 2 sqrt(terms)` for sums of so many terms
/// (of each output, the last for all that follow) and the largest value of a tensor as its scale.
///
/// # Errors
/// The first tensor that is off, its worst element and both values.
pub fn compare(name: &str, got: &[Data], want: &[Data], terms: &[usize]) -> Result<()> {
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
}
