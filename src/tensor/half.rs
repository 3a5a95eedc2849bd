//! IEEE half precision on the host: conversions without branches, so that loops over them vectorise.

use std::fmt;

/// A 16-bit float, by its bits: what a tensor of [`DType::F16`](super::DType::F16) holds. Arithmetic is done in `f32`.
///
/// ```
/// use wgrad::tensor::F16;
/// assert_eq!(F16::from(1.0 / 3.0).to_f32(), 0.333_251_95);
/// assert_eq!(F16::from(1e6).to_f32(), f32::INFINITY); // the largest is 65504
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct F16(pub u16);

impl F16 {
    /// The largest finite value.
    pub const MAX: f32 = 65504.0;

    /// The value, exactly.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        let (sign, rest) = (u32::from(self.0 & 0x8000) << 16, u32::from(self.0 & 0x7fff) << 13);
        // Read as an f32 the exponent is 112 too small; the product is right for subnormals, too.
        let scaled = (f32::from_bits(rest) * f32::from_bits((112 + 127) << 23)).to_bits();
        f32::from_bits(sign | if rest >= 0x1f << 23 { rest | 0xff << 23 } else { scaled })
    }
}

impl From<f32> for F16 {
    /// The nearest half, ties to even; what is too large becomes an infinity.
    #[inline(always)]
    fn from(x: f32) -> F16 {
        let (sign, rest) = (x.to_bits() >> 16 & 0x8000, x.to_bits() & 0x7fff_ffff);
        let normal = ((rest + 0xfff + (rest >> 13 & 1)) >> 13).wrapping_sub(112 << 10);
        // From 0.5 on an f32 counts in steps of 2^-24, as subnormal halves do.
        let small = (f32::from_bits(rest) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let half = if rest < 0x3880_0000 { small } else { normal };
        let half = if rest >= 0x477f_f000 { 0x7c00 } else { half };
        F16((sign | if rest > 0x7f80_0000 { 0x7e00 } else { half }) as u16)
    }
}

impl From<f64> for F16 {
    /// The nearest half, ties to even. Rounded once: by way of f32, a value just above a tie would become one.
    fn from(x: f64) -> F16 {
        let near = x as f32;
        // An f32 that was rounded, and whose last bit is even, is moved towards the value: "round to odd" keeps on which side of a tie it lies.
        let odd = if f64::from(near) == x || near.to_bits() & 1 == 1 || !near.is_finite() {
            near
        } else {
            let up = (f64::from(near).abs() < x.abs()) as u32;
            f32::from_bits(near.to_bits().wrapping_add(up).wrapping_sub(1 - up) | 1)
        };
        F16::from(odd)
    }
}

impl fmt::Display for F16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_f32().fmt(f)
    }
}

impl fmt::Debug for F16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}f16", self.to_f32())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a half by its fields, and so by another way than above.
    fn value(h: u16) -> f64 {
        let sign = if h >> 15 == 1 { -1.0 } else { 1.0 };
        let (exponent, fraction) = (i32::from(h >> 10 & 31), f64::from(h & 1023));
        match exponent {
            0 => sign * fraction * 2f64.powi(-24),
            31 if fraction == 0.0 => sign * f64::INFINITY,
            31 => f64::NAN,
            e => sign * (1.0 + fraction / 1024.0) * 2f64.powi(e - 15),
        }
    }

    #[test]
    fn every_half_has_its_value_and_comes_back() {
        for h in 0..=u16::MAX {
            let x = F16(h).to_f32();
            if value(h).is_nan() {
                assert!(x.is_nan() && F16::from(x).to_f32().is_nan(), "{h:#x}");
            } else {
                assert_eq!(f64::from(x), value(h), "{h:#x}");
                assert_eq!((F16::from(x).0, F16::from(f64::from(x)).0), (h, h), "{h:#x}");
            }
        }
    }

    #[test]
    fn between_two_halves_the_nearer_is_taken_and_of_a_tie_the_even_one() {
        for h in 0..0x7c00u16 {
            let (low, high) = (value(h), if h == 0x7bff { 65536.0 } else { value(h + 1) });
            let middle = (low + high) / 2.0;
            let even = if h & 1 == 0 { h } else { h + 1 };
            // The least steps beside a tie, in f64 and in f32.
            let tiny = middle * 2f64.powi(-50);
            for (x, want) in [(middle, even), (middle - tiny, h), (middle + tiny, h + 1)] {
                assert_eq!((F16::from(x).0, F16::from(-x).0), (want, want | 0x8000), "{x:e}");
            }
            let m = middle as f32;
            assert_eq!([m, m.next_down(), m.next_up()].map(|x| F16::from(x).0), [even, h, h + 1], "{m:e}");
        }
        assert_eq!([1e-9f32, 7e4, f32::MAX, f32::MIN_POSITIVE / 2.0].map(|x| F16::from(x).0), [0, 0x7c00, 0x7c00, 0]);
        assert_eq!([f64::MAX, f64::INFINITY, -1e-300, f64::MIN_POSITIVE].map(|x| F16::from(x).0), [0x7c00, 0x7c00, 0x8000, 0]);
    }
}
