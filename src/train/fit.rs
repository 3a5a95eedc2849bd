//! Training in one call.

use super::{Report, TrainOptions, Trainer};
use crate::data::Dataset;
use crate::device::Device;
use crate::error::Result;
use crate::nn::Module;
use crate::optim::{AdamOptions, AdamW};

/// Train `model` on `data` with AdamW. For another optimizer, validation data or callbacks there is [`Trainer`].
pub fn fit(model: &dyn Module, data: &Dataset, device: &Device, options: &TrainOptions) -> Result<Report> {
    let optimizer = AdamW::new(model.parameters(), AdamOptions { lr: options.learning_rate, ..AdamOptions::default() })?;
    Trainer::new(model, optimizer, options.clone())?.fit(data, None, device)
}
