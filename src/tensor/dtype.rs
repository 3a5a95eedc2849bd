//! Element types.

use std::fmt;

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit float, the default.
    F32,
    /// 16-bit float, two in a word: half the memory, on every device. Kernels compute with it in f32, and round what they store.
    F16,
    /// 64-bit float; on the CPU only, for gradient checks and definitions.
    F64,
    /// 32-bit signed integer: indices and labels.
    I32,
    /// 32-bit unsigned integer: seeds and counters.
    U32,
    /// Truth values, kept as a `u32` of 0 or 1 in memory.
    Bool,
}

impl DType {
    /// Bytes of one element in memory.
    pub fn size(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F16 => 2,
            DType::F32 | DType::I32 | DType::U32 | DType::Bool => 4,
        }
    }

    /// Whether it is a floating-point type, the only kind that carries gradients.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::F64)
    }

    /// The name as printed and as written in configs: `f32`, `bool`.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::F64 => "f64",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::Bool => "bool",
        }
    }

    /// The WGSL type that kernels compute with for one element (`bool` is not storable there, so it is a `u32`; how halves lie in memory is the launch's
    /// business).
    pub fn wgsl(self) -> &'static str {
        match self {
            DType::F32 | DType::F16 => "f32",
            DType::I32 => "i32",
            DType::U32 | DType::Bool => "u32",
            // `infer` keeps f64 off the GPU, so no kernel is ever written with this.
            DType::F64 => "f64",
        }
    }

    /// The WGSL type that one element lies in memory as: that of [`DType::wgsl`], and `half` for halves, which the emitter of kernels knows to read.
    pub fn stored(self) -> &'static str {
        if self == DType::F16 { "half" } else { self.wgsl() }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
