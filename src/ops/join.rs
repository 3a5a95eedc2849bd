//! Texts of kernels that several operations have in common: invocations that join what they have, and rows that are read in fours.

use crate::graph::Call;

/// The body of a hook that joins the values `v` of `lanes` neighbours of a workgroup, whose place in it is `index`: `join` writes what two of them give. All get the
/// result. The kernel has `values`, an f32 for each of its invocations; all of them come here together.
pub(super) fn join_lanes(lanes: usize, join: fn(&str, &str) -> String) -> String {
    let mut out = "    values[index] = v;\n    workgroupBarrier();\n".to_string();
    let mut half = lanes / 2;
    while half > 0 {
        let both = join("values[index]", &format!("values[index + {half}u]"));
        out += &format!("    if index % {lanes}u < {half}u {{\n        values[index] = {both};\n    }}\n");
        out += "    workgroupBarrier();\n";
        half /= 2;
    }
    // What is read here is written again by whoever joins next.
    out += &format!("    let all = values[index / {lanes}u * {lanes}u];\n    workgroupBarrier();\n    return all;");
    out
}

/// The larger of two, for [`join_lanes`].
pub(super) fn larger(a: &str, b: &str) -> String {
    format!("max({a}, {b})")
}

/// The sum of two.
pub(super) fn plus(a: &str, b: &str) -> String {
    format!("{a} + {b}")
}

/// Let a kernel that joins shaders/rows.wgsl read fours.
pub(super) fn rows_in_fours<'c, 'a>(call: Call<'c, 'a>) -> Call<'c, 'a> {
    let each = ["x", "y", "z", "w"].map(|l| format!("exp_below(v.{l})")).join(", ");
    call.alias("V", "vec4<f32>")
        .set("WIDTH", "4u")
        .hook("most", "    return max(max(v.x, v.y), max(v.z, v.w));")
        .hook("power", &format!("    return V({each});"))
        .hook("add", "    return sums + v;")
}
