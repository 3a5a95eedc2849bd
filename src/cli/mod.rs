//! The command line: one command a file, one table of them.
//!
//! Standard output carries results only; messages, progress and the line that says which device is used go to standard error.

/// A line of message on standard error. That nobody reads it is no reason to end a run.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}

mod bench;
mod config;
mod counting;
mod devices;
mod evaluate;
mod interrupt;
mod job;
mod ops;
mod paths;
mod predict;
mod progress;
mod section;
mod train;
#[cfg(feature = "gpu")]
mod tune;

use clap::ArgMatches;
use std::ffi::OsString;
use std::process::ExitCode;

/// How a command ended. The argument parser itself exits with 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked to.
    Done = 0,
    /// It could not.
    Failed = 1,
    /// A check that was asked for found a fault.
    Fault = 3,
    /// It was interrupted.
    Interrupted = 130,
}

/// A command with its arguments read.
trait Run: clap::Parser {
    fn run(self) -> anyhow::Result<Exit>;
}

/// A row of the table.
struct Command {
    /// Its name, its help and its arguments.
    describe: fn() -> clap::Command,
    /// Read its arguments, and run it.
    run: fn(&ArgMatches) -> anyhow::Result<Exit>,
}

const fn command<C: Run>() -> Command {
    Command { describe: C::command, run: |arguments| C::from_arg_matches(arguments)?.run() }
}

/// Every command.
static COMMANDS: &[Command] = &[
    command::<train::Train>(),
    command::<evaluate::Evaluate>(),
    command::<predict::Predict>(),
    command::<devices::Devices>(),
    command::<ops::Ops>(),
    command::<bench::Bench>(),
    #[cfg(feature = "gpu")]
    command::<tune::TuneKernels>(),
];

const ABOUT: &str = "Train models whose kernels are WGSL compute shaders, on any vendor's GPU or on the CPU.";

const FLAGS: &str = "Exit codes: 0 done, 1 failed, 2 arguments not understood, 3 a check that was asked for found a fault, 130 interrupted.";

/// Run the program: read the arguments, run the command they name, and say how it ended.
pub fn main() -> ExitCode {
    run_with(std::env::args_os())
}

/// The same with these arguments; the first one is the program's name.
pub fn run_with<A: Into<OsString> + Clone>(arguments: impl IntoIterator<Item = A>) -> ExitCode {
    #[cfg(feature = "gpu")]
    crate::device::gpu::quiet_drivers();
    #[cfg(feature = "gpu")]
    crate::env::keep_compiled();
    let mut program = clap::Command::new("wgrad").version(env!("CARGO_PKG_VERSION")).about(ABOUT).after_help(FLAGS);
    program = program.subcommand_required(true).arg_required_else_help(true).subcommands(COMMANDS.iter().map(|c| (c.describe)()));
    let matches = program.get_matches_from(arguments);
    let exit = match run(&matches) {
        Ok(exit) => exit,
        // Who reads our output has seen enough.
        Err(e) if e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) => Exit::Done,
        Err(e) => {
            say!("error: {e:#}");
            Exit::Failed
        }
    };
    ExitCode::from(exit as u8)
}

fn run(matches: &ArgMatches) -> anyhow::Result<Exit> {
    crate::env::check()?;
    let (name, arguments) = matches.subcommand().ok_or_else(|| anyhow::anyhow!("no command was given"))?;
    let named = COMMANDS.iter().find(|c| (c.describe)().get_name() == name);
    (named.ok_or_else(|| anyhow::anyhow!("there is no command {name}"))?.run)(arguments)
}
