// Gradient of a convolution's weight as a matrix product in tiles of workgroup memory (see matmul_tiles.wgsl), the right operand gathered from the image as it
// is read: rows are output channels, columns (channel, ky, kx), terms positions of all images of a model, in parts.
// u[0]: output channels and columns of a group, positions of an image, images of a model   u[1]: channels of a group in x, height and width of x, width of g
// u[2]: kernel height and width, groups, models                                            u[3]: stride, padding (height, width each)
// u[4]: dilation (height, width), offsets of g and x                                       u[5]: tiles along columns, along rows, parts, terms of a part
// u[6]: elements of one part's result
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 7>;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const ROWS: u32 = 1u;
const COLUMNS: u32 = 32u;
const INVOCATIONS: u32 = 8u;
const MEMORY_A: u32 = 1u;
const MEMORY_B: u32 = 1u;

var<workgroup> tile_a: array<vec4<f32>, MEMORY_A>;
var<workgroup> tile_b: array<vec4<f32>, MEMORY_B>;
// Groups before the workgroup's in the model's first image, and where its result begins.
var<private> before: u32;
var<private> first: u32;

// Four planes of g: where they begin in the first image. Four columns: where their planes of x do, and what their step adds to a window's place.
struct Home {
    at: vec4<u32>,
    ys: vec4<u32>,
    xs: vec4<u32>,
}

fn epilogue(i: u32, v: f32) {
    y[i] = v;
}

fn home_a(row: u32) -> Home {
    let start = u[4].z + before * u[0].x * u[0].z;
    return Home(start + min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(u[0].x - 1u)) * u[0].z, vec4<u32>(), vec4<u32>());
}

fn home_b(col: u32) -> Home {
    let c = min(vec4<u32>(col, col + 1u, col + 2u, col + 3u), vec4<u32>(u[0].y - 1u));
    let taps = u[2].x * u[2].y;
    let tap = c % vec4<u32>(taps);
    let at = u[4].w + (before * u[1].x + c / vec4<u32>(taps)) * (u[1].y * u[1].z);
    return Home(at, (tap / vec4<u32>(u[2].y)) * u[4].x - u[3].z, (tap % vec4<u32>(u[2].y)) * u[4].y - u[3].w);
}

// One position of the four planes; zero past the end.
fn g1(p: vec4<u32>, k: u32, end: u32) -> vec4<f32> {
    if k < end {
        let q = p + (k / u[0].z) * u[2].z * u[0].x * u[0].z + k % u[0].z;
        return vec4<f32>(g[q.x], g[q.y], g[q.z], g[q.w]);
    }
    return vec4<f32>();
}

// Hook: four positions of the four planes, a position a column.
fn g4(p: vec4<u32>, k: u32, end: u32) -> mat4x4<f32> {
    return mat4x4<f32>(g1(p, k, end), g1(p, k + 1u, end), g1(p, k + 2u, end), g1(p, k + 3u, end));
}

fn quad_a(home: Home, k: u32, end: u32) -> mat4x4<f32> {
    return g4(home.at, k, end);
}

// What the four columns read at position t = (image, oy, ox); zero in the padding.
fn gather(home: Home, t: vec3<u32>, wanted: bool) -> vec4<f32> {
    let iy = home.ys + t.y * u[3].x;
    let ix = home.xs + t.z * u[3].y;
    let inside = (iy < vec4<u32>(u[1].y)) & (ix < vec4<u32>(u[1].z)) & vec4<bool>(wanted);
    let i = select(vec4<u32>(u[4].w), home.at + (t.x * u[2].z * u[1].x * u[1].y + iy) * u[1].z + ix, inside);
    return select(vec4<f32>(), vec4<f32>(x[i.x], x[i.y], x[i.z], x[i.w]), inside);
}

// The position after `t`.
fn next_term(t: vec3<u32>) -> vec3<u32> {
    let wrap_x = t.z + 1u == u[1].w;
    let wrap_y = wrap_x && t.y + 1u == u[0].z / u[1].w;
    return vec3<u32>(t.x + u32(wrap_y), select(t.y + u32(wrap_x), 0u, wrap_y), select(t.z + 1u, 0u, wrap_x));
}

fn quad_b(home: Home, k: u32, end: u32) -> mat4x4<f32> {
    let position = k % u[0].z;
    let t = vec3<u32>(k / u[0].z, position / u[1].w, position % u[1].w);
    let ta = next_term(t);
    let tb = next_term(ta);
    let tc = next_term(tb);
    return mat4x4<f32>(gather(home, t, k < end), gather(home, ta, k + 1u < end), gather(home, tb, k + 2u < end), gather(home, tc, k + 3u < end));
}

fn rows() -> u32 {
    return u[0].x;
}

fn store(row: u32, col: u32, values: vec4<f32>) {
    var v = values;
    for (var c = 0u; c < 4u; c++) {
        if row < u[0].x && col + c < u[0].y {
            epilogue(first + row * u[0].y + col + c, v[c]);
        }
    }
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
    let col = (id % u[5].x) * COLUMNS;
    id /= u[5].x;
    let row = (id % u[5].y) * ROWS;
    id /= u[5].y;
    let part = id % u[5].z;
    // Model and group.
    let z = id / u[5].z;
    if z >= u[2].z * u[2].w {
        return;
    }
    before = (z / u[2].z) * u[0].w * u[2].z + z % u[2].z;
    first = part * u[6].x + z * u[0].x * u[0].y;
    let k = part * u[5].w;
    product(index, row, col, k, min(u[0].z * u[0].w, k + u[5].w));
}
