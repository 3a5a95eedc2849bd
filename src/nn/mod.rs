//! Neural networks: modules, their parameters, layers.

mod param;

pub use param::Param;
