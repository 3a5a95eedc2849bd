// What WGSL leaves loose, made exact enough: each function states its error in ulp against the real function, on normal floats.
// The bounds leave room for a division that is 2.5 ulp off, which WGSL allows; Mesa's CPU driver stays below 3.2 ulp everywhere.
// Nothing here needs fma, contraction is harmless, subnormal results may be flushed to zero, NaN and infinity are known by their bits.
// A trailing underscore keeps a name apart from WGSL's own function.

const EXP_MAX: f32 = 88.72283935546875;
const LOG2_E: f32 = 1.44269502;
// ln 2 = LN2_HI + LN2_LO; LN2_HI has 12 bits, so that n * LN2_HI is exact for |n| < 4096.
const LN2_HI: f32 = 0.693115234375;
const LN2_LO: f32 = 3.19461833e-05;
// pi / 2 in four parts; the first three have 12 bits each, so that n times each of them is exact for |n| < 4096.
const HALF_PI_1: f32 = 1.5703125;
const HALF_PI_2: f32 = 0.0004837512969970703;
const HALF_PI_3: f32 = 7.549533620476723e-08;
const HALF_PI_4: f32 = 2.56334407e-12;

// Exact.
fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// Exact.
fn is_inf(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) == 0x7f800000u;
}

// Infinity with the sign of x. Made from bits that are known at run time only: constant infinities don't compile.
fn inf_(x: f32) -> f32 {
    return bitcast<f32>((bitcast<u32>(x) & 0x80000000u) | 0x7f800000u);
}

// NaN, whatever x is.
fn nan_(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) | 0x7fc00000u);
}

// The larger, or NaN where one is NaN. Exact.
fn max_nan(x: f32, y: f32) -> f32 {
    return select(y, x, x > y || is_nan(x));
}

// The smaller, or NaN where one is NaN. Exact.
fn min_nan(x: f32, y: f32) -> f32 {
    return select(y, x, x < y || is_nan(x));
}

// -1, 0 or 1; NaN stays. Exact.
fn sign_(x: f32) -> f32 {
    return select(f32(x > 0.0) - f32(x < 0.0), x, is_nan(x));
}

// |a| with the sign of b. Exact.
fn copy_sign(a: f32, b: f32) -> f32 {
    // Not by joining the sign bit to a's bits: with that, lavapipe gets tanh(erf(tanh(x))) in one kernel wrong.
    return select(abs(a), -abs(a), (bitcast<u32>(b) & 0x80000000u) != 0u); // integers
}

// The nearest integer, halves to even. Exact.
fn round_(x: f32) -> f32 {
    let a = abs(x);
    let f = floor(a);
    let d = a - f;
    let odd = f - 2.0 * floor(0.5 * f) > 0.5;
    let r = select(f, f + 1.0, d > 0.5 || (d == 0.5 && odd));
    // From 2^23 on every float is an integer (and NaN and infinity stay).
    return select(x, copy_sign(r, x), a < 8388608.0);
}

// Towards zero. Exact.
fn trunc_(x: f32) -> f32 {
    return copy_sign(floor(abs(x)), x);
}

// 2^n for n in -126..=127. Exact.
fn pow2i(n: i32) -> f32 {
    return bitcast<f32>(u32(n + 127) << 23u);
}

// The leading 12 bits of x: products of two such numbers are exact.
fn head12(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) & 0xfffff000u);
}

// e^r - 1 for |r| <= 0.35. 1 ulp.
fn expm1_core(r: f32) -> f32 {
    let q = 0.5 + r * (0.166665375 + r * (0.0416662656 + r * (0.00836724695 + r * 0.00139476056)));
    return r + r * r * q;
}

// e^(a + b) for |b| tiny beside a.
fn exp_sum(a: f32, b: f32) -> f32 {
    let t = clamp(a, -105.0, 90.0);
    let n = floor(t * LOG2_E + 0.5);
    let r = ((t - n * LN2_HI) - n * LN2_LO) + b;
    let k = i32(n);
    let h = k >> 1u;
    // In two steps: 2^k alone may be out of range.
    return (1.0 + expm1_core(r)) * pow2i(h) * pow2i(k - h);
}

// e^x. 2 ulp.
fn exp_(x: f32) -> f32 {
    let y = select(exp_sum(x, 0.0), inf_(1.0), x > EXP_MAX);
    return select(y, x, is_nan(x));
}

