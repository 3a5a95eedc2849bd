//! Mixed precision: the digits job reaches the accuracy that it reaches in f32, and survives overflow.

use super::digits::Sets;
use super::{Line, Outcome, State};
use anyhow::Context;

pub static LINES: &[Line] = &[
    Line { name: "digits mixed: accuracy, cpu", limit: "mean over seeds 0-9 within 0.3 points of f32", quick: false, run: accuracy },
    Line { name: "digits mixed: overflow, cpu", limit: "first loss scale 1e38: at least 97 %, steps skipped, the scale found", quick: true, run: overflow },
    Line { name: "digits mixed: one seed, gpu", limit: "at least 97 %; a step 1 submit; 0 plans after epoch 1", quick: false, run: one_seed_gpu },
];

const MIXED: Sets = &["train.precision=mixed"];
const OVERFLOW: Sets = &["train.precision=mixed", "train.loss_scale=1e38"];

fn accuracy(s: &mut State) -> anyhow::Result<Outcome> {
    let (mixed, plain) = (s.digits.mean_with("cpu", MIXED)?, s.digits.mean_with("cpu", &[])?);
    Ok(Outcome::of((mixed - plain).abs() <= 0.003, format!("{:.2} %, in f32 {:.2} %", mixed * 100.0, plain * 100.0)))
}

fn overflow(s: &mut State) -> anyhow::Result<Outcome> {
    let run = s.digits.with("cpu", 0, OVERFLOW)?;
    let skipped = run.result["skipped_steps"].as_u64().context("result.json has no skipped_steps")?;
    // From 1e38 to where the gradients of this job fit is about a hundred halvings.
    let pass = run.accuracy()? >= 0.97 && (60..200).contains(&skipped);
    Ok(Outcome::of(pass, format!("{:.2} %, {skipped} steps skipped", run.accuracy()? * 100.0)))
}

fn one_seed_gpu(s: &mut State) -> anyhow::Result<Outcome> {
    let run = s.digits.with("gpu", 0, MIXED)?;
    let counters = &run.result["counters"];
    let number = |v: &serde_json::Value| v.as_u64().context("a counter is missing in result.json");
    let (submits, plans) = (number(&counters["most_in_a_step"]["submits"])?, number(&counters["after_first_epoch"]["plans_built"])?);
    let pass = run.accuracy()? >= 0.97 && (submits, plans) == (1, 0);
    Ok(Outcome::of(pass, format!("{:.2} %; {submits} submit, {plans} plans", run.accuracy()? * 100.0)))
}
