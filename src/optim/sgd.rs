//! Stochastic gradient descent, with momentum and Nesterov's form of it.

use super::optimizer::{Core, OverArenas};
use super::update::{Rule, block};
use crate::error::{Error, Result};
use crate::nn::Param;

/// Options of [`Sgd`]; the defaults are PyTorch's, but for the learning rate, which has none there.
#[derive(Clone, Debug, PartialEq)]
pub struct SgdOptions {
    /// Learning rate.
    pub lr: f64,
    /// Momentum; 0 keeps no state.
    pub momentum: f64,
    /// How much of the gradient the buffer does not take in.
    pub dampening: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// Nesterov's momentum (Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013).
    pub nesterov: bool,
}

impl Default for SgdOptions {
    fn default() -> Self {
        SgdOptions { lr: 1e-3, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false }
    }
}

/// Stochastic gradient descent, as `torch.optim.SGD`.
///
/// ```
/// use wgrad::{Device, Tensor, nn::Param, optim::{Optimizer, Sgd, SgdOptions}};
/// let w = Param::new(&Tensor::new([1.0f32], [1], &Device::cpu()?)?)?;
/// let mut sgd = Sgd::new(vec![w.clone()], SgdOptions { lr: 0.5, ..Default::default() })?;
/// w.tensor().square().sum_all().backward()?;
/// sgd.step()?;
/// assert_eq!(w.tensor().item()?, 0.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Debug)]
pub struct Sgd {
    core: Core,
    /// As given; the rate now is the core's.
    options: SgdOptions,
}

// Floats of a group: lr, weight decay, share of the buffer kept, share of the gradient taken in; weights of gradient and buffer in the step, and
// which step it is.
macro_rules! plain {
    ($t:ty) => {
        |f: &[$t], g: $t, p: $t, _: &mut [$t]| p - f[0] * (g + f[1] * p)
    };
}

macro_rules! momentum {
    ($t:ty) => {
        |f: &[$t], g: $t, p: $t, s: &mut [$t]| {
            let d = g + f[1] * p;
            s[0] = f[2] * s[0] + f[3] * d;
            p - f[0] * (f[4] * d + f[5] * s[0])
        }
    };
}

static PLAIN: Rule = Rule {
    name: "sgd",
    states: &[],
    floats: 8,
    f64: plain!(f64),
    block: |f, k, g, p, s| block::<8, 0>(plain!(f32), f, k, g, p, s),
    correct: |_, _| {},
    wgsl: ["return p - f[0].x * (g + f[0].y * p);", ""],
};

static MOMENTUM: Rule = Rule {
    name: "sgd_momentum",
    states: &["momentum_buffer"],
    floats: 8,
    f64: momentum!(f64),
    block: |f, k, g, p, s| block::<8, 1>(momentum!(f32), f, k, g, p, s),
    correct: |f, skipped| {
        if f[6] - skipped == 1.0 {
            (f[2], f[3]) = (0.0, 1.0);
        }
    },
    wgsl: [
        "
    let d = g + f[0].y * p;
    let m = f[0].z * s0[i] + f[0].w * d;
    s0[i] = m;
    return p - f[0].x * (f[1].x * d + f[1].y * m);",
        "
    if f[1].z - skipped == 1.0 {
        f[0] = vec4<f32>(f[0].xy, 0.0, 1.0);
    }",
    ],
};

impl Sgd {
    /// An optimizer of `params`.
    pub fn new(params: Vec<Param>, options: SgdOptions) -> Result<Sgd> {
        if options.nesterov && (options.momentum <= 0.0 || options.dampening != 0.0) {
            return Err(Error::invalid("sgd: nesterov needs a momentum above 0 and no dampening"));
        }
        super::adam::check_range("sgd", &[("lr", options.lr), ("momentum", options.momentum), ("weight_decay", options.weight_decay)])?;
        let rule = if options.momentum == 0.0 { &PLAIN } else { &MOMENTUM };
        let groups = vec![0; params.len()];
        Ok(Sgd { core: Core::new(rule, params, groups, options.lr)?, options })
    }
}

impl OverArenas for Sgd {
    fn core(&self) -> &Core {
        &self.core
    }

    fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    fn floats(&self, lr: f64, step: u64) -> Vec<f64> {
        let o = &self.options;
        // The first gradient fills the buffer whole, as in PyTorch.
        let (keep, take) = if step == 1 { (0.0, 1.0) } else { (o.momentum, 1.0 - o.dampening) };
        let (direct, buffered) = if o.nesterov { (1.0, o.momentum) } else { (0.0, 1.0) };
        vec![lr, o.weight_decay, keep, take, direct, buffered, step as f64, 0.0]
    }
}
