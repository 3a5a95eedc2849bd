//! The integration tests: one binary, a module for each thing that is tested.

mod smoke;
mod tidy;
