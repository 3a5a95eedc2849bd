//! Differentiation: backward passes over the recorded graph, which append gradient nodes to it; and the model axis.

mod backward;
mod checkpoint;
mod gradcheck;
mod vmap;

pub use backward::{GradOptions, grad, grad_with};
pub use checkpoint::checkpoint;
pub use gradcheck::{GradCheck, gradcheck};
pub use vmap::{vmap, vmap_seeded};
