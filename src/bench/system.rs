//! What is known of this machine and this build, for those who read the numbers later.

use crate::files::fnv1a;
use crate::kernel;
use std::path::Path;

/// The last cache where the system does not say.
const USUAL_CACHE: usize = 32 << 20;

/// Bytes of the processor's largest cache, as far as the system says.
pub fn last_cache_bytes() -> usize {
    let caches = (0..8).filter_map(|n| std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{n}/size")).ok());
    let bytes = |text: String| {
        let text = text.trim();
        let unit = if text.ends_with('M') { 1 << 20 } else { 1 << 10 };
        text.trim_end_matches(['K', 'M']).parse::<usize>().ok().map(|n| n * unit)
    };
    caches.filter_map(bytes).max().unwrap_or(USUAL_CACHE)
}

/// The most memory that this process held, where the system says it.
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kb = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().trim_end_matches("kB").trim().parse::<f64>().ok()?;
    Some(kb / 1024.0)
}

/// The system and the kind of processor: `linux x86_64`.
pub fn os() -> String {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").map(|r| format!(" {}", r.trim())).unwrap_or_default();
    format!("{os}{release} {arch}")
}

/// The processor's name, where the system says it, and its cores.
pub fn cpu() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")).map(|l| l.trim_start_matches([' ', '\t', ':']).trim().to_string());
    format!("{}, {cores} cores", name.unwrap_or_else(|| "unknown".into()))
}

/// The commit of the checkout that this was built from, where that is still there; with `-dirty` where it has been changed.
pub fn commit() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let git = |arguments: &[&str]| {
        let ran = std::process::Command::new("git").arg("-C").arg(root).args(arguments).stderr(std::process::Stdio::null()).output().ok()?;
        ran.status.success().then(|| String::from_utf8_lossy(&ran.stdout).trim().to_string())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).filter(|c| !c.is_empty())?;
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
    Some(if dirty { format!("{commit}-dirty") } else { commit })
}

/// A hash of bytes in hexadecimal.
pub fn hash(bytes: impl IntoIterator<Item = u8>) -> String {
    format!("{:016x}", fnv1a(bytes))
}

/// A hash of all hand-written shaders: two results with the same one ran the same kernels.
pub fn kernel_hash() -> String {
    hash(kernel::KERNELS.iter().flat_map(|k| k.name.bytes().chain(kernel::joined(k).into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_tell_texts_apart() {
        assert_eq!(hash("".bytes()), "cbf29ce484222325");
        assert_ne!(hash("a".bytes()), hash("b".bytes()));
        assert_eq!(kernel_hash(), kernel_hash());
    }
}
