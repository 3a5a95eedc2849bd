//! A run over many probes: what is measured when, within which time, and what is left out.

use super::child::Host;
use super::probe::{Probe, family};
use super::report::{Measured, Report, Row, SCHEMA};
use super::system;
use crate::error::Result;
use std::time::Instant;

/// A dispatch that would take longer is not tried: a desktop would stand still.
const LONGEST_MS: f64 = 50.0;

/// In fewer seconds nothing is begun.
const SHORTEST: f64 = 1.0;

/// How a run is made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often each probe is measured, each time in a process of its own; all of them once, then all of them again. Those whose processes do not agree are
    /// measured up to twice as often.
    pub rounds: usize,
    /// Seconds for one device, where there is a limit.
    pub budget: Option<f64>,
}

/// Measure the probes on each host. `told` hears of each as it begins: the round, its number, how many there are, and its name.
///
/// # Errors
/// Where a device cannot be opened. What goes wrong in a probe stands in its row.
pub fn run(hosts: &[Host], probes: &[Probe], plan: &Plan, told: &mut dyn FnMut(usize, usize, usize, &str)) -> Result<Report> {
    let began = Instant::now();
    let mut devices = hosts.iter().map(Host::info).collect::<Result<Vec<Measured>>>()?;
    for (host, device) in hosts.iter().zip(&mut devices) {
        let began = Instant::now();
        device.rows = probes.iter().map(|p| Row { name: p.name.clone(), about: p.about.clone(), ..Row::default() }).collect();
        let order = order(probes, plan.budget.is_some());
        let more = if plan.rounds > 1 { plan.rounds } else { 0 };
        for round in 0..plan.rounds + more {
            for (done, &n) in order.iter().enumerate() {
                let probe = &probes[n];
                if device.rows[n].failed.is_some() || round >= plan.rounds && agree(&device.rows[n]) {
                    continue;
                }
                let left = plan.budget.map_or(f64::INFINITY, |b| b - began.elapsed().as_secs_f64());
                if left < SHORTEST {
                    if round == 0 {
                        device.rows[n].failed = Some(format!("not run: the {:.0} s that were given are over", plan.budget.unwrap_or_default()));
                    }
                    continue;
                }
                if let Some(ms) = estimate(probe, &device.rows).filter(|ms| *ms > LONGEST_MS) {
                    device.rows[n].failed = Some(format!("not run: one dispatch would take about {ms:.0} ms, more than {LONGEST_MS:.0}"));
                    continue;
                }
                told(round + 1, done + 1, probes.len(), &probe.name);
                let known = device.rows[n].bits.clone();
                let row = host.measure(probe, &known, left);
                // What ran out of time has a number from a round before, or the reason.
                if row.failed.is_none() || round == 0 || left >= host.limit {
                    device.rows[n].add(row);
                }
            }
        }
        device.finish();
    }
    Ok(Report {
        schema: SCHEMA.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        commit: system::commit(),
        os: system::os(),
        cpu: system::cpu(),
        kernel_hash: system::kernel_hash(),
        seconds: began.elapsed().as_secs_f64(),
        devices,
    })
}

/// Whether the processes that measured a row agree.
fn agree(row: &Row) -> bool {
    const NEAR: f64 = 1.03;
    let times = row.rounds.iter().map(|r| super::job::quartile(r, 1));
    let (low, high) = times.fold((f64::INFINITY, 0.0f64), |(l, h), t| (l.min(t), h.max(t)));
    high <= low * NEAR
}

/// The order of the table; where time may run out, one of each family of kernels, then another of each.
fn order(probes: &[Probe], short: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..probes.len()).collect();
    if short {
        let kernels = |p: &Probe| p.size.is_some();
        order.sort_by_key(|&n| probes[..n].iter().filter(|p| kernels(&probes[n]) && p.family() == probes[n].family()).count());
    }
    order
}

/// Milliseconds of its dispatch, by the fastest of its family so far.
fn estimate(probe: &Probe, rows: &[Row]) -> Option<f64> {
    let (flops, bytes) = probe.size?;
    let of_family = rows.iter().filter(|r| family(&r.name) == probe.family() && r.name != probe.name && !r.rounds.is_empty());
    let scaled = of_family.map(|r| {
        let times = (flops / r.flops.max(1.0)).max(bytes / r.bytes.max(1.0));
        super::clock::median(&r.samples()) * times
    });
    scaled.min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_of_time_begins_with_one_of_each_family() {
        let probes = super::super::probe::probes();
        assert!(order(&probes, false).is_sorted());
        let order = order(&probes, true);
        let first: Vec<&str> = order.iter().map(|&n| probes[n].family()).skip_while(|f| ["peak", "cost", "train"].contains(f)).take(4).collect();
        assert_eq!(first, ["elementwise", "matmul", "conv", "reduce"]);
        // Within a family the small ones stay first: estimates come from them.
        let matmuls: Vec<usize> = order.into_iter().filter(|&n| probes[n].family() == "matmul").collect();
        assert!(matmuls.is_sorted());
    }
}
