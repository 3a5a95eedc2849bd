//! Compiled pipelines on disk, where the backend gives them out (Vulkan): a program's next start finds what its last one compiled.
//!
//! A file belongs to an adapter, and carries the version of the driver and a checksum. One that is foreign, old, cut off or damaged is as good as none, and is
//! replaced: nothing that happens to it is an error.

use super::Gpu;
use crate::{env, files};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a file begins with; the digit is the version of its frame.
const MAGIC: &[u8; 8] = b"wgradpc1";
/// Bytes before the driver's own: the magic, and the driver, the length and the checksum as `u64`s.
const HEAD: usize = 32;
/// A file that would grow above this starts anew.
const MOST: usize = 256 << 20;

/// The pipelines of a device, as the driver keeps them, and their file.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) cache: wgpu::PipelineCache,
    path: PathBuf,
    driver: u64,
    /// Pipelines made on this device, and how many of them were made when the file was looked at last.
    made: AtomicU64,
    saved: AtomicU64,
    /// The checksum of what the file holds.
    holds: AtomicU64,
}

impl Disk {
    /// Pipelines were made.
    pub(super) fn made(&self, count: usize) {
        self.made.fetch_add(count as u64, Relaxed);
    }

    /// Whether there are enough new ones to write the file: an eighth of all, so that a process that makes them one by one writes seldom.
    fn is_due(&self) -> bool {
        let (made, saved) = (self.made.load(Relaxed), self.saved.load(Relaxed));
        made - saved.min(made) > made / 8
    }

    /// Write the file: whole under another name first, so that nobody ever reads a part of it.
    fn save(&self) {
        let made = self.made.load(Relaxed);
        if self.saved.swap(made, Relaxed) >= made {
            return;
        }
        let Some(data) = self.cache.get_data() else { return };
        let sum = hash([&data]);
        if self.holds.swap(sum, Relaxed) == sum {
            return;
        }
        let written = if data.len() > MOST { fs::remove_file(&self.path) } else { self.replace(&framed(self.driver, &data)) };
        match written {
            Ok(()) => env::tell(1, || format!("{} pipelines, {} bytes: {}", made, data.len(), self.path.display())),
            Err(e) => env::tell(1, || format!("pipelines are not kept: {}: {e}", self.path.display())),
        }
    }

    fn replace(&self, bytes: &[u8]) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        files::replace(&self.path, bytes)
    }
}

impl Gpu {
    /// Take up the file of this adapter, where the options name a folder for it and the backend has such files.
    pub(super) fn open_disk(&self) {
        let info = self.device.adapter_info();
        let key = wgpu::util::pipeline_cache_key(&info).filter(|_| self.device.features().contains(wgpu::Features::PIPELINE_CACHE));
        let (Some(folder), Some(key)) = (&self.options.pipeline_folder, key) else { return };
        // Two drivers of one adapter have a file each; of two versions of one driver, the file is the last one's.
        let path = folder.join(format!("{key}_{:016x}.bin", hash([info.name.as_bytes(), info.driver.as_bytes()])));
        let driver = hash([info.driver_info.as_bytes()]);
        let found = fs::read(&path).ok();
        let data = found.as_deref().and_then(|bytes| unframed(driver, bytes));
        let descriptor = wgpu::PipelineCacheDescriptor { label: Some("wgrad"), data, fallback: true };
        // SAFETY: the data is what `get_data` gave for this adapter and driver: the frame names the driver, and its checksum tells whether a byte of it has
        // changed since. wgpu checks its own frame within, and with `fallback` takes data that does not fit for none.
        let made = self.guarded("pipeline cache", || Ok(unsafe { self.device.create_pipeline_cache(&descriptor) }));
        match made {
            Ok(cache) => {
                env::tell(1, || format!("{}: {}", path.display(), data.map_or("no pipelines yet".into(), |d| format!("{} bytes of pipelines", d.len()))));
                let holds = AtomicU64::new(data.map_or(0, |d| hash([d])));
                let disk = Disk { cache, path, driver, made: AtomicU64::new(0), saved: AtomicU64::new(0), holds };
                let _ = self.disk.set(disk);
            }
            Err(e) => env::tell(1, || format!("pipelines are not kept: {e}")),
        }
    }

    /// Write the file where it is due: called behind a submit, when the device has work and the host has time.
    pub(super) fn save_pipelines_if_due(&self) {
        if let Some(disk) = self.disk.get().filter(|d| d.is_due()) {
            disk.save();
        }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if let (Some(disk), Ok(())) = (self.disk.get(), self.alive()) {
            disk.save();
        }
    }
}

/// A hash of some texts, each with its end marked.
pub(super) fn hash<const N: usize>(parts: [&[u8]; N]) -> u64 {
    files::fnv1a(parts.into_iter().flat_map(|part| part.iter().copied().chain([0xff])))
}

fn framed(driver: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + data.len());
    bytes.extend_from_slice(MAGIC);
    [driver, data.len() as u64, hash([data])].iter().for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
    bytes.extend_from_slice(data);
    bytes
}

/// What a frame holds, if it is whole and of this driver.
fn unframed(driver: u64, bytes: &[u8]) -> Option<&[u8]> {
    let (head, data) = bytes.split_at_checked(HEAD)?;
    (framed(driver, data)[..HEAD] == *head).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_gives_back_what_is_whole_and_of_this_driver() {
        let bytes = framed(7, b"pipelines");
        assert_eq!(unframed(7, &bytes), Some(&b"pipelines"[..]));
        assert_eq!(unframed(8, &bytes), None, "another driver");
        assert_eq!(unframed(7, &bytes[..bytes.len() - 1]), None, "cut off");
        assert_eq!(unframed(7, &bytes[..HEAD - 1]), None, "cut off in the head");
        assert_eq!(unframed(7, &[&bytes[..], b"x"].concat()), None, "too long");
        for n in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[n] ^= 1;
            assert_eq!(unframed(7, &damaged), None, "byte {n}");
        }
        assert_eq!(unframed(7, b""), None);
    }
}
