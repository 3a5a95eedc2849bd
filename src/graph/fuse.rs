//! Fusion: which nodes share a kernel. One pass in order of recording; a node joins the latest kernel it depends on, or opens a new one, and brings along
//! earlier kernels of rows that only it reads. So the order of kernels is always a topological one and no cycle can arise.

use super::canon::{Canon, CanonInput, CanonNode, Place, Src};
use super::mode::Phase;
use super::plan::Fault;
use crate::device::Caps;
use crate::tensor::Layout;
use smallvec::SmallVec;
use std::collections::HashMap;

/// Rows in one kernel: more make no kernel faster, and one text serves a long chain cut evenly.
const MAX_ROWS: usize = 64;

/// Nodes that become one kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// Rows that make the root's input 0, in order.
    pub prologue: Vec<u32>,
    /// The node that is not a row, where there is one.
    pub root: Option<u32>,
    /// A sum over an input of the root that its kernel makes along the way.
    pub sum: Option<u32>,
    /// Rows over the index space of the result, in order.
    pub rows: Vec<u32>,
    phase: Option<(Phase, u32)>,
    numel: usize,
    open: bool,
}

impl Group {
    /// All nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = u32> + '_ {
        self.prologue.iter().copied().chain(self.sum).chain(self.root).chain(self.rows.iter().copied())
    }
}

/// What the target allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FuseLimits<'a> {
    /// Whether rows may join each other and other kernels at all.
    pub rows: bool,
    /// Whether reductions may load through rows.
    pub prologue: bool,
    /// Storage bindings of a kernel.
    pub bindings: usize,
    /// What the GPU can do whose kernels make sums along the way; none where none do.
    pub caps: Option<&'a Caps>,
}

/// For each node, the earlier node that computes the same, or itself. Nodes with data of their own are never merged (their data may differ in the next run),
/// nor are nodes of different phases or checkpoint scopes: a recomputation that merged with what it recomputes would keep it alive.
pub(crate) fn common(canon: &Canon, fault: Option<Fault>) -> Vec<u32> {
    let mut first: HashMap<Vec<u64>, u32> = HashMap::new();
    let mut same: Vec<u32> = (0..canon.nodes.len() as u32).collect();
    for (i, node) in canon.nodes.iter().enumerate() {
        if !node.slots.is_empty() || node.op.arenas().is_some() || !node.inputs.iter().all(|x| x.is_whole(canon)) {
            continue;
        }
        let mut key = super::Key::default();
        key.text(node.op.name());
        if fault != Some(Fault::MergeAcrossScopes) {
            key.int(node.phase as i64).int(node.scope);
        }
        node.op.key(&mut key);
        for o in &node.outs {
            key.int(o.dtype as i64).ints(&o.shape);
        }
        for x in &node.inputs {
            match x.src {
                Src::Node(n, o) => key.int(0).int(same[n as usize]).int(o),
                Src::Leaf(l) => key.int(1).int(l),
            };
            key.ints(&x.layout.shape);
            x.layout.strides().iter().for_each(|&s| {
                key.int(s as i64);
            });
        }
        same[i] = *first.entry(key.0).or_insert(i as u32);
    }
    same
}

struct Fuser<'a> {
    canon: &'a Canon,
    limits: FuseLimits<'a>,
    groups: Vec<Group>,
    /// The group of each node that is in one.
    group_of: Vec<Option<u32>>,
    /// How often each output is read inside the plan.
    readers: Vec<SmallVec<[u32; 1]>>,
    stored: Vec<u64>,
    /// Nodes that must not join an earlier kernel: an optimistic first try exceeded the bindings.
    alone: Vec<bool>,
    /// Sources that need a kernel of their own.
    materialized: Vec<bool>,
}

/// Group the nodes of a plan into kernels, in an order in which they can run.
pub(crate) fn fuse(canon: &Canon, limits: FuseLimits<'_>) -> Vec<Group> {
    let n = canon.nodes.len();
    let mut readers: Vec<SmallVec<[u32; 1]>> = canon.nodes.iter().map(|x| SmallVec::from_elem(0, x.outs.len())).collect();
    for (_, node) in canon.nodes.iter().enumerate().filter(|&(i, _)| !canon.dead[i]) {
        for i in &node.inputs {
            if let Src::Node(m, o) = i.src {
                readers[m as usize][o as usize] += 1;
            }
        }
    }
    let mut stored = vec![0u64; n];
    for o in &canon.outputs {
        stored[o.node as usize] |= 1 << o.out;
    }
    let mut alone = vec![false; n];
    let materialized = materialized_sources(canon, &stored);
    loop {
        let mut f = Fuser {
            canon,
            limits,
            groups: Vec::new(),
            group_of: vec![None; n],
            readers: readers.clone(),
            stored: stored.clone(),
            alone,
            materialized: materialized.clone(),
        };
        for i in (0..n as u32).filter(|&i| !canon.dead[i as usize]) {
            f.place(i);
        }
        let cuts = f.overflows();
        if cuts.is_empty() {
            return f.groups.into_iter().filter(|g| g.nodes().next().is_some()).collect();
        }
        // A cut node opens a kernel from now on; every round adds some, so this ends.
        alone = f.alone;
        cuts.into_iter().for_each(|c| alone[c as usize] = true);
    }
}

