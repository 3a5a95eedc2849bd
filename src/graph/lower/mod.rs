//! Lowering: from groups of nodes to what a device runs.

mod gpu;
mod halves;
mod host;
pub mod launch;
mod places;
mod runner;
pub(crate) mod steps;

pub(crate) use gpu::{countable, lower as lower_gpu};
pub(crate) use host::lower as lower_host;

use super::canon::{Canon, CanonInput, Place, Src};
use super::fuse::Group;
use crate::device::Slot;
use crate::ops::rows::{Row, Sig};
use crate::tensor::DType;
use smallvec::SmallVec;
use std::collections::HashMap;
use steps::{Load, Reg, Step, Steps, Store};

/// Where every stored value of a plan lies, with temporaries still numbered one a value.
pub(crate) struct Slots {
    slots: HashMap<(u32, u8), Slot>,
    /// Bytes of each temporary.
    pub temps: Vec<usize>,
    /// Bytes of each output that gets a buffer of its own.
    pub outputs: Vec<Option<usize>>,
    leaf_alias: Vec<u32>,
    /// For outputs placed in an arena: the leaf that is the arena, and the slice.
    output_arena: Vec<Option<(u32, u32)>>,
}

impl Slots {
    /// Give every value that crosses a kernel's border a buffer.
    fn new(canon: &Canon, groups: &[Group]) -> Slots {
        let mut s = Slots {
            slots: HashMap::new(),
            temps: Vec::new(),
            outputs: canon.outputs.iter().map(|o| (o.place == Place::Pool).then(|| canon.meta(Src::Node(o.node, o.out)).bytes())).collect(),
            leaf_alias: canon.leaf_alias.clone(),
            output_arena: canon
                .outputs
                .iter()
                .map(|o| match o.place {
                    Place::Arena(leaf, slice) => Some((leaf, slice)),
                    Place::Pool => None,
                })
                .collect(),
        };
        for (k, o) in canon.outputs.iter().enumerate() {
            s.slots.insert((o.node, o.out), Slot::Output(k));
        }
        let mut group_of: HashMap<u32, usize> = HashMap::new();
        for (g, group) in groups.iter().enumerate() {
            group.nodes().for_each(|n| {
                group_of.insert(n, g);
            });
        }
        for (g, group) in groups.iter().enumerate() {
            let inside = |m: u32| group_of.get(&m) == Some(&g);
            for n in group.nodes() {
                for x in &canon.nodes[n as usize].inputs {
                    // A source is read from a buffer only where it has a kernel of its own.
                    if let Src::Node(m, o) = x.src
                        && !inside(m)
                        && group_of.contains_key(&m)
                        && !inlined(canon, n, x)
                    {
                        let bytes = canon.meta(x.src).bytes();
                        s.slots.entry((m, o)).or_insert_with(|| {
                            s.temps.push(bytes);
                            Slot::Temp(s.temps.len() - 1)
                        });
                    }
                }
            }
        }
        s
    }

    fn of(&self, src: Src) -> Option<Slot> {
        match src {
            Src::Leaf(l) => Some(Slot::Leaf(l as usize)),
            Src::Node(n, o) => self.slots.get(&(n, o)).copied(),
        }
    }

    /// A new temporary that holds no node's value.
    fn temp(&mut self, bytes: usize) -> Slot {
        self.temps.push(bytes);
        Slot::Temp(self.temps.len() - 1)
    }

    /// The arena and slice that an output goes to.
    fn place(&self, slot: Slot) -> Option<(Slot, u32)> {
        match slot {
            Slot::Output(k) => self.output_arena[k].map(|(l, s)| (Slot::Leaf(l as usize), s)),
            _ => None,
        }
    }

    /// The buffer behind a slot, as far as aliases go: slots with equal classes may lie in one buffer.
    fn alias_class(&self, slot: Slot) -> Slot {
        match slot {
            Slot::Leaf(l) => Slot::Leaf(self.leaf_alias[l] as usize),
            Slot::Output(k) => self.output_arena[k].map_or(slot, |(l, _)| Slot::Leaf(self.leaf_alias[l as usize] as usize)),
            other => other,
        }
    }
}

