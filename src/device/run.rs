//! What a plan needs of a device, whichever it is: memory, programs, and values on their way to the host.

#[cfg(feature = "gpu")]
use super::GpuProgram;
use super::cpu::{Cpu, PreparedHost};
use super::{Buffer, Counters, Device, HostProgram, Storage};
use crate::error::Result;

/// A program made ready to run many times.
#[derive(Debug)]
pub(crate) enum Prepared {
    Host(PreparedHost),
    #[cfg(feature = "gpu")]
    Gpu(super::gpu::Prepared),
}

/// A program for one kind of device.
#[derive(Debug)]
pub(crate) enum Program {
    Host(HostProgram),
    #[cfg(feature = "gpu")]
    Gpu(GpuProgram),
}

/// Values on their way to the host.
#[derive(Debug)]
pub struct Readback(Kind);

#[derive(Debug)]
enum Kind {
    Here(Vec<Vec<u8>>),
    #[cfg(feature = "gpu")]
    Gpu(super::gpu::Readback),
}

impl Readback {
    /// Block until the bytes of each range are there.
    pub fn wait(self) -> Result<Vec<Vec<u8>>> {
        match self.0 {
            Kind::Here(bytes) => Ok(bytes),
            #[cfg(feature = "gpu")]
            Kind::Gpu(r) => r.wait(),
        }
    }

    /// Wait for them without blocking the thread.
    pub async fn get(self) -> Result<Vec<Vec<u8>>> {
        match self.0 {
            Kind::Here(bytes) => Ok(bytes),
            #[cfg(feature = "gpu")]
            Kind::Gpu(r) => r.read().await,
        }
    }
}

impl Device {
    /// A buffer of at least `bytes`, at its start.
    pub(crate) fn alloc(&self, bytes: usize) -> Result<Storage> {
        let bytes = bytes.max(4).next_multiple_of(4);
        let buffer = match self {
            Device::Cpu(cpu) => Buffer::Cpu(cpu.alloc(bytes)?),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => Buffer::Gpu(gpu.alloc(bytes)?),
        };
        Ok(Storage { buffer, offset: 0, bytes })
    }

    /// Write host bytes to the start of a storage.
    pub(crate) fn upload(&self, to: &Storage, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match (self, &to.buffer) {
            (Device::Cpu(cpu), Buffer::Cpu(b)) => cpu.upload(b, to.offset, bytes),
            #[cfg(feature = "gpu")]
            (Device::Gpu(gpu), Buffer::Gpu(b)) => gpu.upload(b, to.offset, bytes),
            #[cfg(feature = "gpu")]
            _ => Err(crate::error::Error::internal("upload: the buffer is another device's")),
        }
    }

    /// Begin to bring ranges to the host.
    pub(crate) fn fetch(&self, ranges: &[Storage]) -> Result<Readback> {
        match self {
            Device::Cpu(cpu) => fetch_host(cpu, ranges),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => Ok(Readback(Kind::Gpu(gpu.read(ranges)?))),
        }
    }

    /// Copy one storage to another of the same size.
    pub(crate) fn copy(&self, from: &Storage, to: &Storage) -> Result<()> {
        match (self, &from.buffer, &to.buffer) {
            (Device::Cpu(cpu), Buffer::Cpu(a), Buffer::Cpu(b)) => {
                let bytes = cpu.read(a, from.offset, from.bytes)?;
                cpu.upload(b, to.offset, &bytes)
            }
            #[cfg(feature = "gpu")]
            (Device::Gpu(gpu), ..) => gpu.copy(from, to),
            #[cfg(feature = "gpu")]
            _ => Err(crate::error::Error::internal("copy: the buffers are another device's")),
        }
    }

    /// Wait until everything submitted is done.
    pub(crate) fn wait(&self) -> Result<()> {
        match self {
            Device::Cpu(_) => Ok(()),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.wait_idle(),
        }
    }

    pub(crate) fn prepare(&self, program: Program) -> Result<Prepared> {
        match (self, program) {
            (Device::Cpu(cpu), Program::Host(p)) => Ok(Prepared::Host(cpu.prepare(p)?)),
            #[cfg(feature = "gpu")]
            (Device::Gpu(gpu), Program::Gpu(p)) => Ok(Prepared::Gpu(gpu.prepare(p)?)),
            #[cfg(feature = "gpu")]
            _ => Err(crate::error::Error::internal("prepare: the program is for another device")),
        }
    }

    /// Run a program; `reads` are brought to the host in the same submit.
    pub(crate) fn run(
        &self,
        prepared: &Prepared,
        data: &[u64],
        leaves: &[Storage],
        outputs: &[Storage],
        copies_before: &[(Storage, Storage)],
        reads: &[Storage],
    ) -> Result<Option<Readback>> {
        match (self, prepared) {
            (Device::Cpu(cpu), Prepared::Host(p)) => {
                cpu.run(p, data, leaves, outputs, copies_before)?;
                if reads.is_empty() { Ok(None) } else { fetch_host(cpu, reads).map(Some) }
            }
            #[cfg(feature = "gpu")]
            (Device::Gpu(gpu), Prepared::Gpu(p)) => Ok(gpu.run(p, data, leaves, outputs, copies_before, reads)?.map(|r| Readback(Kind::Gpu(r)))),
            #[cfg(feature = "gpu")]
            _ => Err(crate::error::Error::internal("run: the program is another device's")),
        }
    }

    /// The running totals, to count in.
    pub(crate) fn counter_cells(&self) -> &Counters {
        match self {
            Device::Cpu(cpu) => &cpu.counters,
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => &gpu.counters,
        }
    }
}

fn fetch_host(cpu: &std::sync::Arc<Cpu>, ranges: &[Storage]) -> Result<Readback> {
    let bytes = ranges
        .iter()
        .map(|r| match &r.buffer {
            Buffer::Cpu(b) => cpu.read(b, r.offset, r.bytes),
            #[cfg(feature = "gpu")]
            Buffer::Gpu(_) => Err(crate::error::Error::internal("read: the buffer is another device's")),
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Readback(Kind::Here(bytes)))
}

impl Buffer {
    /// Tells buffers apart.
    pub(crate) fn id(&self) -> u64 {
        match self {
            Buffer::Cpu(b) => std::sync::Arc::as_ptr(b) as u64,
            #[cfg(feature = "gpu")]
            Buffer::Gpu(b) => b.id(),
        }
    }
}
