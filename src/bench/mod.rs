//! Benchmarks, each result checked before its number is given: a fast wrong kernel is an error, not a result.
//!
//! Two tables. [`WORKLOADS`] are those that wgrad shares with its peers, timed as they are. [`probes`] measure a device: its peaks, what launching costs, every
//! kernel family over a range of shapes, whole training steps; each in a process of its own ([`Host`]), several times over ([`run`]), kept as a [`Report`].

mod check;
mod child;
mod clock;
mod compare;
mod costs;
mod data;
mod job;
mod kernels;
mod models;
mod peaks;
mod probe;
mod report;
mod run;
mod svg;
mod system;
mod table;
mod training;
#[cfg(feature = "gpu")]
mod tune;
#[cfg(feature = "gpu")]
mod ways;
mod workload;

pub use child::{Host, answer};
pub use clock::{Protocol, Timing};
pub use compare::{Compared, Verdict, compare, pairs};
pub use probe::{Probe, probes, select};
pub use report::{Measured, Report, Row, SCHEMA};
pub use run::{Plan, Watch, run};
pub use svg::roofline;
pub use table::{compared as comparison_text, report as report_text};
pub use training::{CHECKED_STEPS, definition_losses, reference_losses};
#[cfg(feature = "gpu")]
pub use tune::{Outcome, Rules, Told, Trial, Tuned, tune};
#[cfg(feature = "gpu")]
pub use ways::speed_of_choices;
pub use workload::{Line, Rate, WORKLOADS, Workload, peer_name, select as workloads};