/// Whether node `n` computes this operand itself: a source that a row reads.
fn inlined(canon: &Canon, n: u32, x: &CanonInput) -> bool {
    let Src::Node(m, _) = x.src else { return false };
    canon.nodes[m as usize].source && canon.nodes[n as usize].op.row().is_some() && super::fuse::sees_through(canon, x)
}

/// Build the rows of a group. `root` is the node whose result they start from, `result` the node whose value a prologue hands on.
fn build_steps(canon: &Canon, slots: &Slots, rows: &[u32], root: Option<u32>, result: Option<u32>) -> Steps {
    let mut out = Steps::default();
    let mut regs: HashMap<u32, Reg> = root.map(|r| (r, Reg::Root)).into_iter().collect();
    for &n in rows {
        let node = &canon.nodes[n as usize];
        let args = node.inputs.iter().map(|x| operand(canon, slots, n, x, &mut out, &mut regs)).collect();
        push_row(canon, n, args, &mut out, &mut regs);
    }
    for n in root.iter().chain(rows) {
        if let Some(&slot) = slots.slots.get(&(*n, 0)) {
            out.stores.push(Store { reg: regs[n], slot, dtype: canon.nodes[*n as usize].outs[0].dtype });
        }
    }
    out.result = result.map(|r| regs[&r]);
    out.root = root.map(|r| canon.nodes[r as usize].outs[0].dtype);
    out
}

fn operand(canon: &Canon, slots: &Slots, n: u32, x: &CanonInput, out: &mut Steps, regs: &mut HashMap<u32, Reg>) -> Reg {
    if let Src::Node(m, o) = x.src {
        if inlined(canon, n, x) {
            return match regs.get(&m) {
                Some(&r) => r,
                None => push_row(canon, m, SmallVec::new(), out, regs),
            };
        }
        // A source that this kernel computes for one row is no register for another that sees it through a view.
        if o == 0
            && !canon.nodes[m as usize].source
            && let Some(&r) = regs.get(&m)
        {
            return r;
        }
    }
    let slot = slots.of(x.src).expect("a value read outside its kernel has a buffer");
    let base = canon.meta(x.src);
    // The whole of a value begins at its start in every run, so two such operands are one load.
    let same = |l: &Load| l.slot == slot && x.is_whole(canon) && l.layout.is_whole(base.numel());
    let at = out.loads.iter().position(same).unwrap_or_else(|| {
        out.loads.push(Load { slot, dtype: base.dtype, layout: x.layout, offset: x.offset, aligned: x.aligned });
        out.loads.len() - 1
    });
    Reg::Load(at as u16)
}

fn push_row(canon: &Canon, n: u32, args: SmallVec<[Reg; 3]>, out: &mut Steps, regs: &mut HashMap<u32, Reg>) -> Reg {
    let node = &canon.nodes[n as usize];
    let row: &'static Row = node.op.row().expect("only rows are joined");
    let result = node.outs[0].dtype;
    let operand = match row.sig {
        Sig::Source(_) => result,
        _ => node.inputs.last().map_or(DType::F32, |x| canon.meta(x.src).dtype),
    };
    out.steps.push(Step { row, args, operand, out: result, slots: node.slot_base });
    let r = Reg::Step((out.steps.len() - 1) as u16);
    regs.insert(n, r);
    r
}

/// The label of a group: its operations' names.
fn label(canon: &Canon, group: &Group) -> String {
    const SHOWN: usize = 6;
    let names: Vec<&str> = group.nodes().map(|n| canon.nodes[n as usize].op.name()).collect();
    if names.len() <= SHOWN { names.join("+") } else { format!("{}+{} more", names[..SHOWN].join("+"), names.len() - SHOWN) }
}

/// What a kernel's root reads, made contiguous first where the op does not take the layout: the copies to make, and for each input what to read instead.
fn copies_needed(canon: &Canon, root: u32, has_prologue: bool) -> Vec<usize> {
    let node = &canon.nodes[root as usize];
    node.inputs.iter().enumerate().filter(|(n, x)| !(has_prologue && *n == 0 || node.op.accepts(*n, &x.layout))).map(|(n, _)| n).collect()
}
