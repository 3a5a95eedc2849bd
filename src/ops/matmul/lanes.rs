//! The text of a matrix product on a processor whose lanes read for each other (matmul_lanes.wgsl).

use super::gpu::{BLOCK, Reads, product_parts, split};
use crate::device::choices::{Choices, MATMUL_LANES};
use smallvec::SmallVec;
use std::fmt::Write;

const LANES: [&str; 4] = ["x", "y", "z", "w"];

/// Rows of a lane: two bodies in one kernel, so that few rows (a small batch, or what is left of a large one) cost little and need no kernel of their own.
const FEW: [usize; 2] = [8, 4];
const BODIES: [usize; 2] = [16, 4];
/// The same for wide results: faster by a fifth, and three times as long to compile.
const WIDE_BODIES: [usize; 2] = [32, 8];
/// Bodies and vectors by the options of [`MATMUL_LANES`].
const OPTIONS: [([usize; 2], usize); 6] = [(FEW, 1), (FEW, 2), (BODIES, 1), (BODIES, 2), (WIDE_BODIES, 1), (WIDE_BODIES, 2)];
/// The width from which they pay.
const WIDE: usize = 512;
/// Elements of a layer's weight up to which its products take [`FEW`] rows and one vector, and [`BODIES`] and one: a first step waits for the compiler, and such
/// products are a small part of any other (measured: as fast with few, and up to a tenth slower; compiled in a third and in half of the time).
const QUICK: [usize; 2] = [1 << 14, 1 << 17];
/// Rows that are stored by one piece of text, in a loop: stores are long where a software adapter compiles them.
const STORED: usize = 2;
/// Up to this width a result is made transposed: its columns are too few for lanes, and each then is a row of every lane.
const NARROW: usize = 16;

/// How a product is cut.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    pub read_a: Reads,
    pub read_b: Reads,
    /// Vectors of four columns that a lane owns, 32 apart.
    pub vectors: usize,
    /// Rows of a lane, by how many there are.
    bodies: SmallVec<[usize; 2]>,
}

/// How the eight lanes share reads of four rows at one term: `quads` such at each of `terms`.
struct Share {
    quads: usize,
    terms: usize,
}

impl Share {
    fn of(rows: usize) -> Share {
        let quads = rows.div_ceil(4).next_power_of_two();
        Share { quads, terms: (8 / quads).min(4) }
    }
}

impl Lanes {
    /// Whether rows and columns of a result with `n` columns change places. Asked of columns only: the number of rows may be a batch.
    pub fn turned(n: usize) -> bool {
        n <= NARROW
    }

    /// For a product of these sizes, whose rows are read through `read_a`, as the kernel sees them.
    pub fn new(read_a: Reads, read_b: Reads, [m, k, n]: [usize; 3], choices: &Choices) -> Lanes {
        if Lanes::turned(n) {
            return Lanes { read_a, read_b, vectors: 1, bodies: SmallVec::from_slice(&[n]) };
        }
        // What is read along k, or across rows, is no batch where batches lead: a last batch of another size needs no kernel of its own.
        let weight = match (read_a, read_b) {
            (Reads::AlongK, _) | (_, Reads::AlongK) => k * n,
            (Reads::Across, _) => m * n,
            _ => usize::MAX,
        };
        let rule = match weight {
            w if w <= QUICK[0] => (FEW, 1),
            w if w <= QUICK[1] => (BODIES, 1),
            _ => (if n < WIDE { BODIES } else { WIDE_BODIES }, if n > 32 { 2 } else { 1 }),
        };
        let chosen = choices.pick(&MATMUL_LANES, &[n], OPTIONS.iter().position(|o| *o == rule), |_| true);
        let (bodies, vectors) = chosen.map_or(rule, |o| OPTIONS[o]);
        Lanes { read_a, read_b, vectors, bodies: SmallVec::from(bodies) }
    }

    /// Into how many parts the terms of that product are split, where it is not turned, and the terms of one.
    pub fn split(&self, [m, k, n]: [usize; 3], choices: &Choices) -> (usize, usize) {
        product_parts(choices, [m, k, n], BLOCK, split(m.div_ceil(self.rows()) * n.div_ceil(8 * self.columns()), k))
    }

    pub fn rows(&self) -> usize {
        self.bodies[0]
    }

    pub fn columns(&self) -> usize {
        4 * self.vectors
    }

