//! The training loop. It tells what happens; whatever reacts to it is a callback.

use super::evaluate::{Sums, batch_name, evaluate};
use super::{Callback, Capture, Epoch, Event, Flow, Objective, Precision, Resident, Schedule, capture};
use crate::data::{Augment, Dataset, Loader};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::{self, Tensor};
use crate::nn::Module;
use crate::optim::{GradScaler, Optimizer};
use crate::rng::philox;
use crate::tensor::DType;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// How a model is trained.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// Passes over the data.
    pub epochs: usize,
    /// Samples of a step; an epoch's last step takes what is left.
    pub batch_size: usize,
    /// The highest learning rate of the run.
    pub learning_rate: f64,
    /// How the rate goes over the run.
    pub schedule: Schedule,
    /// What the order of the samples and their augmentation are drawn from.
    pub seed: u64,
    /// How images are changed, anew in each epoch.
    pub augment: Augment,
    /// How much of a class's target is spread evenly over all classes; 0 for none. What is told of training then has it, too.
    pub label_smoothing: f64,
    /// In which element types.
    pub precision: Precision,
    /// Ends the run at the next step where it is set.
    pub cancel: Option<Arc<AtomicBool>>,
}

impl TrainOptions {
    /// Samples of a batch where nothing is learned: more, because nothing has to be kept for a backward pass.
    pub fn evaluation_batch_size(&self) -> usize {
        self.batch_size.saturating_mul(8)
    }
}

impl Default for TrainOptions {
    fn default() -> Self {
        TrainOptions {
            epochs: 10,
            batch_size: 32,
            learning_rate: 1e-3,
            schedule: Schedule::Constant,
            seed: 0,
            augment: Augment::default(),
            label_smoothing: 0.0,
            precision: Precision::F32,
            cancel: None,
        }
    }
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The epochs that were finished.
    pub epochs: Vec<Epoch>,
    /// Whether the run was cancelled from outside.
    pub cancelled: bool,
}

/// Trains a model on a data set.
pub struct Trainer<'a> {
    model: &'a dyn Module,
    optimizer: Box<dyn Optimizer + 'a>,
    options: TrainOptions,
    callbacks: Vec<Box<dyn Callback + 'a>>,
    /// Of a run in mixed precision, and how many steps it had skipped when an epoch last ended.
    scaler: Option<GradScaler>,
    skipped: u64,
}

impl<'a> Trainer<'a> {
    /// A trainer of `model`, whose parameters `optimizer` has.
    pub fn new(model: &'a dyn Module, optimizer: impl Optimizer + 'a, options: TrainOptions) -> Result<Self> {
        Self::boxed(model, Box::new(optimizer), options)
    }

    /// The same, of an optimizer whose type is known at run time only.
    pub fn boxed(model: &'a dyn Module, optimizer: Box<dyn Optimizer + 'a>, options: TrainOptions) -> Result<Self> {
        if options.epochs == 0 || options.batch_size == 0 {
            return Err(Error::invalid(format!("train: {} epochs of batches of {}: both must be at least 1", options.epochs, options.batch_size)));
        }
        options.augment.check()?;
        Ok(Trainer { model, optimizer, options, callbacks: Vec::new(), scaler: None, skipped: 0 })
    }

    /// Let `callback` listen, too. Callbacks hear in the order in which they came.
    #[must_use]
    pub fn callback(mut self, callback: impl Callback + 'a) -> Self {
        self.callbacks.push(Box::new(callback));
        self
    }

