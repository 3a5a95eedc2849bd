//! `wgrad train`: train the model of a config, and judge it by data it never saw.

use super::config::Config;
use super::counting::Counting;
use super::job::{self, Parts};
use super::progress::{Progress, score};
use super::{Run, interrupt, paths};
use crate::device::Device;
use crate::error::Result;
use crate::nn::Module;
use crate::train::{Checkpoint, Event, Flow, Objective, Precision, Record, Resident, Trainer, evaluate};
use anyhow::Context;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Train the model of a config and judge it by data it never saw.
///
/// The config is a TOML file with the data, how it is split, the layers of the model and how it is trained; paths in it are relative to its folder.
/// The run lands in ./runs/NAME/ of the current folder: the config with every default written out, metrics.jsonl with a line for each epoch,
/// model.safetensors of the last finished epoch, and result.json. The test part is read once, after the last epoch.
#[derive(Debug, clap::Parser)]
#[command(name = "train", after_help = EXAMPLES)]
pub struct Train {
    /// The config.
    config: PathBuf,
    /// Override a key of the config, such as train.seed=3. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Where to train: cpu, gpu (the first of `wgrad devices`), gpu:N (its line N), part of a name, or auto (measure, take the faster).
    #[arg(long)]
    device: Option<String>,
}

const EXAMPLES: &str = "Examples:
  wgrad train examples/digits.toml
  wgrad train examples/digits.toml --set train.seed=3 --set train.epochs=5
  wgrad train examples/digits.toml --device gpu

A config:
  [data]
  path = \"digits.csv\"          # a CSV file with a line of names; format = \"idx\" for MNIST's files
  label = \"digit\"              # the column to predict; all others are features
  shape = [1, 8, 8]            # of a sample: channels, height, width
  [split]
  test = 0.2                   # of all, read once at the end
  validation = 0.1             # of the rest, looked at after every epoch
  [model]
  layers = [
    { kind = \"conv2d\", out_channels = 16, kernel_size = 3, padding = 1 }, { kind = \"relu\" }, { kind = \"max_pool2d\", kernel_size = 2 },
    { kind = \"flatten\" }, { kind = \"linear\", out_features = 10 },
  ]
  [train]
  epochs = 20
  batch_size = 32
  learning_rate = 0.001
  optimizer = \"adamw\"          # or adam, sgd
  schedule = \"one_cycle\"       # or cosine, constant
  augment = { shift = 1 }      # pixels; rotate in degrees, scale and noise as fractions
  precision = \"mixed\"          # f16 where it does, or f32 (the default); loss_scale sets the first scale of mixed

Ctrl-C ends a run and keeps the model of the last finished epoch.";

impl Run for Train {
    fn run(self) -> anyhow::Result<super::Exit> {
        let mut config = Config::load(&self.config, &self.sets)?;
        let parts = job::load_data(&mut config)?;
        let objective = Objective::of(&parts.train)?;
        let cancel = interrupt::watch()?;
        let measure = |device: &Device| steps_per_second(&config, &parts, objective, device);
        let (device, why) = job::choose_device(self.device.as_deref(), Some(&measure))?;
        say!("device: {why}");
        let model = job::build_model(&config, parts.train.sample_shape(), objective, &device)?;
        say!("{}", model.summary(&job::input_meta(parts.train.sample_shape())?)?);
        let count = |part: &Option<crate::data::Dataset>| part.as_ref().map_or(0, crate::data::Dataset::len);
        say!("samples: {} to learn from, {} for validation, {} for the test", parts.train.len(), count(&parts.validation), count(&parts.test));

        let folder = paths::new_run(&config.name)?;
        say!("run: {}", folder.display());
        let resolved = config.resolved(&folder)?;
        write(&folder.join(paths::CONFIG), &resolved)?;
        let began = Instant::now();
        let options = config.train.options(Some(cancel))?;
        let (counting, counted) = Counting::new(&device);
        let report = Trainer::boxed(&model, job::build_optimizer(&config, &model)?, options.clone())?
            .callback(Record::create(folder.join(paths::METRICS))?)
            .callback(Checkpoint::new(&model, folder.join(paths::MODEL)))
            .callback(Progress::default())
            .callback(counting)
            .fit(&parts.train, parts.validation.as_ref(), &device)?;
        if report.cancelled {
            match report.epochs.last() {
                Some(last) => say!("interrupted: the model of epoch {} is kept in {}", last.epoch + 1, folder.join(paths::MODEL).display()),
                None => say!("interrupted before the first epoch was done: no model was kept"),
            }
            return Ok(super::Exit::Interrupted);
        }

        let test = parts.test.as_ref().map(|data| evaluate(&model, &Resident::new(data, &device)?, options.evaluation_batch_size(), "test")).transpose()?;
        let mut result = json!({
            "device": device.description(),
            "seed": config.train.seed,
            "precision": if config.train.precision == Precision::F32 { "f32" } else { "mixed" },
            "seconds": began.elapsed().as_secs_f64(),
            "epochs": report.epochs.len(),
            "counters": counted.borrow().to_json(&device),
        });
        if config.train.precision != Precision::F32 {
            result["skipped_steps"] = report.epochs.iter().map(|e| e.skipped).sum::<u64>().into();
        }
        if let Some(test) = &test {
            result["test"] = test.to_json();
        }
        write(&folder.join(paths::RESULT), &format!("{}\n", serde_json::to_string_pretty(&result)?))?;
        match &test {
            Some(test) => writeln!(std::io::stdout(), "test {}", score(test))?,
            None => say!("there is no test part: split.test is 0"),
        }
        Ok(super::Exit::Done)
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// How fast a device trains the model: what `--device auto` compares.
fn steps_per_second(config: &Config, parts: &Parts, objective: Objective, device: &Device) -> Result<f64> {
    const STEPS: usize = 20;
    let model = job::build_model(config, parts.train.sample_shape(), objective, device)?;
    let mut taken = 0;
    let mut began = None;
    let watch = |event: &Event<'_>| {
        if let Event::StepEnded { .. } = event {
            // The first step compiles; it is not timed.
            began.get_or_insert_with(Instant::now);
            taken += 1;
        }
        Ok(if taken > STEPS { Flow::Stop } else { Flow::Continue })
    };
    Trainer::boxed(&model, job::build_optimizer(config, &model)?, config.train.options(None)?)?.callback(watch).fit(&parts.train, None, device)?;
    // A GPU is done when a value comes back.
    for (_, value) in model.state_dict() {
        value.to_data()?;
    }
    let seconds = began.map_or(f64::INFINITY, |b| b.elapsed().as_secs_f64());
    Ok((taken as f64 - 1.0).max(0.0) / seconds.max(1e-9))
}
