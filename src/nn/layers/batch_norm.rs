//! Batch normalisation.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::nn::module::single_of;
use crate::nn::table::{Key, KeyDefault::*, Spec, key};
use crate::nn::{Buffer, LayerEntry, Mode, Module, Param, Visitor, init};
use crate::ops;
use crate::tensor::{DType, Meta};

/// Settings of a batch norm, with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNormConfig {
    /// Added to the variance before its root is taken.
    pub eps: f64,
    /// How much of a batch's statistics goes into the running ones.
    pub momentum: f64,
    /// Whether each channel has a trained scale and shift.
    pub affine: bool,
}

impl Default for BatchNormConfig {
    fn default() -> BatchNormConfig {
        BatchNormConfig { eps: 1e-5, momentum: 0.1, affine: true }
    }
}

/// What both kinds are: they differ in the shapes they take.
#[derive(Debug)]
struct BatchNorm {
    config: BatchNormConfig,
    /// Scale and shift, `[c]` each.
    affine: Option<(Param, Param)>,
    running_mean: Buffer,
    running_var: Buffer,
    mode: Mode,
}

impl BatchNorm {
    fn new(name: &str, channels: usize, config: BatchNormConfig, device: &Device) -> Result<BatchNorm> {
        if !(config.eps >= 0.0 && config.eps.is_finite()) {
            return Err(Error::invalid(format!("{name}: eps must be a number from 0 on: {}", config.eps)));
        }
        if !(0.0..=1.0).contains(&config.momentum) {
            return Err(Error::invalid(format!("{name}: momentum must be from 0 to 1: {}", config.momentum)));
        }
        let (zeros, ones) = (init::zeros([channels], device)?, init::ones([channels], device)?);
        let affine = if config.affine { Some((Param::new(&ones)?, Param::new(&zeros)?)) } else { None };
        let (running_mean, running_var) = (Buffer::new(&zeros), Buffer::new(&ones));
        Ok(BatchNorm { config, affine, running_mean, running_var, mode: Mode::default() })
    }

    fn channels(&self) -> usize {
        self.running_mean.shape()[0]
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let training = self.mode.is_training();
        let BatchNormConfig { eps, momentum, .. } = self.config;
        let affine = self.affine.as_ref().map(|(w, b)| [w.tensor(), b.tensor()]);
        let (mean, var) = (self.running_mean.tensor(), self.running_var.tensor());
        let options = ops::BatchNorm { training, momentum, eps };
        let (y, moved) = x.try_batch_norm(Some([&mean, &var]), affine.as_ref().map(|[w, b]| [w, b]), &options)?;
        if let Some([mean, var]) = moved.filter(|_| training) {
            self.running_mean.assign(&mean)?;
            self.running_var.assign(&var)?;
        }
        Ok(y)
    }

    fn check(&self, name: &str, ranks: &[usize], inputs: &[Meta]) -> Result<Meta> {
        let input = single_of(name, self.running_mean.meta().dtype, inputs)?;
        if !ranks.contains(&input.shape.rank()) {
            return Err(Error::shape(format!("{name}: takes {}, the input has shape {}", layouts(ranks), input.shape)));
        }
        if input.shape[1] != self.channels() {
            return Err(Error::shape(format!("{name}: input has {} channels, the layer takes {}: shape {}", input.shape[1], self.channels(), input.shape)));
        }
        Ok(*input)
    }

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a>) {
        if let Some((weight, bias)) = &self.affine {
            visitor.param("weight", weight);
            visitor.param("bias", bias);
        }
        visitor.buffer("running_mean", &self.running_mean);
        visitor.buffer("running_var", &self.running_var);
        // PyTorch counts the batches for a kind of average that this layer does not offer.
        visitor.foreign("num_batches_tracked");
    }

    fn extra(&self) -> String {
        let (c, usual) = (self.config, BatchNormConfig::default());
        let mut text = self.channels().to_string();
        for (name, value, usual) in [("eps", c.eps, usual.eps), ("momentum", c.momentum, usual.momentum)] {
            if value != usual {
                text += &format!(", {name}={value}");
            }
        }
        if !c.affine {
            text += ", affine=false";
        }
        text
    }
}

