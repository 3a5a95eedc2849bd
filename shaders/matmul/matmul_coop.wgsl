// use operands, quads, store, put
// Matrix product y[z] = a[z] b[z], [m, k] x [k, n], operands of any strides, by the units of a GPU that multiply small matrices of f16 and sum in f32
// (cooperative matrices: tensor cores, simdgroup matrices). Operands become f16 on their way to workgroup memory.
// u: as in matmul_tiles.wgsl
enable f16;
enable wgpu_cooperative_matrix;
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 10>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// Rows and columns of a workgroup, its invocations, and its memory: one tile of each operand, and a small matrix of the result for each subgroup.
const ROWS: u32 = 16u;
const COLUMNS: u32 = 16u;
const INVOCATIONS: u32 = 128u;
const MEMORY_A: u32 = 256u;
const MEMORY_B: u32 = 256u;
const MEMORY_Y: u32 = 256u;
// Whether rows of y are whole fours.
const FOURS: bool = false;
// What is stored at once.
alias Stored = f32;

var<workgroup> tile_a: array<f16, MEMORY_A>;
var<workgroup> tile_b: array<f16, MEMORY_B>;
var<workgroup> result: array<f32, MEMORY_Y>;
// Where the result of the workgroup begins, and its batch.
var<private> first: u32;
var<private> batch: u32;

fn epilogue(i: u32, v: Stored) {
    y[i] = v;
}

// Hook: what a row of a, or a column of b, is multiplied by to fit f16: a power of two.
fn scale_a(row: u32) -> f32 {
    return 1.0;
}

fn scale_b(col: u32) -> f32 {
    return 1.0;
}

// Of powers of two, exactly: a GPU's division may be off in its last bits.
fn inverse(scale: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(0x7f000000u) - bitcast<vec4<u32>>(scale));
}

// Hooks: an invocation's subgroup, its place there and how many are there.
fn part_of(index: u32, id: u32) -> u32 {
    return id;
}

fn lane_of(index: u32, lane: u32) -> u32 {
    return lane;
}

fn lanes_of(width: u32) -> u32 {
    return width;
}

// Hook: the workgroup's tile of the result, from `row` and `col` on, over terms `begin` to `end`. Subgroups past those that the tile is cut for do the last
// one's work again: the validator wants all of them at every operation on small matrices.
fn product(index: u32, id: u32, lane: u32, width: u32, row: u32, col: u32, begin: u32, end: u32) {
    var c = coop_mat16x16<f32, C>();
    for (var k = begin; k < end; k += 16u) {
        workgroupBarrier();
        for (var q = index; q < 256u; q += INVOCATIONS) {
            tile_a[q] = f16(a0(home_a(row + q / 16u), k + q % 16u, end).x);
            tile_b[q] = f16(b0(home_b(col + q % 16u), k + q / 16u, end).x);
        }
        workgroupBarrier();
        c = coopMultiplyAdd(coopLoadT<coop_mat16x16<f16, A>>(&tile_a[0], 16u), coopLoadT<coop_mat16x16<f16, B>>(&tile_b[0], 16u), c);
    }
    coopStoreT(c, &result[0], 16u);
    workgroupBarrier();
    for (var q = index; q < 64u; q += INVOCATIONS) {
        let v = vec4<f32>(result[4u * q], result[4u * q + 1u], result[4u * q + 2u], result[4u * q + 3u]);
        store(row + q / 4u, col + 4u * (q % 4u), v * inverse(vec4<f32>(scale_a(row + q / 4u))) * inverse(vec4<f32>(scale_b(col))));
    }
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) index: u32, @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_id) id: u32, @builtin(subgroup_invocation_id) lane: u32, @builtin(subgroup_size) width: u32,
) {
    var at = wid.x + wid.y * groups.x;
    let tiles = u[2].y * u[2].z;
    let tile = at % tiles;
    at /= tiles;
    let split = at % u[2].w;
    batch = at / u[2].w;
    if at / u[2].w >= u[3].w {
        return;
    }
    // Eight tiles below each other, then their neighbours: what is near in time shares columns of b and rows of a.
    let block = tile / (8u * u[2].z);
    let high = min(8u, u[2].y - block * 8u);
    let rest = tile % (8u * u[2].z);
    let tile_m = block * 8u + rest % high;
    let tile_n = rest / high;
    begin_batch(batch);
    first = split * u[3].z + batch * u[0].x * u[0].y;
    let k = split * u[3].x;
    product(index, part_of(index, id), lane_of(index, lane), lanes_of(width), tile_m * ROWS, tile_n * COLUMNS, k, min(u[0].z, k + u[3].x));
}
