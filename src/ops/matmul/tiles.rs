//! The text of a product in tiles of workgroup memory, for hardware: what matmul and convolutions on GPUs have in common. A shader says where four rows (or
//! columns) lie (`home_a`, `home_b`), reads four of them by four terms (`quad_a`, `quad_b`) and stores four columns of a row (`store`).

use crate::device::choices::{CONV_TILE, MATMUL_TILE};
use crate::device::{Caps, Kind};
use crate::graph::Call;
use std::fmt::Write;

/// A tile: rows and columns of a workgroup, terms in workgroup memory at once, rows and columns of an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) struct Tile {
    pub rows: usize,
    pub columns: usize,
    terms: usize,
    own_rows: usize,
    own_columns: usize,
}

/// Terms summed before they join the total: one visit to each costs a sixteenth of the products, and sums of any length stay exact to a few digits less.
const BLOCK: usize = 16;

const LANES: [&str; 4] = ["x", "y", "z", "w"];

/// Whether an invocation may hold the sums of the largest tile, some 180 numbers. Devices with subgroups of 32 and more, apart from their processor, have up to 255
/// registers for one; those of Intel and Apple, which report smaller subgroups, have 128 at most, and would spill them at every step.
fn holds_large(caps: &Caps) -> bool {
    caps.kind == Kind::Discrete && caps.subgroups.is_some_and(|(least, _)| least >= 32)
}

impl Tile {
    const fn new(rows: usize, columns: usize, terms: usize, own_rows: usize, own_columns: usize) -> Tile {
        Tile { rows, columns, terms, own_rows, own_columns }
    }

    /// By the options of [`CONV_TILE`].
    const ALL: [Tile; 4] = [Tile::new(16, 128, 8, 4, 4), Tile::new(32, 128, 8, 4, 8), Tile::new(64, 64, 16, 8, 4), Tile::new(128, 128, 8, 8, 8)];

    fn turn(self) -> Tile {
        Tile { rows: self.columns, columns: self.rows, own_rows: self.own_columns, own_columns: self.own_rows, ..self }
    }

    /// For a product with `n` columns.
    pub fn of_product(n: usize, caps: &Caps) -> Tile {
        let [a, b, c, d] = Tile::ALL;
        let (options, rule) = ([a, a.turn(), b, b.turn(), c, d], Tile::of(n, false, holds_large(caps)));
        caps.choices.pick(&MATMUL_TILE, &[n], options.iter().position(|t| *t == rule), |_| true).map_or(rule, |o| options[o])
    }

    /// For a convolution whose result has that many channels in a group.
    pub fn of_channels(rows: usize, caps: &Caps) -> Tile {
        let rule = Tile::of(rows, true, holds_large(caps));
        caps.choices.pick(&CONV_TILE, &[rows], Tile::ALL.iter().position(|t| *t == rule), |_| true).map_or(rule, |o| Tile::ALL[o])
    }

    /// The rule for a product with that many columns (of `n`, where `turned`: rows). The other side may be a batch, and does not count.
    fn of(n: usize, turned: bool, large: bool) -> Tile {
        let t = match n {
            0..=16 => Tile::ALL[0],
            17..=32 => Tile::ALL[1],
            1024.. if large => Tile::ALL[3],
            _ => Tile::ALL[2],
        };
        if turned || t.rows == t.columns { t } else { t.turn() }
    }

    /// The constants of a shader in tiles.
    pub fn constants<'c, 'a>(&self, call: Call<'c, 'a>) -> Call<'c, 'a> {
        let [a, b] = self.memory();
        [("ROWS", self.rows), ("COLUMNS", self.columns), ("INVOCATIONS", self.invocations()), ("MEMORY_A", a), ("MEMORY_B", b)]
            .into_iter()
            .fold(call, |call, (name, value)| call.set(name, format!("{value}u")))
    }

    fn across(&self) -> usize {
        self.columns / self.own_columns
    }

    pub fn invocations(&self) -> usize {
        self.across() * (self.rows / self.own_rows)
    }

    /// Vectors of workgroup memory for rows and for columns: two tiles of each.
    pub fn memory(&self) -> [usize; 2] {
        [2 * self.rows * self.terms / 4, 2 * self.columns * self.terms / 4]
    }

