//! Every environment flag of the library: one table of name, default and meaning, and the only place that reads them.

use crate::error::{Error, Result, nearest};
use std::path::PathBuf;
use std::sync::OnceLock;
#[cfg(feature = "gpu")]
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What values a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `1`, `true`, `on`, `yes`, or `0`, `false`, `off`, `no`.
    Switch,
    /// A whole number up to this one.
    Number(u64),
    /// A number of bytes, with `K`, `M` or `G` (powers of 1024) behind it or without.
    Bytes,
    /// Any text.
    Text,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The variable.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Its value where the variable is not set or empty.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

const fn row(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Flag {
    Flag { name, kind, default, doc }
}

/// Every flag.
pub static FLAGS: &[Flag] = &[
    row(
        "WGRAD_DEVICE",
        Kind::Text,
        "",
        "device to use where none is named: cpu, gpu, gpu:N, auto, or part of a name; empty: a hardware GPU if there is one, else the CPU",
    ),
    row("WGRAD_DEBUG", Kind::Number(4), "0", "what to tell on standard error: 1 devices, 2 also runs and the time of each launch, 3 also plans, 4 also WGSL"),
    row("WGRAD_MAX_PENDING", Kind::Number(u64::MAX), "20000", "pending nodes above which a graph is executed without being asked for"),
    row("WGRAD_MAX_PENDING_BYTES", Kind::Bytes, "16G", "bytes of pending nodes' values above which a graph is executed"),
    row("WGRAD_SUBMIT_MS", Kind::Number(u64::MAX), "250", "device time in ms above which a step on a hardware GPU is split into several submits"),
    row("WGRAD_POISON", Kind::Switch, "0", "fill memory without a value with NaN before each run"),
    row("WGRAD_VALIDATE", Kind::Switch, "0", "create our own shaders with all checks, as a user's are"),
    row("WGRAD_COOP", Kind::Switch, "1", "use a GPU's units for small matrices of f16 (tensor cores) where results in that precision are asked for"),
    row("WGRAD_IMAGES", Kind::Switch, "1", "let kernels on Mesa's llvmpipe read buffers through images that lie over them"),
    row("WGRAD_THREADS", Kind::Number(4096), "0", "threads of the CPU backend; 0: one a core"),
    row(
        "WGRAD_CACHE",
        Kind::Text,
        "",
        "folder for compiled pipelines; off or 0: none; empty: for the command the user's folder for such things, for a library none",
    ),
    row("WGRAD_TUNED", Kind::Text, "", "file of tuned choices of kernels; off: none; empty: the one beside the compiled pipelines, where there is one"),
    row("WGRAD_MEMORY_CAP", Kind::Bytes, "0", "bytes that a device may reserve, K, M and G allowed; 0: no cap"),
    row("WGRAD_PLANT", Kind::Text, "", "tests: a probe of wgrad bench that goes wrong: hang:NAME, abort:NAME, fail:NAME, slow:NAME (a tenth)"),
    row("BENCH_T0_NS", Kind::Text, "", "bench: nanoseconds of the epoch at which the process was started, set by who starts it; used by the peers, too"),
    row("BENCH_BLOCK_MS", Kind::Number(60_000), "150", "bench: milliseconds that a block of runs lasts; used by the peers, too"),
    row("BENCH_BLOCKS", Kind::Number(10_000), "7", "bench: blocks that are timed; used by the peers, too"),
    row("WGRAD_ALLOW_NO_GPU", Kind::Switch, "0", "tests: pass without an adapter, and say how many cases did not run"),
    row("WGRAD_FUZZ_N", Kind::Number(u64::MAX), "200", "tests: how many random graphs are drawn"),
    row("WGRAD_FUZZ_SEED", Kind::Number(u64::MAX), "1", "tests: the seed of the random graphs"),
    row("WGRAD_FUZZ_ONLY", Kind::Text, "", "tests: the number of the only random graph to run"),
    row("WGRAD_GOLDEN_DIR", Kind::Text, "", "tests: a folder with more golden cases"),
];

/// The value of a switch.
pub fn flag(name: &str) -> Result<bool> {
    let (row, value) = value(name)?;
    switch(row, &value)
}

/// The value of a number or a number of bytes.
pub fn number(name: &str) -> Result<u64> {
    let (row, value) = value(name)?;
    parse_number(row, &value)
}

/// The value of a text, `None` where it is empty.
pub fn text(name: &str) -> Result<Option<String>> {
    let (_, value) = value(name)?;
    Ok(Some(value).filter(|v| !v.is_empty()))
}

/// Whether this process is an application of ours, which may keep what it compiled in the user's folder for such things.
#[cfg(feature = "gpu")]
static KEEPS: AtomicBool = AtomicBool::new(false);

/// This process is an application of ours.
#[cfg(all(feature = "cli", feature = "gpu"))]
pub(crate) fn keep_compiled() {
    KEEPS.store(true, Relaxed);
}

/// The folder for what was compiled: WGRAD_CACHE's, or that of our own application.
#[cfg(feature = "gpu")]
pub(crate) fn cache() -> Result<Option<PathBuf>> {
    Ok(match text("WGRAD_CACHE")? {
        // As every flag is switched off; a folder of that name can be given as ./0.
        Some(word) if word.eq_ignore_ascii_case("off") || word == "0" => None,
        Some(folder) => Some(folder.into()),
        None if KEEPS.load(Relaxed) => user_cache().map(|folder| folder.join("wgrad")),
        None => None,
    })
}

/// Where the system wants a user's programs to keep what they can make again: XDG_CACHE_HOME, `~/.cache`, `~/Library/Caches`, `%LOCALAPPDATA%`.
pub fn user_cache() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if cfg!(windows) {
        return folder("LOCALAPPDATA");
    }
    let own = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
    folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(own)))
}

