//! Units that multiply small matrices, and how operations on small matrices are written for them.

use crate::kernel::Emit;

/// Units that multiply small matrices of f16 and sum in f32 (WGSL's cooperative matrices: tensor cores, simdgroup matrices).
///
/// A kernel for them is `matmul_coop` of the KERNELS table with its hook `product` written by these functions: `left` and `right` factors are loaded from its
/// workgroup memory `tile_a` and `tile_b`, sums are stored to `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coop {
    /// Rows, columns and terms of a matrix: 16 or 8.
    pub edge: usize,
    /// Lanes of a subgroup at most: a workgroup has at least so many subgroups as that divides its invocations.
    pub lanes: usize,
    /// Whether sums of matrices, and products with a number, can be written: Metal's language is not known to have them.
    pub adds: bool,
    /// Written out in plain WGSL: what tests run where no device has such units.
    pub emulated: bool,
}

impl Coop {
    /// The emulation of matrices of this edge. Each lane has four elements of a sum.
    pub fn emulation(edge: usize) -> Coop {
        Coop { edge, lanes: edge * edge / 4, adds: true, emulated: true }
    }

    /// A sum of nothing.
    pub(crate) fn zero(&self) -> String {
        if self.emulated { "vec4<f32>()".into() } else { format!("coop_mat{0}x{0}<f32, C>()", self.edge) }
    }

    /// The left factor whose first row begins at `at`, and the others `stride` further on each.
    pub(crate) fn left(&self, at: &str, stride: usize) -> String {
        self.load('A', at, stride)
    }

    /// The right factor there.
    pub(crate) fn right(&self, at: &str, stride: usize) -> String {
        self.load('B', at, stride)
    }

    fn load(&self, role: char, at: &str, stride: usize) -> String {
        if self.emulated {
            return format!("vec2<u32>({at}, {stride}u)");
        }
        format!("coopLoadT<coop_mat{0}x{0}<f16, {role}>>(&tile_{1}[{at}], {stride}u)", self.edge, role.to_ascii_lowercase())
    }

    /// A sum and a product.
    pub(crate) fn multiply_add(&self, left: &str, right: &str, sum: &str) -> String {
        format!("{}({left}, {right}, {sum})", if self.emulated { "multiply_add" } else { "coopMultiplyAdd" })
    }

    /// The statement that stores a sum from `at` on, row by row.
    pub(crate) fn store(&self, sum: &str, at: &str) -> String {
        if self.emulated { format!("store_small({sum}, {at});") } else { format!("coopStoreT({sum}, &result[{at}], {}u);", self.edge) }
    }

    /// Let a kernel do without units where they are emulated.
    pub(crate) fn write_into(&self, kernel: &mut Emit) {
        if !self.emulated {
            return;
        }
        let lanes = self.lanes;
        kernel.set_hook("part_of", &format!("    own = index % {lanes}u;\n    return index / {lanes}u;"));
        kernel.set_hook("lane_of", &format!("    return index % {lanes}u;"));
        kernel.set_hook("lanes_of", &format!("    return {lanes}u;"));
        kernel.disable("wgpu_cooperative_matrix");
        kernel.add_function("emulation", &emulation(self.edge));
    }
}

/// The operations on small matrices in plain WGSL. Of a sum, each lane of a subgroup has four neighbours in a row; of a factor, it only knows where it lies, as
/// workgroup memory stays as it is from the load to the last product. Lanes that had whole matrices would take thousands of iterations for each product, and Mesa's
/// llvmpipe ends every loop of an invocation, silently, once all its loops together made 65535 iterations.
fn emulation(edge: usize) -> String {
    let fours = edge / 4;
    format!(
        "var<private> own: u32;
fn multiply_add(a: vec2<u32>, b: vec2<u32>, c: vec4<f32>) -> vec4<f32> {{
    var sum = c;
    let p = a.x + own / {fours}u * a.y;
    let q = b.x + own % {fours}u * 4u;
    // The word is zero: a bound that no compiler knows, so that none writes out the loop.
    for (var k = 0u; k < {edge}u + u[4].w; k++) {{
        let at = q + k * b.y;
        sum += f32(tile_a[p + k]) * vec4<f32>(f32(tile_b[at]), f32(tile_b[at + 1u]), f32(tile_b[at + 2u]), f32(tile_b[at + 3u]));
    }}
    return sum;
}}
fn store_small(c: vec4<f32>, at: u32) {{
    for (var i = 0u; i < 4u; i++) {{
        result[at + own * 4u + i] = c[i];
    }}
}}
"
    )
}
