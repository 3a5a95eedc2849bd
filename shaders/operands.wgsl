// How matrix products read their operands. The kernel has the words of matmul.wgsl, and the bindings a and b.

// Where the operands of a workgroup begin.
var<private> base_a: u32;
var<private> base_b: u32;

// Where the operands of batch `z` begin.
fn begin_batch(z: u32) {
    base_a = u[0].w;
    base_b = u[1].x;
    var left = z;
    for (var d = u[3].y; d > 0u; d--) {
        let w = u[3u + d];
        base_a += (left % w.x) * w.y;
        base_b += (left % w.x) * w.z;
        left /= w.x;
    }
}

// Where four rows of a, and four columns of b, begin; past the end, the last one is read again (and not stored).
fn rows_at(base: u32, row: u32) -> vec4<u32> {
    return base + min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(u[0].x - 1u)) * u[1].y;
}

fn columns_at(base: u32, col: u32) -> vec4<u32> {
    return base + min(vec4<u32>(col, col + 1u, col + 2u, col + 3u), vec4<u32>(u[0].y - 1u)) * u[2].x;
}

// One term of four rows, and of four columns.
fn a1(p: vec4<u32>, k: u32) -> vec4<f32> {
    let q = p + k * u[1].z;
    return vec4<f32>(a[q.x], a[q.y], a[q.z], a[q.w]);
}

fn b1(p: vec4<u32>, k: u32) -> vec4<f32> {
    let q = p + k * u[1].w;
    return vec4<f32>(b[q.x], b[q.y], b[q.z], b[q.w]);
}
