//! Values on the host.

use super::dtype::DType;
use super::half::F16;

/// A flat list of values of one element type, in row-major order.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Data {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 16-bit floats.
    F16(Vec<F16>),
    /// 64-bit floats.
    F64(Vec<f64>),
    /// 32-bit signed integers.
    I32(Vec<i32>),
    /// 32-bit unsigned integers.
    U32(Vec<u32>),
    /// Truth values.
    Bool(Vec<bool>),
}

macro_rules! each {
    ($self:expr, $v:ident => $body:expr) => {
        match $self {
            Data::F32($v) => $body,
            Data::F16($v) => $body,
            Data::F64($v) => $body,
            Data::I32($v) => $body,
            Data::U32($v) => $body,
            Data::Bool($v) => $body,
        }
    };
}

impl Data {
    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Data::F32(_) => DType::F32,
            Data::F16(_) => DType::F16,
            Data::F64(_) => DType::F64,
            Data::I32(_) => DType::I32,
            Data::U32(_) => DType::U32,
            Data::Bool(_) => DType::Bool,
        }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every value as an `f64`; truth values become 0 and 1. Exact for every element type.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Data::F32(v) => v.iter().map(|&x| x as f64).collect(),
            Data::F16(v) => v.iter().map(|x| x.to_f32() as f64).collect(),
            Data::F64(v) => v.clone(),
            Data::I32(v) => v.iter().map(|&x| x as f64).collect(),
            Data::U32(v) => v.iter().map(|&x| x as f64).collect(),
            Data::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
        }
    }

    /// Values of `dtype` from `f64`s: floats rounded to nearest, integers truncated, truth values where not zero.
    pub fn from_f64(dtype: DType, values: &[f64]) -> Data {
        match dtype {
            DType::F32 => Data::F32(values.iter().map(|&x| x as f32).collect()),
            DType::F16 => Data::F16(values.iter().map(|&x| F16::from(x)).collect()),
            DType::F64 => Data::F64(values.to_vec()),
            DType::I32 => Data::I32(values.iter().map(|&x| x as i64 as i32).collect()),
            DType::U32 => Data::U32(values.iter().map(|&x| x as i64 as u32).collect()),
            DType::Bool => Data::Bool(values.iter().map(|&x| x != 0.0).collect()),
        }
    }

    /// The bytes as they lie in device memory: little-endian, truth values as `u32`, and whole words: behind halves of an odd number stands a zero.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Data::F32(v) => bytemuck::cast_slice(v).to_vec(),
            Data::F16(v) => v.chunks(2).flat_map(|pair| [pair[0].0, pair.get(1).map_or(0, |h| h.0)]).flat_map(u16::to_le_bytes).collect(),
            Data::F64(v) => bytemuck::cast_slice(v).to_vec(),
            Data::I32(v) => bytemuck::cast_slice(v).to_vec(),
            Data::U32(v) => bytemuck::cast_slice(v).to_vec(),
            Data::Bool(v) => v.iter().flat_map(|&b| u32::from(b).to_le_bytes()).collect(),
        }
    }

    /// The values that lie in device memory as `bytes`. Of halves whose number is odd, the one behind the last counts, too: see [`Data::truncate`].
    pub fn from_bytes(dtype: DType, bytes: &[u8]) -> Data {
        match dtype {
            DType::F32 => Data::F32(collect(bytes)),
            DType::F16 => Data::F16(bytes.chunks_exact(2).map(|b| F16(u16::from_le_bytes([b[0], b[1]]))).collect()),
            DType::F64 => Data::F64(collect(bytes)),
            DType::I32 => Data::I32(collect(bytes)),
            DType::U32 => Data::U32(collect(bytes)),
            DType::Bool => Data::Bool(bytes.chunks_exact(4).map(|b| b != [0; 4]).collect()),
        }
    }
}

impl Data {
    /// Keep the first `len` values.
    pub fn truncate(&mut self, len: usize) {
        each!(self, v => v.truncate(len));
    }
}

/// Values from bytes that may lie at any address.
fn collect<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

macro_rules! from_vec {
    ($($t:ty => $variant:ident),*) => {$(
        impl From<Vec<$t>> for Data { fn from(v: Vec<$t>) -> Self { Data::$variant(v) } }
        impl From<&[$t]> for Data { fn from(v: &[$t]) -> Self { Data::$variant(v.to_vec()) } }
        impl<const N: usize> From<[$t; N]> for Data { fn from(v: [$t; N]) -> Self { Data::$variant(v.to_vec()) } }
        impl<const N: usize> From<&[$t; N]> for Data { fn from(v: &[$t; N]) -> Self { Data::$variant(v.to_vec()) } }
    )*};
}
from_vec!(f32 => F32, F16 => F16, f64 => F64, i32 => I32, u32 => U32, bool => Bool);
