//! `wgrad predict`: the classes that a run's model gives to new samples.

use super::config::Config;
use super::{Exit, Run, job, paths};
use crate::nn;
use crate::train::{Objective, predict};
use anyhow::Context;
use std::io::Write;
use std::path::PathBuf;

/// Predict the classes of new samples with a run's model.
///
/// Writes CSV to standard output: the row of the input, counted from 0; the most likely class; and the probability of each class.
#[derive(Debug, clap::Parser)]
#[command(name = "predict", after_help = EXAMPLES)]
pub struct Predict {
    /// A run folder, or the name of one under ./runs.
    run: String,
    /// The samples: a CSV file with the columns that the run was trained on, in any order; other columns are passed over. IDX images for a run on IDX.
    #[arg(long)]
    input: PathBuf,
    /// Where to compute: cpu, gpu, gpu:N or part of a name; see `wgrad devices`.
    #[arg(long)]
    device: Option<String>,
}

const EXAMPLES: &str = "Examples:
  wgrad predict digits --input new.csv
  wgrad predict runs/digits-2 --input examples/digits.csv > predictions.csv";

impl Run for Predict {
    fn run(self) -> anyhow::Result<Exit> {
        let folder = paths::find_run(&self.run)?;
        let config = Config::load(&folder.join(paths::CONFIG), &[])?;
        let classes = config.data.classes.with_context(|| format!("{}: data.classes: is missing", config.file.display()))?;
        let data = job::read_input(&config.data, &self.input)?;
        let (device, why) = job::choose_device(self.device.as_deref(), None)?;
        say!("device: {why}");
        let model = job::build_model(&config, data.sample_shape(), Objective::Classes(classes), &device)?;
        nn::load(&model, folder.join(paths::MODEL), true)?;
        let found = predict(&model, data.features(), data.sample_shape(), config.train.options(None)?.evaluation_batch_size(), &device)?;
        let names: String = (0..classes).map(|c| format!(",p_{c}")).collect();
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        writeln!(out, "row,class{names}")?;
        for (row, (label, probabilities)) in found.labels().into_iter().zip(found.probabilities.chunks_exact(found.classes.max(1))).enumerate() {
            write!(out, "{row},{label}")?;
            probabilities.iter().try_for_each(|p| write!(out, ",{p}"))?;
            writeln!(out)?;
        }
        out.flush()?;
        Ok(Exit::Done)
    }
}
