//! A plan: the program for one structure of graph, and where its outputs go.

use super::canon::{Canon, CanonInput, Src};
use super::fuse::{self, FuseLimits};
use super::lower;
use crate::device::choices::Choices;
use crate::device::{Caps, Device, GpuProgram, Prepared, Program, Readback, Storage};
use crate::error::Result;
use std::borrow::Cow;
use std::sync::Arc;

/// A fault planted in the planner on purpose: the random-graph test must find each. Never set outside tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Fault {
    /// A value that is about to be overwritten in place is read as if it had a buffer of its own.
    MissedAlias,
    /// Temporaries are given up one launch early.
    ShortLifetime,
    /// A parameter's old value is overwritten without a copy, though a handle names it.
    LostVersion,
    /// Every node reads its data one slot further on.
    WrongSlot,
    /// A node that checkpointing records again is merged with the first one.
    MergeAcrossScopes,
}

/// A program, and what it was called when it was built.
#[derive(Debug)]
pub(crate) struct Plan {
    pub name: String,
    pub prepared: Prepared,
}

impl Plan {
    /// Run it; `reads` are brought to the host in the same submit.
    pub fn run(
        &self,
        device: &Device,
        data: &[u64],
        leaves: &[Storage],
        outputs: &[Storage],
        copies_before: &[(Storage, Storage)],
        reads: &[Storage],
    ) -> Result<Option<Readback>> {
        let began = (crate::env::debug() >= 2).then(std::time::Instant::now);
        let readback = device.run(&self.prepared, data, leaves, outputs, copies_before, reads)?;
        if let Some(began) = began {
            device.wait()?;
            crate::env::tell(2, || format!("ran {} on {} in {:.3} ms", self.name, device.short_name(), began.elapsed().as_secs_f64() * 1e3));
        }
        Ok(readback)
    }
}

/// What shapes a plan besides its graph.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Whether rows are fused; off for the definition and in tests that compare.
    pub fuse: bool,
    pub fault: Option<Fault>,
    /// Choices of kernels in place of the device's own.
    pub choices: Option<Arc<Choices>>,
}

impl Policy {
    pub const USUAL: Policy = Policy { fuse: true, fault: None, choices: None };

    /// What a device can do, with the choices that hold.
    fn caps<'a>(&self, caps: &'a Caps) -> Cow<'a, Caps> {
        match &self.choices {
            Some(choices) => Cow::Owned(Caps { choices: choices.clone(), ..caps.clone() }),
            None => Cow::Borrowed(caps),
        }
    }
}

/// Schedule, fuse, place and compile.
pub(crate) fn build(canon: &mut Canon, device: &Device, name: String, policy: &Policy) -> Result<Plan> {
    merge_common(canon, policy.fault);
    if policy.fault == Some(Fault::WrongSlot) {
        let end = canon.data.len();
        canon.nodes.iter_mut().filter(|n| !n.slots.is_empty()).for_each(|n| n.slot_base = (n.slot_base + 1).min(end - n.slots.len()));
    }
    let program = match device {
        Device::Cpu(cpu) => {
            let fuse = policy.fuse && !cpu.definition;
            let groups = fuse::fuse(canon, FuseLimits { rows: fuse, prologue: fuse, bindings: 8, caps: None });
            Program::Host(lower::lower_host(canon, &groups, cpu.definition, policy.fault)?)
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(gpu) => Program::Gpu(gpu_program(canon, gpu.caps(), policy)?),
    };
    Ok(Plan { name, prepared: device.prepare(program)? })
}

/// What a GPU that can do `caps` runs for `canon`, common nodes merged already.
pub(super) fn gpu_program(canon: &Canon, caps: &Caps, policy: &Policy) -> Result<GpuProgram> {
    let caps = &*policy.caps(caps);
    let bindings = (caps.max_storage_bindings as usize).min(8);
    let groups = fuse::fuse(canon, FuseLimits { rows: policy.fuse, prologue: policy.fuse, bindings, caps: Some(caps).filter(|_| policy.fuse) });
    lower::lower_gpu(canon, &groups, caps, policy.fault)
}

/// Let readers of a node that computes the same as an earlier one read the earlier one. Doing it again changes nothing.
pub(super) fn merge_common(canon: &mut Canon, fault: Option<super::plan::Fault>) {
    let same = fuse::common(canon, fault);
    let redirect = |x: &mut CanonInput| {
        if let Src::Node(m, o) = x.src {
            x.src = Src::Node(same[m as usize], o);
        }
    };
    canon.nodes.iter_mut().flat_map(|n| &mut n.inputs).for_each(redirect);
    // A merged node that must be stored keeps its own kernel; one that nobody reads any more is dropped.
    let mut wanted: Vec<bool> = vec![false; canon.nodes.len()];
    canon.outputs.iter().for_each(|o| wanted[o.node as usize] = true);
    for i in (0..canon.nodes.len()).rev() {
        if wanted[i] {
            for x in &canon.nodes[i].inputs {
                if let Src::Node(m, _) = x.src {
                    wanted[m as usize] = true;
                }
            }
        }
    }
    canon.dead = wanted.iter().map(|w| !w).collect();
}

/// The plans of a device, least recently used first to go.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    plans: std::collections::HashMap<Box<[u64]>, (Arc<Plan>, u64)>,
    clock: u64,
}

impl Plans {
    /// How many plans are kept.
    const LIMIT: usize = 128;

    pub fn find(&mut self, key: &[u64]) -> Option<Arc<Plan>> {
        self.clock += 1;
        let (plan, used) = self.plans.get_mut(key)?;
        *used = self.clock;
        Some(plan.clone())
    }

    pub fn insert(&mut self, key: Vec<u64>, plan: Arc<Plan>) {
        if self.plans.len() >= Self::LIMIT
            && let Some(oldest) = self.plans.iter().min_by_key(|(_, (_, used))| *used).map(|(k, _)| k.clone())
        {
            self.plans.remove(&oldest);
        }
        self.plans.insert(key.into(), (plan, self.clock));
    }
}
