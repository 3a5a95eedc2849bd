//! Files that are never seen half written, and what their content is known by.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Put `bytes` in the place of the file at `path`, by a file beside it that takes its name.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Relaxed)));
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        // The name must not reach the disk before the content does.
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    // The error at hand is the one to report; the leftover may not even exist.
    write().inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// A hash of bytes, the same on every machine: FNV-1a.
#[cfg(any(feature = "gpu", feature = "cli"))]
pub(crate) fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}
