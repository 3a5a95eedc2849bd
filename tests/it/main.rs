//! The integration tests: one binary, a module for each thing that is tested.

mod gpu_device;
mod promises;
mod smoke;
mod tidy;
