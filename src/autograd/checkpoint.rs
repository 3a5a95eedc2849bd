//! Checkpointing: a function whose intermediates are not kept for backward but computed again.

use crate::error::Result;
use crate::graph::{self, Node, Phase, Tensor, Value};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

fn fresh_scope() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// Run `f` so that backward computes its intermediates again instead of keeping them: less memory for more work, with the same bits. Inside another
/// checkpoint it belongs to that one.
///
/// Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
///
/// ```
/// use wgrad::{Device, Tensor, autograd::checkpoint};
/// let x = Tensor::new([0.5f32, 1.0], [2], &Device::cpu()?)?.requires_grad()?;
/// checkpoint(|| x.exp().sin()).sum_all().backward()?;
/// assert!(x.grad().is_some());
/// # Ok::<(), wgrad::Error>(())
/// ```
pub fn checkpoint<R>(f: impl FnOnce() -> R) -> R {
    if graph::scope() != 0 { f() } else { graph::with_scope(fresh_scope(), f) }
}

/// What backward recorded again.
#[derive(Default)]
pub(super) struct Recomputed {
    scopes: HashMap<u64, HashMap<u64, Arc<Node>>>,
}

impl Recomputed {
    /// The node whose inputs and outputs the backward of `node` reads: itself, or its second recording.
    pub fn of(&mut self, node: &Arc<Node>, walk: &BTreeMap<u64, Arc<Node>>, create_graph: bool) -> Result<Arc<Node>> {
        if node.scope == 0 {
            return Ok(node.clone());
        }
        let again = match self.scopes.entry(node.scope) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(record_again(node.scope, walk, create_graph)?),
        };
        Ok(again.get(&node.id).unwrap_or(node).clone())
    }
}

/// Record the scope's nodes again, in their order, from the values outside the scope. A random node keeps its seed and offset, so its mask is the same.
fn record_again(scope: u64, walk: &BTreeMap<u64, Arc<Node>>, create_graph: bool) -> Result<HashMap<u64, Arc<Node>>> {
    // What in the scope has history, or looks at what has. Values without history count as outside: they are kept, so whether they ran before or not,
    // the same is computed again. Sources are computed wherever they are used.
    let member = |n: &Node| n.scope == scope && !n.is_source() && (n.view.is_some() || (n.requires_grad && n.body().history));
    let mut members: BTreeMap<u64, Arc<Node>> = BTreeMap::new();
    let mut stack: Vec<Arc<Node>> = walk.values().filter(|n| member(n)).cloned().collect();
    while let Some(n) = stack.pop() {
        if members.contains_key(&n.id) {
            continue;
        }
        stack.extend(n.recorded_inputs().into_iter().map(|v| v.node).filter(|m| member(m)));
        members.insert(n.id, n);
    }
    let mut again: HashMap<u64, Arc<Node>> = HashMap::new();
    graph::with_scope(fresh_scope(), || {
        graph::with_phase(Phase::Backward, || {
            graph::with_grad_mode(create_graph, || {
                for (id, node) in &members {
                    let mapped: Vec<Tensor> = node
                        .recorded_inputs()
                        .iter()
                        .map(|v| Tensor::of(Value { node: again.get(&v.node.id).unwrap_or(&v.node).clone(), out: v.out }))
                        .collect();
                    let outs = Tensor::try_apply_arc(node.op.clone(), node.slots.clone(), &mapped.iter().collect::<Vec<_>>(), None)?;
                    again.insert(*id, outs[0].value().node.clone());
                }
                Ok(())
            })
        })
    })
    .map(|()| again)
}
