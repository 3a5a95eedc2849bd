//! Functions of calculus: rows over floats.

use super::methods::apply;
use super::rows;

rows! {
    /// e^x
    exp(x) {
        sig: Float, ulp: 2.0, wgsl: "exp_(x)",
        value: x.exp(),
        slopes: [Grad("o", |g| g.grad() * g.output())],
        domain: [(-5.0, 3.0)], kinks: [], samples: [[]],
    }
    /// e^x - 1
    expm1(x) {
        sig: Float, ulp: 3.0, wgsl: "expm1_(x)",
        value: x.exp_m1(),
        slopes: [Grad("o", |g| g.grad() * &g.output().add_scalar(1.0))],
        domain: [(-5.0, 3.0)], kinks: [], samples: [[]],
    }
    /// log x
    log(x) {
        sig: Float, ulp: 2.0, wgsl: "log_(x)",
        value: x.ln(),
        slopes: [Grad("x", |g| g.grad() / g.input(0))],
        domain: [(0.05, 5.0)], kinks: [], samples: [[]],
    }
    /// log(1 + x)
    log1p(x) {
        sig: Float, ulp: 3.0, wgsl: "log1p_(x)",
        value: x.ln_1p(),
        slopes: [Grad("x", |g| g.grad() / &g.input(0).add_scalar(1.0))],
        domain: [(-0.9, 4.0)], kinks: [], samples: [[]],
    }
    /// sin x
    sin(x) {
        sig: Float, ulp: 3.0, wgsl: "sin_(x)",
        value: x.sin(),
        slopes: [Row("cos")],
        domain: [(-7.0, 7.0)], kinks: [], samples: [[]],
    }
    /// cos x
    cos(x) {
        sig: Float, ulp: 3.0, wgsl: "cos_(x)",
        value: x.cos(),
        slopes: [Grad("x", |g| (g.grad() * &g.input(0).sin()).neg())],
        domain: [(-7.0, 7.0)], kinks: [], samples: [[]],
    }
    /// tanh x
    tanh(x) {
        sig: Float, ulp: 3.0, wgsl: "tanh_(x)",
        value: x.tanh(),
        slopes: [Grad("o", |g| g.grad() * &g.output().square().rsub_scalar(1.0))],
        domain: [(-4.0, 4.0)], kinks: [], samples: [[]],
    }
    /// 1 / (1 + e^-x)
    sigmoid(x) {
        sig: Float, ulp: 4.0, wgsl: "sigmoid_(x)",
        value: x.sigmoid(),
        slopes: [Grad("o", |g| &(g.grad() * g.output()) * &g.output().rsub_scalar(1.0))],
        domain: [(-6.0, 6.0)], kinks: [], samples: [[]],
    }
    /// The error function, 2/√π ∫ e^-t² dt from 0 to x
    erf(x) {
        sig: Float, ulp: 3.0, wgsl: "erf_(x)",
        value: x.erf(),
        slopes: [Row("erf_slope")],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// 2/√π e^-x²
    erf_slope(x) {
        sig: Float, ulp: 4.0, wgsl: "1.12837917 * exp_(-x * x)",
        value: T::of(std::f64::consts::FRAC_2_SQRT_PI) * (-x * x).exp(),
        slopes: [Grad("xo", |g| &(&(g.grad() * g.output()) * g.input(0)) * -2.0)],
        domain: [(-2.0, 2.0)], kinks: [], samples: [[]],
    }
    /// √x
    sqrt(x) {
        sig: Float, ulp: 3.0, wgsl: "sqrt(x)",
        value: x.sqrt(),
        slopes: [Grad("o", |g| &(g.grad() / g.output()) * 0.5)],
        domain: [(0.05, 5.0)], kinks: [], samples: [[]],
    }
    /// 1 / √x
    rsqrt(x) {
        sig: Float, ulp: 4.0, wgsl: "inverseSqrt(x)",
        value: T::ONE / x.sqrt(),
        slopes: [Grad("o", |g| &(&(g.grad() * g.output()) * &g.output().square()) * -0.5)],
        domain: [(0.05, 5.0)], kinks: [], samples: [[]],
    }
    /// 1 / x
    reciprocal(x) {
        sig: Float, ulp: 3.0, wgsl: "1.0 / x",
        value: T::ONE / x,
        slopes: [Grad("o", |g| (g.grad() * &g.output().square()).neg())],
        domain: [(0.3, 3.0)], kinks: [], samples: [[]],
    }
    /// The largest integer not above x
    floor(x) {
        sig: Float, ulp: 0.0, wgsl: "floor(x)",
        value: x.floor(), slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [-2.0, -1.0, 0.0, 1.0, 2.0], samples: [[]],
    }
    /// The smallest integer not below x
    ceil(x) {
        sig: Float, ulp: 0.0, wgsl: "ceil(x)",
        value: x.ceil(), slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [-2.0, -1.0, 0.0, 1.0, 2.0], samples: [[]],
    }
    /// x without its fraction
    trunc(x) {
        sig: Float, ulp: 0.0, wgsl: "trunc_(x)",
        value: x.trunc(), slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [-2.0, -1.0, 0.0, 1.0, 2.0], samples: [[]],
    }
    /// The nearest integer, halves to even
    round(x) {
        sig: Float, ulp: 0.0, wgsl: "round_(x)",
        value: x.round(), slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], samples: [[]],
    }
    /// x^y; the gradient by y is 0 where x is 0
    pow(x, y) {
        sig: Float, ulp: 4.0, wgsl: "pow_(x, y)",
        value: x.powf(y),
        slopes: [Row("pow_by_base"), Row("pow_by_exponent")],
        domain: [(0.2, 3.0), (-2.0, 2.5)], kinks: [], samples: [[]],
    }
    /// y x^(y - 1); 0 where y is 0
    pow_by_base(x, y) {
        sig: Float, ulp: 5.0, wgsl: "select(y * pow_(x, y - 1.0), 0.0, y == 0.0)",
        value: if y == T::ZERO { T::ZERO } else { y * x.powf(y - T::ONE) },
        slopes: [
            Grad("xy", |g| &(g.grad() * g.input(1)) * &apply("pow_by_base", &[], &[g.input(0), &g.input(1).add_scalar(-1.0)])),
            Grad("xy", |g| g.grad() * &pow_mixed(g.input(0), g.input(1)))
        ],
        domain: [(0.2, 3.0), (0.3, 2.5)], kinks: [], samples: [[]],
    }
    /// x^y log x; 0 where x is 0 and y is not negative
    pow_by_exponent(x, y) {
        sig: Float, ulp: 8.0, wgsl: "select(pow_(x, y) * log_(x), 0.0, x == 0.0 && y >= 0.0)",
        value: if x == T::ZERO && y >= T::ZERO { T::ZERO } else { x.powf(y) * x.ln() },
        slopes: [
            Grad("xy", |g| g.grad() * &pow_mixed(g.input(0), g.input(1))),
            Grad("xo", |g| &(g.grad() * g.output()) * &g.input(0).log())
        ],
        domain: [(0.2, 3.0), (-2.0, 2.5)], kinks: [], samples: [[]],
    }
    /// x^p for a scalar p
    pow_scalar(x; p) {
        sig: Float, ulp: 4.0, wgsl: "pow_(x, p0)",
        value: x.powf(p),
        slopes: [Row("pow_scalar_slope")],
        domain: [(0.1, 3.0)], kinks: [], samples: [[1.7], [-1.5], [0.5]],
    }
    /// p x^(p - 1); 0 where p is 0
    pow_scalar_slope(x; p) {
        sig: Float, ulp: 5.0, wgsl: "select(p0 * pow_(x, p0 - 1.0), 0.0, p0 == 0.0)",
        value: if p == T::ZERO { T::ZERO } else { p * x.powf(p - T::ONE) },
        slopes: [Grad("x", |g| power_slope("pow_scalar_slope", g))],
        domain: [(0.1, 3.0)], kinks: [], samples: [[1.7], [-1.5], [0.5]],
    }
    /// x^n for an integer n, which stands in a float slot
    powi(x; n) {
        sig: Float, ulp: 4.0, wgsl: "pow_(x, p0)",
        value: x.powf(n),
        slopes: [Row("powi_slope")],
        domain: [(-2.0, -0.3)], kinks: [], samples: [[3.0], [-2.0], [1.0], [4.0]],
    }
    /// n x^(n - 1); 0 where n is 0
    powi_slope(x; n) {
        sig: Float, ulp: 5.0, wgsl: "select(p0 * pow_(x, p0 - 1.0), 0.0, p0 == 0.0)",
        value: if n == T::ZERO { T::ZERO } else { n * x.powf(n - T::ONE) },
        slopes: [Grad("x", |g| power_slope("powi_slope", g))],
        domain: [(-2.0, -0.3)], kinks: [], samples: [[3.0], [-2.0], [1.0], [4.0]],
    }
}

/// d/dx d/dy x^y = x^(y - 1) (1 + y log x), written as x^(y - 1) + y (x^(y - 1) log x), so that a base of 0 gives no 0 times infinity.
fn pow_mixed(x: &crate::graph::Tensor, y: &crate::graph::Tensor) -> crate::graph::Tensor {
    let below = y.add_scalar(-1.0);
    &x.pow(&below) + &(y * &apply("pow_by_exponent", &[], &[x, &below]))
}

/// d/dx p x^(p - 1) is p times the same row at p - 1. Where p is 0 the row is 0 and so is this.
fn power_slope(name: &str, g: &super::RowGrad<'_>) -> crate::graph::Tensor {
    let p = g.float(0);
    let below = if p == 0.0 { 0.0 } else { p - 1.0 };
    g.grad() * &apply(name, &[below], &[g.input(0)]).mul_scalar(p)
}