/// WGRAD_DEBUG, read once. A value that does not parse is an error where a device is opened, and means 0 here.
pub(crate) fn debug() -> u64 {
    static VALUE: OnceLock<u64> = OnceLock::new();
    *VALUE.get_or_init(|| number("WGRAD_DEBUG").unwrap_or(0))
}

/// Tell on standard error what WGRAD_DEBUG asks for from this level on. The one place in the library that writes there.
pub(crate) fn tell(level: u64, text: impl FnOnce() -> String) {
    if debug() >= level {
        use std::io::Write;
        // Where standard error is closed there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "wgrad: {}", text());
    }
}

/// WGRAD_MAX_PENDING, read once: it is asked for at every node.
pub(crate) fn max_pending() -> Result<usize> {
    static VALUE: OnceLock<Result<usize>> = OnceLock::new();
    VALUE.get_or_init(|| number("WGRAD_MAX_PENDING").map(saturate)).clone()
}

/// WGRAD_MAX_PENDING_BYTES, read once.
pub(crate) fn max_pending_bytes() -> Result<usize> {
    static VALUE: OnceLock<Result<usize>> = OnceLock::new();
    VALUE.get_or_init(|| number("WGRAD_MAX_PENDING_BYTES").map(saturate)).clone()
}

/// A limit above what this machine can count is no limit.
fn saturate(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Check every variable that is set: an error for a `WGRAD_*` that the table does not have, and for a value that its flag does not take.
pub fn check() -> Result<()> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| name.starts_with("WGRAD_")).try_for_each(|name| {
        let (row, value) = value(&name)?;
        match row.kind {
            Kind::Switch => switch(row, &value).map(drop),
            Kind::Number(_) | Kind::Bytes => parse_number(row, &value).map(drop),
            Kind::Text => Ok(()),
        }
    })
}