    /// The body of the hook `product(index, row, col, begin, end)`. `along_a` and `along_b`: neighbours in memory are those along k.
    pub fn product(&self, along_a: bool, along_b: bool) -> String {
        let mut out = String::new();
        let (quads_a, quads_b, deep) = (self.rows * self.terms / 16, self.columns * self.terms / 16, self.terms / 4);
        let (across, down) = (self.across(), self.rows / self.own_rows);
        let (own_a, own_b) = (self.own_rows / 4, self.own_columns / 4);
        let (fours_a, fours_b) = (self.rows / 4, self.columns / 4);
        let _ = writeln!(out, "    let tx = index % {across}u;\n    let ty = index / {across}u;");
        // What this invocation brings: four rows of a, or four columns of b, by four terms.
        let place = |out: &mut String, from: String, fours: usize, along: bool| {
            let (four, step) = if along { (format!("({from}) / {deep}u"), format!("({from}) % {deep}u")) } else { (format!("({from}) % {fours}u"), format!("({from}) / {fours}u")) };
            let _ = writeln!(out, "        four = {four};\n        deep = 4u * ({step});");
        };
        let _ = writeln!(out, "    let brings_a = index < {quads_a}u;\n    let brings_b = !brings_a && index < {}u;", quads_a + quads_b);
        out += "    var four = 0u;\n    var deep = 0u;\n    var home = home_a(row);\n    if brings_a {\n";
        place(&mut out, "index".into(), fours_a, along_a);
        out += "        home = home_a(row + 4u * four);\n    }\n    if brings_b {\n";
        place(&mut out, format!("index - {quads_a}u"), fours_b, along_b);
        out += "        home = home_b(col + 4u * four);\n    }\n    var quad = mat4x4<f32>();\n";
        for r in 0..self.own_rows {
            for c in 0..own_b {
                let _ = writeln!(out, "    var s{r}_{c} = vec4<f32>();\n    var t{r}_{c} = vec4<f32>();");
            }
        }
        let fetch = |at: &str| {
            format!("    if brings_a {{\n        quad = quad_a(home, {at} + deep, end);\n    }}\n    if brings_b {{\n        quad = quad_b(home, {at} + deep, end);\n    }}\n")
        };
        let stage = |half: &str| {
            let mut out = String::new();
            for (name, fours) in [("a", fours_a), ("b", fours_b)] {
                let _ = writeln!(out, "    if brings_{name} {{");
                for k in 0..4 {
                    let _ = writeln!(out, "        tile_{name}[({half} * {}u + deep + {k}u) * {fours}u + four] = quad[{k}];", self.terms);
                }
                out += "    }\n";
            }
            out
        };
        out += &fetch("begin");
        out += &stage("0u");
        out += "    workgroupBarrier();\n    var half = 0u;\n    var terms = 0u;\n    var k = begin;\n    while k < end {\n";
        let _ = writeln!(out, "    let next = k + {}u;\n    if next < end {{", self.terms);
        // The next tile is on its way while this one is summed.
        out += &fetch("next");
        out += "    }\n";
        // Rows past the last are not summed: a few rows cost no more than they are.
        out += "    if row + 4u * ty < rows() {\n";
        for k in 0..self.terms {
            for h in 0..own_a {
                let _ = writeln!(out, "        let a{k}_{h} = tile_a[(half * {}u + {k}u) * {fours_a}u + ty + {}u];", self.terms, h * down);
            }
            for h in 0..own_b {
                let _ = writeln!(out, "        let b{k}_{h} = tile_b[(half * {}u + {k}u) * {fours_b}u + tx + {}u];", self.terms, h * across);
            }
            for r in 0..self.own_rows {
                for c in 0..own_b {
                    let _ = writeln!(out, "        s{r}_{c} = fma(vec4<f32>(a{k}_{}.{}), b{k}_{c}, s{r}_{c});", r / 4, LANES[r % 4]);
                }
            }
        }
        let _ = writeln!(out, "        terms += {}u;\n        if terms >= {BLOCK}u || next >= end {{\n            terms = 0u;", self.terms);
        for r in 0..self.own_rows {
            for c in 0..own_b {
                let _ = writeln!(out, "            t{r}_{c} += s{r}_{c};\n            s{r}_{c} = vec4<f32>();");
            }
        }
        out += "        }\n    }\n    half = 1u - half;\n    if next < end {\n";
        out += &stage("half");
        out += "    }\n    workgroupBarrier();\n    k = next;\n    }\n";
        for r in 0..self.own_rows {
            for c in 0..own_b {
                let _ = writeln!(out, "    store(row + 4u * (ty + {}u) + {}u, col + 4u * (tx + {}u), t{r}_{c});", r / 4 * down, r % 4, c * across);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_stay_in_what_every_device_has() {
        for n in [1, 16, 20, 64, 1024, 5000] {
            for (turned, large) in [(false, false), (false, true), (true, false), (true, true)] {
                let t = Tile::of(n, turned, large);
                let [a, b] = t.memory();
                assert!((a + b) * 16 <= 16 << 10 && t.invocations() <= 256 && t.invocations().is_multiple_of(8), "{t:?}");
                assert!((t.rows + t.columns) * t.terms / 16 <= t.invocations(), "{t:?}: a tile is brought in one go");
                assert!(n > 1023 || n <= t.rows.max(t.columns) || t.columns == 64, "{t:?}");
            }
        }
    }
}