/// Which sources must be computed into a buffer: those that are stored, read by something that is not a row, or seen through a view that a row cannot see
/// through (a constant looks the same through any).
fn materialized_sources(canon: &Canon, stored: &[u64]) -> Vec<bool> {
    let mut out: Vec<bool> = canon.nodes.iter().zip(stored).map(|(n, &s)| n.source && s != 0).collect();
    for (_, node) in canon.nodes.iter().enumerate().filter(|&(i, _)| !canon.dead[i]) {
        for x in &node.inputs {
            if let Src::Node(m, _) = x.src
                && canon.nodes[m as usize].source
                && !(node.op.row().is_some() && sees_through(canon, x))
            {
                out[m as usize] = true;
            }
        }
    }
    out
}

/// Whether an operand shows every element of a value once: with positive strides, so that it begins at the value's start in every run.
fn covers(layout: &Layout, numel: usize) -> bool {
    let mut dims: Vec<(isize, usize)> = layout.strides().iter().copied().zip(layout.shape.iter().copied()).filter(|d| d.1 != 1).collect();
    dims.sort_unstable();
    let mut stride = 1;
    dims.iter().all(|&(s, n)| {
        let next = s == stride;
        stride *= n as isize;
        next
    }) && stride == numel as isize
}

/// Sizes and strides of the dimensions that stay in a sum, in order, and of those that go away, in any.
fn cut(layout: &Layout, dims: u8) -> [Vec<(usize, isize)>; 2] {
    let [stay, mut go] = [false, true].map(|gone| -> Vec<(usize, isize)> {
        let of = layout.shape.iter().zip(layout.strides()).enumerate();
        of.filter(|&(d, (&n, _))| (dims >> d & 1 == 1) == gone && n != 1).map(|(_, (&n, &s))| (n, s)).collect()
    });
    go.sort_unstable();
    [stay, go]
}

/// Whether element i of the operand is element i of the node it comes from, or the node is a constant.
pub(crate) fn sees_through(canon: &Canon, x: &CanonInput) -> bool {
    let Src::Node(m, _) = x.src else { return false };
    x.is_whole(canon) || canon.nodes[m as usize].op.row().is_some_and(|r| r.name == "fill")
}

