// use put
// Matrix product y[z] = a[z] b[z] for processors whose eight lanes can read for each other: a lane owns up to 32 rows x 4 (or 8) columns, lanes lie along
// columns; of a, each lane reads a share. The rows and columns of this kernel may be the columns and rows of y. No barriers.
// u[0]: m, n, k, offset of a    u[1]: offset of b, row and k stride of a, k stride of b    u[2]: column stride of b, tiles along m and n, splits of k
// u[3]: k of one split, number of batch dimensions, elements of one split's result, batch    u[4..10]: size, stride in a, stride in b of a batch dimension, outermost first
// u[10]: row and column stride of y
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 11>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// Rows and columns of a lane: these are the most rows.
const ROWS: u32 = 1u;
const COLUMNS: u32 = 4u;
// Whether columns of y lie side by side, and are whole fours.
const FOURS: bool = false;
// What is stored at once.
alias Stored = f32;

fn epilogue(i: u32, v: Stored) {
    y[i] = v;
}

// Where four columns of b begin; past the end, the last one is read again (and not stored).
fn columns_at(base: u32, col: u32) -> vec4<u32> {
    return base + min(vec4<u32>(col, col + 1u, col + 2u, col + 3u), vec4<u32>(u[0].y - 1u)) * u[2].x;
}

// Store four columns of a row that begins at `first`.
fn store(first: u32, col: u32, values: vec4<f32>) {
    if FOURS {
        if col < u[0].y {
            put4(first + col, values);
        }
        return;
    }
    var v = values;
    for (var c = 0u; c < 4u; c++) {
        if col + c < u[0].y {
            put(first + (col + c) * u[10].y, v[c]);
        }
    }
}

// Hook: the whole product of a lane: its rows from `row` on, its columns from `col` on, terms `from` to `to`; `first` is where the result lies.
fn multiply(base_a: u32, base_b: u32, row: u32, col: u32, lane: u32, begin: u32, end: u32, first: u32) {
    let p = columns_at(base_b, col);
    var s = vec4<f32>();
    for (var k = begin; k < end; k++) {
        let q = p + k * u[1].w;
        s += a[base_a + row * u[1].y + k * u[1].z] * vec4<f32>(b[q.x], b[q.y], b[q.z], b[q.w]);
    }
    store(first + row * u[10].x, col, s);
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
    // Lanes past the last column go on: others may read rows through them.
    if z >= u[3].w {
        return;
    }
    var base_a = u[0].w;
    var base_b = u[1].x;
    var rest = z;
    for (var d = u[3].y; d > 0u; d--) {
        let w = u[3u + d];
        base_a += (rest % w.x) * w.y;
        base_b += (rest % w.x) * w.z;
        rest /= w.x;
    }
    let k = split * u[3].x;
    let first = split * u[3].z + z * u[0].x * u[0].y;
    multiply(base_a, base_b, tile_m * ROWS, tile_n * COLUMNS * 8u + lid.x * 4u, lid.x, k, min(u[0].z, k + u[3].x), first);
}