    /// The body of the hook `multiply` for sums of `k` terms. With `sums`, the lanes of the first columns also sum the
    /// rows that they read, and store them there.
    pub fn multiply(&self, k: usize, sums: bool) -> String {
        let mut out = String::new();
        for v in 0..self.vectors {
            let _ = writeln!(out, "    let p{v} = columns_at(base_b, col + {}u);", 32 * v);
        }
        let _ = writeln!(out, "    let rows = u[0].x - row;");
        for i in 0..self.rows() * self.vectors {
            let _ = writeln!(out, "    var t{i} = vec4<f32>();");
        }
        for (n, &body) in self.bodies.iter().enumerate() {
            match self.bodies.get(n + 1) {
                Some(next) => {
                    let _ = writeln!(out, "    if rows > {next}u {{");
                    out += &self.body(body, k, sums);
                    out += "    } else {\n";
                }
                None => out += &self.body(body, k, sums),
            }
        }
        out += &"    }\n".repeat(self.bodies.len() - 1);
        out += &self.store();
        out
    }

    /// Store the lane's rows. What was stored makes room for what comes after it.
    fn store(&self) -> String {
        let mut out = String::new();
        let rows = self.rows();
        let _ = writeln!(out, "    for (var r = 0u; r < min(rows, {rows}u); r += {STORED}u) {{");
        for r in 0..STORED.min(rows) {
            let _ = writeln!(out, "    if r + {r}u < rows {{");
            for v in 0..self.vectors {
                let _ = writeln!(out, "    store(first + (row + r + {r}u) * u[10].x, col + {}u, t{});", 32 * v, r * self.vectors + v);
            }
            out += "    }\n";
        }
        for i in STORED * self.vectors..rows * self.vectors {
            let _ = writeln!(out, "    t{} = t{i};", i - STORED * self.vectors);
        }
        out += "    }\n";
        out
    }

    /// The lane's product of up to `rows` rows.
    fn body(&self, rows: usize, k: usize, along: bool) -> String {
        let mut out = String::new();
        let sums = rows * self.vectors;
        let share = Share::of(rows);
        match self.read_a {
            Reads::Across => {
                let Share { quads, terms } = share;
                let _ = writeln!(out, "    let later = (lane / {quads}u) % {terms}u * u[1].z;");
                let _ = writeln!(out, "    let own = base_a + min(row + 4u * (lane % {quads}u), u[0].x - 4u);");
            }
            _ => {
                for e in 0..rows.div_ceil(8) {
                    let _ = writeln!(out, "    let own{e} = base_a + min(row + lane + {}u, u[0].x - 1u) * u[1].y;", 8 * e);
                }
            }
        }
        if along {
            for e in 0..self.own_sums(rows) {
                let _ = writeln!(out, "    var own_t{e} = vec4<f32>();\n    var own_s{e} = vec4<f32>();");
            }
        }
        // Along k it is no batch, and whole fours. What is one block needs no loop over blocks.
        let along_k = self.read_a == Reads::AlongK || self.read_b == Reads::AlongK;
        let blocks = !along_k || k > BLOCK;
        out += "    var k = begin;\n";
        out += &if blocks { format!("    while k < end {{\n    let stop = min(end, k + {BLOCK}u);\n") } else { "    let stop = end;\n".to_string() };
        for i in 0..sums {
            let _ = writeln!(out, "    var s{i} = vec4<f32>();");
        }
        let _ = writeln!(out, "    while k + 4u <= stop {{");
        out += &self.step(rows, 4, along);
        out += "    k += 4u;\n    }\n";
        if !along_k {
            out += "    while k < stop {\n";
            out += &self.step(rows, 1, along);
            out += "    k += 1u;\n    }\n";
        }
        let joins = if blocks { "+=" } else { "=" };
        for i in 0..sums {
            let _ = writeln!(out, "    t{i} {joins} s{i};");
        }
        if along {
            for e in 0..self.own_sums(rows) {
                let _ = writeln!(out, "    own_t{e} {joins} own_s{e};\n    own_s{e} = vec4<f32>();");
            }
        }
        out += if blocks { "    }\n" } else { "" };
        if along {
            out += &self.store_sums(rows);
        }
        out
    }

    /// Sums that a lane has of what it reads of `a`: one for each of its rows; across, one of steps that lanes share and one of those that all read.
    fn own_sums(&self, rows: usize) -> usize {
        if self.read_a == Reads::Across { 2 } else { rows.div_ceil(8) }
    }

    /// Put the lanes' sums of rows together, and store them where the lanes have the first columns.
    fn store_sums(&self, rows: usize) -> String {
        let mut out = String::new();
        if self.read_a != Reads::Across {
            out += "    if col == lane * 4u {\n";
            for e in 0..rows.div_ceil(8) {
                let here = if rows < 8 * (e + 1) { format!("min(rows, {rows}u)") } else { "rows".to_string() };
                let _ = writeln!(out, "    if lane + {}u < {here} {{", 8 * e);
                let _ = writeln!(out, "    sums[row + lane + {}u] = (own_t{e}.x + own_t{e}.y) + (own_t{e}.z + own_t{e}.w);\n    }}", 8 * e);
            }
            return out + "    }\n";
        }
        let Share { quads, terms } = Share::of(rows);
        for quad in 0..rows.div_ceil(4) {
            let of = |term: usize| format!("subgroupBroadcast(own_t0, {}u)", term * quads + quad);
            let all: Vec<String> = (0..terms).map(of).collect();
            let _ = writeln!(out, "    let sum{quad} = {} + subgroupBroadcast(own_t1, {quad}u);", all.join(" + "));
            for (i, lane) in LANES.iter().enumerate().take(rows - quad * 4) {
                let at = 4 * quad + i;
                let _ = writeln!(out, "    if col == 0u && {at}u < rows {{\n    sums[row + {at}u] = sum{quad}.{lane};\n    }}");
            }
        }
        out
    }

