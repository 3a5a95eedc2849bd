//! Buffers: state of a module that no gradient changes, such as running statistics.

use crate::error::{Error, Result};
use crate::graph::{self, Cell, Tensor, Value};
use crate::tensor::{Meta, Shape};
use std::sync::{Arc, Mutex, MutexGuard};

/// A tensor that belongs to a module and is saved with it, but is not trained. Clones share it. As with a [`Param`](super::Param), the value at any time is
/// immutable; [`Buffer::assign`] gives it another, and tensors taken before keep theirs.
#[derive(Clone, Debug)]
pub struct Buffer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    meta: Meta,
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

impl Buffer {
    /// A buffer that begins with the value of `initial`.
    pub fn new(initial: &Tensor) -> Buffer {
        Buffer(Arc::new(Inner { meta: *initial.meta(), value: Mutex::new(initial.detach()) }))
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

    /// Element type and shape.
    pub fn meta(&self) -> &Meta {
        &self.0.meta
    }

    /// Give it another value, of the same type and shape. Nothing runs: a pending value is computed with the next step or flush, because the buffer names it.
    ///
    /// # Errors
    /// Where the type or the shape differs.
    pub fn assign(&self, value: &Tensor) -> Result<()> {
        if *value.meta() != self.0.meta {
            return Err(Error::shape(format!("buffer: a value {} does not fit {}", value.meta(), self.0.meta)));
        }
        // Without this, each assignment would keep the history of the one before.
        let value = if value.is_grad_required() { value.detach() } else { value.clone() };
        let before = std::mem::replace(&mut *self.lock(), value);
        graph::touched(&self.0, before.value());
        Ok(())
    }

    /// Whether both are the same buffer.
    pub fn same(&self, other: &Buffer) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
