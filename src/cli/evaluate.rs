//! `wgrad evaluate`: the score of a run's model.

use super::config::Config;
use super::progress::score;
use super::{Exit, Run, job, paths};
use crate::nn;
use crate::train::{Objective, Resident, evaluate};
use anyhow::bail;
use std::io::Write;

/// The score of a run's model on a part of its data: the test part unless another is named.
#[derive(Debug, clap::Parser)]
#[command(name = "evaluate", after_help = EXAMPLES)]
pub struct Evaluate {
    /// A run folder, or the name of one under ./runs.
    run: String,
    /// Which part of the data.
    #[arg(long, value_parser = ["test", "validation", "train"], default_value = "test")]
    part: String,
    /// Exit with 3 where the accuracy is below this fraction.
    #[arg(long, value_name = "ACCURACY")]
    min: Option<f64>,
    /// Where to compute: cpu, gpu, gpu:N or part of a name; see `wgrad devices`.
    #[arg(long)]
    device: Option<String>,
    /// Print the score as JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  wgrad evaluate digits
  wgrad evaluate runs/digits-2 --part validation --json
  wgrad evaluate digits --min 0.98 || echo 'worse than it was'";

impl Run for Evaluate {
    fn run(self) -> anyhow::Result<Exit> {
        let folder = paths::find_run(&self.run)?;
        let mut config = Config::load(&folder.join(paths::CONFIG), &[])?;
        let parts = job::load_data(&mut config)?;
        let objective = Objective::of(&parts.train)?;
        let data = match self.part.as_str() {
            "train" => Some(parts.train),
            "validation" => parts.validation,
            _ => parts.test,
        };
        let Some(data) = data else { bail!("{}: the run has no {} part", folder.display(), self.part) };
        let (device, why) = job::choose_device(self.device.as_deref(), None)?;
        say!("device: {why}");
        let model = job::build_model(&config, data.sample_shape(), objective, &device)?;
        nn::load(&model, folder.join(paths::MODEL), true)?;
        let result = evaluate(&model, &Resident::new(&data, &device)?, config.train.options(None)?.evaluation_batch_size(), &self.part)?;
        if self.json {
            writeln!(std::io::stdout(), "{}", result.to_json())?;
        } else {
            writeln!(std::io::stdout(), "{} {}", self.part, score(&result))?;
        }
        match (self.min, result.accuracy) {
            (Some(min), Some(accuracy)) if accuracy < min => {
                say!("the accuracy {accuracy:.4} is below {min}");
                Ok(Exit::Fault)
            }
            (Some(_), None) => bail!("--min: the targets of this run are no classes, so there is no accuracy"),
            _ => Ok(Exit::Done),
        }
    }
}
