// How matrix products in workgroup memory read blocks of their operands, joined with operands.wgsl.

// Hooks: where four rows and four columns begin.
fn home_a(row: u32) -> vec4<u32> {
    return rows_at(base_a, row);
}

fn home_b(col: u32) -> vec4<u32> {
    return columns_at(base_b, col);
}

// One term of four rows, and of four columns; zero past the end.
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
