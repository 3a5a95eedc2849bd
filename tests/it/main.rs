//! The integration tests: one binary, a module for each thing that is tested.

mod adapters;
mod bench;
mod cli;
mod common;
mod coop;
mod dry;
mod edges;
mod fuzz;
mod golden;
mod golden_ops;
mod gpu_device;
mod halves;
mod mixed;
mod op_table;
mod ops;
mod pipelines;
mod promises;
mod smoke;
mod tidy;
mod train;
mod tuned;
