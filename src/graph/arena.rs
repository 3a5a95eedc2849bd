//! Arenas: one buffer for many values that are updated in place (parameters) or written side by side (their gradients).

use super::node::{NodeState, Value, WeakValue};
use crate::device::{Device, Storage};
use crate::error::Result;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

/// The slices of one arena buffer, and which value lies in each now. Offsets are multiples of 256 bytes, so each slice can be bound on its own.
#[derive(Debug)]
pub(crate) struct Arena {
    pub storage: Storage,
    /// Offset and length of each slice, in bytes from the arena's start.
    pub slices: Vec<(usize, usize)>,
    owners: Mutex<Vec<Option<WeakValue>>>,
}

impl Arena {
    /// Lay out slices of `bytes` each, in order; gives the slices and the bytes in all.
    pub fn lay_out(bytes: &[usize]) -> (Vec<(usize, usize)>, usize) {
        let mut at = 0;
        let slices = bytes
            .iter()
            .map(|&b| {
                let slice = (at, b);
                at += b.div_ceil(256).max(1) * 256;
                slice
            })
            .collect();
        (slices, at)
    }

    pub fn new(storage: Storage, slices: Vec<(usize, usize)>) -> Arena {
        let owners = Mutex::new(vec![None; slices.len()]);
        Arena { storage, slices, owners }
    }

    /// The storage of slice `i`.
    pub fn slice(&self, i: usize) -> Storage {
        let (offset, bytes) = self.slices[i];
        Storage { buffer: self.storage.buffer.clone(), offset: self.storage.offset + offset, bytes }
    }

    /// The value that lies in slice `i` now, if anyone still knows it.
    pub fn owner(&self, i: usize) -> Option<Value> {
        self.owners.lock().unwrap_or_else(|e| e.into_inner())[i].as_ref().and_then(WeakValue::upgrade)
    }

    pub fn set_owner(&self, i: usize, value: &Value) {
        self.owners.lock().unwrap_or_else(|e| e.into_inner())[i] = Some(value.downgrade());
    }

    /// Before slice `i` is written from outside a plan: a value in it that handles still name moves to a buffer of its own.
    pub fn evict(&self, i: usize, device: &Device) -> Result<()> {
        let Some(owner) = self.owner(i) else { return Ok(()) };
        let from = self.slice(i);
        if !lies_at(&owner, &from) || owner.slot().handles.load(Relaxed) + owner.slot().consumers.load(Relaxed) == 0 {
            return Ok(());
        }
        let to = device.alloc(from.bytes)?;
        device.copy(&from, &to)?;
        move_to(&owner, to);
        Ok(())
    }
}

/// Whether the value's storage is exactly there.
pub(super) fn lies_at(value: &Value, at: &Storage) -> bool {
    value.storage().is_some_and(|s| s.buffer.id() == at.buffer.id() && s.offset == at.offset)
}

/// The value now lies in `to`.
pub(super) fn move_to(value: &Value, to: Storage) {
    if let NodeState::Done(storages) = &mut value.node.body().state {
        storages[value.out as usize] = Some(to);
    }
}
