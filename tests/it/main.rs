//! The integration tests: one binary, a module for each thing that is tested.

mod common;
mod golden;
mod golden_ops;
mod gpu_device;
mod op_table;
mod ops;
mod smoke;
mod tidy;
