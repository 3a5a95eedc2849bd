//! The text of a product by cooperative matrices: small matrices of f16 that a subgroup multiplies, summed in f32.
//!
//! A float as it is loses half its digits in f16. Where results should be of the class of f32, an operand is split in two halves, a = h + l / 2^11, and
//! three products are summed: hh + (hl + lh) / 2^11 (Ootomo, Yokota: "Recovering single precision accuracy from Tensor Cores while surpassing the FP32
//! theoretical peak performance", 2022). Such units round sums towards zero, so theirs join a total every few terms, which rounds to nearest.

use crate::device::{Caps, Coop};
use crate::graph::Call;
use std::fmt::Write;

/// What an operand becomes on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halves {
    /// Its nearest half.
    One,
    /// Two halves, which hold 22 bits of it.
    Two,
}

/// Terms in workgroup memory at once.
const TERMS: usize = 32;
/// Terms summed before they join the total.
const BLOCK: usize = 128;
/// Halves between rows in memory, so that rows next to each other lie in other banks.
const PAD: usize = 8;

/// A tile: rows and columns of a workgroup, and of each of its subgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CoopTile {
    pub rows: usize,
    pub columns: usize,
    part_rows: usize,
    part_columns: usize,
    invocations: usize,
    halves: Halves,
    coop: Coop,
}

impl CoopTile {
    /// The largest tile that the device holds and of which one product still has enough, or the smallest. How many products there are does not count: how sums are
    /// split follows from the tile, and stacked models have the bits of each alone.
    pub fn of(caps: &Caps, coop: Coop, halves: Halves, (m, n): (usize, usize)) -> Option<CoopTile> {
        /// Workgroups that keep a GPU busy.
        const BUSY: usize = 64;
        if halves == Halves::Two && !coop.adds {
            return None;
        }
        let tile = |rows: usize, columns: usize, invocations: usize| {
            let parts = invocations / coop.lanes;
            // Wider than high, as far as powers of two allow.
            let down = 1usize << (parts.ilog2() / 2);
            CoopTile { rows, columns, part_rows: rows / down, part_columns: columns / (parts / down), invocations, halves, coop }
        };
        let small = if coop.lanes > 32 { tile(64, 64, 256) } else { tile(64, 64, 128) };
        let all = match (coop.emulated, coop.edge) {
            (false, _) => vec![tile(128, 128, 256), small],
            // Written out in WGSL, large tiles take long to compile. Two subgroups below each other, and two or four side by side, of several small matrices each.
            (true, 16) => vec![tile(64, 32, 256)],
            (true, _) => vec![tile(32, 64, 128)],
        };
        let fit = |t: &&CoopTile| {
            t.bytes() <= caps.max_workgroup_bytes as usize
                && t.invocations <= caps.max_invocations as usize
                && t.part_rows >= coop.edge
                && t.part_columns >= coop.edge
                // Two halves have twice the sums, which must stay in registers.
                && (halves == Halves::One || t.part_rows * t.part_columns <= 32 * 32)
        };
        let able: Vec<&CoopTile> = all.iter().filter(fit).collect();
        let busy = |t: &&&CoopTile| m.div_ceil(t.rows) * n.div_ceil(t.columns) >= BUSY;
        able.iter().find(busy).or(able.last()).map(|t| **t)
    }

    /// Halves from one row to the next, of a and of b.
    fn strides(&self) -> [usize; 2] {
        [TERMS + PAD, self.columns + PAD]
    }

    /// Halves of one copy of each operand's tile.
    fn copies(&self) -> [usize; 2] {
        let [a, b] = self.strides();
        [self.rows * a, TERMS * b]
    }

    fn parts(&self) -> usize {
        self.invocations / self.coop.lanes
    }

    fn result(&self) -> usize {
        self.parts() * self.coop.edge * self.coop.edge
    }

    fn bytes(&self) -> usize {
        let copies: usize = self.copies().iter().sum();
        copies * 2 * if self.halves == Halves::Two { 2 } else { 1 } + self.result() * 4
    }

