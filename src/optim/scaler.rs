//! Dynamic loss scaling: gradients of a scaled loss stay clear of the smallest halves, and a step whose gradients overflowed is skipped.

use super::Optimizer;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::{Engine, Phase, Tensor, no_grad, with_phase};
use crate::nn::{Buffer, Param};
use std::sync::Arc;

/// Options of a [`GradScaler`], with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradScalerOptions {
    /// The first scale. A power of two loses nothing.
    pub init_scale: f64,
    /// What the scale is multiplied with after `growth_interval` steps without overflow.
    pub growth_factor: f64,
    /// What it is multiplied with after an overflow.
    pub backoff_factor: f64,
    /// How many steps in a row must be finite for it to grow.
    pub growth_interval: u32,
}

impl Default for GradScalerOptions {
    fn default() -> Self {
        GradScalerOptions { init_scale: 65536.0, growth_factor: 2.0, backoff_factor: 0.5, growth_interval: 2000 }
    }
}

impl GradScalerOptions {
    /// Refuse what cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: &str, v: f64| Err(Error::invalid(format!("grad_scaler: {what}, got {v}")));
        let o = self;
        if !(o.init_scale > 0.0 && (o.init_scale as f32).is_finite()) {
            return wrong("init_scale must be above 0 and finite in f32", o.init_scale);
        }
        if !(o.growth_factor >= 1.0 && o.growth_factor.is_finite()) {
            return wrong("growth_factor must be at least 1", o.growth_factor);
        }
        if !(o.backoff_factor > 0.0 && o.backoff_factor < 1.0) {
            return wrong("backoff_factor must be between 0 and 1", o.backoff_factor);
        }
        if o.growth_interval == 0 {
            return wrong("growth_interval must be at least 1", 0.0);
        }
        Ok(())
    }
}

/// Scales a loss, and steps an optimizer with the gradients scaled back; as `torch.amp.GradScaler`, with `step` and `update` in one.
///
/// All it knows is on the device: no step waits for the host. A step whose gradients are not all finite changes neither parameters nor the optimizer's state,
/// and does not count in it.
///
/// ```
/// use wgrad::{autocast, DType, Device, Tensor, nn::Param, optim::{GradScaler, GradScalerOptions, Sgd, SgdOptions}};
/// let device = Device::cpu()?;
/// let w = Param::new(&Tensor::ones([4, 1], &device))?;
/// let mut sgd = Sgd::new(vec![w.clone()], SgdOptions { lr: 0.5, ..Default::default() })?;
/// // This loss has a gradient of 1: times the usual first scale, 65,536, a half would not hold it, and the first step would be skipped.
/// let mut scaler = GradScaler::new(GradScalerOptions { init_scale: 1024.0, ..Default::default() }, &device)?;
/// let x = Tensor::ones([1, 4], &device);
/// let loss = autocast(DType::F16, || x.matmul(&w.tensor()).sum_all());
/// scaler.scale(&loss)?.backward()?;
/// scaler.step(&mut sgd)?;
/// assert_eq!(w.tensor().to_vec::<f32>()?, [0.5; 4]);
/// assert_eq!(scaler.skipped()?, 0);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// Source: Micikevicius et al., "Mixed Precision Training", 2018.
#[derive(Debug)]
pub struct GradScaler {
    options: GradScalerOptions,
    /// Scale, finite steps since it last changed, steps skipped, nothing: `[4]`.
    state: Buffer,
    engine: Arc<Engine>,
    /// Whether the gradients of this step were scaled back already.
    unscaled: bool,
}

impl GradScaler {
    /// A scaler on `device`.
    ///
    /// # Errors
    /// Options out of range.
    pub fn new(options: GradScalerOptions, device: &Device) -> Result<GradScaler> {
        options.check()?;
        let state = Tensor::new([options.init_scale as f32, 0.0, 0.0, 0.0], [4], device)?;
        Ok(GradScaler { options, state: Buffer::new(&state), engine: state.engine().clone(), unscaled: false })
    }

