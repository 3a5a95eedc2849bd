// use operands, quads, store, put
// Matrix product y[z] = a[z] b[z], [m, k] x [k, n], operands of any strides, in tiles of workgroup memory: for hardware. The next tile is read while one is summed.
// u[0]: m, n, k, offset of a    u[1]: offset of b, row and column stride of a, row stride of b    u[2]: column stride of b, tiles along m and n, splits of k
// u[3]: k of one split, number of batch dimensions, elements of one split's result, batch    u[4..10]: size, stride in a, stride in b of a batch dimension, outermost first
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 10>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// Rows and columns of a workgroup, its invocations, and two tiles of each operand.
const ROWS: u32 = 1u;
const COLUMNS: u32 = 32u;
const INVOCATIONS: u32 = 8u;
const MEMORY_A: u32 = 1u;
const MEMORY_B: u32 = 1u;
// Whether rows of y are whole fours.
const FOURS: bool = false;
// What is stored at once.
alias Stored = f32;

var<workgroup> tile_a: array<vec4<f32>, MEMORY_A>;
var<workgroup> tile_b: array<vec4<f32>, MEMORY_B>;
// Where the result of the workgroup begins.
var<private> first: u32;

fn epilogue(i: u32, v: Stored) {
    y[i] = v;
}

fn rows() -> u32 {
    return u[0].x;
}

// Hook: the workgroup's tile of the result, from `row` and `col` on, over terms `begin` to `end`.
fn product(index: u32, row: u32, col: u32, begin: u32, end: u32) {
    let p = home_a(row);
    let q = home_b(col + index * 4u);
    var s = vec4<f32>();
    for (var k = begin; k < end; k += 4u) {
        let ra = quad_a(p, k, end);
        let rb = quad_b(q, k, end);
        s += ra[0].x * rb[0] + ra[1].x * rb[1] + ra[2].x * rb[2] + ra[3].x * rb[3];
    }
    store(row, col + index * 4u, s);
}

@compute @workgroup_size(INVOCATIONS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) index: u32, @builtin(num_workgroups) groups: vec3<u32>) {
    var id = wid.x + wid.y * groups.x;
    let tiles = u[2].y * u[2].z;
    let tile = id % tiles;
    id /= tiles;
    let split = id % u[2].w;
    let z = id / u[2].w;
    if z >= u[3].w {
        return;
    }
    // Eight tiles below each other, then their neighbours: what is near in time shares columns of b and rows of a.
    let block = tile / (8u * u[2].z);
    let high = min(8u, u[2].y - block * 8u);
    let rest = tile % (8u * u[2].z);
    let tile_m = block * 8u + rest % high;
    let tile_n = rest / high;
    begin_batch(z);
    first = split * u[3].z + z * u[0].x * u[0].y;
    let k = split * u[3].x;
    product(index, tile_m * ROWS, tile_n * COLUMNS, k, min(u[0].z, k + u[3].x));
}