// e^x for x <= 0 and NaN, 0 below -87: the exponentials of differences to the largest. 2 ulp.
fn exp_below(x: f32) -> f32 {
    let t = max(x, -87.0);
    let n = floor(t * LOG2_E + 0.5);
    let y = (1.0 + expm1_core((t - n * LN2_HI) - n * LN2_LO)) * pow2i(i32(n));
    return select(select(y, 0.0, x < -87.0), x, is_nan(x));
}

// e^x - 1. 3 ulp.
fn expm1_(x: f32) -> f32 {
    let t = clamp(x, -20.0, 60.0);
    let n = floor(t * LOG2_E + 0.5);
    let p = expm1_core((t - n * LN2_HI) - n * LN2_LO);
    let s = pow2i(i32(n));
    let y = select((s - 1.0) + s * p, p, n == 0.0);
    // Above 60 the 1 is lost anyhow; exp_ knows how to overflow, and NaN.
    return select(exp_(x), y, x < 60.0);
}

// log(1 + f) + k log 2 for 1 + f in [0.7071, 1.4143] and an integer k.
fn log_core(f: f32, k: f32) -> f32 {
    let s = f / (2.0 + f);
    let z = s * s;
    let h = 0.5 * f * f;
    let r = z * (0.666666627 + z * (0.400003463 + z * (0.28536579 + z * 0.23596786)));
    return k * LN2_HI - ((h - (s * (h + r) + k * LN2_LO)) - f);
}

// Normal x > 0 as 2^k m with m in [0.7071, 1.4143]: (m, k). Subnormals are scaled first.
fn split_(x: f32) -> vec2<f32> {
    let tiny = x < 1.17549435e-38;
    let bits = bitcast<u32>(select(x, x * 8388608.0, tiny));
    let k = (bitcast<i32>(bits) - 0x3f3504f3) >> 23u;
    return vec2<f32>(bitcast<f32>(bits - (u32(k) << 23u)), f32(k) - select(0.0, 23.0, tiny));
}

// y, the logarithm of x where x is positive and finite; else what the logarithm is there.
fn log_ends(x: f32, y: f32) -> f32 {
    let below = select(nan_(x), inf_(-1.0), x == 0.0);
    return select(select(below, y, x > 0.0), x, is_nan(x) || bitcast<u32>(x) == 0x7f800000u);
}

// log x; -infinity at 0, NaN below. 2 ulp.
fn log_(x: f32) -> f32 {
    let v = split_(x);
    return log_ends(x, log_core(v.x - 1.0, v.y));
}

// log(1 + x); -infinity at -1, NaN below. 3 ulp.
fn log1p_(x: f32) -> f32 {
    let u = 1.0 + x;
    let v = split_(u);
    // Near 0 the sum would lose what counts.
    let near = x > -0.29 && x < 0.41;
    return log_ends(u, log_core(select(v.x - 1.0, x, near), select(v.y, 0.0, near)));
}

// The high half of a 32 by 32 bit product.
fn mul_hi_(a: u32, b: u32) -> u32 {
    let al = a & 0xffffu;
    let ah = a >> 16u;
    let bl = b & 0xffffu;
    let bh = b >> 16u;
    let t = al * bh + ((al * bl) >> 16u);
    let w = ah * bl + (t & 0xffffu);
    return ah * bh + (t >> 16u) + (w >> 16u);
}

// Bits of 2 / pi, 32 at a time; word 0 holds the ones before the point.
fn two_over_pi(word: u32) -> u32 {
    switch word {
        case 1u: { return 0xa2f9836eu; }
        case 2u: { return 0x4e441529u; }
        case 3u: { return 0xfc2757d1u; }
        case 4u: { return 0xf534ddc0u; }
        case 5u: { return 0xdb629599u; }
        case 6u: { return 0x3c439041u; }
        case 7u: { return 0xfe5163abu; }
        default: { return 0u; }
    }
}

// 32 bits of 2 / pi from the given bit on.
fn two_over_pi_bits(word: u32, shift: u32) -> u32 {
    // Two shifts, because a shift by 32 is no shift.
    return (two_over_pi(word) << shift) | ((two_over_pi(word + 1u) >> 1u) >> (31u - shift));
}

