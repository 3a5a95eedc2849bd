//! The tuner: tries what kernels may choose on whole workloads, and keeps what makes them faster and is right.

use super::check;
use super::clock::median;
use super::ways::{Once, Rounds, WARM_RUNS, Way, runs_of_block};
use super::workload::Workload;
use crate::device::Device;
use crate::device::choices::{Asked, Choice, Choices};
use crate::device::gpu::Gpu;
use crate::error::{Error, Result};
use crate::graph::Alternative;
use crate::tensor::Data;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rounds of old against new in which a choice must be worth it, and those after which one that is not is given up.
const ROUNDS: usize = 9;
const FIRST_ROUNDS: usize = 2;
/// Rounds in which noise may hide a gain.
const MISSED: usize = 1;
/// One round is enough to see that much.
const FAR: f64 = 1.15;
/// A kernel below this share of a run cannot make it faster by what counts.
const LEAST_SHARE: f64 = 0.03;
/// No workload may take longer than this with a choice: what lies below is not told from noise.
const WORST: f64 = 1.01;
/// Operations that the definition computes in a second, before it was seen to.
const DEFINITION_RATE: f64 = 1e8;
/// Runs of which the quickest tells how long one takes.
const TIMED_RUNS: usize = 3;

/// What a choice has to fulfil.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The part of the old time that the new one may be at most.
    pub gain: f64,
    /// For tests: spoil one element of what a choice computes before it is compared.
    pub spoil: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { gain: 0.98, spoil: false }
    }
}

/// What became of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Faster and right.
    Kept,
    /// Not faster by what counts, or another workload is slower.
    NoGain,
    /// Faster, and wrong: how.
    Wrong(String),
    /// The device refused it: why.
    Failed(String),
    /// The budget ended before it was known.
    Cut,
}

/// One option, tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What is chosen.
    pub choice: &'static Choice,
    /// For which sizes.
    pub key: Vec<usize>,
    /// The option, by its place.
    pub option: usize,
    /// The workload that it was measured on first.
    pub workload: &'static str,
    /// Its milliseconds before.
    pub before_ms: f64,
    /// And after; NaN where they were not measured.
    pub after_ms: f64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What the tuner tells while it works.
