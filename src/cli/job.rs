//! What the commands share: the data, the model and the optimizer that a config describes, and the choice of a device.

use super::config::{Config, DataConfig, Format, OptimizerKind};
use crate::data::{Dataset, Split, Table, Targets, Task};
use crate::device::{Device, Measure};
use crate::error::{Error, Result};
use crate::format::idx;
use crate::graph;
use crate::nn::{self, Attr, Attrs, Module, Sequential};
use crate::ops::Generator;
use crate::optim::{Adam, AdamOptions, AdamW, Optimizer, Sgd, SgdOptions};
use crate::rng::philox;
use crate::tensor::{DType, Meta, Shape};
use crate::train::Objective;
use std::path::Path;
use std::sync::Arc;
use toml::Value;

/// The samples of a run, by what they are for.
#[derive(Debug)]
pub struct Parts {
    pub train: Dataset,
    pub validation: Option<Dataset>,
    pub test: Option<Dataset>,
}

/// Read the data and cut it. What the files decide (names, classes, shape) is written into `config`, so that a resolved config says it.
pub fn load_data(config: &mut Config) -> Result<Parts> {
    let all = read(&config.data, false)?;
    let own_test = config.data.test_path.is_some();
    if let Targets::Classes { classes, .. } = all.targets() {
        config.data.classes = Some(*classes);
    }
    if config.data.format == Format::Csv {
        config.data.features = Some(all.names().to_vec());
    }
    config.data.shape = Some(all.sample_shape().to_vec());
    let split =
        Split::random(all.len(), config.split.test, config.split.validation, config.train.seed, philox).map_err(|e| e.context(config.file.display()))?;
    let part = |rows: &[usize]| (!rows.is_empty()).then(|| all.select(rows));
    let test = if own_test { Some(read(&config.data, true)?) } else { part(&split.test) };
    Ok(Parts { train: all.select(&split.train), validation: part(&split.validation), test })
}

/// The samples of the config's files: those to learn from, or the ones that are for the test alone.
fn read(data: &DataConfig, test: bool) -> Result<Dataset> {
    let path = if test { data.test_path.as_ref().unwrap_or(&data.path) } else { &data.path };
    let set = match data.format {
        Format::Csv => {
            let table = Table::read_csv(path)?;
            let features: Option<Vec<&str>> = data.features.as_ref().map(|names| names.iter().map(String::as_str).collect());
            Dataset::from_table(&table, features.as_deref(), Some((&data.label, Task::Classes(data.classes))))?
        }
        Format::Idx => {
            let labels = if test { &data.test_labels } else { &data.labels };
            let labels = labels.as_ref().ok_or_else(|| Error::internal("data: images without labels passed the check"))?;
            let images = bytes(path, idx::images)?;
            Dataset::from_idx(&images, &bytes(labels, idx::labels)?, data.classes).map_err(|e| e.context(path.display()))?
        }
    };
    shaped(set, data).map_err(|e| e.context(path.display()))
}

/// The samples of a file that are to be predicted: a CSV file with the columns of training in any order and any others, or IDX images.
pub fn read_input(data: &DataConfig, path: &Path) -> Result<Dataset> {
    let set = match data.format {
        Format::Csv => {
            let table = Table::read_csv(path)?;
            let features: Vec<&str> = match &data.features {
                Some(names) => names.iter().map(String::as_str).collect(),
                None => table.names().filter(|n| *n != data.label).collect(),
            };
            Dataset::from_table(&table, Some(&features), None)?
        }
        Format::Idx => {
            let images = bytes(path, idx::images)?;
            let shape = [1, images.shape[1], images.shape[2]];
            Dataset::new(images.values.iter().map(|&p| f32::from(p)).collect(), &shape, Targets::None)?
        }
    };
    shaped(set, data).map_err(|e| e.context(path.display()))
}

fn bytes<T>(path: &Path, read: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(format!("cannot read {}: {e}", path.display())))?;
    read(&bytes).map_err(|e| e.context(path.display()))
}