fn layouts(ranks: &[usize]) -> String {
    let names = ["[batch, channels]", "[batch, channels, length]", "[batch, channels, height, width]"];
    ranks.iter().map(|r| names[r - 2]).collect::<Vec<_>>().join(" or ")
}

const KEYS: &[Key] = &[key("num_features", Inferred), key("eps", Number(1e-5)), key("momentum", Number(0.1)), key("affine", Bool(true))];

macro_rules! batch_norms {
    ($($(#[$doc:meta])* $layer:ident, $name:literal, ranks $ranks:expr, $line:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $layer(BatchNorm);

            impl $layer {
                /// For inputs of `num_features` channels: scale 1, shift 0, running mean 0 and running variance 1.
                pub fn new(num_features: usize, device: &Device) -> Result<$layer> {
                    $layer::with_config(num_features, BatchNormConfig::default(), device)
                }

                /// The same with other settings.
                ///
                /// # Errors
                /// Settings out of range, and memory.
                pub fn with_config(num_features: usize, config: BatchNormConfig, device: &Device) -> Result<$layer> {
                    Ok($layer(BatchNorm::new($name, num_features, config, device)?))
                }
            }

            impl Module for $layer {
                fn name(&self) -> &'static str {
                    $name
                }
                fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
                    self.0.forward(x)
                }
                fn check(&self, inputs: &[Meta]) -> Result<Meta> {
                    self.0.check($name, $ranks, inputs)
                }
                fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a>) {
                    self.0.visit(visitor);
                }
                fn on_training(&self, on: bool) {
                    self.0.mode.set(on);
                }
                fn extra(&self) -> String {
                    self.0.extra()
                }
            }
        )*

        pub(super) static LAYERS: &[LayerEntry] = &[$(LayerEntry {
            name: $name,
            doc: $line,
            keys: KEYS,
            build: |spec: &Spec<'_>| {
                let channels = spec.input.shape.get(1).copied();
                let num_features = match spec.size_or_inferred("num_features", 1)?.or(channels) {
                    Some(n) => n,
                    None => return Err(Error::shape(format!("takes {}, the input has shape {}", layouts($ranks), spec.input.shape))),
                };
                super::super::module::output($name, DType::F32, &[num_features])?;
                let config = BatchNormConfig { eps: spec.float("eps")?, momentum: spec.float("momentum")?, affine: spec.flag("affine")? };
                Ok(Box::new($layer::with_config(num_features, config, spec.device)?))
            },
        }),*];
    };
}

batch_norms! {
    /// Normalises each channel over the batch (and the length): `[n, c]` or `[n, c, l]`. In training by the batch's mean and variance, which it averages for
    /// evaluation; saved as `weight`, `bias`, `running_mean`, `running_var`.
    BatchNorm1d, "batch_norm1d", ranks &[2, 3], "normalises each channel over the batch: [n, c] or [n, c, l]";
    /// Normalises each channel over the batch and the image: `[n, c, h, w]`. In training by the batch's mean and variance, which it averages for evaluation;
    /// saved as `weight`, `bias`, `running_mean`, `running_var`.
    ///
    /// ```
    /// use wgrad::nn::{BatchNorm2d, Module};
    /// let norm = BatchNorm2d::new(8, &wgrad::Device::cpu()?)?;
    /// let names: Vec<String> = norm.state_dict().into_iter().map(|(name, _)| name).collect();
    /// assert_eq!(names, ["weight", "bias", "running_mean", "running_var"]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    BatchNorm2d, "batch_norm2d", ranks &[4], "normalises each channel over batch and image: [n, c, h, w]";
}
