//! Losses as modules of their settings: what PyTorch calls criteria.
//!
//! ```
//! use wgrad::nn::CrossEntropyLoss;
//! use wgrad::ops::CrossEntropy;
//! use wgrad::{Device, Tensor};
//! let device = Device::cpu()?;
//! let logits = Tensor::new([2.0f32, 0.0, 0.0, 2.0], [2, 2], &device)?;
//! let classes = Tensor::new([0, 1], [2], &device)?;
//! let criterion = CrossEntropyLoss(CrossEntropy { label_smoothing: 0.1, ..Default::default() });
//! assert!((criterion.forward(&logits, &classes).item()? - 0.2269).abs() < 1e-4);
//! # Ok::<(), wgrad::Error>(())
//! ```

use crate::error::Result;
use crate::graph::Tensor;
use crate::ops::{CrossEntropy, Reduction};

/// Each loss: what it holds, and the operation.
macro_rules! losses {
    ($($(#[$doc:meta])* $loss:ident($settings:ty): |$self:ident, $x:ident, $target:ident| $call:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $loss(
            /// Its settings; the defaults are PyTorch's.
            pub $settings,
        );

        impl $loss {
            /// The loss of `x` against `target`.
            ///
            /// # Panics
            /// Where they do not fit; `try_forward` is the fallible form.
            #[track_caller]
            pub fn forward(&self, x: &Tensor, target: &Tensor) -> Tensor {
                match self.try_forward(x, target) {
                    Ok(loss) => loss,
                    Err(e) => panic!("{e}"),
                }
            }

            /// The loss of `x` against `target`.
            ///
            /// # Errors
            /// Where they do not fit, and settings out of range.
            pub fn try_forward(&$self, $x: &Tensor, $target: &Tensor) -> Result<Tensor> {
                $call
            }
        }
    )*};
}

losses! {
    /// The cross entropy of logits `[n, c, ..]` against classes `[n, ..]` (i32): the negative log of the class's softmax.
    CrossEntropyLoss(CrossEntropy): |self, x, target| x.cross_entropy_with(target, &self.0);
    /// The negative of the class's log-probability: log-probabilities `[n, c, ..]` against classes `[n, ..]` (i32).
    NLLLoss(CrossEntropy): |self, x, target| x.nll_loss_with(target, &self.0);
    /// The squared difference from a target of the same shape.
    MSELoss(Reduction): |self, x, target| x.try_mse_loss(target, self.0);
}
