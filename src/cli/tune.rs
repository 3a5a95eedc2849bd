//! `wgrad tune-kernels`: choices of kernels that are faster here than the rules'.

use super::paths::writable;
use super::{Exit, Run, interrupt, job};
use crate::bench::{self, Outcome, Rules, Told, Trial};
use crate::device::Device;
use crate::device::choices::Choice;
use crate::device::gpu::{GpuOptions, tuned_path, write_tuned};
use anyhow::{Context, bail};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// Find choices of kernels that are faster on this adapter than those of the rules, and keep them in a file.
///
/// Nothing needs it: the rules hold without a file. A choice is kept where whole workloads take at least 2 % less time with it in round after round, none takes
/// longer, and all that they compute is as the CPU definition has it. The file is for this adapter and this driver; a device finds it when it opens, and it can be
/// shipped (WGRAD_TUNED names it). Ctrl-C keeps what was found so far. Tuning again goes on from there.
#[derive(Debug, clap::Parser)]
#[command(name = "tune-kernels")]
pub struct TuneKernels {
    /// Workloads to make faster (`wgrad bench --jsonl --list` shows them).
    #[arg(value_name = "WORKLOAD", default_values = ["mlp_train", "lenet_train", "resnet_train", "matmul_1024"])]
    workloads: Vec<String>,
    /// The adapter: gpu (the first of `wgrad devices`), gpu:N or part of a name.
    #[arg(long)]
    device: Option<String>,
    /// End within this time: 60s, 5m.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    budget: Duration,
    /// Write the choices to this file, and not to the one that devices find by themselves.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Run for TuneKernels {
    fn run(self) -> anyhow::Result<Exit> {
        let workloads = bench::workloads(&self.workloads)?;
        let (device, why) = job::choose_device(self.device.as_deref(), None)?;
        say!("device: {why}");
        let Device::Gpu(gpu) = &device else { bail!("tune-kernels: the CPU backend has no kernels to tune: name an adapter by --device") };
        let path = match (self.out, GpuOptions::from_env()?.pipeline_folder) {
            (Some(path), _) => path,
            (None, Some(folder)) => {
                std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
                tuned_path(gpu.info(), &folder)
            }
            (None, None) => bail!("tune-kernels: WGRAD_CACHE is off, so there is no place for the choices: name a file by --out"),
        };
        // What cannot be written is said before minutes are spent on it.
        writable(&path)?;
        let cancel = interrupt::watch()?;
        let terminal = std::io::stderr().is_terminal();
        let mut told = |t: Told<'_>| tell(&t, terminal);
        let tuned = bench::tune(&device, &workloads, self.budget, Rules::default(), &|| cancel.load(SeqCst), &mut told)?;
        // The table comes in any case.
        let kept = write_tuned(&path, gpu.info(), &tuned.choices);
        let mut out = std::io::stdout().lock();
        writeln!(out, "{:24} {:>10} {:>10} {:>7}", "workload", "rules ms", "tuned ms", "ratio")?;
        for (name, before, after) in &tuned.workloads {
            writeln!(out, "{name:24} {before:10.3} {after:10.3} {:7.3}", before / after)?;
        }
        for [name, key, option] in tuned.choices.lines() {
            writeln!(out, "{name} {option} for {key}")?;
        }
        let interrupted = cancel.load(SeqCst);
        let all = match tuned.complete {
            true => "all that there is to try",
            false if tuned.broken.is_some() => "then the device failed",
            false if interrupted => "interrupted",
            false => "the budget ended first",
        };
        let at = if kept.is_ok() { path.display().to_string() } else { "not written".into() };
        writeln!(out, "{} tried ({all}), {} chosen: {at}", tuned.trials.len(), tuned.choices.len())?;
        kept?;
        if let Some(e) = tuned.broken {
            return Err(anyhow::Error::new(e).context("the search ended early, and what it had found was not compared with the rules as a whole"));
        }
        Ok(if interrupted { Exit::Interrupted } else { Exit::Done })
    }
}

fn what(choice: &Choice, key: &[usize], option: usize) -> String {
    format!("{} {} for {}", choice.name, choice.options[option], choice.key_text(key))
}

fn tell(told: &Told<'_>, terminal: bool) {
    let clear = if terminal { "\r\x1b[K" } else { "" };
    match told {
        Told::Ready(workload, ms, choices) => say!("{workload}: {ms:.2} ms, {choices} choices that matter"),
        Told::LeftOut(workload, why) => say!("{workload}: left out: {why}"),
        // On a terminal the line is written over by what became of it.
        Told::Trying(choice, key, option, left) if terminal => {
            let _ = write!(std::io::stderr(), "{clear}{:4.0} s left: {}", left.as_secs_f64(), what(choice, key, *option));
        }
        Told::Trying(..) => {}
        Told::Tried(t) => say!("{clear}{}: {}: {:.3} to {:.3} ms: {}", what(t.choice, &t.key, t.option), t.workload, t.before_ms, t.after_ms, outcome(t)),
        Told::GivenUp(workload) => say!("{workload}: not faster with all choices together: its own are given up"),
    }
}

fn outcome(trial: &Trial) -> String {
    match &trial.outcome {
        Outcome::Kept => "kept".into(),
        Outcome::NoGain => "no gain".into(),
        Outcome::Wrong(why) => format!("wrong, not kept: {why}"),
        Outcome::Failed(why) => format!("failed, not kept: {why}"),
        Outcome::Cut => "the budget ended".into(),
    }
}

/// `60s`, `60` or `5m`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60.0),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.trim().parse::<f64>().ok().map(|n| n * unit).filter(|s| *s > 0.0);
    seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).ok_or_else(|| format!("must be a time above 0, such as 60s or 5m: {text}"))
}