    /// Add `terms` (four or one) products to each sum.
    fn step(&self, rows: usize, terms: usize, along: bool) -> String {
        let mut out = String::new();
        for v in 0..self.vectors {
            match self.read_b {
                Reads::Across => {
                    for k in 0..terms {
                        let _ = writeln!(out, "    let b{v}_{k} = b[(p{v}.x + (k + {k}u) * u[1].w) >> 2u];");
                    }
                }
                Reads::AlongK => {
                    for (c, lane) in LANES.iter().enumerate() {
                        let _ = writeln!(out, "    let c{v}_{c} = b[(p{v}.{lane} + k) >> 2u];");
                    }
                    for (k, lane) in LANES.iter().enumerate() {
                        let _ = writeln!(out, "    let b{v}_{k} = vec4<f32>(c{v}_0.{lane}, c{v}_1.{lane}, c{v}_2.{lane}, c{v}_3.{lane});");
                    }
                }
                Reads::Single => {
                    for k in 0..terms {
                        let _ = writeln!(out, "    let q{v}_{k} = p{v} + (k + {k}u) * u[1].w;");
                        let one = |l: &str| format!("b[q{v}_{k}.{l}]");
                        let _ = writeln!(out, "    let b{v}_{k} = vec4<f32>({}, {}, {}, {});", one("x"), one("y"), one("z"), one("w"));
                    }
                }
            }
        }
        // One row's terms, by its number and the term's.
        let mut shared = vec![String::new(); rows * terms];
        match self.read_a {
            Reads::Across => {
                let share = Share::of(rows);
                for n in 0..terms.div_ceil(share.terms) {
                    // Of a single term, the lanes of later ones read the same.
                    let later = if terms < share.terms { "" } else { " + later" };
                    let _ = writeln!(out, "    let a{n} = a[(own + (k + {}u) * u[1].z{later}) >> 2u];", n * share.terms);
                    if along {
                        let _ = writeln!(out, "    own_s{} += a{n};", usize::from(terms < share.terms));
                    }
                }
                for quad in 0..rows.div_ceil(4) {
                    for k in 0..terms {
                        let lane = (k % share.terms) * share.quads + quad;
                        let _ = writeln!(out, "    let r{quad}_{k} = subgroupBroadcast(a{}, {lane}u);", k / share.terms);
                        for i in 0..4.min(rows - quad * 4) {
                            shared[(quad * 4 + i) * terms + k] = format!("r{quad}_{k}.{}", LANES[i]);
                        }
                    }
                }
            }
            reads => {
                for e in 0..rows.div_ceil(8) {
                    let value = match (reads, terms) {
                        (Reads::AlongK, _) => format!("a[(own{e} + k) >> 2u]"),
                        (_, 1) => format!("vec4<f32>(a[own{e} + k * u[1].z])"),
                        _ => {
                            let one = |k: usize| format!("a[own{e} + (k + {k}u) * u[1].z]");
                            format!("vec4<f32>({}, {}, {}, {})", one(0), one(1), one(2), one(3))
                        }
                    };
                    let _ = writeln!(out, "    let a{e} = {value};");
                    if along {
                        // A single term is in all four components.
                        let own = if terms == 1 { format!("vec4<f32>(a{e}.x, 0.0, 0.0, 0.0)") } else { format!("a{e}") };
                        let _ = writeln!(out, "    own_s{e} += {own};");
                    }
                }
                for r in 0..rows {
                    for k in 0..terms {
                        shared[r * terms + k] = format!("r{r}.{}", LANES[k]);
                    }
                }
            }
        }
        for r in 0..rows {
            if self.read_a != Reads::Across {
                let _ = writeln!(out, "    let r{r} = subgroupBroadcast(a{}, {}u);", r / 8, r % 8);
            }
            for v in 0..self.vectors {
                let products: Vec<String> = (0..terms).map(|k| format!("{} * b{v}_{k}", shared[r * terms + k])).collect();
                let sums: Vec<String> = products.chunks(2).map(|pair| format!("({})", pair.join(" + "))).collect();
                let _ = writeln!(out, "    s{} += {};", r * self.vectors + v, sums.join(" + "));
            }
        }
        out
    }
}
