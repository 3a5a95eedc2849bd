//! Losses as values that hold their settings, with PyTorch's defaults.
//!
//! ```no_run
//! # fn example(logits: &wgrad::Tensor, classes: &wgrad::Tensor) -> wgrad::Result<f64> {
//! use wgrad::nn::CrossEntropyLoss;
//! let criterion = CrossEntropyLoss { label_smoothing: 0.1, ..Default::default() };
//! criterion.try_forward(logits, classes)?.item()
//! # }
//! ```

use crate::error::Result;
use crate::graph::Tensor;
use crate::ops::Reduction;

/// Each loss: its settings with their defaults, and the operation.
macro_rules! losses {
    ($($(#[$doc:meta])* $loss:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr),* $(,)? } |$self:ident, $x:ident, $target:ident| $call:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $loss {
            $($(#[$field_doc])* pub $field: $type),*
        }

        impl Default for $loss {
            fn default() -> $loss {
                $loss { $($field: $default),* }
            }
        }

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
            /// Where they do not fit.
            pub fn try_forward(&$self, $x: &Tensor, $target: &Tensor) -> Result<Tensor> {
                $call
            }
        }
    )*};
}

losses! {
    /// The cross entropy of logits `[n, c, ..]` against classes `[n, ..]` (i32): the negative log of the class's softmax.
    CrossEntropyLoss {
        /// A factor for each class, `[c]`.
        weight: Option<Tensor> = None,
        /// What becomes of the losses of the examples.
        reduction: Reduction = Reduction::Mean,
        /// Examples of this class do not count.
        ignore_index: i32 = -100,
        /// This much of the target is spread evenly over all classes.
        label_smoothing: f64 = 0.0,
    } |self, x, target| x.try_cross_entropy(target, self.weight.as_ref(), self.reduction, self.ignore_index, self.label_smoothing);
    /// The negative of the class's log-probability: log-probabilities `[n, c, ..]` against classes `[n, ..]` (i32).
    NLLLoss {
        /// A factor for each class, `[c]`.
        weight: Option<Tensor> = None,
        /// What becomes of the losses of the examples.
        reduction: Reduction = Reduction::Mean,
        /// Examples of this class do not count.
        ignore_index: i32 = -100,
    } |self, x, target| x.try_nll_loss(target, self.weight.as_ref(), self.reduction, self.ignore_index);
    /// The squared difference from a target of the same shape.
    MSELoss {
        /// What becomes of the losses of the elements.
        reduction: Reduction = Reduction::Mean,
    } |self, x, target| x.try_mse_loss(target, self.reduction);
}
