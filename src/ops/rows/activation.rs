//! Activations, as PyTorch defines them.
//!
//! `f_slope` is the derivative of `f`, `f_slope2` the second. Third derivatives are left out (Slope::None) of: gelu, gelu_tanh, softplus, softsign,
//! mish, silu.

use super::methods::apply;
use super::rows;

const SELU_ALPHA: f64 = 1.6732632423543772;
const SELU_SCALE: f64 = 1.0507009873554805;
/// √(2/π) and the factor of the cubic in gelu's tanh form.
const GELU_A: f64 = 0.7978845608028654;
const GELU_B: f64 = 0.044715;

rows! {
    /// max(x, 0)
    relu(x) {
        sig: Float, ulp: 0.0, wgsl: "max_nan(x, 0.0)",
        value: x.max(T::ZERO),
        slopes: [Grad("o", |g| apply("relu_grad", &[], &[g.grad(), g.output()]))],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[]],
    }
    /// The gradient x where the output y of relu is not 0 (or NaN), else 0, whatever x is
    relu_grad(x, y) {
        sig: Float, ulp: 0.0, wgsl: "select(x, 0.0, y <= 0.0)",
        value: if y <= T::ZERO { T::ZERO } else { x },
        slopes: [Grad("y", |g| apply("relu_grad", &[], &[g.grad(), g.input(1)])), Zero],
        domain: [(-3.0, 3.0), (-3.0, 3.0)], kinks: [0.0], samples: [[]],
    }
    /// min(max(x, 0), 6)
    relu6(x) {
        sig: Float, ulp: 0.0, wgsl: "min_nan(max_nan(x, 0.0), 6.0)",
        value: x.max(T::ZERO).min(T::of(6.0)),
        slopes: [Grad("o", |g| apply("hardtanh_grad", &[0.0, 6.0], &[g.grad(), g.output()]))],
        domain: [(-2.0, 9.0)], kinks: [0.0, 6.0], samples: [[]],
    }
    /// min(max(x, low), high); the gradient passes strictly inside
    hardtanh(x; low, high) {
        sig: Float, ulp: 0.0, wgsl: "min_nan(max_nan(x, p0), p1)",
        value: x.max(low).min(high),
        slopes: [Grad("o", |g| apply("hardtanh_grad", &[g.float(0), g.float(1)], &[g.grad(), g.output()]))],
        domain: [(-3.0, 3.0)], kinks: [-2.0, -1.0, 1.0, 2.0], samples: [[-1.0, 1.0], [-2.0, 2.0]],
    }
    /// The gradient x where y is strictly inside (or NaN), else 0, whatever x is
    hardtanh_grad(x, y; low, high) {
        sig: Float, ulp: 0.0, wgsl: "select(x, 0.0, y <= p0 || y >= p1)",
        value: if y <= low || y >= high { T::ZERO } else { x },
        slopes: [Grad("y", |g| apply("hardtanh_grad", &[g.float(0), g.float(1)], &[g.grad(), g.input(1)])), Zero],
        domain: [(-3.0, 3.0), (-3.0, 3.0)], kinks: [-1.0, 1.0], samples: [[-1.0, 1.0]],
    }
    /// min(max(x, low), high); the gradient passes at the bounds, too
    clamp(x; low, high) {
        sig: Float, ulp: 0.0, wgsl: "min_nan(max_nan(x, p0), p1)",
        value: x.max(low).min(high),
        slopes: [Grad("x", |g| apply("clamp_grad", &[g.float(0), g.float(1)], &[g.grad(), g.input(0)]))],
        domain: [(-3.0, 3.0)], kinks: [-1.0, -0.3, 0.7, 1.5], samples: [[-1.0, 0.7], [-0.3, 1.5]],
    }
    /// The gradient x where low ≤ y ≤ high, else 0, whatever x is
    clamp_grad(x, y; low, high) {
        sig: Float, ulp: 0.0, wgsl: "select(0.0, x, y >= p0 && y <= p1)",
        value: if y >= low && y <= high { x } else { T::ZERO },
        slopes: [Grad("y", |g| apply("clamp_grad", &[g.float(0), g.float(1)], &[g.grad(), g.input(1)])), Zero],
        domain: [(-3.0, 3.0), (-3.0, 3.0)], kinks: [-1.0, 1.0], samples: [[-1.0, 1.0]],
    }
    /// x where x > 0, else slope x
    leaky_relu(x; slope) {
        sig: Float, ulp: 1.0, wgsl: "select(p0 * x, x, x > 0.0)",
        value: if x > T::ZERO { x } else { slope * x },
        slopes: [Row("leaky_relu_slope")],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[0.01], [0.2]],
    }
    /// 1 where x > 0, else slope
    leaky_relu_slope(x; slope) {
        sig: Float, ulp: 0.0, wgsl: "select(p0, 1.0, x > 0.0)",
        value: if x > T::ZERO { T::ONE } else { slope },
        slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[0.01], [0.2]],
    }
    /// x where x > 0, else y x, y being the learned slope
    prelu(x, y) {
        sig: Float, ulp: 1.0, wgsl: "select(y * x, x, x > 0.0)",
        value: if x > T::ZERO { x } else { y * x },
        slopes: [Row("prelu_by_input"), Row("prelu_by_weight")],
        domain: [(-3.0, 3.0), (-1.0, 1.0)], kinks: [0.0], samples: [[]],
    }
    /// 1 where x > 0, else y
    prelu_by_input(x, y) {
        sig: Float, ulp: 0.0, wgsl: "select(y, 1.0, x > 0.0)",
        value: if x > T::ZERO { T::ONE } else { y },
        slopes: [Zero, Row("prelu_mixed")],
        domain: [(-3.0, 3.0), (-1.0, 1.0)], kinks: [0.0], samples: [[]],
    }
    /// 0 where x > 0, else x
    prelu_by_weight(x, y) {
        sig: Float, ulp: 0.0, wgsl: "select(x, 0.0, x > 0.0)",
        value: if x > T::ZERO { T::ZERO } else { x },
        slopes: [Row("prelu_mixed"), Zero],
        domain: [(-3.0, 3.0), (-1.0, 1.0)], kinks: [0.0], samples: [[]],
    }
    /// 0 where x > 0, else 1
    prelu_mixed(x, y) {
        sig: Float, ulp: 0.0, wgsl: "select(1.0, 0.0, x > 0.0)",
        value: if x > T::ZERO { T::ZERO } else { T::ONE },
        slopes: [Zero, Zero],
        domain: [(-3.0, 3.0), (-1.0, 1.0)], kinks: [0.0], samples: [[]],
    }
    /// x where x > 0, else alpha (e^x - 1)
    elu(x; alpha) {
        sig: Float, ulp: 4.0, wgsl: "select(p0 * expm1_(x), x, x > 0.0)",
        value: if x > T::ZERO { x } else { alpha * x.exp_m1() },
        slopes: [Row("elu_slope")],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[1.0], [0.5]],
    }
    /// 1 where x > 0, else alpha e^x
    elu_slope(x; alpha) {
        sig: Float, ulp: 3.0, wgsl: "select(p0 * exp_(x), 1.0, x > 0.0)",
        value: if x > T::ZERO { T::ONE } else { alpha * x.exp() },
        slopes: [Row("elu_slope2")],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[1.0], [0.5]],
    }
    /// 0 where x > 0, else alpha e^x
    elu_slope2(x; alpha) {
        sig: Float, ulp: 3.0, wgsl: "select(p0 * exp_(x), 0.0, x > 0.0)",
        value: if x > T::ZERO { T::ZERO } else { alpha * x.exp() },
        slopes: [Row("elu_slope2")],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[1.0], [0.5]],
    }
    /// x where x > 0, else alpha (e^(x / alpha) - 1)
    celu(x; alpha) {
        sig: Float, ulp: 6.0, wgsl: "select(p0 * expm1_(x / p0), x, x > 0.0)",
        value: if x > T::ZERO { x } else { alpha * (x / alpha).exp_m1() },
        slopes: [Row("celu_slope")],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[1.0], [0.5]],
    }
    /// 1 where x > 0, else e^(x / alpha)
    celu_slope(x; alpha) {
        sig: Float, ulp: 6.0, wgsl: "select(exp_(x / p0), 1.0, x > 0.0)",
        value: if x > T::ZERO { T::ONE } else { (x / alpha).exp() },
        slopes: [Row("celu_slope2")],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[1.0], [0.5]],
    }
    /// 0 where x > 0, else e^(x / alpha) / alpha
    celu_slope2(x; alpha) {
        sig: Float, ulp: 8.0, wgsl: "select(exp_(x / p0) / p0, 0.0, x > 0.0)",
        value: if x > T::ZERO { T::ZERO } else { (x / alpha).exp() / alpha },
        slopes: [Grad("o", |g| &(g.grad() * g.output()) / g.float(0))],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[1.0], [0.5]],
    }
    /// 1.0507 x where x > 0, else 1.0507 1.6733 (e^x - 1)
    selu(x) {
        sig: Float, ulp: 5.0, wgsl: "select(1.7580993408473766 * expm1_(x), 1.0507009873554805 * x, x > 0.0)",
        value: if x > T::ZERO { T::of(SELU_SCALE) * x } else { T::of(SELU_SCALE * SELU_ALPHA) * x.exp_m1() },
        slopes: [Row("selu_slope")],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[]],
    }
    /// 1.0507 where x > 0, else 1.0507 1.6733 e^x
    selu_slope(x) {
        sig: Float, ulp: 4.0, wgsl: "select(1.7580993408473766 * exp_(x), 1.0507009873554805, x > 0.0)",
        value: if x > T::ZERO { T::of(SELU_SCALE) } else { T::of(SELU_SCALE * SELU_ALPHA) * x.exp() },
        slopes: [Row("selu_slope2")],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[]],
    }
    /// 0 where x > 0, else 1.0507 1.6733 e^x
    selu_slope2(x) {
        sig: Float, ulp: 4.0, wgsl: "select(1.7580993408473766 * exp_(x), 0.0, x > 0.0)",
        value: if x > T::ZERO { T::ZERO } else { T::of(SELU_SCALE * SELU_ALPHA) * x.exp() },
        slopes: [Row("selu_slope2")],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[]],
    }
    /// x Φ(x) with Φ the normal distribution function, (1 + erf(x / √2)) / 2
    gelu(x) {
        sig: Float, ulp: 4.0, wgsl: "0.5 * x * (1.0 + erf_(x * 0.7071067811865476))",
        value: T::of(0.5) * x * (T::ONE + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf()),
        slopes: [Row("gelu_slope")],
        domain: [(-4.0, 4.0)], kinks: [], samples: [[]],
    }
    /// Φ(x) + x φ(x) with φ the normal density
    gelu_slope(x) {
        sig: Float, ulp: 6.0, wgsl: "0.5 * (1.0 + erf_(x * 0.7071067811865476)) + x * 0.3989422804014327 * exp_(-0.5 * x * x)",
        value: T::of(0.5) * (T::ONE + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf()) + x * density(x),
        slopes: [Row("gelu_slope2")],
        domain: [(-4.0, 4.0)], kinks: [], samples: [[]],
    }
    /// φ(x) (2 - x²)
    gelu_slope2(x) {
        sig: Float, ulp: 8.0, wgsl: "0.3989422804014327 * exp_(-0.5 * x * x) * (2.0 - x * x)",
        value: density(x) * (T::of(2.0) - x * x),
        slopes: [None],
        domain: [(-4.0, 4.0)], kinks: [], samples: [[]],
    }
    /// x (1 + tanh u) / 2 = x s with u = √(2/π) (x + 0.044715 x³), s the sigmoid of 2u
    gelu_tanh(x) {
        sig: Float, ulp: 6.0, wgsl: "x * sigmoid_(2.0 * gelu_inner(x))",
        value: x * (T::of(2.0) * gelu_inner(x)).sigmoid(),
        slopes: [Row("gelu_tanh_slope")],
        domain: [(-4.0, 4.0)], kinks: [], samples: [[]],
    }
    /// s (1 + 2 x r u') with r = 1 - s
    gelu_tanh_slope(x) {
        sig: Float, ulp: 8.0, wgsl: "gelu_tanh_slope_(x)",
        value: {
            let u = T::of(2.0) * gelu_inner(x);
            u.sigmoid() * (T::ONE + T::of(2.0) * x * (-u).sigmoid() * gelu_inner_slope(x))
        },
        slopes: [Row("gelu_tanh_slope2")],
        domain: [(-4.0, 4.0)], kinks: [], samples: [[]],
    }
    /// 4 s r (u' + x u'' / 2 - x (s - r) u'²)
    gelu_tanh_slope2(x) {
        sig: Float, ulp: 12.0, wgsl: "gelu_tanh_slope2_(x)",
        value: {
            let u = T::of(2.0) * gelu_inner(x);
            let (s, r, d) = (u.sigmoid(), (-u).sigmoid(), gelu_inner_slope(x));
            T::of(4.0) * s * r * (d + T::of(3.0 * GELU_A * GELU_B) * x * x - x * (s - r) * d * d)
        },
        slopes: [None],
        domain: [(-4.0, 4.0)], kinks: [], samples: [[]],
    }
    /// log(1 + e^(beta x)) / beta; x itself where beta x is above the threshold
    softplus(x; beta, threshold) {
        sig: Float, ulp: 6.0, wgsl: "select(softplus_(p0 * x) / p0, x, p0 * x > p1)",
        value: if beta * x > threshold { x } else { (beta * x).softplus() / beta },
        slopes: [Row("softplus_slope")],
        domain: [(-6.0, 6.0)], kinks: [5.0, 2.5], samples: [[1.0, 20.0], [2.0, 5.0]],
    }
    /// 1 / (1 + e^(-beta x)); 1 above the threshold
    softplus_slope(x; beta, threshold) {
        sig: Float, ulp: 6.0, wgsl: "select(sigmoid_(p0 * x), 1.0, p0 * x > p1)",
        value: if beta * x > threshold { T::ONE } else { (beta * x).sigmoid() },
        slopes: [Row("softplus_slope2")],
        domain: [(-6.0, 6.0)], kinks: [5.0, 2.5], samples: [[1.0, 20.0], [2.0, 5.0]],
    }
    /// beta s (1 - s) with s = 1 / (1 + e^(-beta x)); 0 above the threshold
    softplus_slope2(x; beta, threshold) {
        sig: Float, ulp: 8.0, wgsl: "select(p0 * sigmoid_(p0 * x) * sigmoid_(-p0 * x), 0.0, p0 * x > p1)",
        value: if beta * x > threshold { T::ZERO } else { beta * (beta * x).sigmoid() * (-beta * x).sigmoid() },
        slopes: [None],
        domain: [(-6.0, 6.0)], kinks: [5.0, 2.5], samples: [[1.0, 20.0], [2.0, 5.0]],
    }
    /// x / (1 + |x|)
    softsign(x) {
        sig: Float, ulp: 4.0, wgsl: "x / (1.0 + abs(x))",
        value: x / (T::ONE + x.abs()),
        slopes: [Row("softsign_slope")],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// 1 / (1 + |x|)²
    softsign_slope(x) {
        sig: Float, ulp: 6.0, wgsl: "1.0 / ((1.0 + abs(x)) * (1.0 + abs(x)))",
        value: T::ONE / ((T::ONE + x.abs()) * (T::ONE + x.abs())),
        slopes: [Row("softsign_slope2")],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[]],
    }
    /// -2 sign(x) / (1 + |x|)³
    softsign_slope2(x) {
        sig: Float, ulp: 8.0, wgsl: "-2.0 * sign_(x) / ((1.0 + abs(x)) * (1.0 + abs(x)) * (1.0 + abs(x)))",
        value: T::of(-2.0) * x.sign() / ((T::ONE + x.abs()) * (T::ONE + x.abs()) * (T::ONE + x.abs())),
        slopes: [None],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[]],
    }
    /// min(max(x + 3, 0), 6) / 6
    hardsigmoid(x) {
        sig: Float, ulp: 3.0, wgsl: "min_nan(max_nan(x + 3.0, 0.0), 6.0) / 6.0",
        value: (x + T::of(3.0)).max(T::ZERO).min(T::of(6.0)) / T::of(6.0),
        slopes: [Row("hardsigmoid_slope")],
        domain: [(-5.0, 5.0)], kinks: [-3.0, 3.0], samples: [[]],
    }
    /// 1/6 strictly between -3 and 3, else 0
    hardsigmoid_slope(x) {
        sig: Float, ulp: 1.0, wgsl: "select(0.0, 0.16666666666666666, x > -3.0 && x < 3.0)",
        value: if x > T::of(-3.0) && x < T::of(3.0) { T::of(1.0 / 6.0) } else { T::ZERO },
        slopes: [Zero],
        domain: [(-5.0, 5.0)], kinks: [-3.0, 3.0], samples: [[]],
    }
    /// x min(max(x + 3, 0), 6) / 6
    hardswish(x) {
        sig: Float, ulp: 4.0, wgsl: "x * min_nan(max_nan(x + 3.0, 0.0), 6.0) / 6.0",
        value: x * (x + T::of(3.0)).max(T::ZERO).min(T::of(6.0)) / T::of(6.0),
        slopes: [Row("hardswish_slope")],
        domain: [(-5.0, 5.0)], kinks: [-3.0, 3.0], samples: [[]],
    }
    /// 0 up to -3, 1 from 3 on, x/3 + 1/2 between
    hardswish_slope(x) {
        sig: Float, ulp: 3.0, wgsl: "select(select(x / 3.0 + 0.5, 1.0, x >= 3.0), 0.0, x <= -3.0)",
        value: if x <= T::of(-3.0) { T::ZERO } else if x >= T::of(3.0) { T::ONE } else { x / T::of(3.0) + T::of(0.5) },
        slopes: [Row("hardswish_slope2")],
        domain: [(-5.0, 5.0)], kinks: [-3.0, 3.0], samples: [[]],
    }
    /// 1/3 strictly between -3 and 3, else 0
    hardswish_slope2(x) {
        sig: Float, ulp: 1.0, wgsl: "select(0.0, 0.3333333333333333, x > -3.0 && x < 3.0)",
        value: if x > T::of(-3.0) && x < T::of(3.0) { T::of(1.0 / 3.0) } else { T::ZERO },
        slopes: [Zero],
        domain: [(-5.0, 5.0)], kinks: [-3.0, 3.0], samples: [[]],
    }
    /// x tanh(log(1 + e^x)) = x n / (n + 2) with n = e^x (e^x + 2)
    mish(x) {
        sig: Float, ulp: 8.0, wgsl: "mish_(x)",
        value: {
            let n = mish_inner(x);
            x * (n / (n + T::of(2.0)))
        },
        slopes: [Row("mish_slope")],
        domain: [(-6.0, 6.0)], kinks: [], samples: [[]],
    }
    /// t + x w s with t = n / (n + 2), w = 1 - t², s the sigmoid of x
    mish_slope(x) {
        sig: Float, ulp: 12.0, wgsl: "mish_slope_(x)",
        value: {
            let n = mish_inner(x);
            let m = n + T::of(2.0);
            n / m + x * (T::of(4.0) * (n + T::ONE) / (m * m)) * x.sigmoid()
        },
        slopes: [Row("mish_slope2")],
        domain: [(-6.0, 6.0)], kinks: [], samples: [[]],
    }
    /// w s (2 + x (1 - s - 2 t s))
    mish_slope2(x) {
        sig: Float, ulp: 16.0, wgsl: "mish_slope2_(x)",
        value: {
            let n = mish_inner(x);
            let m = n + T::of(2.0);
            let s = x.sigmoid();
            T::of(4.0) * (n + T::ONE) / (m * m) * s * (T::of(2.0) + x * (T::ONE - s - T::of(2.0) * (n / m) * s))
        },
        slopes: [None],
        domain: [(-6.0, 6.0)], kinks: [], samples: [[]],
    }
    /// x s with s = 1 / (1 + e^-x)
    silu(x) {
        sig: Float, ulp: 5.0, wgsl: "x * sigmoid_(x)",
        value: x * x.sigmoid(),
        slopes: [Row("silu_slope")],
        domain: [(-6.0, 6.0)], kinks: [], samples: [[]],
    }
    /// s (1 + x (1 - s))
    silu_slope(x) {
        sig: Float, ulp: 8.0, wgsl: "sigmoid_(x) * (1.0 + x * sigmoid_(-x))",
        value: x.sigmoid() * (T::ONE + x * (-x).sigmoid()),
        slopes: [Row("silu_slope2")],
        domain: [(-6.0, 6.0)], kinks: [], samples: [[]],
    }
    /// s (1 - s) (2 + x (1 - 2 s))
    silu_slope2(x) {
        sig: Float, ulp: 12.0, wgsl: "sigmoid_(x) * sigmoid_(-x) * (2.0 + x * (1.0 - 2.0 * sigmoid_(x)))",
        value: x.sigmoid() * (-x).sigmoid() * (T::of(2.0) + x * (T::ONE - T::of(2.0) * x.sigmoid())),
        slopes: [None],
        domain: [(-6.0, 6.0)], kinks: [], samples: [[]],
    }
    /// log(1 / (1 + e^-x))
    logsigmoid(x) {
        sig: Float, ulp: 4.0, wgsl: "-softplus_(-x)",
        value: -(-x).softplus(),
        slopes: [Row("logsigmoid_slope")],
        domain: [(-6.0, 6.0)], kinks: [], samples: [[]],
    }
    /// 1 / (1 + e^x)
    logsigmoid_slope(x) {
        sig: Float, ulp: 4.0, wgsl: "sigmoid_(-x)",
        value: (-x).sigmoid(),
        slopes: [Grad("o", |g| &(&(g.grad() * g.output()) * &g.output().rsub_scalar(1.0)) * -1.0)],
        domain: [(-6.0, 6.0)], kinks: [], samples: [[]],
    }
}

/// The normal density.
#[inline(always)]
fn density<T: super::Real>(x: T) -> T {
    T::of(0.3989422804014327) * (T::of(-0.5) * x * x).exp()
}

/// u of gelu's tanh form.
#[inline(always)]
fn gelu_inner<T: super::Real>(x: T) -> T {
    T::of(GELU_A) * (x + T::of(GELU_B) * x * x * x)
}

/// u'.
#[inline(always)]
fn gelu_inner_slope<T: super::Real>(x: T) -> T {
    T::of(GELU_A) * (T::ONE + T::of(3.0 * GELU_B) * x * x)
}

/// n = e^x (e^x + 2), so that tanh(log(1 + e^x)) = n / (n + 2). From 20 on that is 1 to the last bit, even in f64.
#[inline(always)]
fn mish_inner<T: super::Real>(x: T) -> T {
    let e = x.min(T::of(20.0)).exp();
    e * (e + T::of(2.0))
}
