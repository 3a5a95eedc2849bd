//! Typed windows over host buffers, as ops see them.

use crate::tensor::{DType, Data, F16, Layout, Meta, Shape};
use std::borrow::Cow;

/// A value to read: the whole base buffer, and the layout that says which of its elements, in which order.
#[derive(Clone, Copy, Debug)]
pub struct CpuView<'a> {
    /// The element type.
    pub dtype: DType,
    /// Shape, strides and offset, in elements of the buffer.
    pub layout: Layout,
    pub(crate) bytes: &'a [u8],
}

impl<'a> CpuView<'a> {
    /// A contiguous value in `bytes` (aligned for its element type).
    pub fn new(meta: Meta, bytes: &'a [u8]) -> Self {
        CpuView { dtype: meta.dtype, layout: Layout::contiguous(meta.shape), bytes }
    }

    /// A contiguous value of f32s.
    pub(crate) fn of_f32(shape: Shape, values: &'a [f32]) -> Self {
        CpuView::new(Meta::new(DType::F32, shape), bytemuck::cast_slice(values))
    }

    /// The shape of the value.
    pub fn shape(&self) -> &Shape {
        &self.layout.shape
    }

    /// The base buffer's elements; index them through the layout.
    pub fn base<T: bytemuck::Pod>(&self) -> &'a [T] {
        bytemuck::cast_slice(self.bytes)
    }

    /// The elements in row-major order, borrowed where they lie so.
    pub fn elements<T: bytemuck::Pod>(&self) -> Cow<'a, [T]> {
        let base = self.base::<T>();
        let n = self.layout.shape.numel();
        if self.layout.is_contiguous() {
            let start = if n == 0 { 0 } else { self.layout.offset };
            Cow::Borrowed(&base[start..start + n])
        } else {
            Cow::Owned(self.layout.indices().map(|i| base[i]).collect())
        }
    }

    /// The elements in row-major order as `f64`, exactly.
    pub fn to_f64(&self) -> Vec<f64> {
        match self.dtype {
            DType::F32 => self.elements::<f32>().iter().map(|&x| x as f64).collect(),
            DType::F16 => self.elements::<u16>().iter().map(|&h| F16(h).to_f32() as f64).collect(),
            DType::F64 => self.elements::<f64>().into_owned(),
            DType::I32 => self.elements::<i32>().iter().map(|&x| x as f64).collect(),
            DType::U32 | DType::Bool => self.elements::<u32>().iter().map(|&x| x as f64).collect(),
        }
    }

    /// The elements in row-major order as host data.
    pub fn to_data(&self) -> Data {
        Data::from_f64(self.dtype, &self.to_f64())
    }
}

/// A value to write: contiguous.
#[derive(Debug)]
pub struct CpuViewMut<'a> {
    /// Element type and shape.
    pub meta: Meta,
    pub(crate) bytes: &'a mut [u8],
}

impl<'a> CpuViewMut<'a> {
    /// A contiguous value in `bytes` (aligned for its element type).
    pub fn new(meta: Meta, bytes: &'a mut [u8]) -> Self {
        CpuViewMut { meta, bytes }
    }

    /// The elements, row-major.
    pub fn elements<T: bytemuck::Pod>(&mut self) -> &mut [T] {
        let n = self.meta.numel();
        &mut bytemuck::cast_slice_mut(self.bytes)[..n]
    }

    /// Store `values`, one an element, rounded to the element type: the last step of every definition.
    pub fn set_f64(&mut self, values: &[f64]) {
        assert_eq!(values.len(), self.meta.numel(), "a definition must fill its output");
        match self.meta.dtype {
            DType::F32 => self.elements::<f32>().iter_mut().zip(values).for_each(|(o, &v)| *o = v as f32),
            DType::F16 => self.elements::<u16>().iter_mut().zip(values).for_each(|(o, &v)| *o = F16::from(v).0),
            DType::F64 => self.elements::<f64>().copy_from_slice(values),
            DType::I32 => self.elements::<i32>().iter_mut().zip(values).for_each(|(o, &v)| *o = v as i64 as i32),
            DType::U32 => self.elements::<u32>().iter_mut().zip(values).for_each(|(o, &v)| *o = v as i64 as u32),
            DType::Bool => self.elements::<u32>().iter_mut().zip(values).for_each(|(o, &v)| *o = u32::from(v != 0.0)),
        }
    }

    /// The old elements as `f64`, for outputs that are updated in place.
    pub fn to_f64(&self) -> Vec<f64> {
        CpuView::new(self.meta, self.bytes).to_f64()
    }
}
