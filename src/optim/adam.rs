//! Adam and AdamW.

use super::optimizer::{Core, OverArenas};
use super::update::{Rule, block};
use crate::error::{Error, Result};
use crate::nn::Param;

/// Options of [`Adam`] and [`AdamW`], with PyTorch's defaults (AdamW's `weight_decay` there is 0.01).
#[derive(Clone, Debug, PartialEq)]
pub struct AdamOptions {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first and second moment.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Adam: L2 penalty in the gradient. AdamW: decay of the parameters themselves.
    pub weight_decay: f64,
    /// Divide by the largest second moment so far (Reddi et al., "On the Convergence of Adam and Beyond", 2018).
    pub amsgrad: bool,
}

impl Default for AdamOptions {
    fn default() -> Self {
        AdamOptions { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, amsgrad: false }
    }
}

// Floats of a group: step size, L2, decay factor, eps; beta1, beta2, step, root of the second correction; 1 - beta1, 1 - beta2, log beta1, log beta2.
macro_rules! formula {
    ($t:ty, $ams:expr) => {
        |f: &[$t], g: $t, p: $t, s: &mut [$t]| {
            let x = p * f[2];
            let d = g + f[1] * p;
            s[0] = f[4] * s[0] + f[8] * d;
            s[1] = f[5] * s[1] + f[9] * d * d;
            let second = if $ams {
                s[2] = s[2].max(s[1]);
                s[2]
            } else {
                s[1]
            };
            x - f[0] * s[0] / (second.sqrt() / f[7] + f[3])
        }
    };
}

macro_rules! rule {
    ($name:literal, states: $states:expr, amsgrad: $ams:literal, $second:literal) => {
        Rule {
            name: $name,
            states: $states,
            floats: 12,
            f64: formula!(f64, $ams),
            block: |f, k, g, p, s| block::<12, { $states.len() }>(formula!(f32, $ams), f, k, g, p, s),
            correct: |f, skipped| {
                let grown = |log: f64| (f[6] * log).exp_m1() / ((f[6] - skipped) * log).exp_m1();
                let (first, second) = (grown(f[10]), grown(f[11]));
                f[0] *= first;
                f[7] /= second.sqrt();
            },
            wgsl: [
                concat!(
                    "
    let x = p * f[0].z;
    let d = g + f[0].y * p;
    let m = f[1].x * s0[i] + f[2].x * d;
    let v = f[1].y * s1[i] + f[2].y * d * d;
    s0[i] = m;
    s1[i] = v;
    ",
                    $second,
                    "
    return x - f[0].x * m / (sqrt(second) / f[1].w + f[0].w);"
                ),
                // Bias corrections with the steps that were taken, as ratios to those with all of them: `1 - b^t` is `-expm1(t log b)`.
                "
    let logs = f[2].zw;
    let counted = vec2<f32>(expm1_(f[1].z * logs.x), expm1_(f[1].z * logs.y));
    let taken = f[1].z - skipped;
    let right = vec2<f32>(expm1_(taken * logs.x), expm1_(taken * logs.y));
    f[0].x *= counted.x / right.x;
    f[1].w *= sqrt(right.y / counted.y);",
            ],
        }
    };
}

static ADAM: Rule = rule!("adam", states: &["exp_avg", "exp_avg_sq"], amsgrad: false, "let second = v;");
static AMSGRAD: Rule =
    rule!("adam_amsgrad", states: &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"], amsgrad: true, "let second = max(s2[i], v); s2[i] = second;");

/// Refuse options that are negative or not finite.
pub(super) fn check_range(name: &str, options: &[(&str, f64)]) -> Result<()> {
    match options.iter().find(|(_, v)| !(*v >= 0.0 && v.is_finite())) {
        Some((what, v)) => Err(Error::invalid(format!("{name}: {what} must be at least 0, got {v}"))),
        None => Ok(()),
    }
}

macro_rules! adams {
    ($(#[$doc:meta])* $name:ident, $lower:literal, decoupled: $decoupled:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            core: Core,
            /// As given; the rate now is the core's.
            options: AdamOptions,
        }

        impl $name {
            /// An optimizer of `params`.
            pub fn new(params: Vec<Param>, options: AdamOptions) -> Result<$name> {
                let (b1, b2) = options.betas;
                check_range($lower, &[("lr", options.lr), ("eps", options.eps), ("weight_decay", options.weight_decay), ("beta1", b1), ("beta2", b2)])?;
                if b1 >= 1.0 || b2 >= 1.0 {
                    return Err(Error::invalid(format!("{}: betas must be below 1, got {b1} and {b2}", $lower)));
                }
                let rule = if options.amsgrad { &AMSGRAD } else { &ADAM };
                let groups = vec![0; params.len()];
                Ok($name { core: Core::new(rule, params, groups, options.lr)?, options })
            }
        }

        impl OverArenas for $name {
            fn core(&self) -> &Core {
                &self.core
            }

            fn core_mut(&mut self) -> &mut Core {
                &mut self.core
            }

            fn floats(&self, lr: f64, step: u64) -> Vec<f64> {
                let o = &self.options;
                let (b1, b2) = o.betas;
                let t = step as f64;
                let (l2, factor) = if $decoupled { (0.0, 1.0 - lr * o.weight_decay) } else { (o.weight_decay, 1.0) };
                let (first, second) = (1.0 - b1.powf(t), (1.0 - b2.powf(t)).sqrt());
                // Finite in f32 also where a decay is 0.
                let (log1, log2) = (b1.ln().max(-1e4), b2.ln().max(-1e4));
                vec![lr / first, l2, factor, o.eps, b1, b2, t, second, 1.0 - b1, 1.0 - b2, log1, log2]
            }
        }
    };
}

adams!(
    /// Adam, as `torch.optim.Adam` (Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015).
    Adam,
    "adam",
    decoupled: false
);

adams!(
    /// Adam with decoupled weight decay, as `torch.optim.AdamW` (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019).
    AdamW,
    "adamw",
    decoupled: true
);
