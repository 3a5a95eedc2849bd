//! Training: a loop over steps and epochs that emits events, and callbacks for everything else.
//!
//! The loop knows the model, the data, the optimizer and nothing more. A progress bar, a file of metrics, checkpoints and clipping by hand listen to
//! its one stream of [`Event`]s.

mod capture;
mod checkpoint;
mod evaluate;
mod event;
mod fit;
mod precision;
mod record;
mod resident;
mod schedule;
mod trainer;

pub use capture::{Capture, capture};
pub use checkpoint::Checkpoint;
pub use evaluate::{Predictions, evaluate, predict};
pub use event::{Callback, Epoch, Event, Flow, gradients};
pub use fit::fit;
pub use precision::Precision;
pub use record::Record;
pub use resident::{Objective, Resident};
pub use schedule::{SCHEDULES, Schedule};
pub use trainer::{Report, TrainOptions, Trainer};

/// How good a model is on some data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Mean loss of a sample.
    pub loss: f64,
    /// Fraction of samples whose most likely class is theirs; none where the targets are no classes.
    pub accuracy: Option<f64>,
}
