//! Tensors as buffers of the caller's own GPU work, and back: nothing passes through the host.

use super::Tensor;
use super::engine::Engine;
use crate::device::gpu::CallersBuffer;
use crate::device::{Buffer, Device};
use crate::error::{Error, Result};
use crate::tensor::{DType, Meta, Shape};

impl Tensor {
    /// The beginning of a caller's buffer as a tensor, without a copy: `shape` elements of `dtype` in row-major order (a bool is a `u32`). The buffer must be
    /// of the same wgpu device and made with `STORAGE` and `COPY_SRC`.
    ///
    /// What the caller has submitted before is seen. The tensor's value is what the buffer holds when its readers run: write to the buffer again only after
    /// they did ([`Device::flush`], an optimizer's step), and make a new tensor for what was written then.
    ///
    /// # Errors
    /// Where the device is no GPU, or the buffer is too small or made for other uses.
    pub fn from_wgpu(buffer: CallersBuffer, shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
        let meta = Meta::new(dtype, shape);
        let Device::Gpu(gpu) = device else {
            return Err(Error::device(format!("from_wgpu: {} has no wgpu buffers", device.short_name())));
        };
        if dtype == DType::F64 {
            return Err(Error::shape("from_wgpu: f64 is not available on a GPU"));
        }
        let storage = gpu.import_value(buffer, meta.bytes()).map_err(|e| e.context("from_wgpu"))?;
        Ok(Tensor::leaf(meta, storage, &Engine::of(device), None))
    }

    /// Compute the value, if it is pending, and give the part of a buffer in which it lies, contiguous. What is submitted to the device's queue from here on
    /// sees it.
    ///
    /// # Errors
    /// Where the device is no GPU, and device failures.
    pub fn to_wgpu(&self) -> Result<WgpuSlice> {
        let flat = self.flat()?;
        let storage = flat.materialize()?;
        match &storage.buffer {
            Buffer::Gpu(buffer) => Ok(WgpuSlice { buffer: buffer.wgpu().clone(), offset: storage.offset as u64, size: storage.bytes as u64, _keeps: flat }),
            Buffer::Cpu(_) => Err(Error::device(format!("to_wgpu: {} has no wgpu buffers", self.device().short_name()))),
        }
    }
}

/// A value on a GPU, for the caller's own kernels to read. It holds the value as long as it lives, unless it is a parameter's and an optimizer steps: then it
/// is to be asked for again. It is not to be written to.
#[derive(Debug)]
pub struct WgpuSlice {
    /// The buffer; other values may lie in it, too.
    pub buffer: CallersBuffer,
    /// Where the value begins, in bytes: a multiple of 256.
    pub offset: u64,
    /// Its length in bytes.
    pub size: u64,
    _keeps: Tensor,
}