// |x| >= 6000 to its place in a quarter turn: (r, q) with x = q pi/2 + r modulo 2 pi, |r| <= pi/4. In integers, so exact to 1 ulp of r.
fn reduce_large(x: f32) -> vec2<f32> {
    let bits = bitcast<u32>(x);
    let m = (bits & 0x7fffffu) | 0x800000u;
    // x = m 2^e; bits of 2/pi before bit e - 2 give whole turns.
    let start = ((bits >> 23u) & 0xffu) - 150u + 30u;
    let word = start >> 5u;
    let shift = start & 31u;
    let a = two_over_pi_bits(word, shift);
    let b = two_over_pi_bits(word + 1u, shift);
    let c = two_over_pi_bits(word + 2u, shift);
    // The fraction of a turn, 64 bits: hi, lo.
    let lb = m * b;
    let lo = lb + mul_hi_(m, c);
    let hi = m * a + mul_hi_(m, b) + select(0u, 1u, lo < lb);
    let q = (hi + 0x20000000u) >> 30u;
    var h = hi - (q << 30u);
    var l = lo;
    let negative = h >= 0x80000000u;
    if negative {
        h = ~h + select(0u, 1u, l == 0u);
        l = ~l + 1u;
    }
    var r: f32;
    if h == 0u {
        r = f32(l) * 5.421010862427522e-20;
    } else {
        let z = countLeadingZeros(h);
        r = f32((h << z) | (l >> (32u - z))) * 2.3283064365386963e-10 * pow2i(-i32(z));
    }
    r = r * 6.28318531;
    r = select(r, -r, negative);
    let turn = select(q & 3u, (4u - q) & 3u, x < 0.0);
    return vec2<f32>(select(r, -r, x < 0.0), f32(turn));
}

// x to its place in a quarter turn: (r, q) with x = q pi/2 + r modulo 2 pi, |r| <= 0.79, q one of 0, 1, 2, 3.
fn reduce_(x: f32) -> vec2<f32> {
    if abs(x) < 6000.0 {
        let n = floor(x * 0.636619747 + 0.5);
        let r = (((x - n * HALF_PI_1) - n * HALF_PI_2) - n * HALF_PI_3) - n * HALF_PI_4;
        return vec2<f32>(r, n - 4.0 * floor(0.25 * n));
    }
    return reduce_large(x);
}

// sin r for |r| <= 0.79. 1 ulp.
fn sin_core(r: f32) -> f32 {
    let z = r * r;
    return r + r * z * (-0.166666538 + z * (0.00833213143 + z * -0.000195108398));
}

// cos r for |r| <= 0.79. 1 ulp.
fn cos_core(r: f32) -> f32 {
    let z = r * r;
    return (1.0 - 0.5 * z) + z * z * (0.0416666456 + z * (-0.0013887306 + z * 2.44312068e-05));
}

// sin x, for any finite x; NaN at infinity. 3 ulp.
fn sin_(x: f32) -> f32 {
    let v = reduce_(x);
    let y = select(sin_core(v.x), cos_core(v.x), v.y == 1.0 || v.y == 3.0);
    return select(select(y, -y, v.y >= 2.0), nan_(x), is_nan(x) || is_inf(x));
}

// cos x, for any finite x; NaN at infinity. 3 ulp.
fn cos_(x: f32) -> f32 {
    let v = reduce_(x);
    let y = select(cos_core(v.x), sin_core(v.x), v.y == 1.0 || v.y == 3.0);
    return select(select(y, -y, v.y == 1.0 || v.y == 2.0), nan_(x), is_nan(x) || is_inf(x));
}

// tanh x. 3 ulp.
fn tanh_(x: f32) -> f32 {
    let a = min(abs(x), 10.0);
    let z = a * a;
    let near = a + a * z * (-0.333332807 + z * (0.133313835 + z * (-0.0537340008 + z * (0.0206181277 + z * -0.00567930937))));
    let far = 1.0 - 2.0 / (exp_sum(2.0 * a, 0.0) + 1.0);
    return select(copy_sign(select(far, near, a < 0.625), x), x, is_nan(x));
}

// 1 / (1 + e^-x). 4 ulp.
fn sigmoid_(x: f32) -> f32 {
    // The exponential never overflows, and neither side cancels.
    let e = exp_(-abs(x));
    return select(e, 1.0, x >= 0.0) / (1.0 + e) + select(0.0, x, is_nan(x));
}

// log(1 + e^x). 4 ulp.
fn softplus_(x: f32) -> f32 {
    return max_nan(x, 0.0) + log1p_(exp_(-abs(x)));
}

// The error function. 3 ulp.
fn erf_(x: f32) -> f32 {
    let a = abs(x);
    let z = a * a;
    let near = a + a * (0.128379166 + z * (-0.376126349 + z * (0.112836942 + z * (-0.0268592704 + z * (0.00520063471 + z * (-0.000813743973 + z * 8.34523162e-05))))));
    // 1 - e^-g; g is a polynomial about 0.92, where an error in it weighs most.
    let t = min(a, 4.0) - 0.92;
    let g = 1.64386225 + t * (2.50488925 + t * (0.832736254 + t * (0.0449073985 + t * (-0.0108740553 + t * (0.00214837305 + t * (-0.000298935192 + t * 2.11617007e-05))))));
    let far = 1.0 - exp_sum(-g, 0.0);
    return select(copy_sign(select(far, near, a < 0.92), x), x, is_nan(x));
}

