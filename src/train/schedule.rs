//! Schedules: the learning rate of each step. Rates are data to the graph, so a rate that changes every step costs no plan.

use crate::error::{Error, Result, nearest};
use std::f64::consts::PI;

/// How the learning rate goes over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Schedule {
    /// The same at every step.
    #[default]
    Constant,
    /// Up in a line over the first `warmup` of the steps (a fraction), then down to zero along half a cosine.
    Cosine {
        /// The fraction of the steps that go up.
        warmup: f64,
    },
    /// PyTorch's one cycle: from a 25th up to the rate over the first `warmup` of the steps, then down to a 250,000th, both along half a cosine.
    OneCycle {
        /// The fraction of the steps that go up.
        warmup: f64,
    },
}

/// The names of the schedules, and how much of a run goes up where nothing else is said.
pub static SCHEDULES: &[(&str, f64)] = &[("constant", 0.0), ("cosine", 0.0), ("one_cycle", 0.3)];

impl Schedule {
    /// The schedule of that name, with that fraction of warm-up or the schedule's own.
    pub fn named(name: &str, warmup: Option<f64>) -> Result<Schedule> {
        let Some((_, default)) = SCHEDULES.iter().find(|(n, _)| *n == name) else {
            let names = SCHEDULES.iter().map(|(n, _)| *n);
            let near = nearest(name, names.clone()).map_or(String::new(), |n| format!("did you mean {n}? "));
            let all = names.collect::<Vec<_>>().join(", ");
            return Err(Error::invalid(format!("schedule: there is no schedule {name}")).help(format!("{near}the schedules are {all}")));
        };
        let fraction = warmup.unwrap_or(*default);
        if !(0.0..1.0).contains(&fraction) {
            return Err(Error::invalid(format!("schedule: warmup must be a fraction in 0..1: {fraction}")));
        }
        match name {
            "cosine" => Ok(Schedule::Cosine { warmup: fraction }),
            "one_cycle" => Ok(Schedule::OneCycle { warmup: fraction }),
            _ if warmup.is_some_and(|w| w > 0.0) => Err(Error::invalid(format!("schedule: {name} has no warmup")).help("cosine and one_cycle have")),
            _ => Ok(Schedule::Constant),
        }
    }

    /// The rate of `step` (from 0) of `steps`, as a factor of the run's learning rate.
    pub fn factor(&self, step: usize, steps: usize) -> f64 {
        let half_cosine = |from: f64, to: f64, at: f64| to + (from - to) * 0.5 * (1.0 + (PI * at).cos());
        match *self {
            Schedule::Constant => 1.0,
            Schedule::Cosine { warmup } => {
                let (up, at) = ((warmup * steps as f64).round(), step as f64);
                // The first step has a rate above zero, the last one too.
                if at < up { (at + 1.0) / (up + 1.0) } else { half_cosine(1.0, 0.0, ((at - up) / (steps as f64 - up).max(1.0)).min(1.0)) }
            }
            Schedule::OneCycle { warmup } => {
                let last = steps.saturating_sub(1) as f64;
                let (top, at) = (warmup * last, step as f64);
                let (low, end) = (1.0 / 25.0, 1.0 / 250_000.0);
                if at < top { half_cosine(low, 1.0, at / top) } else { half_cosine(1.0, end, ((at - top) / (last - top).max(1.0)).min(1.0)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_rate_stays() {
        assert!((0..10).all(|s| Schedule::Constant.factor(s, 10) == 1.0));
    }

    #[test]
    fn a_cosine_goes_up_in_a_line_and_down_to_almost_zero() {
        let s = Schedule::Cosine { warmup: 0.1 };
        let rates: Vec<f64> = (0..100).map(|n| s.factor(n, 100)).collect();
        assert!(rates[..11].windows(2).all(|w| w[0] < w[1]) && rates[10..].windows(2).all(|w| w[0] > w[1]), "{rates:?}");
        assert!((rates[10] - 1.0).abs() < 1e-12 && rates[99] > 0.0 && rates[99] < 1e-3);
        assert_eq!(Schedule::Cosine { warmup: 0.0 }.factor(0, 100), 1.0);
    }

    #[test]
    fn one_cycle_is_pytorchs() {
        let s = Schedule::OneCycle { warmup: 0.3 };
        assert!((s.factor(0, 101) - 0.04).abs() < 1e-12);
        assert!((s.factor(30, 101) - 1.0).abs() < 1e-12);
        assert!((s.factor(100, 101) - 4e-6).abs() < 1e-12);
        // torch.optim.lr_scheduler.OneCycleLR(max_lr=1, total_steps=101), step 15.
        assert!((s.factor(15, 101) - 0.52).abs() < 1e-9);
        assert!(s.factor(0, 1).is_finite());
    }

    #[test]
    fn schedules_are_found_by_name() {
        assert_eq!(Schedule::named("one_cycle", None).unwrap(), Schedule::OneCycle { warmup: 0.3 });
        assert_eq!(Schedule::named("cosine", Some(0.1)).unwrap(), Schedule::Cosine { warmup: 0.1 });
        let e = Schedule::named("cosin", None).unwrap_err();
        assert_eq!(e.message(), "schedule: there is no schedule cosin\nhelp: did you mean cosine? the schedules are constant, cosine, one_cycle");
        assert!(Schedule::named("constant", Some(0.5)).is_err());
        assert!(Schedule::named("cosine", Some(1.0)).is_err());
    }
}
