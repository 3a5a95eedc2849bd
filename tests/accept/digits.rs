//! The main job: accuracy over seeds, time, counters, repeatability.

use super::{Line, Outcome, State};
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

pub static LINES: &[Line] = &[
    Line { name: "digits: accuracy, cpu", limit: "mean over seeds 0-9 at least 98.4 %; nearest neighbour beside it", quick: false, run: accuracy_cpu },
    Line { name: "digits: seconds, cpu", limit: "each run at most 60 s", quick: false, run: seconds_cpu },
    Line { name: "digits: accuracy, gpu", limit: "mean over seeds 0-9 within 0.3 points of the CPU's", quick: false, run: accuracy_gpu },
    Line { name: "digits: seconds, gpu", limit: "each run at most 300 s", quick: false, run: seconds_gpu },
    Line { name: "digits: one seed, cpu", limit: "at least 97 % in at most 60 s (the whole takes ten seeds)", quick: true, run: one_seed },
    Line { name: "digits: repeats, cpu", limit: "same seed twice: same bits; another seed: not", quick: true, run: repeats_cpu },
    Line { name: "digits: repeats, gpu", limit: "same seed twice: same bits; another seed: not", quick: false, run: repeats_gpu },
    Line { name: "digits: plans, cpu", limit: "at most 6, by name", quick: true, run: plans_cpu },
    Line { name: "digits: plans, gpu", limit: "at most 6, by name", quick: false, run: plans_gpu },
    Line {
        name: "digits: steady loop, cpu",
        limit: "after epoch 1: 0 plans, 0 pipelines, 0 create_buffer; a step 1 submit, 1 write; host_fallbacks 0",
        quick: true,
        run: steady_cpu,
    },
    Line {
        name: "digits: steady loop, gpu",
        limit: "after epoch 1: 0 plans, 0 pipelines, 0 create_buffer; a step 1 submit, 1 write; host_fallbacks 0",
        quick: false,
        run: steady_gpu,
    },
];

const SEEDS: u64 = 10;

/// One training run of the command.
#[derive(Clone)]
pub struct Run {
    /// result.json
    pub result: Value,
    model: Vec<u8>,
    seconds: f64,
}

impl Run {
    /// Of the test part.
    pub fn accuracy(&self) -> anyhow::Result<f64> {
        self.result["test"]["accuracy"].as_f64().context("result.json has no test accuracy")
    }
}

/// What is set otherwise than in the example.
pub type Sets = &'static [&'static str];

