//! `make accept-spine` and `make accept-speed`: measure what was promised, a line of PASS or FAIL for each. Not a test of `cargo test`: the whole takes hours.
//!
//! `--speed` runs the lines about speed instead of those about the spine; `--quick` the half that CI runs; `--only TEXT` the lines whose name contains it;
//! `--write FILE` keeps the table there. `--peers [WORKLOAD...]` runs wgrad and its peers in turn and prints the ratios, and nothing else.

mod build;
mod digits;
mod mixed;
mod speed;
mod suite;

use std::process::ExitCode;
use std::time::Instant;

/// What a line measured.
pub struct Outcome {
    pub pass: bool,
    /// Nothing was measured, for the reason in `got`: what it is about is not here.
    pub skipped: bool,
    /// The number, or what was seen.
    pub got: String,
}

impl Outcome {
    pub fn of(pass: bool, got: impl Into<String>) -> Outcome {
        Outcome { pass, skipped: false, got: got.into() }
    }

    pub fn skipped(why: impl Into<String>) -> Outcome {
        Outcome { pass: true, skipped: true, got: why.into() }
    }
}

/// A line of "It holds when".
pub struct Line {
    pub name: &'static str,
    pub limit: &'static str,
    /// Whether CI runs it.
    pub quick: bool,
    pub run: fn(&mut State) -> anyhow::Result<Outcome>,
}

/// What lines share: runs that several of them read.
#[derive(Default)]
pub struct State {
    pub quick: bool,
    pub digits: digits::Runs,
    pub peers: speed::peers::Runs,
    /// Kind and name of the first adapter, once it was asked for.
    pub first_adapter: Option<(String, String)>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    if let Some(at) = args.iter().position(|a| a == "--peers") {
        return match speed::peers::print_ratios(&args[at + 1..], 3) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("{e:#}");
                ExitCode::FAILURE
            }
        };
    }
    let speed = args.iter().any(|a| a == "--speed");
    let mut state = State { quick: args.iter().any(|a| a == "--quick"), ..State::default() };
    let only = value("--only").unwrap_or_default();
    let table: Vec<&Line> = if speed {
        speed::LINES.iter().chain(speed::bench::LINES).chain(speed::hardware::LINES).chain(mixed::LINES).collect()
    } else {
        digits::LINES.iter().chain(suite::LINES.iter().copied()).chain(build::LINES).collect()
    };
    let lines: Vec<&Line> = table.into_iter().filter(|l| (l.quick || !state.quick) && l.name.contains(&only)).collect();
    if lines.is_empty() {
        eprintln!("no line's name contains {only}");
        return ExitCode::FAILURE;
    }
    let mut table = String::new();
    let (mut failed, mut skipped) = (0, 0);
    for line in lines {
        let began = Instant::now();
        let outcome = (line.run)(&mut state).unwrap_or_else(|e| Outcome::of(false, format!("did not run: {e:#}")));
        failed += usize::from(!outcome.pass);
        skipped += usize::from(outcome.skipped);
        let row = format!(
            "{} {:<34} {}  [{}]  ({:.0} s)",
            match outcome {
                Outcome { skipped: true, .. } => "SKIP",
                Outcome { pass: true, .. } => "PASS",
                _ => "FAIL",
            },
            line.name,
            outcome.got.replace('\n', " | "),
            line.limit,
            began.elapsed().as_secs_f64()
        );
        println!("{row}");
        table.push_str(&row);
        table.push('\n');
    }
    if let Some(file) = value("--write") {
        let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
        let text = format!(
            "# What `make accept-{}` measured\n\n{cores} cores, no GPU: the adapter is Mesa's llvmpipe (lavapipe).\nEach line: what holds, what was seen, the limit, the seconds it took.\n\n```text\n{table}```\n",
            if speed { "speed" } else { "spine" }
        );
        if let Err(e) = std::fs::write(&file, text) {
            eprintln!("{file}: {e}");
            failed += 1;
        }
    }
    println!(
        "{}{}",
        if failed == 0 { "all lines hold".to_string() } else { format!("{failed} lines do not hold") },
        if skipped > 0 { format!(", {skipped} were skipped") } else { String::new() }
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