fn shaped(set: Dataset, data: &DataConfig) -> Result<Dataset> {
    let set = match &data.shape {
        Some(shape) => set.reshape(shape).map_err(|e| e.context("data.shape"))?,
        None => set,
    };
    Ok(if data.scale == 1.0 { set } else { set.scale(data.scale as f32) })
}

/// The model that the config lists, initialised from the run's seed. A softmax at its end is left out, because the loss and the predictions have it.
pub fn build_model(config: &Config, sample_shape: &[usize], objective: Objective, device: &Device) -> Result<Sequential> {
    let _name = graph::plan_name("init");
    let build = || {
        let mut specs = specs(config)?;
        let softmax = specs.pop_if(|(kind, _)| kind == "softmax" || kind == "log_softmax");
        let generator = Arc::new(Generator::new(config.train.seed));
        let model = Sequential::from_specs(&specs, sample_shape, &generator, device)?;
        let output = model.check(&[input_meta(sample_shape)?])?;
        if let Some((kind, attrs)) = softmax {
            // It is checked all the same.
            let place = format!("model.layers[{}] ({kind})", specs.len());
            nn::layer(&kind)?.build(&attrs, &output, &generator, device).map_err(|e| e.context(place))?;
        }
        let last = config.layers.len() - 1;
        objective.check(&output).map_err(|e| e.context(format_args!("model.layers[{last}]")))?;
        graph::flush(device)?;
        Ok(model)
    };
    build().map_err(|e: Error| e.context(config.file.display()))
}

/// What goes into a model: one sample.
pub fn input_meta(sample_shape: &[usize]) -> Result<Meta> {
    Ok(Meta::new(DType::F32, Shape::try_new(&[&[1], sample_shape].concat())?))
}

/// The layers as nn takes them.
fn specs(config: &Config) -> Result<Vec<(String, Attrs)>> {
    let spec = |(n, layer): (usize, &toml::Table)| {
        let place = format!("model.layers[{n}]");
        let kind = layer.get("kind").and_then(Value::as_str).ok_or_else(|| Error::invalid(format!("{place}: kind is missing: a layer's name in quotes")))?;
        let attrs = layer.iter().filter(|(key, _)| *key != "kind").map(|(key, value)| {
            let attr = attr(value).ok_or_else(|| Error::invalid(format!("{place} ({kind}): {key}: no setting of a layer is like this: {value}")))?;
            Ok((key.clone(), attr))
        });
        Ok((kind.to_string(), attrs.collect::<Result<Attrs>>()?))
    };
    config.layers.iter().enumerate().map(spec).collect()
}

fn attr(value: &Value) -> Option<Attr> {
    let number = |v: &Value| v.as_float().or_else(|| v.as_integer().map(|n| n as f64));
    match value {
        Value::Boolean(b) => Some(Attr::Bool(*b)),
        Value::String(s) => Some(Attr::Text(s.clone())),
        Value::Array(list) => list.iter().map(number).collect::<Option<Vec<f64>>>().map(Attr::List),
        other => number(other).map(Attr::Number),
    }
}

/// The optimizer that the config names, of the parameters of `model`.
pub fn build_optimizer(config: &Config, model: &dyn Module) -> Result<Box<dyn Optimizer>> {
    let (t, params) = (&config.train, model.parameters());
    let adam = AdamOptions { lr: t.learning_rate, weight_decay: t.weight_decay, ..AdamOptions::default() };
    Ok(match t.optimizer {
        OptimizerKind::Sgd => {
            let options = SgdOptions { lr: t.learning_rate, momentum: t.momentum, weight_decay: t.weight_decay, ..SgdOptions::default() };
            Box::new(Sgd::new(params, options)?)
        }
        OptimizerKind::Adam => Box::new(Adam::new(params, adam)?),
        OptimizerKind::AdamW => Box::new(AdamW::new(params, adam)?),
    })
}

/// The device that `--device` names, or WGRAD_DEVICE, or the best one; and a line that says which and why.
pub fn choose_device(spec: Option<&str>, measure: Option<Measure<'_>>) -> Result<(Device, String)> {
    match spec {
        Some(spec) => Device::open_measured(spec, measure).map_err(|e| e.context("--device")),
        None => Device::best_measured(measure),
    }
}
