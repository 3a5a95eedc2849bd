//! `cargo bench`: the CPU backend and the first adapter, by the code of `wgrad bench`, in less than three minutes. `cargo bench -- ARGUMENTS` takes the
//! command's own arguments instead.

use std::process::ExitCode;

/// Seconds for each of the two devices.
const BUDGET: &str = "80";

fn main() -> ExitCode {
    // Cargo adds one of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let bench = |arguments: &[&str]| wgrad::cli::run_with(["wgrad"].iter().chain(arguments));
    let given: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match given.first() {
        // A probe's own process: this program again.
        Some(&"bench") => bench(&given),
        Some(_) => bench(&[&["bench"], &given[..]].concat()),
        None => {
            let each = ["cpu", "gpu"].map(|device| (device, bench(&["bench", "--device", device, "--seconds", BUDGET, "--rounds", "1", "--sample", "0.15"])));
            for (device, _) in each.iter().filter(|(_, exit)| *exit != ExitCode::SUCCESS) {
                eprintln!("could not run: --device {device}");
            }
            ExitCode::SUCCESS
        }
    }
}
