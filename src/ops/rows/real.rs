//! The number type of a row's value: f64 for the definition, f32 for the fast path. One expression serves both.

use super::single;
use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// f32 or f64, with the functions that rows use. NaN passes through all of them, also through `max`, `min` and `sign`.
pub trait Real:
    Copy
    + Debug
    + PartialEq
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Send
    + Sync
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// The nearest value to `v`: constants in formulas.
    fn of(v: f64) -> Self;
    /// 1 or 0: how rows give truth values.
    fn truth(v: bool) -> Self;
    /// Whether it is NaN.
    fn is_nan(self) -> bool;
    /// Whether it is an infinity.
    fn is_infinite(self) -> bool;
    /// |x|.
    fn abs(self) -> Self;
    /// sqrt x.
    fn sqrt(self) -> Self;
    /// e^x.
    fn exp(self) -> Self;
    /// e^x - 1.
    fn exp_m1(self) -> Self;
    /// log x.
    fn ln(self) -> Self;
    /// log(1 + x).
    fn ln_1p(self) -> Self;
    /// sin x.
    fn sin(self) -> Self;
    /// cos x.
    fn cos(self) -> Self;
    /// tanh x.
    fn tanh(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// x^y, as C's pow.
    fn powf(self, y: Self) -> Self;
    /// The largest integer not above x.
    fn floor(self) -> Self;
    /// The smallest integer not below x.
    fn ceil(self) -> Self;
    /// Towards zero.
    fn trunc(self) -> Self;
    /// The nearest integer, halves to even.
    fn round(self) -> Self;

    /// The larger, or NaN.
    #[inline(always)]
    fn max(self, y: Self) -> Self {
        // `self > self` is no NaN test; `is_nan` compiles to one unordered comparison.
        if self > y || self.is_nan() { self } else { y }
    }
    /// The smaller, or NaN.
    #[inline(always)]
    fn min(self, y: Self) -> Self {
        if self < y || self.is_nan() { self } else { y }
    }
    /// -1, 0, 1 or NaN.
    #[inline(always)]
    fn sign(self) -> Self {
        if self.is_nan() { self } else { Self::truth(self > Self::ZERO) - Self::truth(self < Self::ZERO) }
    }
    /// 1 / (1 + e^-x).
    #[inline(always)]
    fn sigmoid(self) -> Self {
        // The exponential never overflows, and neither side cancels.
        let e = (-self.abs()).exp();
        (if self < Self::ZERO { e } else { Self::ONE }) / (Self::ONE + e)
    }
    /// log(1 + e^x).
    #[inline(always)]
    fn softplus(self) -> Self {
        self.max(Self::ZERO) + (-self.abs()).exp().ln_1p()
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    #[inline(always)]
    fn of(v: f64) -> f64 {
        v
    }
    #[inline(always)]
    fn truth(v: bool) -> f64 {
        f64::from(u8::from(v))
    }
    fn is_nan(self) -> bool {
        f64::is_nan(self)
    }
    fn is_infinite(self) -> bool {
        f64::is_infinite(self)
    }
    fn abs(self) -> f64 {
        f64::abs(self)
    }
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    fn exp_m1(self) -> f64 {
        f64::exp_m1(self)
    }
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    fn ln_1p(self) -> f64 {
        f64::ln_1p(self)
    }
    fn sin(self) -> f64 {
        f64::sin(self)
    }
    fn cos(self) -> f64 {
        f64::cos(self)
    }
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    fn erf(self) -> f64 {
        erf(self)
    }
    fn powf(self, y: f64) -> f64 {
        f64::powf(self, y)
    }
    fn floor(self) -> f64 {
        f64::floor(self)
    }
    fn ceil(self) -> f64 {
        f64::ceil(self)
    }
    fn trunc(self) -> f64 {
        f64::trunc(self)
    }
    fn round(self) -> f64 {
        f64::round_ties_even(self)
    }
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    #[inline(always)]
    fn of(v: f64) -> f32 {
        v as f32
    }
    #[inline(always)]
    fn truth(v: bool) -> f32 {
        if v { 1.0 } else { 0.0 }
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        f32::is_nan(self)
    }
    #[inline(always)]
    fn is_infinite(self) -> bool {
        f32::is_infinite(self)
    }
    #[inline(always)]
    fn abs(self) -> f32 {
        f32::abs(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn exp(self) -> f32 {
        single::exp(self)
    }
    #[inline(always)]
    fn exp_m1(self) -> f32 {
        single::expm1(self)
    }
    #[inline(always)]
    fn ln(self) -> f32 {
        single::log(self)
    }
    #[inline(always)]
    fn ln_1p(self) -> f32 {
        single::log1p(self)
    }
    fn sin(self) -> f32 {
        f64::from(self).sin() as f32
    }
    fn cos(self) -> f32 {
        f64::from(self).cos() as f32
    }
    #[inline(always)]
    fn tanh(self) -> f32 {
        single::tanh(self)
    }
    #[inline(always)]
    fn erf(self) -> f32 {
        single::erf(self)
    }
    fn powf(self, y: f32) -> f32 {
        f64::from(self).powf(f64::from(y)) as f32
    }
    #[inline(always)]
    fn floor(self) -> f32 {
        f32::floor(self)
    }
    #[inline(always)]
    fn ceil(self) -> f32 {
        f32::ceil(self)
    }
    #[inline(always)]
    fn trunc(self) -> f32 {
        f32::trunc(self)
    }
    #[inline(always)]
    fn round(self) -> f32 {
        f32::round_ties_even(self)
    }
}

/// The error function in f64, to about 1e-15 relative: a series of positive terms near zero, a continued fraction beyond.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() || a == 0.0 {
        return x;
    }
    if a < 2.5 {
        // erf x = 2 / sqrt(pi) e^(-x^2) x (1 + 2x^2/3 + (2x^2)^2/(3 5) + ...): no term cancels another.
        let z = 2.0 * a * a;
        let (mut term, mut sum, mut odd) = (1.0, 1.0, 1.0);
        while term > sum * 1e-17 {
            odd += 2.0;
            term *= z / odd;
            sum += term;
        }
        return x * sum * (-a * a).exp() * std::f64::consts::FRAC_2_SQRT_PI;
    }
    if a > 6.0 {
        return 1f64.copysign(x);
    }
    // erfc x = e^(-x^2) / sqrt(pi) / (x + 1/2 / (x + 1 / (x + 3/2 / (x + ...)))), from the inside out.
    let fraction = (1..=60).rev().fold(a, |f, n| a + f64::from(n) / 2.0 / f);
    let erfc = (-a * a).exp() / fraction * (std::f64::consts::FRAC_2_SQRT_PI / 2.0);
    (1.0 - erfc).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_in_f64_has_its_known_values() {
        // From tables to 16 digits.
        for (x, want) in [
            (1e-10, 1.1283791670955126e-10),
            (0.5, 0.5204998778130465),
            (1.0, 0.8427007929497149),
            (2.0, 0.9953222650189527),
            (2.4999, 0.9995928300996666),
            (2.5, 0.999593047982555),
            (3.0, 0.9999779095030014),
            (5.0, 0.9999999999984626),
        ] {
            assert!((erf(x) - want).abs() <= 2e-15 * want, "erf({x}) = {} instead of {want}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert_eq!(erf(f64::INFINITY), 1.0);
        assert!(erf(f64::NAN).is_nan());
    }

    #[test]
    fn nan_passes_through_choices() {
        assert!(Real::max(f32::NAN, 0.0).is_nan() && Real::max(0.0, f32::NAN).is_nan());
        assert!(Real::min(f64::NAN, 0.0).is_nan() && Real::min(0.0, f64::NAN).is_nan());
        assert!(Real::sign(f32::NAN).is_nan());
        assert!(Real::sigmoid(f32::NAN).is_nan());
        assert!(Real::softplus(f32::NAN).is_nan());
    }

    #[test]
    fn halves_round_to_even() {
        assert_eq!([0.5f32, 1.5, 2.5, -0.5, -1.5].map(Real::round), [0.0, 2.0, 2.0, 0.0, -2.0]);
    }
}
