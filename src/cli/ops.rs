//! `wgrad ops`: the table of operations.

use super::{Exit, Run};
use crate::ops::{self, Order};
use std::io::Write;

/// List the operations: name, how often it can be differentiated, and what it computes.
#[derive(Debug, clap::Parser)]
#[command(name = "ops")]
pub struct Ops {}

impl Run for Ops {
    fn run(self) -> anyhow::Result<Exit> {
        let mut lines: Vec<(&str, &str, &str)> = Vec::new();
        for op in ops::all() {
            let order = match op.order {
                Order::Zero => "none",
                Order::First => "once",
                Order::Any => "any",
            };
            lines.push((op.name, order, op.doc));
        }
        lines.extend(ops::rows::all().map(|row| (row.name, "any", row.doc)));
        lines.sort_unstable();
        let width = lines.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        let mut out = std::io::stdout().lock();
        writeln!(out, "{:width$}  gradient  what it computes", "name")?;
        for (name, order, doc) in lines {
            writeln!(out, "{name:width$}  {order:8}  {doc}")?;
        }
        Ok(Exit::Done)
    }
}
