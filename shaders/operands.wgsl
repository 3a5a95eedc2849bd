// How matrix products in workgroup memory read their operands. The kernel has the words of matmul_tiles, the bindings a and b, and `base_a` and `base_b`, where the
// operands of a workgroup begin.

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

fn home_a(row: u32) -> vec4<u32> {
    return rows_at(base_a, row);
}

fn home_b(col: u32) -> vec4<u32> {
    return columns_at(base_b, col);
}

// One term of four rows, and of four columns; zero past the end.
fn a1(p: vec4<u32>, k: u32) -> vec4<f32> {
    let q = p + k * u[1].z;
    return vec4<f32>(a[q.x], a[q.y], a[q.z], a[q.w]);
}

fn b1(p: vec4<u32>, k: u32) -> vec4<f32> {
    let q = p + k * u[1].w;
    return vec4<f32>(b[q.x], b[q.y], b[q.z], b[q.w]);
}

fn a0(p: vec4<u32>, k: u32, end: u32) -> vec4<f32> {
    if k < end {
        return a1(p, k);
    }
    return vec4<f32>();
}

fn b0(p: vec4<u32>, k: u32, end: u32) -> vec4<f32> {
    if k < end {
        return b1(p, k);
    }
    return vec4<f32>();
}

// A 4x4 block of a has term k of four rows as column k, one of b term k of four columns.
fn quad_a(p: vec4<u32>, k: u32, end: u32) -> mat4x4<f32> {
    return mat4x4<f32>(a0(p, k, end), a0(p, k + 1u, end), a0(p, k + 2u, end), a0(p, k + 3u, end));
}

fn quad_b(p: vec4<u32>, k: u32, end: u32) -> mat4x4<f32> {
    return mat4x4<f32>(b0(p, k, end), b0(p, k + 1u, end), b0(p, k + 2u, end), b0(p, k + 3u, end));
}
