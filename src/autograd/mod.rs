//! Differentiation: backward passes over the recorded graph, which append gradient nodes to it.

mod backward;
mod checkpoint;
mod gradcheck;
mod vmap;

pub use backward::{GradOptions, grad, grad_with};
pub use checkpoint::checkpoint;