#[derive(Debug)]
pub enum Told<'a> {
    /// A workload was measured: its name, milliseconds, and how many choices matter to it.
    Ready(&'static str, f64, usize),
    /// A workload is left out: why.
    LeftOut(&'static str, String),
    /// An option is about to be tried: what, for which sizes, its place, and the time that is left.
    Trying(&'static Choice, &'a [usize], usize, Duration),
    /// It was.
    Tried(&'a Trial),
    /// All choices of a workload are given up at the end: together they make it slower.
    GivenUp(&'static str),
}

/// A workload with its milliseconds by the rules and with the choices.
pub type Row = (&'static str, f64, f64);

/// What was found.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// The choices that are worth it.
    pub choices: Choices,
    /// Workloads with their milliseconds by the rules and with the choices.
    pub workloads: Vec<Row>,
    /// Everything that was tried.
    pub trials: Vec<Trial>,
    /// Whether nothing is left to try: it was not asked to stop, and had time enough.
    pub complete: bool,
    /// What ended the search, where the device failed: the choices before were each tried and found right, and not compared with the rules together.
    pub broken: Option<Error>,
}

/// A workload under tuning.
struct Subject {
    workload: &'static Workload,
    once: Once,
    ms: f64,
    runs: usize,
    flops: u64,
    asked: Vec<Asked>,
    /// Share of a run that each of them is about.
    shares: Vec<f64>,
    /// What the definition gives, and what the rules' kernels do.
    definition: Option<[Vec<Data>; 2]>,
}

impl Subject {
    /// Which of its choices that is.
    fn place_of(&self, asked: &Asked) -> Option<usize> {
        self.asked.iter().position(|a| a.choice.name == asked.choice.name && a.key == asked.key)
    }
}

struct Tuner<'a> {
    device: Device,
    gpu: Arc<Gpu>,
    rules: Rules,
    deadline: Instant,
    stop: &'a dyn Fn() -> bool,
    subjects: Vec<Subject>,
    /// Operations that the definition computes in a second.
    rate: f64,
    /// The longest that kernels took to compile.
    compiling: Duration,
}

/// Tune the kernels of `workloads` on `device` within `budget`: begins with the choices that the device has.
///
/// # Errors
/// A device that is no GPU, and failures of the device or of a workload as it is.
pub fn tune(
    device: &Device,
    workloads: &[&'static Workload],
    budget: Duration,
    rules: Rules,
    stop: &dyn Fn() -> bool,
    told: &mut dyn FnMut(Told<'_>),
) -> Result<Tuned> {
    let Device::Gpu(gpu) = device else {
        return Err(Error::device("tune-kernels: the CPU backend has no kernels to tune").help("name an adapter by --device; wgrad devices lists them"));
    };
    let deadline = Instant::now().checked_add(budget).ok_or_else(|| Error::invalid(format!("tune-kernels: no clock counts so far: {budget:?}")))?;
    let mut tuner = Tuner {
        device: device.clone(),
        gpu: gpu.clone(),
        rules,
        deadline,
        stop,
        subjects: Vec::new(),
        rate: DEFINITION_RATE,
        compiling: Duration::from_secs(1),
    };
    let begun = gpu.caps().choices.clone();
    tuner.prepare(workloads, &begun, told)?;
    let Search { choices, trials, complete, broken } = tuner.search(&begun, told)?;
    let complete = complete && tuner.subjects.len() == workloads.len();
    if broken.is_some() {
        return Ok(Tuned { choices, workloads: Vec::new(), trials, complete: false, broken });
    }
    let (choices, workloads) = tuner.settle(choices, told)?;
    Ok(Tuned { choices, workloads, trials, complete, broken })
}

/// How far the search came.
struct Search {
    choices: Choices,
    trials: Vec<Trial>,
    complete: bool,
    broken: Option<Error>,
}

impl Tuner<'_> {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn is_over(&self) -> bool {
        self.left().is_zero() || (self.stop)()
    }

    fn way(&self, choices: &Choices) -> Way {
        Way::new(&self.device, choices)
    }

    /// Measure each workload as it is, and hear what it chooses.
    fn prepare(&mut self, workloads: &[&'static Workload], choices: &Choices, told: &mut dyn FnMut(Told<'_>)) -> Result<()> {
        for workload in workloads {
            if self.is_over() {
                told(Told::LeftOut(workload.name, "the budget is spent".into()));
                continue;
            }
            let hearing = Arc::new(choices.hearing());
            let mut planning = Alternative::new(&self.device, hearing.clone());
            let (once, ms, times) = planning.during(|| {
                let mut once = workload.once(&self.device)?;
                (0..WARM_RUNS).try_for_each(|_| once())?;
                self.device.wait()?;
                // What others do to the machine makes a run longer, never shorter; a single long one would leave no time for any trial.
                let mut ms = f64::INFINITY;
                for _ in 0..TIMED_RUNS {
                    let began = Instant::now();
                    once()?;
                    self.device.wait()?;
                    ms = ms.min(began.elapsed().as_secs_f64() * 1e3);
                }
                let (_, times) = self.gpu.time_launches(&mut once)?;
                Ok::<_, Error>((once, ms, times))
            })?;
            let (asked, flops) = hearing.asked();
            let total: f64 = times.iter().sum();
            // Without timestamps everything is worth a trial.
            let share = |a: &Asked| if total > 0.0 { a.launches.iter().filter_map(|&n| times.get(n)).sum::<f64>() / total } else { 1.0 };
            let (shares, asked): (Vec<f64>, Vec<Asked>) = asked.into_iter().map(|a| (share(&a), a)).filter(|(s, _)| *s >= LEAST_SHARE).unzip();
            let runs = runs_of_block(ms);
            let mut subject = Subject { workload, once, ms, runs, flops, asked, shares, definition: None };
            // A quick one tells how fast the definition is here.
            if self.definition_cost(&subject) < Duration::from_secs(2) {
                self.define(&mut subject)?;
            }
            told(Told::Ready(workload.name, ms, subject.asked.len()));
            self.subjects.push(subject);
        }
        Ok(())
    }

    /// What computing the definition of a workload will take, if it was not computed.
    fn definition_cost(&self, subject: &Subject) -> Duration {
        if subject.definition.is_some() { Duration::ZERO } else { Duration::from_secs_f64(subject.flops as f64 / self.rate) }
    }

    fn define(&mut self, subject: &mut Subject) -> Result<()> {
        let began = Instant::now();
        let definition = subject.workload.results(&check::definition()?)?.0;
        // Not all of it goes as fast.
        self.rate = 0.7 * subject.flops as f64 / began.elapsed().as_secs_f64().max(1e-3);
        let rules = self.way(&Choices::default()).planning.during(|| subject.workload.results(&self.device))?.0;
        subject.definition = Some([definition, rules]);
        Ok(())
    }

    /// Time that a full comparison of some subjects takes.
    fn rounds_of<'s>(subjects: impl Iterator<Item = &'s Subject>) -> Duration {
        Duration::from_secs_f64(1.3e-3 * subjects.map(|s| (2 * ROUNDS * s.runs + 2 * WARM_RUNS) as f64 * s.ms).sum::<f64>())
    }

    /// Time that the last comparison of such choices takes.
    fn reserve(&self, choices: &Choices) -> Duration {
        Self::rounds_of(self.subjects.iter().filter(|s| s.asked.iter().any(|a| choices.get(a.choice, &a.key).is_some())))
    }

    /// Time that a trial takes at most, without compiling.
    fn cost(&self, asked: &Asked) -> Duration {
        Self::rounds_of(self.subjects.iter().filter(|s| s.place_of(asked).is_some()))
    }

    /// Try everything, the dearest first.
    fn search(&mut self, begun: &Choices, told: &mut dyn FnMut(Told<'_>)) -> Result<Search> {
        let mut wanted: Vec<(f64, Asked)> = Vec::new();
        for (share, asked) in self.subjects.iter().flat_map(|s| s.shares.iter().zip(&s.asked)) {
            match wanted.iter_mut().find(|(_, a)| a.choice.name == asked.choice.name && a.key == asked.key) {
                Some((all, a)) => {
                    *all += share;
                    // What fits in one place only is still tried.
                    a.fits.extend(asked.fits.iter().filter(|f| !a.fits.contains(f)).copied().collect::<Vec<_>>());
                }
                None => wanted.push((*share, asked.clone())),
            }
        }
        wanted.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut now, mut trials) = (self.way(begun), Vec::new());
        for subject in &mut self.subjects {
            now.warm(&self.device, &mut subject.once)?;
        }
        let mut complete = true;
        for (_, asked) in &wanted {
            for &option in &asked.fits {
                if now.choices.get(asked.choice, &asked.key).or(asked.rule) == Some(option) {
                    continue;
                }
                let mut new = self.way(&now.choices.with(asked.choice, &asked.key, Some(option)));
                if (self.stop)() {
                    return Ok(Search { choices: now.choices, trials, complete: false, broken: None });
                }
                if self.left() < self.reserve(&new.choices) + self.compiling + self.cost(asked) {
                    // Something cheaper may still fit.
                    complete = false;
                    continue;
                }
                told(Told::Trying(asked.choice, &asked.key, option, self.left()));
                let trial = match self.attempt(asked, option, &mut now, &mut new) {
                    Ok(trial) => trial,
                    // What was found before is not lost with the device.
                    broken => return Ok(Search { choices: now.choices, trials, complete: false, broken: broken.err() }),
                };
                told(Told::Tried(&trial));
                if trial.outcome == Outcome::Kept {
                    now = new;
                }
                trials.push(trial);
            }
        }
        Ok(Search { choices: now.choices, trials, complete, broken: None })
    }

    /// One option against what holds.
    fn attempt(&mut self, asked: &Asked, option: usize, old: &mut Way, new: &mut Way) -> Result<Trial> {
        let mut order: Vec<(usize, f64)> = self.subjects.iter().enumerate().filter_map(|(n, s)| Some((n, s.shares[s.place_of(asked)?]))).collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        let first = &self.subjects[order[0].0];
        let (choice, key) = (asked.choice, asked.key.clone());
        let mut trial = Trial { choice, key, option, workload: first.workload.name, before_ms: first.ms, after_ms: f64::NAN, outcome: Outcome::NoGain };
        let mut gains = false;
        for (place, (n, _)) in order.iter().enumerate() {
            // What the device refuses is no failure of ours: its kernels are compiled here, before anything is timed.
            let began = Instant::now();
            let warmed = new.warm(&self.device, &mut self.subjects[*n].once);
            self.compiling = self.compiling.max(began.elapsed());
            if let Err(e) = warmed {
                trial.outcome = Outcome::Failed(e.to_string());
                return Ok(trial);
            }
            let rounds = self.rounds(*n, old, new, if place == 0 { self.rules.gain } else { f64::INFINITY }, 0)?;
            if place == 0 {
                (trial.before_ms, trial.after_ms) = (median(&rounds.old), median(&rounds.new));
            }
            if rounds.cut {
                trial.outcome = Outcome::Cut;
                return Ok(trial);
            }
            let ratio = rounds.ratio();
            let worth = rounds.old.len() == ROUNDS && ratio <= self.rules.gain && rounds.faster() + MISSED >= ROUNDS || self.rules.gain > 1.0;
            gains |= worth;
            if ratio > WORST.max(self.rules.gain) || place == 0 && !worth {
                return Ok(trial);
            }
        }
        if !gains {
            return Ok(trial);
        }
        for (n, _) in order {
            if self.is_over() || self.definition_cost(&self.subjects[n]) > self.left().saturating_sub(self.reserve(&new.choices)) {
                trial.outcome = Outcome::Cut;
                return Ok(trial);
            }
            if let Err(e) = self.qualify(n, new)? {
                trial.outcome = Outcome::Wrong(e.to_string());
                return Ok(trial);
            }
        }
        trial.outcome = Outcome::Kept;
        Ok(trial)
    }

    /// All that a run computes where no memory holds a number by chance, compared with the definition.
    fn qualify(&mut self, n: usize, way: &mut Way) -> Result<Result<()>> {
        if self.subjects[n].definition.is_none() {
            let mut subject = self.subjects.remove(n);
            let defined = self.define(&mut subject);
            self.subjects.insert(n, subject);
            defined?;
        }
        let subject = &self.subjects[n];
        let poisons = self.gpu.options().poison;
        self.gpu.set_poison(true);
        let computed = way.planning.during(|| {
            let results = subject.workload.results(&self.device)?;
            subject.workload.check_losses(&self.device).map(|()| results)
        });
        self.gpu.set_poison(poisons);
        let [want, rules] = subject.definition.as_ref().map_or_else(|| [&[][..]; 2], |d| [&d[0][..], &d[1][..]]);
        Ok(computed.and_then(|(mut got, terms)| {
            if self.rules.spoil {
                spoil(&mut got);
            }
            check::compare_as(subject.workload.name, &got, want, rules, &terms)
        }))
    }

    /// Blocks of a subject's runs with either, in turn: `least` of them whatever the time. Given up early where nothing is gained.
    fn rounds(&mut self, n: usize, old: &mut Way, new: &mut Way, gain: f64, least: usize) -> Result<Rounds> {
        let mut rounds = Rounds::default();
        for round in 0..ROUNDS {
            if round >= least && self.is_over() {
                rounds.cut = true;
                break;
            }
            let Subject { once, runs, .. } = &mut self.subjects[n];
            rounds.add(&self.device, once, *runs, [&mut *old, &mut *new])?;
            let best = rounds.ratios().into_iter().fold(f64::INFINITY, f64::min);
            let hopeless = rounds.old.len() - rounds.faster() > MISSED && gain <= 1.0;
            if best > FAR * gain || round + 1 == FIRST_ROUNDS && best > gain || hopeless {
                break;
            }
        }
        Ok(rounds)
    }

    /// All choices together against the rules. Where a workload is not faster with them than without, its choices go.
    fn settle(&mut self, mut choices: Choices, told: &mut dyn FnMut(Told<'_>)) -> Result<(Choices, Vec<Row>)> {
        // What was found is compared also where the budget is spent, for which there is the reserve, and where no more is to be searched.
        self.stop = &|| false;
        self.deadline = self.deadline.max(Instant::now() + self.reserve(&choices));
        let (mut rules, mut chosen) = (self.way(&Choices::default()), self.way(&choices));
        let mut rows = Vec::new();
        for n in 0..self.subjects.len() {
            let name = self.subjects[n].workload.name;
            if !self.subjects[n].asked.iter().any(|a| choices.get(a.choice, &a.key).is_some()) {
                rows.push((name, self.subjects[n].ms, self.subjects[n].ms));
                continue;
            }
            let once = &mut self.subjects[n].once;
            for way in [&mut rules, &mut chosen] {
                way.warm(&self.device, once)?;
            }
            let rounds = self.rounds(n, &mut rules, &mut chosen, f64::INFINITY, FIRST_ROUNDS)?;
            let (mut before, mut after) = (median(&rounds.old), median(&rounds.new));
            if rounds.ratio() > WORST.max(self.rules.gain) {
                let own = &self.subjects[n].asked;
                choices = own.iter().fold(choices, |all, a| all.with(a.choice, &a.key, None));
                (before, after) = (before.min(after), before.min(after));
                chosen = self.way(&choices);
                told(Told::GivenUp(name));
            }
            rows.push((name, before, after));
        }
        Ok((choices, rows))
    }
}

/// Make one element wrong by a thousandth of the largest.
fn spoil(results: &mut [Data]) {
    if let Some(last) = results.last_mut() {
        let mut values = last.to_f64();
        let scale = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        values.iter_mut().take(1).for_each(|v| *v += 1e-3 * scale);
        *last = Data::from_f64(last.dtype(), &values);
    }
}
