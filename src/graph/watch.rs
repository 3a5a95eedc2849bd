//! Looking on from a test: what every run of a thread becomes on a GPU, on whatever device it runs. One test so checks all kernels without an adapter, and
//! another runs them again between guard bands.

use super::canon::{Canon, Place};
use super::node::Node;
use super::plan::{self, Policy};
use crate::device::{Caps, Device, GpuProgram, Storage};
use crate::error::Result;
use crate::tensor::Meta;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// A run that was looked at.
#[doc(hidden)]
#[derive(Debug)]
pub struct Seen {
    /// What a GPU runs.
    pub program: GpuProgram,
    /// Its data.
    pub data: Vec<u64>,
    /// What lies behind its leaf slots.
    pub leaves: Vec<Storage>,
    /// Its output slots.
    pub outputs: Vec<Meta>,
    /// Whether an output overwrites a part of a leaf.
    pub in_place: bool,
}

/// All that was seen.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Watched {
    /// The runs, in order.
    pub runs: Vec<Seen>,
    /// The names of all nodes that ran, and of the views between them.
    pub nodes: BTreeSet<&'static str>,
    /// The names of the shaders in use.
    pub kernels: BTreeSet<&'static str>,
}

struct Watch {
    caps: Caps,
    seen: Watched,
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Run `f`, and lower all that this thread runs meanwhile for a GPU that can do `caps` (on a GPU: for that one).
///
/// # Panics
/// Inside of itself.
#[doc(hidden)]
pub fn watch<R>(caps: &Caps, f: impl FnOnce() -> R) -> (R, Watched) {
    /// Ends the watch also where `f` panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            WATCH.take();
        }
    }
    let before = WATCH.replace(Some(Watch { caps: caps.clone(), seen: Watched::default() }));
    assert!(before.is_none(), "watch: inside of another watch");
    let end = End;
    let result = f();
    let seen = WATCH.take().map(|w| w.seen).unwrap_or_default();
    drop(end);
    (result, seen)
}

/// Whether this thread's runs are looked at.
pub(super) fn is_on() -> bool {
    WATCH.with_borrow(Option::is_some)
}

/// The shader `name` is launched.
pub(super) fn launched(name: &'static str) {
    WATCH.with_borrow_mut(|w| {
        if let Some(w) = w {
            w.seen.kernels.insert(name);
        }
    });
}

/// `canon` is about to run on `device`.
pub(super) fn ran(canon: &mut Canon, device: &Device, policy: &Policy) -> Result<()> {
    let Some(caps) = WATCH.with_borrow(|w| w.as_ref().map(|w| w.caps.clone())) else { return Ok(()) };
    let caps = match device {
        Device::Cpu(_) => caps,
        #[cfg(feature = "gpu")]
        Device::Gpu(gpu) => gpu.caps().clone(),
    };
    plan::merge_common(canon, policy.fault);
    let seen = Seen {
        program: plan::gpu_program(canon, &caps, policy)?,
        data: canon.data.clone(),
        leaves: canon.leaf_storage.clone(),
        outputs: canon.outputs.iter().map(|o| canon.nodes[o.node as usize].outs[o.out as usize]).collect(),
        in_place: canon.outputs.iter().any(|o| o.place != Place::Pool),
    };
    let names: Vec<&str> = canon.run.iter().flat_map(|n| names(n)).collect();
    WATCH.with_borrow_mut(|w| {
        if let Some(w) = w {
            w.seen.nodes.extend(names);
            w.seen.runs.push(seen);
        }
    });
    Ok(())
}

/// The name of a node, and of the views through which it reads.
fn names(node: &Node) -> Vec<&'static str> {
    let mut names = vec![node.op.name()];
    for input in node.recorded_inputs() {
        let mut next = Some(input);
        while let Some(v) = next.filter(|v| v.node.view.is_some()) {
            names.push(v.node.op.name());
            next = v.node.recorded_inputs().first().cloned();
        }
    }
    names
}
