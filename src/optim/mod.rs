//! Optimizers: what makes new parameter values out of gradients.
//!
//! Parameters, gradients and state lie in arenas of one layout, so a step is one launch an arena buffer, whatever the number of parameters.

mod adam;
mod found_inf;
mod optimizer;
mod scaler;
mod sgd;
mod update;

pub use adam::{Adam, AdamOptions, AdamW};
pub use optimizer::Optimizer;
pub use scaler::{GradScaler, GradScalerOptions};
pub use sgd::{Sgd, SgdOptions};
