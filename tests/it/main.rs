//! The integration tests: one binary, a module for each thing that is tested.

mod common;
mod golden;
mod golden_ops;
mod fuzz;
mod gpu_device;
mod promises;
mod smoke;
mod tidy;
