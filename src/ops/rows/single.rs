//! f32 functions for the CPU's fast path, the same formulas as shaders/math.wgsl: no branches and no calls, so that loops over them vectorise.

const EXP_MAX: f32 = 88.722_84;
/// ln 2 in two parts; the first has 12 bits, so that `n * LN2_HI` is exact.
const LN2_HI: f32 = 0.693_115_23;
const LN2_LO: f32 = 3.194_618_3e-5;
/// Adding it rounds to an integer, which then stands in the low bits. (`floor` would be a call on a baseline x86-64.)
const ROUND: f32 = 12_582_912.0;

/// The nearest integer, as a float and as an integer, for |x| < 2^22.
#[inline(always)]
fn nearest(x: f32) -> (f32, i32) {
    let t = x + ROUND;
    (t - ROUND, t.to_bits().wrapping_sub(ROUND.to_bits()) as i32)
}

/// 2^n for n in -126..=127.
#[inline(always)]
fn pow2i(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

/// Within bounds; NaN becomes the lower one.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > low { x } else { low };
    if x < high { x } else { high }
}

/// e^r - 1 for |r| <= 0.35.
#[inline(always)]
fn expm1_core(r: f32) -> f32 {
    let q = 0.5 + r * (0.166_665_38 + r * (0.041_666_266 + r * (0.008_367_247 + r * 0.001_394_760_6)));
    r + r * r * q
}

/// e^x for x in -105..=90, without a check.
#[inline(always)]
fn exp_bounded(x: f32) -> f32 {
    let (n, k) = nearest(x * std::f32::consts::LOG2_E);
    let r = (x - n * LN2_HI) - n * LN2_LO;
    let h = k >> 1;
    // In two steps: 2^k alone may be out of range.
    (1.0 + expm1_core(r)) * pow2i(h) * pow2i(k - h)
}

/// e^x.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let y = exp_bounded(clamp(x, -105.0, 90.0));
    let y = if x > EXP_MAX { f32::INFINITY } else { y };
    if x.is_nan() { x } else { y }
}

/// e^x - 1.
#[inline(always)]
pub(super) fn expm1(x: f32) -> f32 {
    let t = clamp(x, -20.0, 60.0);
    let (n, k) = nearest(t * std::f32::consts::LOG2_E);
    let p = expm1_core((t - n * LN2_HI) - n * LN2_LO);
    let s = pow2i(k);
    let y = if k == 0 { p } else { (s - 1.0) + s * p };
    // Above 60 the 1 is lost anyhow; exp knows how to overflow, and NaN.
    if x < 60.0 { y } else { exp(x) }
}

/// log(1 + f) + k log 2 for 1 + f in [0.7071, 1.4143].
#[inline(always)]
fn log_core(f: f32, k: f32) -> f32 {
    let s = f / (2.0 + f);
    let z = s * s;
    let h = 0.5 * f * f;
    let r = z * (0.666_666_6 + z * (0.400_003_46 + z * (0.285_365_8 + z * 0.235_967_86)));
    k * LN2_HI - ((h - (s * (h + r) + k * LN2_LO)) - f)
}

/// Normal x > 0 as 2^k m with m in [0.7071, 1.4143].
#[inline(always)]
fn split(x: f32) -> (f32, i32) {
    let bits = x.to_bits();
    let k = (bits as i32).wrapping_sub(0x3f35_04f3) >> 23;
    (f32::from_bits(bits.wrapping_sub((k as u32) << 23)), k)
}

/// y, the logarithm of x where x is positive and finite; else what the logarithm is there.
#[inline(always)]
fn log_ends(x: f32, y: f32) -> f32 {
    let y = if x < f32::INFINITY { y } else { x };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x < 0.0 { f32::NAN } else { y }
}

/// log x.
#[inline(always)]
pub(super) fn log(x: f32) -> f32 {
    let tiny = x < f32::MIN_POSITIVE;
    let (m, k) = split(if tiny { x * 8_388_608.0 } else { x });
    log_ends(x, log_core(m - 1.0, k as f32 - if tiny { 23.0 } else { 0.0 }))
}

/// log(1 + x).
#[inline(always)]
pub(super) fn log1p(x: f32) -> f32 {
    let u = 1.0 + x;
    let (m, k) = split(u);
    // Near 0 the sum would lose what counts.
    let near = x > -0.29 && x < 0.41;
    log_ends(u, log_core(if near { x } else { m - 1.0 }, if near { 0.0 } else { k as f32 }))
}

