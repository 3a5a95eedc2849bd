//! Nodes: what the graph holds. A node outlives its handles as long as others need it.

use super::arena::Arena;
use super::engine::Engine;
use super::mode::{Phase, Scope};
use super::op::Op;
use super::record::Recorder;
use super::{Slots, Tensor};
use crate::device::Storage;
use crate::tensor::{Layout, Meta};
use smallvec::SmallVec;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// One output of a node.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub node: Arc<Node>,
    pub out: u8,
}

/// A value that does not keep its node.
#[derive(Clone, Debug)]
pub(crate) struct WeakValue {
    pub node: Weak<Node>,
    pub out: u8,
}

impl Value {
    pub fn new(node: Arc<Node>, out: usize) -> Value {
        Value { node, out: out as u8 }
    }

    pub fn meta(&self) -> &Meta {
        &self.node.outs[self.out as usize].meta
    }

    pub fn slot(&self) -> &OutSlot {
        &self.node.outs[self.out as usize]
    }

    pub fn same(&self, other: &Value) -> bool {
        Arc::ptr_eq(&self.node, &other.node) && self.out == other.out
    }

    /// The value whose buffer this one lies in, and how: itself, unless it is a view.
    pub fn resolve(&self) -> (&Value, Layout) {
        match &self.node.view {
            Some((base, layout)) => (base, *layout),
            None => (self, Layout::contiguous(self.meta().shape)),
        }
    }

    /// The value whose buffer this one lies in.
    pub fn base(&self) -> &Value {
        self.node.view.as_ref().map_or(self, |(base, _)| base)
    }

    pub fn downgrade(&self) -> WeakValue {
        WeakValue { node: Arc::downgrade(&self.node), out: self.out }
    }

    /// Where the value is stored, once its base has been computed.
    pub fn storage(&self) -> Option<Storage> {
        let base = self.base();
        match &base.node.body().state {
            NodeState::Done(storages) => storages[base.out as usize].clone(),
            NodeState::Pending => None,
        }
    }
}

impl WeakValue {
    pub fn upgrade(&self) -> Option<Value> {
        self.node.upgrade().map(|node| Value { node, out: self.out })
    }
}

/// Meta and use counts of one output.
#[derive(Debug)]
pub(crate) struct OutSlot {
    pub meta: Meta,
    /// Handles on it and on views of it, those kept for backward included.
    pub handles: AtomicU32,
    /// Pending nodes that read it.
    pub consumers: AtomicU32,
}

/// Where the gradient of a leaf gathers; shared by all values a parameter takes.
#[derive(Debug, Default)]
pub(crate) struct GradSlot(pub Mutex<Option<Tensor>>);

#[derive(Debug)]
pub(crate) enum NodeState {
    /// Recorded, not yet computed.
    Pending,
    /// Computed; outputs that nobody needed have no storage.
    Done(SmallVec<[Option<Storage>; 1]>),
}

/// The part of a node that changes.
#[derive(Debug)]
pub(crate) struct Body {
    pub state: NodeState,
    /// What it reads; kept while pending, and as history until backward has walked it.
    pub inputs: SmallVec<[Value; 3]>,
    /// Handles on the values that backward will read, made when the node ran before backward.
    pub kept: Vec<Tensor>,
    /// Whether backward may still walk it.
    pub history: bool,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub id: u64,
    pub op: Arc<dyn Op>,
    pub slots: Slots,
    pub engine: Arc<Engine>,
    pub recorder: Arc<Recorder>,
    pub scope: Scope,
    pub phase: Phase,
    /// Whether it depends on a leaf that wants a gradient.
    pub requires_grad: bool,
    /// For leaves that want a gradient: where it goes.
    pub grad: Option<Arc<GradSlot>>,
    /// For the whole of an arena: its slices' owners.
    pub arena: Option<Arc<Arena>>,
    pub outs: SmallVec<[OutSlot; 1]>,
    /// For views: what it looks at.
    pub view: Option<(Value, Layout)>,
    pub body: Mutex<Body>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Ids grow in the order of recording, so sorting by id is a topological order.
pub(crate) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Relaxed)
}

impl Node {
    pub fn body(&self) -> MutexGuard<'_, Body> {
        // A panic while a body is locked is a bug that has already surfaced; the data under the lock is still whole.
        self.body.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn is_pending(&self) -> bool {
        matches!(self.body().state, NodeState::Pending)
    }

    /// Whether it computes something when a plan runs it: views and leaves don't.
    pub fn is_source(&self) -> bool {
        self.op.row().is_some_and(|r| r.arity == 0)
    }

    /// Whether it is a source of random numbers.
    pub fn is_random(&self) -> bool {
        self.op.row().is_some_and(crate::ops::is_random)
    }

    /// Whether any handle names one of its outputs.
    pub fn has_handles(&self) -> bool {
        self.outs.iter().any(|o| o.handles.load(Relaxed) > 0)
    }

    /// What it was recorded over, as long as it is pending or a view.
    pub fn recorded_inputs(&self) -> SmallVec<[Value; 3]> {
        self.body().inputs.clone()
    }

    /// Take a pending node out of its recorder's books: it ran, or nobody can want it any more.
    pub fn retire(&self) {
        self.recorder.forget(self);
    }
}

/// The reads of a pending node no longer count.
pub(crate) fn release_consumers(inputs: &[Value]) {
    for v in inputs {
        v.base().slot().consumers.fetch_sub(1, Relaxed);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Dropping a chain of a hundred thousand nodes must not recurse: what this node alone kept goes on a list.
        let mut list: Vec<Value> = Vec::new();
        dismantle(self, &mut list);
        while let Some(value) = list.pop() {
            if let Some(mut node) = Arc::into_inner(value.node) {
                dismantle(&mut node, &mut list);
            }
        }
    }
}

fn dismantle(node: &mut Node, list: &mut Vec<Value>) {
    let body = node.body.get_mut().unwrap_or_else(|e| e.into_inner());
    let inputs = std::mem::take(&mut body.inputs);
    // A node on the list is dismantled there and once more when it is dropped: the second time finds nothing left to do.
    let pending = matches!(std::mem::replace(&mut body.state, NodeState::Done(SmallVec::new())), NodeState::Pending);
    let kept = std::mem::take(&mut body.kept);
    if pending && node.view.is_none() {
        release_consumers(&inputs);
        node.retire();
    }
    list.extend(inputs);
    list.extend(kept.into_iter().map(Tensor::into_value));
    if let Some((base, _)) = node.view.take() {
        list.push(base);
    }
}
