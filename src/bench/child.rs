//! Probes in processes of their own: one that fails, crashes or hangs gives a reason, and the others go on.

use super::job::{SLOW_RUN, Samples};
use super::peaks;
use super::probe;
use super::report::{Measured, Row};
use crate::device::Device;
use crate::error::{Error, Result};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The probe that measures nothing, and says what the device is.
const INFO: &str = "info";

/// What stands before the time that a process was given.
pub(super) const NO_ANSWER: &str = "no answer within";

/// How often a process is asked whether it has ended.
const POLL: Duration = Duration::from_millis(4);

/// How probes are run.
#[derive(Clone, Debug)]
pub struct Host {
    /// This program.
    program: PathBuf,
    /// As `--device` takes it; what the environment says where there is none.
    device: Option<String>,
    /// Seconds after which a process is ended.
    pub limit: f64,
    /// Seconds that are sampled.
    pub sample: f64,
}

impl Host {
    /// Run probes by this program, which must answer `bench --child NAME`.
    pub fn new(device: Option<String>, limit: f64, sample: f64) -> Result<Host> {
        let program = std::env::current_exe().map_err(|e| Error::invalid(format!("bench: cannot find this program: {e}")))?;
        Ok(Host { program, device, limit, sample })
    }

    /// As it was asked for.
    pub fn device(&self) -> &str {
        self.device.as_deref().unwrap_or("the default device")
    }

    /// What the device is, with no rows.
    pub fn info(&self) -> Result<Measured> {
        let answer = self.ask(INFO, "", self.limit, &|| false).map_err(Error::device)?;
        serde_json::from_str(&answer).map_err(|e| Error::internal(format!("bench: not an answer: {e}: {answer}")))
    }

    /// Measure a probe once, within so many seconds and until `stop` says so. Why it could not be measured stands in the row.
    pub fn measure(&self, probe: &probe::Probe, known: &str, limit: f64, stop: &dyn Fn() -> bool) -> Row {
        let answer = self.ask(&probe.name, known, limit.min(self.limit), stop);
        let row = answer.and_then(|a| serde_json::from_str(&a).map_err(|e| format!("not an answer: {e}: {a}")));
        let named = |failed| Row { name: probe.name.clone(), about: probe.about.clone(), failed, ..Row::default() };
        row.map_or_else(|why| named(Some(why)), |row: Row| Row { about: probe.about.clone(), ..row })
    }

    /// The last line that a process writes, or why it has none.
    fn ask(&self, name: &str, known: &str, limit: f64, stop: &dyn Fn() -> bool) -> std::result::Result<String, String> {
        let mut command = Command::new(&self.program);
        command.args(["bench", "--child", name, "--sample", &self.sample.to_string(), "--limit", &limit.to_string()]);
        if !known.is_empty() {
            command.args(["--known", known]);
        }
        if let Some(device) = &self.device {
            command.args(["--device", device]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("cannot start {}: {e}", self.program.display()))?;
        // Both are read while it runs: a full pipe would stop it.
        let reading = (drain(child.stdout.take()), drain(child.stderr.take()));
        let began = Instant::now();
        let ended = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) if began.elapsed().as_secs_f64() > limit => break Err(format!("{NO_ANSWER} {limit:.0} s")),
                Ok(None) if stop() => break Err("interrupted".to_string()),
                Ok(None) => std::thread::sleep(POLL),
                Err(e) => break Err(format!("cannot be waited for: {e}")),
            }
        };
        if ended.is_err() {
            // It may have ended just now.
            let _ = child.kill();
            let _ = child.wait();
        }
        let (out, err) = (reading.0.join().unwrap_or_default(), reading.1.join().unwrap_or_default());
        let status = ended?;
        if !status.success() {
            return Err(reason(status, &err));
        }
        out.lines().last().map(str::to_string).ok_or_else(|| "it said nothing".to_string())
    }
}

fn drain(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            // What came before a broken pipe is what there is.
            let _ = from.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Why a process failed: its error, or how it ended.
fn reason(status: ExitStatus, err: &str) -> String {
    // Where it panicked is in one line, why in the next. Drivers write lines that begin with "error:", too.
    let panicked = || {
        let mut lines = err.lines().skip_while(|l| !l.contains("panicked at "));
        lines.next().map(|at| format!("{at} {}", lines.next().unwrap_or_default()).trim_end().to_string())
    };
    let own = || err.lines().rev().find_map(|l| l.strip_prefix("error: ")).map(str::to_string);
    match panicked().or_else(own).or_else(|| err.lines().last().map(str::to_string)) {
        Some(line) if status.code().is_some() => line,
        Some(line) => format!("{status}: {line}"),
        None => status.to_string(),
    }
}

/// The answer of a process that was asked for this probe; `slowed` has it do a tenth more work than it counts, for tests of who compares results.
///
/// # Errors
/// What goes wrong in the probe; a result that is not right.
pub fn answer(name: &str, device: &Device, known: Option<String>, seconds: f64, slowed: bool) -> Result<String> {
    let text = if name == INFO { serde_json::to_string(&describe(device)) } else { serde_json::to_string(&measure(name, device, known, seconds, slowed)?) };
    text.map_err(|e| Error::internal(format!("bench: {e}")))
}

fn measure(name: &str, device: &Device, known: Option<String>, seconds: f64, slowed: bool) -> Result<Row> {
    let probes = probe::select(std::slice::from_ref(&name.to_string()))?;
    let probe = probes.iter().find(|p| p.name == name).ok_or_else(|| Error::invalid(format!("bench: {name} is a family, not a probe")))?;
    let mut job = probe.job(device, known)?;
    if slowed {
        job.slow_down();
    }
    let Samples { ms, clock, host_ms, launches } = job.sample(device, seconds, if slowed { SLOW_RUN } else { 1 })?;
    let bits = (job.verify)()?.bits;
    Ok(Row { name: name.into(), clock: clock.into(), flops: job.flops, bytes: job.bytes, rounds: vec![ms], host_ms, launches, bits, ..Row::default() })
}

fn describe(device: &Device) -> Measured {
    let measured =
        Measured { device: device.short_name(), description: device.description(), working_set: peaks::working_set_text(device), ..Measured::default() };
    match device {
        Device::Cpu(_) => measured,
        #[cfg(feature = "gpu")]
        Device::Gpu(gpu) => {
            let info = gpu.info();
            Measured {
                adapter: Some(info.name.clone()),
                backend: Some(info.backend.into()),
                driver: Some(info.driver.clone()),
                kind: Some(format!("{:?}", info.kind).to_lowercase()),
                features: info.features.iter().map(|f| f.to_string()).collect(),
                ..measured
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_reason_says_why() {
        let code = |n: i32| ExitStatus::from_raw(n << 8);
        let panic = "error: XDG_RUNTIME_DIR is not set\nthread 'main' (7) panicked at src/a.rs:1:2:\nindex out of bounds\nnote: run with RUST_BACKTRACE=1\n";
        assert_eq!(reason(code(101), panic), "thread 'main' (7) panicked at src/a.rs:1:2: index out of bounds");
        assert_eq!(reason(code(1), "warning: x\nerror: planted\n"), "planted");
        assert_eq!(reason(ExitStatus::from_raw(6), "last words\n"), format!("{}: last words", ExitStatus::from_raw(6)));
        assert_eq!(reason(code(1), ""), code(1).to_string());
    }
}
