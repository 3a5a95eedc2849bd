//! Benchmarks: the workloads that wgrad shares with its peers, timed by one protocol and checked before a number is given.
//!
//! A workload is a row of the WORKLOADS table ([`WORKLOADS`]). Its operands lie on the device, its results are consumed, and they are compared with the CPU
//! definition: a fast wrong kernel is an error, not a result.

mod check;
mod clock;
mod data;
mod kernels;
mod models;
mod training;
mod workload;

pub use clock::{Protocol, Timing};
pub use training::{CHECKED_STEPS, definition_losses, reference_losses};
pub use workload::{Line, Rate, WORKLOADS, Workload, peer_name, select};
