//! Two marks on the device's own clock, and the time between them.

use super::Gpu;
use super::memory::GpuBuffer;
use crate::device::{Buffer, Storage};
use crate::error::{Error, Result};
use std::sync::Arc;

/// A pair of timestamps. A mark is written when all that was submitted before it is done.
#[derive(Debug)]
pub(crate) struct Stamps {
    gpu: Arc<Gpu>,
    set: wgpu::QuerySet,
    values: Arc<GpuBuffer>,
    period_ns: f64,
}

impl Stamps {
    /// A pair on `gpu`; `None` where it has no timestamps.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Option<Stamps>> {
        if !gpu.caps().timestamps {
            return Ok(None);
        }
        let (set, values) = gpu.timestamps(2)?;
        let period_ns = f64::from(gpu.queue.get_timestamp_period());
        Ok(Some(Stamps { gpu: gpu.clone(), set, values, period_ns }))
    }

    /// Nanoseconds of a tick: no time is known better.
    pub fn period_ns(&self) -> f64 {
        self.period_ns
    }

    /// The first mark.
    pub fn begin(&self) -> Result<()> {
        self.mark(0)
    }

    /// The second mark: nanoseconds since the first. Waits for it.
    pub fn end(&self) -> Result<f64> {
        self.mark(1)?;
        let range = Storage { buffer: Buffer::Gpu(self.values.clone()), offset: 0, bytes: 16 };
        let bytes = self.gpu.read(&[range])?.wait()?.remove(0);
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
        let [begin, end] = ticks[..] else { return Err(Error::internal("timestamps: two values were asked for")) };
        Ok(end.wrapping_sub(begin) as i64 as f64 * self.period_ns)
    }

    /// A pass with nothing in it but its timestamp.
    fn mark(&self, n: u32) -> Result<()> {
        self.gpu.guarded("timestamps", || {
            let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let writes = wgpu::ComputePassTimestampWrites { query_set: &self.set, beginning_of_pass_write_index: Some(n), end_of_pass_write_index: None };
            drop(encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(writes) }));
            if n == 1 {
                encoder.resolve_query_set(&self.set, 0..2, self.values.wgpu(), 0);
            }
            let commands = encoder.finish();
            self.gpu.submit(Some(commands)).map(drop)
        })
    }
}