// log x as a sum of two floats of which the first has 12 bits, for normal x > 0; good to 2^-29 of it.
fn log_parts(x: f32) -> vec2<f32> {
    let v = split_(x);
    let m = v.x;
    let k = v.y;
    let f = m - 1.0;
    let t = m + 1.0;
    // s = f / t as sh + sl, through an exact remainder.
    let s = f / t;
    let sh = head12(s);
    let th = head12(t);
    let tl = m - (th - 1.0);
    let sl = ((f - sh * th) - sh * tl) / t;
    let z = s * s;
    let a = k * LN2_HI;
    let b = 2.0 * sh;
    let c = k * LN2_LO + (2.0 * sl + s * z * (0.666666627 + z * (0.400003463 + z * (0.28536579 + z * 0.23596786))));
    let high = head12(a + b + c);
    return vec2<f32>(high, ((a - high) + b) + c);
}

// x^y as C's pow (and PyTorch's): 1 where y is 0 or x is 1, even for NaN; NaN for negative x unless y is an integer. 4 ulp.
fn pow_(x: f32, y: f32) -> f32 {
    if y == 0.0 || x == 1.0 {
        return 1.0;
    }
    if is_nan(x) || is_nan(y) {
        return nan_(x);
    }
    let ax = abs(x);
    let ay = abs(y);
    if is_inf(y) {
        if ax == 1.0 {
            return 1.0;
        }
        return select(0.0, ay, (ax > 1.0) == (y > 0.0));
    }
    let integer = floor(ay) == ay;
    let odd = integer && ay < 16777216.0 && (u32(min(ay, 16777216.0)) & 1u) == 1u;
    let sign = select(1.0, x, odd);
    if ax == 0.0 || is_inf(x) {
        return select(copy_sign(0.0, sign), inf_(sign), (ax == 0.0) == (y < 0.0));
    }
    if x < 0.0 && !integer {
        return nan_(x);
    }
    // y log x = high + low, the high part exact. Beyond 1e30 the power is 0 or infinite anyhow.
    let l = log_parts(ax);
    let w = clamp(y, -1e30, 1e30);
    let wh = head12(w);
    let high = wh * l.x;
    let low = (w - wh) * l.x + w * l.y;
    let total = high + low;
    if total > EXP_MAX {
        return inf_(sign);
    }
    return copy_sign(select(exp_sum(high, low), 0.0, total < -104.0), sign);
}

// Derivatives that are too long for a line; src/ops/rows/activation.rs has their formulas.
fn gelu_inner(x: f32) -> f32 {
    return 0.7978845608028654 * (x + 0.044715 * x * x * x);
}

fn gelu_inner_slope(x: f32) -> f32 {
    return 0.7978845608028654 * (1.0 + 0.134145 * x * x);
}

fn gelu_tanh_slope_(x: f32) -> f32 {
    let u = 2.0 * gelu_inner(x);
    return sigmoid_(u) * (1.0 + 2.0 * x * sigmoid_(-u) * gelu_inner_slope(x));
}

fn gelu_tanh_slope2_(x: f32) -> f32 {
    let u = 2.0 * gelu_inner(x);
    let s = sigmoid_(u);
    let r = sigmoid_(-u);
    let d = gelu_inner_slope(x);
    return 4.0 * s * r * (d + 0.10703222440890038 * x * x - x * (s - r) * d * d);
}

fn mish_inner(x: f32) -> f32 {
    let e = exp_(min_nan(x, 20.0));
    return e * (e + 2.0);
}

fn mish_(x: f32) -> f32 {
    let n = mish_inner(x);
    return x * (n / (n + 2.0));
}

fn mish_slope_(x: f32) -> f32 {
    let n = mish_inner(x);
    let m = n + 2.0;
    return n / m + x * (4.0 * (n + 1.0) / (m * m)) * sigmoid_(x);
}

fn mish_slope2_(x: f32) -> f32 {
    let n = mish_inner(x);
    let m = n + 2.0;
    let s = sigmoid_(x);
    return 4.0 * (n + 1.0) / (m * m) * s * (2.0 + x * (1.0 - s - 2.0 * (n / m) * s));
}
