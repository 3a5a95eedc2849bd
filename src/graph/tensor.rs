//! The handle that users hold.

use super::engine::{self, Engine};
use super::node::{GradSlot, Value};
use crate::device::{Device, Readback, Storage};
use crate::error::{Error, Result};
use crate::tensor::{DType, Data, F16, Layout, Meta, Shape};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// An n-dimensional array on a device, and its place in the graph. Cloning is cheap and names the same value; values never change.
///
/// Operations record; reading ([`Tensor::to_vec`], [`Tensor::item`]) computes.
///
/// ```
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu()?;
/// let x = Tensor::new([1.0f32, -2.0, 3.0], [3], &device)?;
/// assert_eq!((&x * 2.0).relu().to_vec::<f32>()?, [2.0, 0.0, 6.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub struct Tensor {
    value: Value,
}

impl Tensor {
    /// A handle on `value`: it and its base now count as named.
    pub(crate) fn of(value: Value) -> Tensor {
        let base = value.base();
        if base.slot().handles.fetch_add(1, Relaxed) == 0 && !base.node.is_source() && base.node.is_pending() {
            base.node.recorder.named(&base.node);
        }
        Tensor { value }
    }

    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    /// The value; the handle is given up.
    pub(crate) fn into_value(self) -> Value {
        self.value.clone()
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.value.node.engine
    }

    /// A tensor of these values and this shape on `device`.
    ///
    /// # Errors
    /// Where the number of values does not fit the shape, the device lacks the element type, or memory runs out.
    pub fn new(values: impl Into<Data>, shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
        let (data, shape) = (values.into(), shape.into());
        let meta = Meta::new(data.dtype(), shape);
        if data.len() != shape.numel() {
            return Err(Error::shape(format!("tensor: {} values do not fill shape {shape} ({} elements)", data.len(), shape.numel())));
        }
        let engine = Engine::of(device);
        if device.is_gpu() && meta.dtype == DType::F64 {
            return Err(Error::shape("tensor: f64 is not available on a GPU").help("use f32, or the CPU backend"));
        }
        let storage = engine.alloc(meta.bytes())?;
        device.upload(&storage, &data.to_bytes())?;
        Ok(Tensor::leaf(meta, storage, &engine, None))
    }

    /// The same value as a leaf whose gradient `backward` gathers.
    pub fn requires_grad(&self) -> Result<Tensor> {
        if !self.dtype().is_float() {
            return Err(Error::gradient(format!("requires_grad: a {} tensor cannot carry gradients", self.dtype())));
        }
        let storage = self.materialize()?;
        Ok(Tensor::leaf(*self.meta(), storage, self.engine(), Some(Arc::new(GradSlot::default()))))
    }

    /// Whether gradients flow back from this tensor.
    pub fn is_grad_required(&self) -> bool {
        self.value.carries_grad()
    }

    /// The gradient that `backward` gathered for this leaf.
    pub fn grad(&self) -> Option<Tensor> {
        self.grad_slot()?.0.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Set or forget the gradient of this leaf.
    pub fn set_grad(&self, grad: Option<Tensor>) {
        if let Some(slot) = self.grad_slot() {
            *slot.0.lock().unwrap_or_else(|e| e.into_inner()) = grad;
        }
    }

    pub(crate) fn grad_slot(&self) -> Option<&Arc<GradSlot>> {
        self.value.node.grad.as_ref()
    }

    /// Element type and shape.
    pub fn meta(&self) -> &Meta {
        self.value.meta()
    }

    /// The size of each dimension.
    pub fn shape(&self) -> &Shape {
        &self.meta().shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.meta().dtype
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape().rank()
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.shape().numel()
    }

    /// The size of dimension `dim`; negative counts from the back.
    #[track_caller]
    pub fn size(&self, dim: isize) -> usize {
        match self.shape().dim(dim) {
            Ok(d) => self.shape()[d],
            Err(e) => panic!("size: {e}"),
        }
    }

    /// Where it lives.
    pub fn device(&self) -> &Device {
        &self.engine().device
    }

    /// The name of the operation that made it: `leaf`, `matmul`.
    pub fn op_name(&self) -> &'static str {
        self.value.node.op.name()
    }

    /// Compute the value, if it is pending, and give the contiguous storage it lies in.
    pub(crate) fn materialize(&self) -> Result<Storage> {
        let flat = self.flat()?;
        engine::execute(flat.engine(), std::slice::from_ref(flat.value()), &[])?;
        flat.whole_storage()
    }

    /// Compute the value, if it is pending.
    pub(crate) fn compute(&self) -> Result<()> {
        engine::execute(self.engine(), std::slice::from_ref(&self.value), &[]).map(drop)
    }

