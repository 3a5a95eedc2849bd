//! Evaluation and prediction: a model in evaluation mode over a data set, in batches, with one read at the end.

use super::{Resident, Score};
use crate::data::Loader;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::{self, Tensor, no_grad};
use crate::nn::Module;
use crate::tensor::Shape;

/// Sums of a score, on the device.
pub(super) struct Sums {
    loss: Tensor,
    hits: Tensor,
    counts: bool,
    samples: usize,
    /// In mixed precision, the samples whose loss is finite: only they count.
    finite: Option<Tensor>,
}

impl Sums {
    /// Sums of nothing. Uploaded and not recorded, so that the first batch of a pass is the same plan as the others.
    pub fn new(device: &Device, mixed: bool) -> Result<Sums> {
        let zero = || Tensor::new([0.0f32], [1], device);
        Ok(Sums { loss: zero()?, hits: zero()?, counts: false, samples: 0, finite: if mixed { Some(zero()?) } else { None } })
    }

    /// Sums that lie there already, as [`Sums::inputs`] gives them; nothing is known of how many samples they are of.
    pub fn of(inputs: &[Tensor]) -> Result<Sums> {
        let [loss, hits, finite @ ..] = inputs else { return Err(Error::internal("train: two sums at least")) };
        Ok(Sums { loss: loss.clone(), hits: hits.clone(), counts: false, samples: 0, finite: finite.first().cloned() })
    }

    /// The sums: of the losses, of what is finite where that is looked at, and of the hits where any were added.
    pub fn tensors(self) -> Vec<Tensor> {
        let hits = self.counts.then_some(self.hits);
        std::iter::once(self.loss).chain(self.finite).chain(hits).collect()
    }

    /// The same with one more batch of so many samples, whose [`Sums::tensors`] these are.
    pub fn replaced(self, sums: Vec<Tensor>, samples: usize) -> Sums {
        let mut sums = sums.into_iter();
        let loss = sums.next().unwrap_or(self.loss);
        let finite = self.finite.map(|old| sums.next().unwrap_or(old));
        let (hits, counts) = sums.next().map_or((self.hits, false), |h| (h, true));
        Sums { loss, hits, counts: counts || self.counts, samples: self.samples + samples, finite }
    }

    /// The inputs of a step that adds to them.
    pub fn inputs(&self) -> impl Iterator<Item = &Tensor> {
        [&self.loss, &self.hits].into_iter().chain(&self.finite)
    }

    /// Add a batch: its mean loss, and how many of its samples were right.
    pub fn add(&mut self, loss: &Tensor, hits: Option<&Tensor>, samples: usize) -> Result<()> {
        no_grad(|| {
            // How many samples is data: a smaller last batch weighs less, in the same plan.
            let loss = loss.detach().try_reshape([1])?;
            let bad = self.finite.is_some().then(|| loss.isnan().logical_or(&loss.isinf()));
            let counted = |t: &Tensor| bad.as_ref().map_or_else(|| t.clone(), |bad| t.mask_not(bad));
            self.loss = &self.loss + &counted(&(&loss * samples as f64));
            if let Some(hits) = hits {
                self.hits = &self.hits + &counted(&hits.try_reshape([1])?);
                self.counts = true;
            }
            if let Some(finite) = &mut self.finite {
                *finite = &*finite + &counted(&(loss.ones_like() * samples as f64));
            }
            self.samples += samples;
            Ok(())
        })
    }

    /// The score, read from the device.
    pub fn read(self) -> Result<Score> {
        // Where no loss was finite, the score is no number.
        let n = self.finite.as_ref().map_or(Ok(self.samples.max(1) as f64), Tensor::item)?;
        let loss = self.loss.item()? / n;
        let accuracy = if self.counts { Some(self.hits.item()? / n) } else { None };
        Ok(Score { loss, accuracy })
    }
}

/// The score of `model` on `data`; the model is left in evaluation mode. The plans are named `name`, and `name-last` for a smaller last batch.
pub fn evaluate(model: &dyn Module, data: &Resident, batch_size: usize, name: &str) -> Result<Score> {
    let objective = data.objective();
    let mut sums = Sums::new(data.device(), false)?;
    in_evaluation(model, || {
        for range in Loader::new(data.len(), batch_size)?.batches() {
            let _name = graph::plan_name(batch_name(name, range.start > 0 && range.len() < batch_size));
            let (x, y) = data.slice(range.start, range.len())?;
            let outputs = model.try_forward(&x)?;
            let (loss, hits) = (objective.loss(&outputs, &y, 0.0)?, objective.hits(&outputs, &y)?);
            sums.add(&loss, hits.as_ref(), range.len())?;
            // Only the sums are wanted: what nobody names is not kept.
            drop((x, y, outputs, loss, hits));
            graph::flush(data.device())?;
        }
        Ok(())
    })?;
    sums.read()
}

/// What the plan of a batch is called; `last` where it is smaller than those before.
pub(super) fn batch_name(name: &str, last: bool) -> String {
    if last { format!("{name}-last") } else { name.to_string() }
}

/// Run `f` with the model in evaluation mode and no history.
fn in_evaluation<R>(model: &dyn Module, f: impl FnOnce() -> Result<R>) -> Result<R> {
    model.set_training(false);
    no_grad(f)
}

/// What a model says of samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// How many classes there are.
    pub classes: usize,
    /// `[n, classes]`: how likely the model holds each.
    pub probabilities: Vec<f32>,
}

impl Predictions {
    /// The most likely class of each sample; the first of several that are as likely.
    pub fn labels(&self) -> Vec<usize> {
        let best = |row: &[f32]| (1..row.len()).fold(0, |best, k| if row[k] > row[best] { k } else { best });
        self.probabilities.chunks_exact(self.classes.max(1)).map(best).collect()
    }
}

/// The probabilities that `model` gives to samples `[n, ..sample_shape]`; the model is left in evaluation mode.
pub fn predict(model: &dyn Module, features: &[f32], sample_shape: &[usize], batch_size: usize, device: &Device) -> Result<Predictions> {
    let size = sample_shape.iter().product::<usize>().max(1);
    let samples = features.len() / size;
    let mut predictions = Predictions { classes: 0, probabilities: Vec::new() };
    if samples == 0 {
        return Ok(predictions);
    }
    in_evaluation(model, || {
        for range in Loader::new(samples, batch_size)?.batches() {
            let _name = graph::plan_name(batch_name("predict", range.start > 0 && range.len() < batch_size));
            let shape = Shape::try_new(&[&[range.len()], sample_shape].concat())?;
            let x = Tensor::new(&features[range.start * size..range.end * size], shape, device)?;
            let p = model.try_forward(&x)?.try_softmax(1)?;
            predictions.classes = p.shape()[1];
            predictions.probabilities.extend(p.to_vec::<f32>()?);
        }
        Ok(())
    })?;
    Ok(predictions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_likely_class_is_the_first_of_equals() {
        let p = Predictions { classes: 3, probabilities: vec![0.2, 0.4, 0.4, 0.5, 0.25, 0.25] };
        assert_eq!(p.labels(), [1, 0]);
    }
}