/// tanh x.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let a = clamp(x.abs(), 0.0, 10.0);
    let z = a * a;
    let near = a + a * z * (-0.333_332_8 + z * (0.133_313_83 + z * (-0.053_734 + z * (0.020_618_128 + z * -0.005_679_309_4))));
    let far = 1.0 - 2.0 / (exp_bounded(2.0 * a) + 1.0);
    let y = if a < 0.625 { near } else { far };
    if x.is_nan() { x } else { y.copysign(x) }
}

/// The error function.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let a = clamp(x.abs(), 0.0, 4.0);
    let z = a * a;
    let p = 0.112_836_94 + z * (-0.026_859_27 + z * (0.005_200_634_7 + z * (-0.000_813_744 + z * 8.345_232e-5)));
    let near = a + a * (0.128_379_17 + z * (-0.376_126_35 + z * p));
    // 1 - e^-g; g is a polynomial about 0.92, where an error in it weighs most.
    let t = a - 0.92;
    let q = 0.044_907_4 + t * (-0.010_874_055 + t * (0.002_148_373 + t * (-0.000_298_935_2 + t * 2.116_17e-5)));
    let g = 1.643_862_2 + t * (2.504_889_2 + t * (0.832_736_25 + t * q));
    let far = 1.0 - exp_bounded(-g);
    let y = if a < 0.92 { near } else { far };
    if x.is_nan() { x } else { y.copysign(x) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error over `n` arguments evenly spaced in a range, in ulp of the result.
    fn worst(f: fn(f32) -> f32, g: fn(f64) -> f64, low: f32, high: f32) -> f64 {
        let n = 100_000;
        let mut worst = 0.0f64;
        for i in 0..=n {
            let x = low + (high - low) * (i as f32 / n as f32);
            let want = g(f64::from(x));
            let ulp = 2f64.powi((want.abs().max(f64::from(f32::MIN_POSITIVE))).log2().floor() as i32 - 23);
            worst = worst.max((f64::from(f(x)) - want).abs() / ulp);
        }
        worst
    }

    #[test]
    fn each_is_within_its_bound() {
        type Case = (&'static str, fn(f32) -> f32, fn(f64) -> f64, f32, f32, f64);
        let cases: &[Case] = &[
            ("exp", exp, f64::exp, -87.0, 88.7, 2.0),
            ("expm1", expm1, f64::exp_m1, -30.0, 88.7, 3.0),
            ("expm1", expm1, f64::exp_m1, -1.5, 1.5, 3.0),
            ("log", log, f64::ln, 1e-6, 4.0, 2.0),
            ("log", log, f64::ln, 1.0, 1e30, 2.0),
            ("log", log, f64::ln, 1e-44, 1e-38, 2.0),
            ("log1p", log1p, f64::ln_1p, -0.999, 2.0, 3.0),
            ("log1p", log1p, f64::ln_1p, 0.0, 1e10, 3.0),
            ("tanh", tanh, f64::tanh, -11.0, 11.0, 3.0),
            ("tanh", tanh, f64::tanh, -1.0, 1.0, 3.0),
            ("erf", erf, super::super::Real::erf, -5.0, 5.0, 3.0),
            ("erf", erf, super::super::Real::erf, -1.0, 1.0, 3.0),
        ];
        for &(name, f, g, low, high, bound) in cases {
            let got = worst(f, g, low, high);
            assert!(got <= bound, "{name} on {low}..{high}: {got} ulp, stated {bound}");
        }
    }

    #[test]
    fn the_ends_are_right() {
        for f in [exp, expm1, log, log1p, tanh, erf] {
            assert!(f(f32::NAN).is_nan());
        }
        assert_eq!([exp(f32::INFINITY), exp(f32::NEG_INFINITY), exp(89.0), exp(0.0)], [f32::INFINITY, 0.0, f32::INFINITY, 1.0]);
        assert_eq!([expm1(f32::INFINITY), expm1(f32::NEG_INFINITY), expm1(0.0)], [f32::INFINITY, -1.0, 0.0]);
        assert_eq!([log(0.0), log(1.0), log(f32::INFINITY)], [f32::NEG_INFINITY, 0.0, f32::INFINITY]);
        assert!(log(-1.0).is_nan() && log(f32::NEG_INFINITY).is_nan() && log1p(-1.5).is_nan());
        assert_eq!([log1p(-1.0), log1p(0.0), log1p(f32::INFINITY)], [f32::NEG_INFINITY, 0.0, f32::INFINITY]);
        assert_eq!([tanh(f32::INFINITY), tanh(-100.0), erf(100.0), erf(f32::NEG_INFINITY)], [1.0, -1.0, 1.0, -1.0]);
    }
}
