//! The shapes: WGSL written out for each.

use std::fmt::Write;

/// A kernel and its grid. Its bindings are the inputs, then the output.
pub struct Kernel {
    pub name: String,
    pub wgsl: String,
    pub groups: [u32; 2],
}

macro_rules! w {
    ($to:ident, $($text:tt)*) => { write!($to, $($text)*).expect("a string takes everything") };
}

const XYZW: [&str; 4] = ["x", "y", "z", "w"];

fn matrices(columns: usize, rows: usize) -> String {
    let mut s = String::new();
    for (n, name) in ["a", "b"].iter().enumerate() {
        w!(s, "@group(0) @binding({n}) var<storage, read> {name}: array<vec4<f32>>;\n");
    }
    w!(s, "@group(0) @binding(2) var<storage, read_write> c: array<vec4<f32>>;\n");
    w!(s, "@compute @workgroup_size({columns}, {rows})\n");
    s
}

/// A square product; an invocation owns `tm` rows and `tn` columns of the result. With `lanes`, the rows of `a` are loaded one by each lane of the subgroup
/// and come to the others by broadcast; without, each invocation loads its own.
fn matmul(n: usize, lanes: Option<usize>, tm: usize, tn: usize, group: (usize, usize)) -> Kernel {
    let (n4, tn4) = (n / 4, tn / 4);
    let mut s = matrices(group.0, group.1);
    w!(s, "fn main(@builtin(global_invocation_id) g: vec3<u32>, @builtin(local_invocation_id) l: vec3<u32>) {{\n");
    w!(s, "let row = g.y * {tm}u; let column = g.x * {tn4}u;\n");
    let sums: Vec<(usize, usize)> = (0..tm).flat_map(|i| (0..tn4).map(move |j| (i, j))).collect();
    for (i, j) in &sums {
        w!(s, "var s{i}_{j} = vec4<f32>();\n");
    }
    w!(s, "for (var k = 0u; k < {n4}u; k++) {{\n");
    match lanes {
        Some(lanes) => {
            let lane = if tm < lanes { format!("min(l.x, {}u)", tm - 1) } else { "l.x".into() };
            (0..tm.div_ceil(lanes)).for_each(|h| w!(s, "let a{h} = a[(row + {}u + {lane}) * {n4}u + k];\n", h * lanes));
        }
        None => (0..tm).for_each(|i| w!(s, "let a{i} = a[(row + {i}u) * {n4}u + k];\n")),
    }
    for (q, part) in XYZW.iter().enumerate() {
        (0..tn4).for_each(|j| w!(s, "let b{q}_{j} = b[(k * 4u + {q}u) * {n4}u + column + {j}u];\n"));
        for i in 0..tm {
            match lanes {
                Some(lanes) => w!(s, "let r{q}_{i} = vec4<f32>(subgroupBroadcast(a{}.{part}, {}u));\n", i / lanes, i % lanes),
                None => w!(s, "let r{q}_{i} = vec4<f32>(a{i}.{part});\n"),
            }
            (0..tn4).for_each(|j| w!(s, "s{i}_{j} = fma(r{q}_{i}, b{q}_{j}, s{i}_{j});\n"));
        }
    }
    s.push_str("}\n");
    for (i, j) in sums {
        w!(s, "c[(row + {i}u) * {n4}u + column + {j}u] = s{i}_{j};\n");
    }
    s.push_str("}\n");
    let how = if lanes.is_some() { "subgroup" } else { "registers" };
    let groups = [(n / (tn * group.0)) as u32, (n / (tm * group.1)) as u32];
    Kernel { name: format!("{how} {tm}x{tn}, group {}x{}", group.0, group.1), wgsl: s, groups }
}

/// Shapes for a product of `n` x `n` that divide it.
pub fn matmuls(n: usize, lanes: usize) -> Vec<Kernel> {
    let fits = |tm: usize, tn: usize, group: (usize, usize)| n.is_multiple_of(tn * group.0) && n.is_multiple_of(tm * group.1);
    let registers = [(8, 8, (8, 8)), (16, 8, (8, 1)), (8, 16, (8, 1)), (8, 4, (8, 1)), (4, 4, (8, 1))];
    let by_subgroup = [(8, 4, 1), (8, 8, 1), (16, 4, 1), (16, 8, 1), (16, 8, 4), (32, 4, 1), (32, 4, 4), (32, 8, 1), (64, 4, 1)];
    let mut all: Vec<Kernel> =
        registers.into_iter().filter(|(tm, tn, g)| fits(*tm, *tn, *g)).map(|(tm, tn, g)| matmul(n, None, tm, tn, g)).collect();
    if lanes > 0 {
        let shapes = by_subgroup.into_iter().filter(|(tm, tn, rows)| fits(*tm, *tn, (lanes, *rows)) && (*tm <= lanes || tm.is_multiple_of(lanes)));
        all.extend(shapes.map(|(tm, tn, rows)| matmul(n, Some(lanes), tm, tn, (lanes, rows))));
    }
    all
}

/// relu(1.5 x + 0.25) x of `n` values, four at once, `items` fours an invocation.
pub fn elementwise(n: usize) -> Vec<Kernel> {
    let shapes = [(1, 64), (1, 128), (1, 256), (2, 64), (4, 64), (4, 256), (8, 64), (16, 64), (16, 256)];
    shapes
        .into_iter()
        .map(|(items, group)| {
            let mut s = String::from("@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;\n");
            w!(s, "@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;\n@compute @workgroup_size({group})\n");
            w!(s, "fn main(@builtin(global_invocation_id) g: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {{\n");
            w!(s, "let first = (g.x + g.y * groups.x * {group}u) * {items}u;\n");
            (0..items).for_each(|q| w!(s, "let x{q} = x[first + {q}u]; y[first + {q}u] = max(x{q} * 1.5 + 0.25, vec4<f32>()) * x{q};\n"));
            s.push_str("}\n");
            let total = (n / 4 / items / group) as u32;
            let across = total.min(32768);
            Kernel { name: format!("{items} fours, group {group}"), wgsl: s, groups: [across, total / across] }
        })
        .collect()
}