/// Runs by device, seed and settings, each made once.
#[derive(Default)]
pub struct Runs(HashMap<(&'static str, u64, Sets), Run>);

impl Runs {
    fn get(&mut self, device: &'static str, seed: u64) -> anyhow::Result<Run> {
        self.with(device, seed, &[])
    }

    /// The run with these settings.
    pub fn with(&mut self, device: &'static str, seed: u64, sets: Sets) -> anyhow::Result<Run> {
        if let Some(run) = self.0.get(&(device, seed, sets)) {
            return Ok(run.clone());
        }
        let run = train(device, seed, sets)?;
        eprintln!("  digits on {device}, seed {seed}{}: {:.2} % in {:.1} s", [&[""], sets].concat().join(" "), run.accuracy()? * 100.0, run.seconds);
        self.0.insert((device, seed, sets), run.clone());
        Ok(run)
    }

    fn all(&mut self, device: &'static str) -> anyhow::Result<Vec<Run>> {
        (0..SEEDS).map(|s| self.get(device, s)).collect()
    }

    fn mean(&mut self, device: &'static str) -> anyhow::Result<f64> {
        self.mean_with(device, &[])
    }

    /// The mean accuracy over all seeds.
    pub fn mean_with(&mut self, device: &'static str, sets: Sets) -> anyhow::Result<f64> {
        Ok((0..SEEDS).map(|s| self.with(device, s, sets)?.accuracy()).sum::<anyhow::Result<f64>>()? / SEEDS as f64)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// Run the command in an empty folder, as a user would.
fn train(device: &str, seed: u64, sets: Sets) -> anyhow::Result<Run> {
    let folder = std::env::temp_dir().join(format!("wgrad-accept-{}-{device}-{seed}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let began = Instant::now();
    let out = Command::new(env!("CARGO_BIN_EXE_wgrad"))
        .current_dir(&folder)
        .arg("train")
        .arg(root().join("examples/digits.toml"))
        .args(["--device", device, "--set", &format!("train.seed={seed}")])
        .args(sets.iter().flat_map(|s| ["--set", s]))
        .output()?;
    let seconds = began.elapsed().as_secs_f64();
    ensure!(out.status.success(), "train ended with {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    let run = folder.join("runs/digits");
    let run = Run {
        result: serde_json::from_str(&std::fs::read_to_string(run.join("result.json"))?)?,
        model: std::fs::read(run.join("model.safetensors"))?,
        seconds,
    };
    std::fs::remove_dir_all(&folder)?;
    Ok(run)
}

fn accuracy_cpu(s: &mut State) -> anyhow::Result<Outcome> {
    let mean = s.digits.mean("cpu")?;
    Ok(Outcome::of(mean >= 0.984, format!("{:.2} %, nearest neighbour {:.2} %", mean * 100.0, nearest_neighbour()? * 100.0)))
}

fn accuracy_gpu(s: &mut State) -> anyhow::Result<Outcome> {
    let (cpu, gpu) = (s.digits.mean("cpu")?, s.digits.mean("gpu")?);
    Ok(Outcome::of((cpu - gpu).abs() <= 0.003, format!("{:.2} %, CPU {:.2} %", gpu * 100.0, cpu * 100.0)))
}

fn slowest(s: &mut State, device: &'static str, limit: f64) -> anyhow::Result<Outcome> {
    let most = s.digits.all(device)?.iter().map(|r| r.seconds).fold(0.0, f64::max);
    Ok(Outcome::of(most <= limit, format!("slowest {most:.1} s")))
}

fn seconds_cpu(s: &mut State) -> anyhow::Result<Outcome> {
    slowest(s, "cpu", 60.0)
}

fn seconds_gpu(s: &mut State) -> anyhow::Result<Outcome> {
    slowest(s, "gpu", 300.0)
}

fn one_seed(s: &mut State) -> anyhow::Result<Outcome> {
    let run = s.digits.get("cpu", 0)?;
    Ok(Outcome::of(run.accuracy()? >= 0.97 && run.seconds <= 60.0, format!("{:.2} % in {:.1} s", run.accuracy()? * 100.0, run.seconds)))
}

fn repeats(s: &mut State, device: &'static str) -> anyhow::Result<Outcome> {
    let first = s.digits.get(device, 0)?;
    let again = train(device, 0, &[])?;
    let other = s.digits.get(device, 1)?;
    let (same, differs) = (first.model == again.model, first.model != other.model);
    Ok(Outcome::of(
        same && differs,
        format!("same seed: {}; other seed: {}", if same { "same bits" } else { "other bits" }, if differs { "other bits" } else { "same bits" }),
    ))
}

fn repeats_cpu(s: &mut State) -> anyhow::Result<Outcome> {
    repeats(s, "cpu")
}

fn repeats_gpu(s: &mut State) -> anyhow::Result<Outcome> {
    repeats(s, "gpu")
}

fn plans(s: &mut State, device: &'static str) -> anyhow::Result<Outcome> {
    let run = s.digits.get(device, 0)?;
    let names: Vec<&str> = run.result["counters"]["plans"].as_array().context("no plans in result.json")?.iter().filter_map(Value::as_str).collect();
    if names.is_empty() {
        bail!("result.json names no plan");
    }
    Ok(Outcome::of(names.len() <= 6, format!("{}: {}", names.len(), names.join(", "))))
}

fn plans_cpu(s: &mut State) -> anyhow::Result<Outcome> {
    plans(s, "cpu")
}

fn plans_gpu(s: &mut State) -> anyhow::Result<Outcome> {
    plans(s, "gpu")
}

fn steady(s: &mut State, device: &'static str) -> anyhow::Result<Outcome> {
    let c = s.digits.get(device, 0)?.result["counters"].clone();
    let number = |v: &Value| v.as_u64().context("a counter is missing in result.json");
    let (after, step) = (&c["after_first_epoch"], &c["most_in_a_step"]);
    let later = [number(&after["plans_built"])?, number(&after["pipelines"])?, number(&after["create_buffer"])?];
    let (submits, writes, fallbacks) = (number(&step["submits"])?, number(&step["param_writes"])?, number(&c["host_fallbacks"])?);
    let pass = later == [0, 0, 0] && submits == 1 && writes == 1 && fallbacks == 0;
    Ok(Outcome::of(
        pass,
        format!("{} plans, {} pipelines, {} create_buffer; {submits} submit, {writes} write; {fallbacks} fallbacks", later[0], later[1], later[2]),
    ))
}

fn steady_cpu(s: &mut State) -> anyhow::Result<Outcome> {
    steady(s, "cpu")
}

fn steady_gpu(s: &mut State) -> anyhow::Result<Outcome> {
    steady(s, "gpu")
}

/// The accuracy of the nearest neighbour (Euclidean) on the same splits: everything but the test part is searched.
fn nearest_neighbour() -> anyhow::Result<f64> {
    use wgrad::data::{Dataset, Split, Table, Targets, Task};
    let table = Table::read_csv(root().join("examples/digits.csv"))?;
    let data = Dataset::from_table(&table, None, Some(("digit", Task::Classes(Some(10)))))?;
    let Targets::Classes { labels, .. } = data.targets() else { bail!("digits.csv has no classes") };
    let width = data.sample_shape().iter().product::<usize>();
    let row = |i: usize| &data.features()[i * width..][..width];
    let mut total = 0.0;
    for seed in 0..SEEDS {
        let split = Split::random(data.len(), 0.2, 0.0, seed, wgrad::rng::philox)?;
        let distance = |i: usize, j: usize| row(i).iter().zip(row(j)).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        let right = split.test.iter().filter(|&&t| {
            let best = split.train.iter().min_by(|&&a, &&b| distance(t, a).total_cmp(&distance(t, b)));
            best.is_some_and(|&b| labels[b] == labels[t])
        });
        total += right.count() as f64 / split.test.len() as f64;
    }
    Ok(total / SEEDS as f64)
}
