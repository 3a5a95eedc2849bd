//! Whether a module is in training: what a captured step must know has not changed.

use crate::graph;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A module's flag for training; new modules are in training. Set it in [`Module::on_training`](super::Module::on_training) and ask it in `try_forward`: a step
/// that [`capture`](crate::train::capture) took notices where it is another one than when the step was recorded.
///
/// ```
/// use wgrad::nn::Mode;
/// let mode = Mode::default();
/// assert!(mode.is_training());
/// mode.set(false);
/// assert!(!mode.is_training());
/// ```
#[derive(Debug)]
pub struct Mode(Arc<AtomicBool>);

impl Default for Mode {
    fn default() -> Mode {
        Mode(Arc::new(AtomicBool::new(true)))
    }
}

impl Mode {
    /// Go into training, or out of it.
    pub fn set(&self, training: bool) {
        self.0.store(training, Relaxed);
    }

    /// Whether it is in training.
    pub fn is_training(&self) -> bool {
        let training = self.0.load(Relaxed);
        graph::asked_mode(&self.0, training);
        training
    }
}
