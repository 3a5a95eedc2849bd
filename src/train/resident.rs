//! A data set on the device: uploaded once, cut into batches there.

use crate::data::{Dataset, Targets};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::nn::{CrossEntropyLoss, MSELoss};
use crate::ops::CrossEntropy;
use crate::tensor::{DType, Meta, Shape};

/// What a model is trained for; follows from the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// Classes: the cross entropy of one logit per class.
    Classes(usize),
    /// Numbers: the mean squared error of one output.
    Values,
}

impl Objective {
    /// What the targets of this data set ask for.
    pub fn of(data: &Dataset) -> Result<Objective> {
        match data.targets() {
            Targets::Classes { classes, .. } => Ok(Objective::Classes(*classes)),
            Targets::Values(_) => Ok(Objective::Values),
            Targets::None => Err(Error::invalid("train: the data set has no targets to learn")),
        }
    }

    /// How many outputs a model needs for it.
    pub fn outputs(&self) -> usize {
        match self {
            Objective::Classes(n) => *n,
            Objective::Values => 1,
        }
    }

    /// Whether outputs of this meta, for a batch of any size, fit.
    pub fn check(&self, output: &Meta) -> Result<()> {
        let fits = output.shape.rank() == 2 && output.shape[1] == self.outputs();
        if fits {
            return Ok(());
        }
        let sample = output.shape.get(1..).unwrap_or(&[]);
        let want = match self {
            Objective::Classes(n) => format!("[{n}], one for each class"),
            Objective::Values => "[1]".to_string(),
        };
        Err(Error::shape(format!("model: the outputs of a sample are {sample:?}, and should be {want}")).help("the last layer's out_features sets it"))
    }

    /// The mean loss of a batch: `outputs` `[b, k]`, `targets` `[b]`. `smoothing` spreads that much of a class's target evenly over all classes.
    pub fn loss(&self, outputs: &Tensor, targets: &Tensor, smoothing: f64) -> Result<Tensor> {
        match self {
            Objective::Classes(_) => CrossEntropyLoss(CrossEntropy { label_smoothing: smoothing, ..CrossEntropy::default() }).try_forward(outputs, targets),
            Objective::Values => MSELoss::default().try_forward(&outputs.try_reshape(*targets.shape())?, targets),
        }
    }

    /// How many outputs of a batch have the largest logit at their label, as one float; none where the targets are no classes.
    pub fn hits(&self, outputs: &Tensor, targets: &Tensor) -> Result<Option<Tensor>> {
        match self {
            Objective::Classes(_) => {
                let right = outputs.detach().try_argmax(1, false)?.eq(targets);
                Ok(Some(right.try_to_dtype(DType::F32)?.sum_all()))
            }
            Objective::Values => Ok(None),
        }
    }
}

/// Features `[n, ..sample_shape]` and targets `[n]` on a device.
#[derive(Debug)]
pub struct Resident {
    features: Option<Tensor>,
    targets: Tensor,
    shape: Shape,
    objective: Objective,
    device: Device,
}

impl Resident {
    /// Upload a data set.
    pub fn new(data: &Dataset, device: &Device) -> Result<Resident> {
        let objective = Objective::of(data)?;
        let targets = match data.targets() {
            Targets::Classes { labels, .. } => Tensor::new(labels.clone(), [labels.len()], device)?,
            Targets::Values(values) => Tensor::new(values.clone(), [values.len()], device)?,
            Targets::None => return Err(Error::internal("train: an objective without targets")),
        };
        let shape = Shape::try_new(&[&[data.len()], data.sample_shape()].concat())?;
        let features = Some(Tensor::new(data.features(), shape, device)?);
        Ok(Resident { features, targets, shape, objective, device: device.clone() })
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a model is to learn from it.
    pub fn objective(&self) -> Objective {
        self.objective
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Put other features in the place of these, of the same shape.
    pub fn replace(&mut self, features: Vec<f32>) -> Result<()> {
        // The old ones go first: then the new ones take their buffer.
        self.features = None;
        self.features = Some(Tensor::new(features, self.shape, &self.device)?);
        Ok(())
    }

    fn features(&self) -> Result<&Tensor> {
        self.features.as_ref().ok_or_else(|| Error::internal("train: the features of the data set failed to upload before"))
    }

    /// The samples `start..start + length`, as views.
    pub fn slice(&self, start: usize, length: usize) -> Result<(Tensor, Tensor)> {
        Ok((self.features()?.try_narrow(0, start, length)?, self.targets.try_narrow(0, start, length)?))
    }

    /// All features and targets.
    pub fn tensors(&self) -> Result<[&Tensor; 2]> {
        Ok([self.features()?, &self.targets])
    }
}