    /// The constants and hooks of matmul_coop.wgsl. `along`: whether neighbours in memory of a, of b, are those along k.
    pub fn shape<'c, 'a>(&self, call: Call<'c, 'a>, along: [bool; 2]) -> Call<'c, 'a> {
        let copies = self.copies().map(|n| n * if self.halves == Halves::Two { 2 } else { 1 });
        let sizes = [("MEMORY_A", copies[0]), ("MEMORY_B", copies[1]), ("MEMORY_Y", self.result())];
        let call = [("ROWS", self.rows), ("COLUMNS", self.columns), ("INVOCATIONS", self.invocations)]
            .into_iter()
            .chain(sizes)
            .fold(call, |call, (name, value)| call.set(name, format!("{value}u")));
        call.hook("product", &self.product(along)).small_matrices(&self.coop)
    }

    /// The body of the hook `product`.
    fn product(&self, along: [bool; 2]) -> String {
        let coop = self.coop;
        let mut out = String::new();
        let two = self.halves == Halves::Two;
        let edge = coop.edge;
        let ([stride_a, stride_b], [copy_a, copy_b]) = (self.strides(), self.copies());
        let (fours_a, fours_b, deep) = (self.rows / 4, self.columns / 4, TERMS / 4);
        let (high, wide) = (self.part_rows / edge, self.part_columns / edge);
        let across = self.columns / self.part_columns;
        macro_rules! line { ($($text:tt)*) => { let _ = writeln!(out, $($text)*); } }

        line!("    let part = min(id, {}u);", self.parts() - 1);
        line!("    let down = part / {across}u * {}u;\n    let right = part % {across}u * {}u;", self.part_rows, self.part_columns);
        // What this invocation brings: four rows of a, and four columns of b, by four terms.
        for (name, fours, along) in [("a", fours_a, along[0]), ("b", fours_b, along[1])] {
            // Where there are more invocations than fours, some bring the same.
            let at = format!("index % {}u", fours * deep);
            // Eight fours side by side, then the next terms of the same: more in a row would meet in few banks of workgroup memory.
            let (four, step) = if along {
                (format!("{at} / {deep}u"), format!("{at} % {deep}u"))
            } else {
                (format!("{at} % 8u + {at} / {}u * 8u", 8 * deep), format!("{at} / 8u % {deep}u"))
            };
            let origin = if name == "a" { "row" } else { "col" };
            line!("    let four_{name} = 4u * ({four});\n    let deep_{name} = 4u * ({step});");
            line!("    let home_of_{name} = home_{name}({origin} + four_{name});");
            let scale = |i: usize| format!("scale_{name}({origin} + four_{name} + {i}u)");
            line!("    let scale_of_{name} = vec4<f32>({}, {}, {}, {});", scale(0), scale(1), scale(2), scale(3));
        }
        for i in 0..high {
            for j in 0..wide {
                for sum in if two { &["c", "t", "d"][..] } else { &["c"] } {
                    line!("    var {sum}{i}_{j} = {};", coop.zero());
                }
            }
        }
        let fetch = |at: &str| format!("    quad_of_a = quad_a(home_of_a, {at} + deep_a, end);\n    quad_of_b = quad_b(home_of_b, {at} + deep_b, end);");
        line!("    var quad_of_a: mat4x4<f32>;\n    var quad_of_b: mat4x4<f32>;\n{}", fetch("begin"));
        line!("    var terms = 0u;\n    var k = begin;\n    while k < end {{\n    workgroupBarrier();");
        for (name, copy) in [("a", copy_a), ("b", copy_b)] {
            for t in 0..4 {
                line!("    {{\n        let v = quad_of_{name}[{t}] * scale_of_{name};");
                if two {
                    // Rounded by its bits: a compiler may take a float made a half and a float again for what it was. What is not finite has nothing left.
                    line!("        let bits = bitcast<vec4<u32>>(v);");
                    line!("        let high = bitcast<vec4<f32>>((bits + vec4<u32>(0xfffu) + ((bits >> vec4<u32>(13u)) & vec4<u32>(1u))) & vec4<u32>(0xffffe000u));");
                    line!("        let h = vec4<f16>(select(v, high, abs(v) <= vec4<f32>(65504.0)));");
                    line!("        let l = vec4<f16>(select(vec4<f32>(), (v - high) * 2048.0, abs(v) <= vec4<f32>(65504.0)));");
                } else {
                    line!("        let h = vec4<f16>(v);");
                }
                for i in 0..4 {
                    let at = match name {
                        "a" => format!("(four_a + {i}u) * {stride_a}u + deep_a + {t}u"),
                        _ => format!("(deep_b + {t}u) * {stride_b}u + four_b + {i}u"),
                    };
                    line!("        tile_{name}[{at}] = h[{i}];");
                    if two {
                        line!("        tile_{name}[{copy}u + {at}] = l[{i}];");
                    }
                }
                line!("    }}");
            }
        }
        line!("    workgroupBarrier();\n    let next = k + {TERMS}u;\n    if next < end {{\n{}\n    }}", fetch("next"));
        for s in 0..TERMS / edge {
            line!("    {{");
            for half in 0..if two { 2 } else { 1 } {
                for i in 0..high {
                    let at = format!("{}u + (down + {}u) * {stride_a}u + {}u", half * copy_a, i * edge, s * edge);
                    line!("        let a{half}_{i} = {};", coop.left(&at, stride_a));
                }
                for j in 0..wide {
                    let at = format!("{}u + {}u * {stride_b}u + right + {}u", half * copy_b, s * edge, j * edge);
                    line!("        let b{half}_{j} = {};", coop.right(&at, stride_b));
                }
            }
            for i in 0..high {
                for j in 0..wide {
                    line!("        c{i}_{j} = {};", coop.multiply_add(&format!("a0_{i}"), &format!("b0_{j}"), &format!("c{i}_{j}")));
                    if two {
                        for (x, y) in [(0, 1), (1, 0)] {
                            line!("        d{i}_{j} = {};", coop.multiply_add(&format!("a{x}_{i}"), &format!("b{y}_{j}"), &format!("d{i}_{j}")));
                        }
                    }
                }
            }
            line!("    }}");
        }
        if two {
            line!("    terms += {TERMS}u;\n    if terms == {BLOCK}u {{\n        terms = 0u;");
            for i in 0..high {
                for j in 0..wide {
                    line!("        t{i}_{j} = t{i}_{j} + c{i}_{j};\n        c{i}_{j} = {};", coop.zero());
                }
            }
            line!("    }}");
        }
        line!("    k = next;\n    }}");
        for i in 0..high {
            for j in 0..wide {
                // 2^-11: the place of the low halves.
                let whole = if two { format!("t{i}_{j} + c{i}_{j} + d{i}_{j} * 0.00048828125") } else { format!("c{i}_{j}") };
                line!("    {{\n        let whole = {whole};\n        {}", coop.store("whole", &format!("part * {}u", edge * edge)));
                line!("        workgroupBarrier();");
                line!("        for (var q = lane; q < {}u; q += width) {{", edge * edge / 4);
                line!("            let r = q / {0}u;\n            let x = 4u * (q % {0}u);\n            let at = part * {1}u + r * {edge}u + x;", edge / 4, edge * edge);
                line!("            let to_row = row + down + {}u + r;\n            let to_col = col + right + {}u + x;", i * edge, j * edge);
                line!("            let v = vec4<f32>(result[at], result[at + 1u], result[at + 2u], result[at + 3u]);");
                line!("            let scale = vec4<f32>(scale_b(to_col), scale_b(to_col + 1u), scale_b(to_col + 2u), scale_b(to_col + 3u));");
                line!("            if id == part {{\n                store(to_row, to_col, v * inverse(vec4<f32>(scale_a(to_row))) * inverse(scale));\n            }}\n        }}");
                line!("        workgroupBarrier();\n    }}");
            }
        }
        out
    }
}