    /// Train on `data`, on `device`, and judge each epoch by `validation`.
    ///
    /// # Errors
    /// Shapes that the model does not take, device failures, a loss that is no number any more, and errors of callbacks. The model then has the parameters of the
    /// last step that was taken. On a GPU an index out of range is found when an epoch's scores are read: all its steps have been taken by then.
    pub fn fit(&mut self, data: &Dataset, validation: Option<&Dataset>, device: &Device) -> Result<Report> {
        let mut train = Resident::new(data, device)?;
        let validation = validation.map(|v| Resident::new(v, device)).transpose()?;
        let loader = Loader::new(data.len(), self.options.batch_size)?;
        let image = self.image_shape(data)?;
        (self.scaler, self.skipped) = (self.options.precision.scaler(device)?, 0);
        let steps = loader.batches().len();
        self.tell(&Event::Started { epochs: self.options.epochs, steps, samples: data.len() })?;
        let mut report = Report { epochs: Vec::new(), cancelled: false };
        let forward = self.forward(train.objective());
        let mut step: Step<'_> = capture(Box::new(move |inputs| loss_and_sums(&forward, inputs)));
        for epoch in 0..self.options.epochs {
            if let Some(shape) = image {
                let mut changed = vec![0.0; data.features().len()];
                self.options.augment.epoch(data.features(), shape, self.options.seed, epoch as u32, philox, &mut changed);
                train.replace(changed)?;
            }
            match self.epoch(epoch, &mut step, &loader, &train, validation.as_ref())? {
                Outcome::Done(done, flow) => {
                    report.epochs.push(done);
                    if flow == Flow::Stop {
                        break;
                    }
                }
                Outcome::Stopped => break,
                Outcome::Cancelled => {
                    report.cancelled = true;
                    break;
                }
            }
        }
        self.tell(&Event::Ended { epochs: report.epochs.len(), cancelled: report.cancelled })?;
        Ok(report)
    }

    /// The shape of the images that are to be augmented, where any are.
    fn image_shape(&self, data: &Dataset) -> Result<Option<[usize; 3]>> {
        if self.options.augment.is_none() {
            return Ok(None);
        }
        match *data.sample_shape() {
            [c, h, w] => Ok(Some([c, h, w])),
            ref other => Err(Error::invalid(format!("augment: samples {other:?} are no images [channels, height, width]")).help("set data.shape")),
        }
    }

    /// One pass over the data, and the score on the validation data after it.
    fn epoch(&mut self, epoch: usize, captured: &mut Step<'_>, loader: &Loader, train: &Resident, validation: Option<&Resident>) -> Result<Outcome> {
        let began = Instant::now();
        self.tell(&Event::EpochStarted { epoch })?;
        let order = loader.order(self.options.seed, epoch as u32, philox).into_iter().map(|i| i as i32).collect::<Vec<_>>();
        let order = Tensor::new(order, [train.len()], train.device())?;
        let mut sums = Sums::new(train.device(), self.scaler.is_some())?;
        let steps = loader.batches().len();
        self.model.set_training(true);
        for (n, range) in loader.batches().enumerate() {
            if self.cancelled() {
                return Ok(Outcome::Cancelled);
            }
            let step = epoch * steps + n;
            let rate = self.options.learning_rate * self.options.schedule.factor(step, steps * self.options.epochs);
            self.optimizer.set_lr(rate);
            let _name = graph::plan_name(batch_name("train", n > 0 && range.len() < self.options.batch_size));
            let rows = order.try_narrow(0, range.start, range.len())?;
            sums = self.step(step, captured, train, &rows, sums)?;
            drop(rows);
            if self.tell(&Event::StepEnded { step, samples: range.len(), learning_rate: rate })? == Flow::Stop {
                return Ok(Outcome::Stopped);
            }
        }
        drop(order);
        let score = sums.read()?;
        if !score.loss.is_finite() {
            return Err(Error::invalid(format!("train: epoch {}: the loss is {}", epoch + 1, score.loss)).help("try a lower learning rate"));
        }
        let validation = validation.map(|v| evaluate(self.model, v, self.options.evaluation_batch_size(), "validation")).transpose()?;
        let (loss_scale, skipped) = match &self.scaler {
            Some(s) => (Some(s.get_scale()?), s.skipped()?),
            None => (None, 0),
        };
        let skipped = skipped - std::mem::replace(&mut self.skipped, skipped);
        let done = Epoch { epoch, train: score, validation, learning_rate: self.optimizer.lr(), loss_scale, skipped, elapsed: began.elapsed() };
        let flow = self.tell(&Event::EpochEnded(&done))?;
        Ok(Outcome::Done(done, flow))
    }

