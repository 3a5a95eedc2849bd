//! Drivers that compile a pipeline when it first runs, one after the other: as much of that as can be is done before, on several threads.
//!
//! Mesa's llvmpipe does so, and takes up to half a second for a kernel. What one device compiles goes into the driver's own cache on disk, where every device
//! of the adapter finds it: so each further thread opens a device of its own, compiles there, and gives it up.

use super::pipeline::{BindCache, Bound, Pipeline, Wanted};
use super::{Gpu, GpuOptions, Kind, scope};
use crate::device::{Access, Counters, select};
use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A first use that takes longer compiles; a shorter one found the kernel in the driver's cache. Of the shortest text (half a millisecond or 20 and more), and of the
/// longest (10 or hundreds).
const COMPILES: [Duration; 2] = [Duration::from_millis(8), Duration::from_millis(100)];
/// New pipelines below which it is not worth opening a device.
const WORTH: usize = 4;
/// Threads at most: each holds a compiler's memory.
const THREADS: usize = 8;
/// Bytes that stand behind a binding of a kernel that runs no workgroup.
const BEHIND: usize = 256;

impl Gpu {
    /// Let the driver compile these pipelines, which are new. Nothing depends on it but the time that their first run takes, so errors are left for that.
    pub(super) fn use_first(self: &Arc<Self>, mut new: Vec<(&Wanted<'_>, Arc<Pipeline>)>) {
        let does_so = self.info.kind == Kind::Software && self.info.backend == "vulkan" && self.info.name.starts_with("llvmpipe");
        if !does_so || new.len() < WORTH || self.adapter.is_none() {
            return;
        }
        // Long texts take long: they come first, so that no thread waits for another at the end.
        new.sort_by_key(|(w, _)| std::cmp::Reverse(w.text.len()));
        let compiles = |(w, pipeline): &(&Wanted<'_>, Arc<Pipeline>), least| {
            let began = Instant::now();
            self.touch(pipeline, w).is_ok_and(|()| began.elapsed() >= least)
        };
        // The shortest is soon known; where it is found, others may not be.
        let shortest = new.pop().is_some_and(|last| compiles(&last, COMPILES[0]));
        if !shortest && !compiles(&new[0], COMPILES[1]) {
            return;
        }
        let next = AtomicUsize::new(usize::from(!shortest));
        let take = || new.get(next.fetch_add(1, Relaxed));
        let helpers = std::thread::available_parallelism().map_or(1, usize::from).min(new.len()).min(THREADS) - 1;
        std::thread::scope(|s| {
            for _ in 0..helpers {
                // A thread that the system refuses is one less.
                let _ = std::thread::Builder::new().spawn_scoped(s, || {
                    let Ok(twin) = self.twin() else { return };
                    while let Some((w, _)) = take() {
                        let used = twin.pipelines(std::slice::from_ref(*w)).and_then(|made| made.iter().try_for_each(|p| twin.touch(p, w)));
                        if used.is_err() {
                            return;
                        }
                    }
                });
            }
            while let Some((w, pipeline)) = take() {
                if self.touch(pipeline, w).is_err() {
                    return;
                }
            }
        });
    }

    /// Another device of the same adapter, opened in the same way.
    fn twin(&self) -> Result<Arc<Gpu>> {
        let adapter = self.adapter.as_ref().ok_or_else(|| Error::internal("a caller's device has no twin"))?;
        let request = wgpu::DeviceDescriptor {
            label: Some("wgrad first use"),
            required_features: self.device.features(),
            required_limits: self.device.limits(),
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) = scope::ready(adapter.request_device(&request)).map_err(|e| Error::device(e.to_string()))?;
        let options = GpuOptions { pipeline_folder: None, ..self.options.clone() };
        Ok(Gpu::new(select::next_id(), device, queue, self.info.clone(), options, Arc::default(), None))
    }

    /// Run no workgroup of a kernel, and wait for it.
    fn touch(self: &Arc<Self>, pipeline: &Pipeline, wanted: &Wanted<'_>) -> Result<()> {
        if self.troubled() {
            // It is for a call whose caller hears of it.
            return Err(Error::internal("first use: an error waits to be told"));
        }
        let (read, written) = (self.alloc(BEHIND.max(wanted.window))?, self.alloc(BEHIND)?);
        self.guarded(wanted.label, || {
            let behind = |access: Access| if access.writes() { &written } else { &read };
            let storage = wanted.accesses.iter().map(|a| Bound { buffer: behind(*a), offset: 0, bytes: BEHIND });
            let bound: Vec<_> = std::iter::once(Bound { buffer: &read, offset: 0, bytes: wanted.window }).chain(storage).collect();
            let group = self.bind_group(&mut BindCache::default(), pipeline, &bound)?;
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                pass.set_pipeline(&pipeline.raw);
                pass.set_bind_group(0, &group, &[]);
                pass.dispatch_workgroups(0, 0, 0);
            }
            self.submit(Some(encoder.finish()))?;
            // It is no run's.
            Counters::sub(&self.counters.submits, 1);
            Ok(())
        })?;
        self.wait_idle()
    }
}
