//! What a training loop tells, on one stream: everything that is not the loop itself listens here.

use super::Score;
use crate::error::Result;
use crate::nn::Param;
use std::time::Duration;

/// A moment of a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run begins.
    Started {
        /// Passes over the data.
        epochs: usize,
        /// Steps in each.
        steps: usize,
        /// Samples in each.
        samples: usize,
    },
    /// An epoch begins.
    EpochStarted {
        /// From 0.
        epoch: usize,
    },
    /// The gradients of a step are computed and may be changed: by [`Param::grad`] and [`Param::set_grad`]. Sent only where a callback asked for it. In mixed
    /// precision they are scaled back already, and may be infinite or NaN: then the step will be skipped.
    GradientsReady {
        /// Of the run, from 0.
        step: usize,
        /// What is trained.
        params: &'a [Param],
    },
    /// A step is done, as far as the host knows: a GPU may still work on it.
    StepEnded {
        /// Of the run, from 0.
        step: usize,
        /// Samples in the step's batch.
        samples: usize,
        /// The learning rate that was used.
        learning_rate: f64,
    },
    /// An epoch is done, and its numbers are read.
    EpochEnded(&'a Epoch),
    /// The run is over: all epochs are done, a callback ended it, or it was cancelled.
    Ended {
        /// How many epochs were finished.
        epochs: usize,
        /// Whether it was cancelled from outside.
        cancelled: bool,
    },
}

/// The numbers of an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch {
    /// From 0.
    pub epoch: usize,
    /// Mean over the epoch's steps, in training mode, each step before its update.
    pub train: Score,
    /// After the epoch, in evaluation mode; none where there is no validation data.
    pub validation: Option<Score>,
    /// The learning rate of the last step.
    pub learning_rate: f64,
    /// What the loss is multiplied with after the epoch; none but in mixed precision.
    pub loss_scale: Option<f64>,
    /// Steps of the epoch that were skipped because gradients overflowed.
    pub skipped: u64,
    /// Since the epoch began.
    pub elapsed: Duration,
}

/// Whether a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// On with it.
    Continue,
    /// End the run at the next step.
    Stop,
}

/// A listener.
pub trait Callback {
    /// A moment has come. An error ends the run.
    fn on(&mut self, event: &Event<'_>) -> Result<Flow>;

    /// Whether gradients are wanted before the update: each step is then two submits.
    fn wants_gradients(&self) -> bool {
        false
    }
}

impl<F: FnMut(&Event<'_>) -> Result<Flow>> Callback for F {
    fn on(&mut self, event: &Event<'_>) -> Result<Flow> {
        self(event)
    }
}

/// A callback that gets the gradients before each update and may change them.
///
/// ```
/// # use wgrad::train::gradients;
/// // Clip by value, by hand.
/// let clip = gradients(|params| {
///     for p in params {
///         p.set_grad(p.grad().map(|g| g.clamp(-1.0, 1.0)));
///     }
///     Ok(())
/// });
/// ```
pub fn gradients(f: impl FnMut(&[Param]) -> Result<()>) -> impl Callback {
    Gradients(f)
}

struct Gradients<F>(F);

impl<F: FnMut(&[Param]) -> Result<()>> Callback for Gradients<F> {
    fn on(&mut self, event: &Event<'_>) -> Result<Flow> {
        if let Event::GradientsReady { params, .. } = event {
            (self.0)(params)?;
        }
        Ok(Flow::Continue)
    }

    fn wants_gradients(&self) -> bool {
        true
    }
}
