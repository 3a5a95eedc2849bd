//! The integration tests: one binary, a module for each thing that is tested.

mod fuzz;
mod gpu_device;
mod smoke;
mod tidy;
