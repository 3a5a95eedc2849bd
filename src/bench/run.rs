//! A run over many probes: what is measured when, within which time, and what is left out.

use super::child::Host;
use super::clock::median;
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
        let empty = |p: &Probe| {
            let (flops, bytes) = p.size.unwrap_or_default();
            Row { name: p.name.clone(), about: p.about.clone(), flops, bytes, ..Row::default() }
        };
        device.rows = probes.iter().map(empty).collect();
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
                if let Some(why) = too_long(probe, &device.rows) {
                    device.rows[n].failed = Some(why);
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

/// How much larger a probe may be than those that its time is told from.
const REACH: f64 = 16.0;

/// What stands before the reason.
const TOO_LONG: &str = "not run: one dispatch would take";

/// Why a probe is not tried: by the fastest of its family among those that are not much smaller, or because a smaller one was not tried.
fn too_long(probe: &Probe, rows: &[Row]) -> Option<String> {
    let (flops, bytes) = probe.size?;
    let of_family = || rows.iter().filter(|r| family(&r.name) == probe.family() && r.name != probe.name);
    let told = of_family().filter(|r| !r.rounds.is_empty()).filter_map(|r| {
        let times = (flops / r.flops.max(1.0)).max(bytes / r.bytes.max(1.0));
        (times <= REACH).then(|| median(&r.samples()) * times)
    });
    match told.min_by(f64::total_cmp) {
        Some(ms) if ms > LONGEST_MS => Some(format!("{TOO_LONG} about {} ms, more than {LONGEST_MS}", ms.ceil())),
        Some(_) => None,
        None => {
            let left_out = |r: &&Row| r.failed.as_ref().is_some_and(|why| why.starts_with(TOO_LONG)) && r.flops <= flops && r.bytes <= bytes;
            of_family().find(left_out).map(|r| format!("{TOO_LONG} longer than that of {}, more than {LONGEST_MS} ms", r.name))
        }
    }
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

    #[test]
    fn what_would_be_long_is_left_out() {
        let probes = super::super::probe::select(&["matmul".into()]).unwrap();
        let at = |name: &str| probes.iter().position(|p| p.name == name).unwrap();
        let mut rows: Vec<Row> =
            probes.iter().map(|p| Row { name: p.name.clone(), flops: p.size.unwrap().0, bytes: p.size.unwrap().1, ..Row::default() }).collect();
        let says = |name: &str, rows: &[Row]| too_long(&probes[at(name)], rows);
        rows[at("matmul/128")].rounds = vec![vec![1.0]];
        assert_eq!(says("matmul/256", &rows), None);
        // From so far below nothing follows.
        assert_eq!(says("matmul/1024", &rows), None);
        rows[at("matmul/128")].rounds = vec![vec![7.0]];
        assert_eq!(says("matmul/256", &rows).unwrap(), "not run: one dispatch would take about 56 ms, more than 50");
        rows[at("matmul/256")].failed = says("matmul/256", &rows);
        assert!(says("matmul/1024", &rows).unwrap().contains("longer than that of matmul/256"));
        assert_eq!(says("matmul/64", &rows), None);
    }
}