    fn forward(&self, objective: Objective) -> Forward<'a> {
        Forward { model: self.model, objective, smoothing: self.options.label_smoothing, mixed: self.scaler.is_some() }
    }

    /// A step on the samples that `rows` names: forward, backward and update in one submit, captured unless somebody wants to see the gradients.
    fn step(&mut self, step: usize, captured: &mut Step<'_>, train: &Resident, rows: &Tensor, mut sums: Sums) -> Result<Sums> {
        let [features, targets] = train.tensors()?;
        if !self.callbacks.iter().any(|c| c.wants_gradients()) {
            let inputs: Vec<&Tensor> = [features, targets, rows].into_iter().chain(sums.inputs()).collect();
            let added = match &mut self.scaler {
                None => captured.run(self.optimizer.as_mut(), &inputs),
                Some(scaler) => captured.run_scaled(self.optimizer.as_mut(), scaler, &inputs),
            }?;
            return Ok(sums.replaced(added, rows.numel()));
        }
        let (loss, right) = self.forward(train.objective()).of([features, targets, rows])?;
        sums.add(&loss, right.as_ref(), rows.numel())?;
        match &self.scaler {
            Some(scaler) => scaler.scale(&loss)?.backward()?,
            None => loss.backward()?,
        }
        // What no handle names is never stored.
        drop((loss, right));
        let params = self.optimizer.params().to_vec();
        if let Some(scaler) = &mut self.scaler {
            scaler.unscale(&params)?;
        }
        graph::flush(train.device())?;
        self.tell(&Event::GradientsReady { step, params: &params })?;
        match &mut self.scaler {
            Some(scaler) => scaler.step(&mut *self.optimizer)?,
            None => self.optimizer.step()?,
        }
        self.optimizer.zero_grad();
        Ok(sums)
    }

    fn cancelled(&self) -> bool {
        self.options.cancel.as_ref().is_some_and(|c| c.load(Relaxed))
    }

    /// Let every callback hear of it; stop where one says so.
    fn tell(&mut self, event: &Event<'_>) -> Result<Flow> {
        let mut flow = Flow::Continue;
        for callback in &mut self.callbacks {
            if callback.on(event)? == Flow::Stop {
                flow = Flow::Stop;
            }
        }
        Ok(flow)
    }
}

/// A captured step of the loop.
type Step<'a> = Capture<Box<dyn FnMut(&[Tensor]) -> Result<(Tensor, Vec<Tensor>)> + 'a>>;

/// The loss of a batch, and the sums of the epoch with it. Inputs: all features and targets, the rows of the batch, the sums before.
fn loss_and_sums(forward: &Forward<'_>, inputs: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
    let [features, targets, rows, sums @ ..] = inputs else { return Err(Error::internal("train: a step has the data, its rows and the sums")) };
    let (loss, right) = forward.of([features, targets, rows])?;
    let mut sums = Sums::of(sums)?;
    sums.add(&loss, right.as_ref(), rows.numel())?;
    Ok((loss, sums.tensors()))
}

/// From a batch to its loss.
struct Forward<'a> {
    model: &'a dyn Module,
    objective: Objective,
    smoothing: f64,
    /// Whether in mixed precision.
    mixed: bool,
}

impl Forward<'_> {
    /// The loss of a batch, and how many of its samples are right. Inputs: all features and targets, the rows of the batch.
    fn of(&self, inputs: [&Tensor; 3]) -> Result<(Tensor, Option<Tensor>)> {
        if self.mixed { graph::autocast(DType::F16, || self.recorded(inputs)) } else { self.recorded(inputs) }
    }

    fn recorded(&self, [features, targets, rows]: [&Tensor; 3]) -> Result<(Tensor, Option<Tensor>)> {
        let (x, y) = (features.try_index_select(0, rows)?, targets.try_index_select(0, rows)?);
        let outputs = self.model.try_forward(&x)?;
        let loss = self.objective.loss(&outputs, &y, self.smoothing)?;
        let right = graph::no_grad(|| self.objective.hits(&outputs, &y))?;
        Ok((loss, right))
    }
}

/// How an epoch ended.
enum Outcome {
    /// All its steps were taken.
    Done(Epoch, Flow),
    /// A callback ended the run.
    Stopped,
    /// The run was cancelled from outside.
    Cancelled,
}
