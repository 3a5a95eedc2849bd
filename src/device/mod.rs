//! Devices: the CPU backend and the adapters that wgpu offers, behind one type.

pub mod cpu;
mod counters;
#[cfg(feature = "gpu")]
pub mod gpu;
mod launch;

pub use counters::{CounterValues, Counters};
pub use launch::{Access, Binding, Check, GpuProgram, HostOperand, HostProgram, HostStep, HostWork, Launch, Slot, Word};

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
}

impl Caps {
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