impl Fuser<'_> {
    fn node(&self, i: u32) -> &CanonNode {
        &self.canon.nodes[i as usize]
    }

    fn place(&mut self, i: u32) {
        let node = self.node(i).clone();
        if node.source {
            // Sources are written into every kernel that uses them. One that must be stored, or is seen through a view, gets a kernel as well.
            if self.materialized[i as usize] {
                self.open(i, false);
            }
            return;
        }
        if node.op.row().is_some() {
            match self.joinable(i, &node) {
                Some(g) => {
                    self.groups[g as usize].rows.push(i);
                    self.group_of[i as usize] = Some(g);
                }
                None => self.open(i, true),
            }
            if self.limits.rows && !self.alone[i as usize] {
                self.pull(i);
            }
            return;
        }
        let fuses = node.op.fuses();
        let prologue = if self.limits.prologue && fuses.prologue { self.absorbable(&node) } else { None };
        let g = self.groups.len() as u32;
        let mut group = Group {
            root: Some(i),
            phase: Some((node.phase, node.scope)),
            numel: node.outs[0].numel(),
            open: self.limits.rows && fuses.epilogue && node.outs.len() == 1 && node.outs[0].numel() > 0,
            ..Group::default()
        };
        if let Some(p) = prologue {
            group.prologue = std::mem::take(&mut self.groups[p as usize].rows);
            self.groups[p as usize].open = false;
            for &n in &group.prologue {
                self.group_of[n as usize] = Some(g);
            }
        }
        if let Some(sum) = self.along(i, &node) {
            let from = self.group_of[sum as usize].expect("a sum that is found has a kernel");
            self.groups[from as usize] = Group::default();
            self.group_of[sum as usize] = Some(g);
            group.sum = Some(sum);
        }
        self.groups.push(group);
        self.group_of[i as usize] = Some(g);
    }

    /// A sum that the kernel of node `i` can make along the way: recorded before it, alone in its kernel, and not read in between.
    fn along(&self, i: u32, node: &CanonNode) -> Option<u32> {
        /// How far back a sum is looked for: a bias is added right behind the product whose gradient this is.
        const NEAR: u32 = 16;
        let inputs: SmallVec<[(Layout, bool); 3]> = node.inputs.iter().map(|x| (x.layout, x.aligned)).collect();
        let (n, dims) = node.op.sums_along(self.limits.caps?, &inputs)?;
        let x = &node.inputs[n];
        let Src::Node(..) = x.src else { return None };
        let wanted = cut(&x.layout, dims);
        (i.saturating_sub(NEAR)..i).rev().find(|&s| {
            let other = self.node(s);
            let Some((dims, y)) = other.op.sums().zip(other.inputs.first()) else { return false };
            let alone = self.group_of[s as usize].is_some_and(|g| self.groups[g as usize].nodes().eq([s]));
            let numel = self.canon.meta(x.src).numel();
            alone
                && y.src == x.src
                && (other.phase, other.scope) == (node.phase, node.scope)
                && [&x.layout, &y.layout].iter().all(|l| covers(l, numel))
                && cut(&y.layout, dims) == wanted
                && !(s + 1..i).any(|k| !self.canon.dead[k as usize] && self.node(k).inputs.iter().any(|x| matches!(x.src, Src::Node(m, _) if m == s)))
        })
    }

    fn open(&mut self, i: u32, open: bool) {
        let node = self.node(i);
        let group = Group {
            rows: vec![i],
            phase: Some((node.phase, node.scope)),
            numel: node.outs[0].numel(),
            open: open && self.limits.rows && node.outs[0].numel() > 0,
            ..Group::default()
        };
        self.group_of[i as usize] = Some(self.groups.len() as u32);
        self.groups.push(group);
    }

    /// The kernel that row `i` can join: the latest one it depends on, if element i of the row needs only element i of that kernel's values.
    fn joinable(&self, i: u32, node: &CanonNode) -> Option<u32> {
        if !self.limits.rows || self.alone[i as usize] {
            return None;
        }
        let numel = node.outs[0].numel();
        let mut latest: Option<u32> = None;
        for x in &node.inputs {
            if let Src::Node(m, _) = x.src
                && let Some(g) = self.group_of[m as usize].filter(|_| !self.node(m).source || !self.inlined(x))
            {
                latest = latest.max(Some(g));
            }
        }
        let g = latest?;
        let group = &self.groups[g as usize];
        let fits = group.open && group.numel == numel && group.phase == Some((node.phase, node.scope)) && group.rows.len() < MAX_ROWS;
        (fits && self.pointwise(node, g)).then_some(g)
    }

    /// Whether element i of the row needs only element i of what group `g` computes.
    fn pointwise(&self, node: &CanonNode, g: u32) -> bool {
        node.inputs.iter().all(|x| match x.src {
            Src::Node(m, _) if self.group_of[m as usize] == Some(g) => x.is_whole(self.canon) && self.groups[g as usize].sum != Some(m),
            _ => true,
        })
    }

    /// Bring the earlier kernels of rows that only row `i` reads into its kernel, before it: they were opened before anything that they could join.
    fn pull(&mut self, i: u32) {
        let node = self.node(i).clone();
        let Some(g) = self.group_of[i as usize] else { return };
        for x in &node.inputs {
            let Src::Node(m, _) = x.src else { continue };
            let Some(from) = self.group_of[m as usize].filter(|&f| f != g) else { continue };
            let (group, own) = (&self.groups[from as usize], &self.groups[g as usize]);
            let movable = group.root.is_none()
                && group.open
                && (group.phase, group.numel) == (own.phase, own.numel)
                && group.rows.len() + own.rows.len() <= MAX_ROWS
                && self.pointwise(&node, from)
                && !group.rows.iter().any(|&r| self.alone[r as usize] || self.stored[r as usize] != 0)
                && !(group.rows.iter().any(|&r| self.reads_what_changes(r)) && self.overwrites(from, g))
                && group.rows.iter().all(|&r| {
                    let by_i = node.inputs.iter().filter(|x| x.src == Src::Node(r, 0)).count() as u32;
                    self.readers[r as usize][0] == self.read_by(r, &group.rows) + by_i
                });
            if movable {
                let rows = std::mem::take(&mut self.groups[from as usize].rows);
                self.groups[from as usize].open = false;
                rows.iter().for_each(|&r| self.group_of[r as usize] = Some(g));
                let own = &mut self.groups[g as usize].rows;
                own.splice(own.len() - 1..own.len() - 1, rows);
            }
        }
    }

    /// Whether row `r` reads memory that another kernel may overwrite: leaves, and what lies in an arena.
    fn reads_what_changes(&self, r: u32) -> bool {
        self.node(r).inputs.iter().any(|x| match x.src {
            Src::Leaf(_) => true,
            Src::Node(m, _) => self.in_arena(m),
        })
    }

    /// Whether a node's results lie in arenas, where they take the place of older ones.
    fn in_arena(&self, n: u32) -> bool {
        self.node(n).op.arenas().is_some() || self.canon.outputs.iter().any(|o| o.node == n && o.place != Place::Pool)
    }

    /// Whether a kernel after `from`, up to `to`, overwrites anything.
    fn overwrites(&self, from: u32, to: u32) -> bool {
        self.groups[from as usize + 1..=to as usize].iter().any(|g| g.nodes().any(|n| self.in_arena(n)))
    }

    fn inlined(&self, x: &CanonInput) -> bool {
        matches!(x.src, Src::Node(m, _) if self.node(m).source) && sees_through(self.canon, x)
    }

    /// The group of rows whose only product is read by `node` alone, as its input 0: they can run where the node loads.
    fn absorbable(&self, node: &CanonNode) -> Option<u32> {
        let x = node.inputs.first()?;
        let Src::Node(m, o) = x.src else { return None };
        let g = self.group_of[m as usize]?;
        let group = &self.groups[g as usize];
        let only = group.root.is_none()
            && group.open
            && group.phase == Some((node.phase, node.scope))
            && group.rows.last() == Some(&m)
            && self.readers[m as usize][o as usize] == 1
            && x.is_whole(self.canon)
            && group.rows.iter().all(|&r| self.stored[r as usize] == 0)
            // Every other row is read inside the group only.
            && group.rows.iter().filter(|&&r| r != m).all(|&r| self.readers[r as usize][0] == self.read_by(r, &group.rows));
        (only && self.bindings(&group.rows, None) < self.limits.bindings).then_some(g)
    }

    fn read_by(&self, value: u32, rows: &[u32]) -> u32 {
        rows.iter().flat_map(|&r| &self.node(r).inputs).filter(|x| matches!(x.src, Src::Node(m, _) if m == value)).count() as u32
    }

    /// The buffers a group of rows binds: distinct values read from outside, and values that others need.
    fn bindings(&self, rows: &[u32], root: Option<u32>) -> usize {
        let inside = |m: u32| rows.contains(&m) || root == Some(m);
        let mut outside: Vec<Src> = Vec::new();
        for &r in rows {
            for x in &self.node(r).inputs {
                let bound = match x.src {
                    Src::Node(m, _) => !inside(m) && !self.inlined(x),
                    Src::Leaf(_) => true,
                };
                if bound && !outside.contains(&x.src) {
                    outside.push(x.src);
                }
            }
        }
        let stores = rows.iter().chain(&root).filter(|&&r| self.stored[r as usize] != 0 || self.readers[r as usize][0] > self.read_by(r, rows)).count();
        outside.len() + stores
    }

    /// For each group that exceeds the bindings, the first row with which it does.
    fn overflows(&self) -> Vec<u32> {
        let mut cuts = Vec::new();
        for group in self.groups.iter().filter(|g| !g.rows.is_empty()) {
            let inputs = group.root.map_or(0, |r| self.node(r).inputs.len() + self.node(r).op.extra_bindings());
            let prologue = if group.prologue.is_empty() { 0 } else { self.bindings(&group.prologue, None).saturating_sub(2) };
            let limit = self.limits.bindings.saturating_sub(inputs + prologue + usize::from(group.sum.is_some()));
            // Values that only later rows of the group read count as stores in a part of it, so the whole is asked first.
            if self.bindings(&group.rows, group.root) <= limit {
                continue;
            }
            let over = (1..=group.rows.len()).find(|&end| self.bindings(&group.rows[..end], group.root) > limit).unwrap_or(group.rows.len());
            // A lone row always fits: it has three inputs at most.
            let at = if group.root.is_none() { over.max(2) - 1 } else { over - 1 };
            cuts.extend(group.rows.get(at).copied().filter(|&c| !self.alone[c as usize]));
        }
        cuts
    }
}