    /// This tensor, or a copy of it whose elements fill a buffer of their own in row-major order.
    pub(super) fn flat(&self) -> Result<Tensor> {
        let (base, layout) = self.value.resolve();
        let whole = layout.is_contiguous() && base.meta().numel() == layout.shape.numel();
        if whole { Ok(self.clone()) } else { crate::ops::contiguous_copy(self) }
    }

    fn whole_storage(&self) -> Result<Storage> {
        self.value.storage().ok_or_else(|| Error::internal(format!("{}: has no storage after it ran", self.op_name())))
    }

    /// Compute the value, if it is pending, and begin to bring it to the host. What a browser awaits.
    ///
    /// # Errors
    /// Device failures, among them those that earlier work on the device left behind.
    pub fn read(&self) -> Result<Reading> {
        let meta = *self.meta();
        if meta.numel() == 0 {
            return Ok(Reading { meta, readback: None });
        }
        let flat = self.flat()?;
        let readback = engine::execute(flat.engine(), std::slice::from_ref(flat.value()), std::slice::from_ref(flat.value()))?;
        Ok(Reading { meta, readback })
    }

    /// The values on the host. Blocks until they are there.
    pub fn to_data(&self) -> Result<Data> {
        self.read()?.wait()
    }

    /// The values as `T`s, in row-major order.
    ///
    /// # Errors
    /// Where `T` is not the element type, and device failures.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        let dtype = self.dtype();
        T::from_data(self.to_data()?)
            .ok_or_else(|| Error::invalid(format!("to_vec: a {dtype} tensor was asked for {}", T::DTYPE)).help("convert it with to_dtype"))
    }

    /// The one value of a tensor with a single element, as an `f64`.
    pub fn item(&self) -> Result<f64> {
        if self.numel() != 1 {
            return Err(Error::shape(format!("item: a tensor of shape {} has {} elements, not one", self.shape(), self.numel())));
        }
        Ok(self.to_data()?.to_f64()[0])
    }

    /// The same value with no history: no gradient flows back through it.
    pub fn detach(&self) -> Tensor {
        crate::ops::detach(self)
    }

    /// The layout by which it lies over its base buffer.
    pub(crate) fn layout(&self) -> Layout {
        self.value.resolve().1
    }

    /// The same values on another device; this tensor itself where it is there already.
    pub fn to_device(&self, device: &Device) -> Result<Tensor> {
        if self.device() == device { Ok(self.clone()) } else { Tensor::new(self.to_data()?, *self.shape(), device) }
    }
}

/// A value on its way to the host.
#[derive(Debug)]
pub struct Reading {
    meta: Meta,
    readback: Option<Readback>,
}

impl Reading {
    /// Block until it is there.
    pub fn wait(self) -> Result<Data> {
        match self.readback {
            None => Ok(Data::from_bytes(self.meta.dtype, &[])),
            Some(r) => finish(self.meta, r.wait()?),
        }
    }

    /// Wait for it without blocking the thread.
    pub async fn get(self) -> Result<Data> {
        match self.readback {
            None => Ok(Data::from_bytes(self.meta.dtype, &[])),
            Some(r) => finish(self.meta, r.get().await?),
        }
    }
}

fn finish(meta: Meta, mut parts: Vec<Vec<u8>>) -> Result<Data> {
    let bytes = parts.pop().ok_or_else(|| Error::internal("read: nothing came back"))?;
    let mut data = Data::from_bytes(meta.dtype, &bytes[..meta.bytes()]);
    data.truncate(meta.numel());
    Ok(data)
}

/// Host types that a tensor can be read as.
pub trait Element: Copy + 'static {
    /// Its element type.
    const DTYPE: DType;
    /// The values, if they are of this type.
    fn from_data(data: Data) -> Option<Vec<Self>>;
}

macro_rules! elements {
    ($($t:ty => $variant:ident),*) => {$(
        impl Element for $t {
            const DTYPE: DType = DType::$variant;
            fn from_data(data: Data) -> Option<Vec<Self>> {
                match data { Data::$variant(v) => Some(v), _ => None }
            }
        }
    )*};
}
elements!(f32 => F32, F16 => F16, f64 => F64, i32 => I32, u32 => U32, bool => Bool);

impl Clone for Tensor {
    fn clone(&self) -> Tensor {
        Tensor::of(self.value.clone())
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        let base = self.value.base();
        if base.slot().handles.fetch_sub(1, Relaxed) == 1 && !base.node.has_handles() {
            base.node.recorder.unnamed(base.node.id);
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grad = if self.is_grad_required() { ", requires_grad" } else { "" };
        write!(f, "Tensor({}, {}, {}{grad})", self.meta(), self.op_name(), self.device().short_name())
    }
}
