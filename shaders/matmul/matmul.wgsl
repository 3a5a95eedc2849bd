// use operands
// Matrix product y[z] = a[z] b[z], [m, k] x [k, n], operands of any strides. No barriers: an invocation owns 8 rows x 4 (or 8) columns, the eight lanes of
// x lie along columns. A 4x4 block of a is a matrix whose column r is row r of the block; one of b has row k of the block as column k: so b * a is the product, rows as columns.
// u[0]: m, n, k, offset of a    u[1]: offset of b, row and column stride of a, row stride of b    u[2]: column stride of b, tiles along m and n, splits of k
// u[3]: k of one split, number of batch dimensions, elements of one split's result, batch    u[4..10]: size, stride in a, stride in b of a batch dimension, outermost first
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 10>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// Whether an invocation owns columns col + 32 .. col + 36 too.
const WIDE: bool = true;
// Terms summed before they join the total: keeps the rounding error of long sums low.
const BLOCK: u32 = 256u;

fn epilogue(i: u32, v: f32) {
    y[i] = v;
}

// Elements k .. k + 4 of the four rows, a row a column; of the four columns, a k a column.
fn a4(p: vec4<u32>, k: u32) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(a1(p, k), a1(p, k + 1u), a1(p, k + 2u), a1(p, k + 3u)));
}

fn b4(p: vec4<u32>, k: u32) -> mat4x4<f32> {
    return mat4x4<f32>(b1(p, k), b1(p, k + 1u), b1(p, k + 2u), b1(p, k + 3u));
}

struct Rows {
    a: mat4x4<f32>,
    b: mat4x4<f32>,
}

// Elements k .. k + 4 of the invocation's eight rows.
fn a8(p: vec4<u32>, q: vec4<u32>, k: u32) -> Rows {
    return Rows(a4(p, k), a4(q, k));
}

fn outer(rows: vec4<f32>, cols: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(cols * rows.x, cols * rows.y, cols * rows.z, cols * rows.w);
}

fn store(first: u32, row: u32, col: u32, values: mat4x4<f32>) {
    var v = values;
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            if row + r < u[0].x && col + c < u[0].y {
                epilogue(first + (row + r) * u[0].y + col + c, v[r][c]);
            }
        }
    }
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_id) lid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    var id = wid.x + wid.y * groups.x;
    let tile_n = id % u[2].z;
    id /= u[2].z;
    let tile_m = id % u[2].y;
    id /= u[2].y;
    let split = id % u[2].w;
    let z = id / u[2].w;
    let row = tile_m * 8u;
    let col = tile_n * select(32u, 64u, WIDE) + lid.x * 4u;
    if z >= u[3].w || row >= u[0].x || col >= u[0].y {
        return;
    }
    begin_batch(z);
    let pa0 = rows_at(base_a, row);
    let pa1 = rows_at(base_a, row + 4u);
    let pb0 = columns_at(base_b, col);
    let pb1 = columns_at(base_b, col + 32u);
    var t00 = mat4x4<f32>();
    var t10 = mat4x4<f32>();
    var t01 = mat4x4<f32>();
    var t11 = mat4x4<f32>();
    var k = split * u[3].x;
    let end = min(u[0].z, k + u[3].x);
    while k < end {
        let stop = min(end, k + BLOCK);
        var s00 = mat4x4<f32>();
        var s10 = mat4x4<f32>();
        var s01 = mat4x4<f32>();
        var s11 = mat4x4<f32>();
        while k + 4u <= stop {
            let r = a8(pa0, pa1, k);
            let ca = b4(pb0, k);
            s00 += ca * r.a;
            s10 += ca * r.b;
            if WIDE {
                let cb = b4(pb1, k);
                s01 += cb * r.a;
                s11 += cb * r.b;
            }
            k += 4u;
        }
        while k < stop {
            let ra = a1(pa0, k);
            let rb = a1(pa1, k);
            let ca = b1(pb0, k);
            s00 += outer(ra, ca);
            s10 += outer(rb, ca);
            if WIDE {
                let cb = b1(pb1, k);
                s01 += outer(ra, cb);
                s11 += outer(rb, cb);
            }
            k += 1u;
        }
        t00 += s00;
        t10 += s10;
        t01 += s01;
        t11 += s11;
    }
    let first = split * u[3].z + z * u[0].x * u[0].y;
    store(first, row, col, t00);
    store(first, row + 4u, col, t10);
    if WIDE {
        store(first, row, col + 32u, t01);
        store(first, row + 4u, col + 32u, t11);
    }
}
