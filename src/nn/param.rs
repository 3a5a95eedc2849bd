//! Parameters: named places whose value an optimizer replaces.

use crate::error::{Error, Result};
use crate::graph::{self, Cell, GradSlot, Tensor, Value};
use crate::tensor::{Meta, Shape};
use std::sync::{Arc, Mutex, MutexGuard};

/// A trainable tensor. Clones share it. Its value at any time is an immutable [`Tensor`]; a step gives it a new one, and tensors taken before keep theirs.
#[derive(Clone, Debug)]
pub struct Param(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    meta: Meta,
    grad: Arc<GradSlot>,
    value: Mutex<Tensor>,
}

impl Cell for Inner {
    fn value(&self) -> Value {
        self.value.lock().unwrap_or_else(|e| e.into_inner()).value().clone()
    }

    fn put(&self, value: Tensor) {
        *self.value.lock().unwrap_or_else(|e| e.into_inner()) = value;
    }
}

impl Param {
    /// A parameter that begins with the value of `initial`.
    ///
    /// # Errors
    /// Where the tensor is not of a float type, or computing it fails.
    pub fn new(initial: &Tensor) -> Result<Param> {
        if !initial.dtype().is_float() {
            return Err(Error::gradient(format!("parameter: a {} tensor cannot be trained", initial.dtype())));
        }
        let grad = Arc::new(GradSlot::default());
        let storage = initial.materialize()?;
        let value = Tensor::leaf(*initial.meta(), storage, initial.engine(), Some(grad.clone()));
        Ok(Param(Arc::new(Inner { meta: *initial.meta(), grad, value: Mutex::new(value) })))
    }

    fn lock(&self) -> MutexGuard<'_, Tensor> {
        self.0.value.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The value now.
    pub fn tensor(&self) -> Tensor {
        let value = self.lock().clone();
        graph::touched(&self.0, value.value());
        value
    }

    /// Its shape.
    pub fn shape(&self) -> &Shape {
        &self.0.meta.shape
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.0.meta.numel()
    }

    /// Element type and shape.
    pub fn meta(&self) -> &Meta {
        &self.0.meta
    }

    /// Give it another value, of the same type and shape. Tensors taken before keep theirs.
    pub fn set(&self, value: &Tensor) -> Result<()> {
        if *value.meta() != self.0.meta {
            return Err(Error::shape(format!("parameter: a value {} does not fit {}", value.meta(), self.0.meta)));
        }
        let storage = value.materialize()?;
        *self.lock() = Tensor::leaf(self.0.meta, storage, value.engine(), Some(self.0.grad.clone()));
        Ok(())
    }

    /// The gradient gathered so far.
    pub fn grad(&self) -> Option<Tensor> {
        self.0.grad.0.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Replace or forget the gradient.
    pub fn set_grad(&self, grad: Option<Tensor>) {
        *self.0.grad.0.lock().unwrap_or_else(|e| e.into_inner()) = grad;
    }

    pub(crate) fn grad_slot(&self) -> &Arc<GradSlot> {
        &self.0.grad
    }

    /// Whether both are the same parameter.
    pub fn same(&self, other: &Param) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Exchange the value for another; the old one comes back without counting as a handle, so that an update may overwrite it.
    pub(crate) fn replace(&self, value: Tensor) -> Value {
        std::mem::replace(&mut *self.lock(), value).into_value()
    }
}