/// A flag's row, and its value or default.
fn value(name: &str) -> Result<(&'static Flag, String)> {
    let row = find(name)?;
    let value = match std::env::var(name) {
        Ok(value) => value.trim().to_string(),
        Err(std::env::VarError::NotPresent) => String::new(),
        Err(std::env::VarError::NotUnicode(raw)) => return Err(Error::invalid(format!("{name}: not valid unicode: {}", raw.display()))),
    };
    Ok((row, if value.is_empty() { row.default.to_string() } else { value }))
}

fn find(name: &str) -> Result<&'static Flag> {
    FLAGS.iter().find(|f| f.name == name).ok_or_else(|| {
        let e = Error::invalid(format!("{name}: no such environment flag"));
        match nearest(name, FLAGS.iter().map(|f| f.name)) {
            Some(n) => e.help(format!("did you mean {n}?")),
            None => e,
        }
    })
}

fn switch(row: &Flag, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "on" | "yes" => Ok(true),
        "0" | "false" | "off" | "no" => Ok(false),
        _ => Err(Error::invalid(format!("{}: must be 1 or 0: {value}", row.name))),
    }
}

fn parse_number(row: &Flag, value: &str) -> Result<u64> {
    let (max, digits, unit) = match row.kind {
        Kind::Number(max) => (max, value, 1),
        _ => match value.char_indices().next_back() {
            Some((i, 'k' | 'K')) => (u64::MAX, &value[..i], 1 << 10),
            Some((i, 'm' | 'M')) => (u64::MAX, &value[..i], 1 << 20),
            Some((i, 'g' | 'G')) => (u64::MAX, &value[..i], 1 << 30),
            _ => (u64::MAX, value, 1),
        },
    };
    let number = digits.trim().parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|&n| n <= max);
    number.ok_or_else(|| match row.kind {
        Kind::Bytes => Error::invalid(format!("{}: must be a number of bytes, such as 1000000, 512M or 2G: {value}", row.name)),
        _ if max < u64::MAX => Error::invalid(format!("{}: must be a whole number from 0 to {max}: {value}", row.name)),
        _ => Error::invalid(format!("{}: must be a whole number: {value}", row.name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_flag() {
        for row in FLAGS {
            match row.kind {
                Kind::Switch => assert!(switch(row, row.default).is_ok(), "{}", row.name),
                Kind::Number(_) | Kind::Bytes => assert!(parse_number(row, row.default).is_ok(), "{}", row.name),
                Kind::Text => {}
            }
        }
    }

    #[test]
    fn values_are_parsed() {
        let row = |name| find(name).unwrap();
        assert!(switch(row("WGRAD_POISON"), "Yes").unwrap());
        assert!(!switch(row("WGRAD_POISON"), "off").unwrap());
        assert_eq!(parse_number(row("WGRAD_MEMORY_CAP"), "2 G").unwrap(), 2 << 30);
        assert_eq!(parse_number(row("WGRAD_MEMORY_CAP"), "1000").unwrap(), 1000);
        assert_eq!(parse_number(row("WGRAD_THREADS"), "2").unwrap(), 2);
    }

    #[test]
    fn a_value_that_does_not_parse_is_named() {
        let row = |name| find(name).unwrap();
        let text = |e: Error| e.to_string();
        assert_eq!(text(switch(row("WGRAD_POISON"), "maybe").unwrap_err()), "WGRAD_POISON: must be 1 or 0: maybe");
        assert_eq!(text(parse_number(row("WGRAD_DEBUG"), "5").unwrap_err()), "WGRAD_DEBUG: must be a whole number from 0 to 4: 5");
        assert_eq!(text(parse_number(row("WGRAD_SUBMIT_MS"), "-1").unwrap_err()), "WGRAD_SUBMIT_MS: must be a whole number: -1");
        assert!(parse_number(row("WGRAD_MEMORY_CAP"), "99999999999G").is_err());
        assert!(parse_number(row("WGRAD_MEMORY_CAP"), "é").is_err());
        assert_eq!(text(flag("WGRAD_POISN").unwrap_err()), "WGRAD_POISN: no such environment flag\nhelp: did you mean WGRAD_POISON?");
    }
}
