//! A callback that keeps the last epoch's model in a file.

use super::{Callback, Event, Flow};
use crate::error::Result;
use crate::nn::{self, Module};
use std::path::PathBuf;

/// Keeps the model of the last finished epoch as safetensors: a run that ends early leaves that one.
#[derive(Debug)]
pub struct Checkpoint<'a> {
    model: &'a dyn Module,
    path: PathBuf,
}

impl<'a> Checkpoint<'a> {
    /// Keep `model` at `path`.
    pub fn new(model: &'a dyn Module, path: impl Into<PathBuf>) -> Self {
        Checkpoint { model, path: path.into() }
    }
}

impl Callback for Checkpoint<'_> {
    fn on(&mut self, event: &Event<'_>) -> Result<Flow> {
        if let Event::EpochEnded(_) = event {
            nn::save(self.model, &self.path)?;
        }
        Ok(Flow::Continue)
    }
}