    /// The loss times the scale: what to call `backward` on.
    pub fn scale(&self, loss: &Tensor) -> Result<Tensor> {
        let state = self.state.tensor();
        let scale = state.try_narrow(0, 0, 1)?.try_reshape(vec![1; loss.rank()])?;
        Tensor::apply_row("mul", &[], &[&loss.try_to_dtype(state.dtype())?, &scale])
    }

    /// Divide the gradients of `params` by the scale now, for whoever wants to look at them or clip them before the step.
    pub fn unscale(&mut self, params: &[Param]) -> Result<()> {
        if std::mem::replace(&mut self.unscaled, true) {
            return Err(Error::invalid("grad_scaler: the gradients of this step are unscaled already"));
        }
        no_grad(|| {
            let inverse = Tensor::apply_row("reciprocal", &[], &[&self.state.tensor().try_narrow(0, 0, 1)?])?;
            for p in params {
                if let Some(g) = p.grad() {
                    p.set_grad(Some(Tensor::apply_row("mul", &[], &[&g, &inverse.try_reshape(vec![1; g.rank()])?.try_to_dtype(g.dtype())?])?));
                }
            }
            Ok(())
        })
    }

    /// Give every parameter of `optimizer` that has a gradient its new value, or skip that where a gradient is not finite; then set the scale for the next
    /// step. One submit, as [`Optimizer::step`].
    ///
    /// # Errors
    /// Those of [`Optimizer::step`]; an optimizer on another device.
    pub fn step(&mut self, optimizer: &mut dyn Optimizer) -> Result<()> {
        optimizer.step_scaled(self)
    }

    /// The scale now, read from the device.
    pub fn get_scale(&self) -> Result<f64> {
        Ok(f64::from(self.state.tensor().to_vec::<f32>()?[0]))
    }

    /// How many steps were skipped, read from the device.
    pub fn skipped(&self) -> Result<u64> {
        Ok(self.state.tensor().to_vec::<f32>()?[2] as u64)
    }

    /// Its state by name, for checkpoints.
    pub fn state_dict(&self) -> Result<Vec<(String, Tensor)>> {
        Ok(vec![("state".into(), Tensor::new(self.state.tensor().to_data()?, [4], &self.engine.device)?)])
    }

    /// Take a state that [`GradScaler::state_dict`] gave.
    ///
    /// # Errors
    /// Where it is no such state.
    pub fn load_state_dict(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        let found = state.iter().find(|(name, _)| name == "state").map(|(_, t)| t);
        let t = found.ok_or_else(|| Error::invalid("grad_scaler: the state has no state"))?;
        if t.meta() != self.state.meta() {
            return Err(Error::shape(format!("grad_scaler: state is {}, must be {}", t.meta(), self.state.meta())));
        }
        let values = t.to_vec::<f32>()?;
        if !(values[0] > 0.0 && values.iter().all(|v| v.is_finite())) {
            return Err(Error::invalid(format!("grad_scaler: this is no state of one: {values:?}")));
        }
        // A buffer of its own, as every state has: the plan of a step stays the one it was.
        self.unscaled = false;
        self.state.assign(&Tensor::new(values, [4], &self.engine.device)?)
    }

    /// Scale, finite steps since it last changed, steps skipped, nothing: `[4]`.
    pub(crate) fn state(&self) -> &Buffer {
        &self.state
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// All gradients are forgotten, scaled back or not.
    pub(crate) fn forget(&mut self) {
        self.unscaled = false;
    }

    /// The slots of [`FoundInf`](super::found_inf::FoundInf).
    pub(super) fn floats(&self) -> [f64; 4] {
        let o = &self.options;
        [o.growth_factor, o.backoff_factor, f64::from(o.growth_interval), f64::from(u8::from(self.unscaled))]
    }

    /// The step was taken, or skipped.
    pub(super) fn advance(&mut self, next: &Tensor) -> Result<()> {
        self.unscaled = false;
        self.state.assign(next)
    }
}

/// Record in the phase of updates.
pub(super) fn in_update<R>(f: impl FnOnce() -> R) -> R {
    with_phase(Phase::Update, f)
}
