//! The integration tests: one binary, a module for each thing that is tested.

mod common;
mod fuzz;
mod golden;
mod golden_ops;
mod gpu_device;
mod promises;
mod cli;
mod smoke;
mod tidy;
