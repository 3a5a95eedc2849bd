//! Where a run's time goes: with WGRAD_DEBUG at 2 or above, or where the tuner asks, every launch is a pass of its own between two timestamps.

use super::memory::{GpuBuffer, Use};
use super::pipeline::Bound;
use super::program::Prepared;
use super::{Gpu, readback::Staged};
use crate::error::Result;
use std::fmt::Write;
use std::sync::{Arc, MutexGuard, PoisonError};

/// The timestamps of one run: two for each launch, as far as a query set goes.
pub(super) struct Profile {
    queries: wgpu::QuerySet,
    stamps: Arc<GpuBuffer>,
    staged: Staged,
    launches: u32,
}

impl Gpu {
    /// Timestamps for a run of so many launches, where they were asked for and the device has them.
    pub(super) fn profile(self: &Arc<Self>, launches: usize) -> Result<Option<Profile>> {
        if crate::env::debug() < 2 && self.timed().is_none() || !self.info.caps.timestamps || launches == 0 {
            return Ok(None);
        }
        let launches = launches.min(wgpu::QUERY_SET_MAX_QUERIES as usize / 2) as u32;
        let (queries, stamps) = self.timestamps(2 * launches)?;
        let bytes = launches as usize * 16;
        let staged = self.staged(&[Bound { buffer: &stamps, offset: 0, bytes }], Vec::new())?;
        Ok(Some(Profile { queries, stamps, staged, launches }))
    }

    /// Run `f`, and give the microseconds of each launch of the last run in it; none where the device has no timestamps.
    #[doc(hidden)]
    pub fn time_launches<R>(&self, f: impl FnOnce() -> Result<R>) -> Result<(R, Vec<f64>)> {
        *self.timed() = Some(Vec::new());
        let result = f();
        let times = self.timed().take().unwrap_or_default();
        Ok((result?, times))
    }

    fn timed(&self) -> MutexGuard<'_, Option<Vec<f64>>> {
        self.timed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for so many timestamps: where the device writes them, and a buffer to resolve them to.
    pub(super) fn timestamps(self: &Arc<Self>, count: u32) -> Result<(wgpu::QuerySet, Arc<GpuBuffer>)> {
        let values = self.alloc_for(Use::Queries, count as usize * 8)?;
        let descriptor = wgpu::QuerySetDescriptor { label: Some("wgrad"), ty: wgpu::QueryType::Timestamp, count };
        Ok((self.guarded("timestamps", || Ok(self.device.create_query_set(&descriptor)))?, values))
    }
}

impl Profile {
    /// The timestamps around launch `n`.
    pub(super) fn around(&self, n: usize) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let first = u32::try_from(n).ok().filter(|n| *n < self.launches)? * 2;
        Some(wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        })
    }

    /// Encode their way to the host, behind the last launch.
    pub(super) fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&self.queries, 0..2 * self.launches, self.stamps.wgpu(), 0);
        self.staged.encode(encoder, &[Bound { buffer: &self.stamps, offset: 0, bytes: self.launches as usize * 16 }]);
    }

    /// Wait for the run, and tell a line for each launch, the dearest first.
    pub(super) fn tell(self, gpu: &Arc<Gpu>, program: &Prepared, submitted: &wgpu::SubmissionIndex, bytes: impl Fn(usize) -> usize) -> Result<()> {
        let values = gpu.map(self.staged, Ok(submitted.clone()))?.wait()?;
        let period = f64::from(gpu.queue.get_timestamp_period());
        let ticks: Vec<u64> = values.iter().flat_map(|v| bytemuck::pod_collect_to_vec::<u8, u64>(v)).collect();
        let mut rows: Vec<(f64, usize)> = ticks.chunks_exact(2).map(|t| t[1].saturating_sub(t[0]) as f64 * period / 1e3).zip(0..).collect();
        if let Some(timed) = &mut *gpu.timed() {
            *timed = rows.iter().map(|r| r.0).collect();
        }
        let total: f64 = rows.iter().map(|r| r.0).sum();
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
        crate::env::tell(2, || {
            let mut text = format!("{} launches, {total:.1} us on {}:", program.steps.len(), gpu.info.short_name());
            for (us, n) in rows {
                let step = &program.steps[n];
                let (share, per_s) = (100.0 * us / total, |x: f64| x / us.max(1e-3) / 1e3);
                let (gflops, gb) = (per_s(step.flops as f64), per_s(bytes(n) as f64));
                let _ = write!(text, "\n  {n:4}  {us:10.1} us {share:5.1} %  {gflops:8.2} GFLOP/s  {gb:7.2} GB/s  {:?}  {}", step.grid, step.label);
            }
            text
        });
        Ok(())
    }
}
