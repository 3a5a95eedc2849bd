//! Devices: the CPU backend and the adapters that wgpu offers, behind one type.

pub mod choices;
mod coop;
mod counters;
pub mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
mod launch;
mod run;
mod select;

pub use crate::kernel::Access;
pub use coop::Coop;
pub use counters::{CounterValues, Counters};
pub use launch::{Binding, Check, GpuProgram, HostOperand, HostProgram, HostStep, HostWork, Launch, Slot, Word};
pub use run::Readback;
pub(crate) use run::{Prepared, Program};
pub use select::Measure;

/// What kind of hardware an adapter is. The order is the order of the device list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A graphics card with its own memory.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// Virtual or unknown.
    Other,
    /// A driver that runs shaders on the processor (lavapipe, SwiftShader, WARP).
    Software,
}

/// What a GPU device can do: its limits and features as far as kernels care.
#[derive(Clone, Debug, PartialEq)]
pub struct Caps {
    /// Hardware or software.
    pub kind: Kind,
    /// Workgroups in one dimension of a dispatch.
    pub max_groups: u32,
    /// Storage buffers a launch may bind.
    pub max_storage_bindings: u32,
    /// Bytes of one storage binding.
    pub max_binding_bytes: u64,
    /// Bytes of one buffer.
    pub max_buffer_bytes: u64,
    /// Invocations of one workgroup.
    pub max_invocations: u32,
    /// Bytes of workgroup memory.
    pub max_workgroup_bytes: u32,
    /// Smallest and largest subgroup, where the device has subgroup operations.
    pub subgroups: Option<(u32, u32)>,
    /// Whether shaders can compute in f16.
    pub f16: bool,
    /// Whether passes can be timed.
    pub timestamps: bool,
    /// What was measured to be better than the rules.
    pub choices: std::sync::Arc<choices::Choices>,
    /// Units for small matrices, where the device has them and they were found right.
    pub coop: Option<Coop>,
    /// How many buffers a launch may read as images that lie over them; 0 where that is not possible or not faster.
    pub images: u32,
}

impl Caps {
    /// How often the loops of one invocation may turn round, all together, where that is limited. Mesa's llvmpipe ends every loop of an invocation, silently,
    /// once they made 65535 turns; who asks counts the turns of an innermost loop, so some are left for those around it.
    pub(crate) fn loop_turns(&self) -> Option<usize> {
        (self.kind == Kind::Software).then_some(60_000)
    }

    /// Whether an invocation should take a run of neighbours. A processor runs lanes to the end before the next: what is read next should be near. On hardware
    /// neighbouring invocations take neighbours.
    pub(crate) fn takes_runs(&self) -> bool {
        self.kind == Kind::Software
    }

    /// WebGPU's default limits and no features: what every device has.
    pub fn floor() -> Caps {
        Caps {
            kind: Kind::Software,
            max_groups: 65535,
            max_storage_bindings: 8,
            max_binding_bytes: 128 << 20,
            max_buffer_bytes: 256 << 20,
            max_invocations: 256,
            max_workgroup_bytes: 16 << 10,
            subgroups: None,
            f16: false,
            timestamps: false,
            choices: Default::default(),
            coop: None,
            images: 0,
        }
    }
}

/// A device: where tensors live and programs run. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Device {
    /// The CPU backend.
    Cpu(std::sync::Arc<cpu::Cpu>),
    /// An adapter.
    #[cfg(feature = "gpu")]
    Gpu(std::sync::Arc<gpu::Gpu>),
}

impl Device {
    /// The device's number, unique in the process.
    pub fn id(&self) -> u64 {
        match self {
            Device::Cpu(cpu) => cpu.id,
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.id(),
        }
    }

    /// Hardware or software; `None` for the CPU backend.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Device::Cpu(_) => None,
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => Some(gpu.caps().kind),
        }
    }

    /// Bytes that one binding may cover; on the CPU, no limit that matters.
    pub(crate) fn max_binding_bytes(&self) -> usize {
        match self {
            Device::Cpu(_) => usize::MAX / 2,
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => usize::try_from(gpu.caps().max_binding_bytes).unwrap_or(usize::MAX / 2),
        }
    }

    /// Whether its programs are WGSL kernels.
    pub fn is_gpu(&self) -> bool {
        self.kind().is_some()
    }

    /// One word: `cpu`, or the adapter's short name (`llvmpipe`).
    pub fn short_name(&self) -> String {
        match self {
            Device::Cpu(_) => "cpu".to_string(),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.info().short_name(),
        }
    }

    /// One line: name, backend and driver, or the number of threads.
    pub fn description(&self) -> String {
        match self {
            Device::Cpu(cpu) => {
                let n = cpu.threads.count();
                format!("cpu ({n} thread{}{})", if n == 1 { "" } else { "s" }, if cpu.definition { ", definition" } else { "" })
            }
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.info().description(),
        }
    }

    /// What the device did so far.
    pub fn counters(&self) -> CounterValues {
        self.counter_cells().read()
    }

    /// Start `bytes_peak` anew from what is in use now.
    pub fn reset_peak(&self) {
        self.counter_cells().reset_peak();
    }

    /// Refuse to hold more than this many bytes: an allocation beyond is an error, and the process goes on.
    pub fn set_memory_cap(&self, bytes: u64) {
        match self {
            Device::Cpu(cpu) => cpu.set_cap(bytes),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.set_cap(bytes),
        }
    }

    /// The cap in bytes, where there is one.
    pub fn memory_cap(&self) -> Option<u64> {
        let cap = match self {
            Device::Cpu(cpu) => cpu.cap.load(std::sync::atomic::Ordering::Relaxed),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.cap(),
        };
        Some(cap).filter(|c| *c != u64::MAX)
    }

    /// Memory in words: in use, the peak, reserved, the cap.
    pub fn memory_report(&self) -> String {
        let c = self.counters();
        let cap = self.memory_cap().map_or("none".to_string(), human);
        let [used, peak, reserved] = [c.bytes_in_use, c.bytes_peak, c.bytes_reserved].map(human);
        format!("{}: {used} in use (peak {peak}), {reserved} reserved, cap {cap}", self.short_name())
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Device) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Device {}

/// Bytes as a reader likes them.
pub(crate) fn human(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} bytes"),
        10_000..=10_485_759 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1048576.0),
    }
}

/// A buffer of a device; given back to the device's pool when the last clone is dropped.
#[derive(Clone, Debug)]
pub enum Buffer {
    /// Host memory.
    Cpu(std::sync::Arc<cpu::CpuBuffer>),
    /// Device memory.
    #[cfg(feature = "gpu")]
    Gpu(std::sync::Arc<gpu::GpuBuffer>),
}

/// A contiguous range of a buffer. The offset is a multiple of 256.
#[derive(Clone, Debug)]
pub struct Storage {
    /// The buffer.
    pub buffer: Buffer,
    /// First byte.
    pub offset: usize,
    /// Number of bytes, a multiple of 4.
    pub bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_well() {
        assert_eq!(human(512), "512 bytes");
        assert_eq!(human(12 << 20), "12.0 MiB");
    }

    #[test]
    fn devices_are_equal_by_identity() {
        let (a, b) = (Device::cpu_with(1, false).unwrap(), Device::cpu_with(1, false).unwrap());
        assert!(a == a.clone() && a != b);
        assert_eq!(a.short_name(), "cpu");
        assert_eq!(a.description(), "cpu (1 thread)");
        assert!(a.memory_report().starts_with("cpu: 0 bytes in use"), "{}", a.memory_report());
    }
}
