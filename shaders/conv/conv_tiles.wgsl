// use put
// Convolution, and the gradient of its image, as a matrix product in tiles of workgroup memory (see matmul_tiles.wgsl), the right operand gathered from the
// image as it is read: rows are channels of y, columns positions of all images of a model, terms (channel, ky, kx).
// u[0]: rows of a group, positions of an image, images of a model, K     u[1]: channels of a group in x, height and width of x, width of y
// u[2]: kernel height and width, groups, models                          u[3]: stride, padding (height, width each)
// u[4]: dilation (height, width), offsets of x and w                     u[5]: tiles along positions and along rows
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 6>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const ROWS: u32 = 1u;
const COLUMNS: u32 = 32u;
const INVOCATIONS: u32 = 8u;
const MEMORY_A: u32 = 1u;
const MEMORY_B: u32 = 1u;
const FOURS: bool = false;
// What is stored at once.
alias Stored = f32;
// Whether x is the gradient of the outputs and y that of the image, and whether the strides are not all 1.
const GRAD: bool = false;
const STRIDED: bool = true;

var<workgroup> tile_a: array<vec4<f32>, MEMORY_A>;
var<workgroup> tile_b: array<vec4<f32>, MEMORY_B>;
// Model and group of the workgroup.
var<private> z: u32;

// Four rows of w: where they begin. Four positions: where their images begin in x, and where their windows do.
struct Home {
    at: vec4<u32>,
    ys: vec4<u32>,
    xs: vec4<u32>,
}

fn epilogue(i: u32, v: Stored) {
    y[i] = v;
}

fn home_a(row: u32) -> Home {
    let start = u[4].w + z * u[0].x * u[0].w;
    return Home(start + min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(u[0].x - 1u)) * u[0].w, vec4<u32>(), vec4<u32>());
}

fn home_b(col: u32) -> Home {
    let c = min(vec4<u32>(col, col + 1u, col + 2u, col + 3u), vec4<u32>(u[0].y * u[0].z - 1u));
    let position = c % vec4<u32>(u[0].y);
    let image = c / vec4<u32>(u[0].y) + (z / u[2].z) * u[0].z;
    let oy = position / vec4<u32>(u[1].w);
    let ox = position % vec4<u32>(u[1].w);
    let at = u[4].z + (image * u[2].z + z % u[2].z) * (u[1].x * u[1].y * u[1].z);
    if GRAD {
        return Home(at, oy + u[3].z, ox + u[3].w);
    }
    return Home(at, oy * u[3].x - u[3].z, ox * u[3].y - u[3].w);
}

// One term of four rows of w; zero past the end.
fn w1(p: vec4<u32>, k: u32, end: u32) -> vec4<f32> {
    if k < end {
        let q = p + k;
        return vec4<f32>(w[q.x], w[q.y], w[q.z], w[q.w]);
    }
    return vec4<f32>();
}

// Hook: four terms of four rows, a term a column.
fn w4(p: vec4<u32>, k: u32, end: u32) -> mat4x4<f32> {
    return mat4x4<f32>(w1(p, k, end), w1(p, k + 1u, end), w1(p, k + 2u, end), w1(p, k + 3u, end));
}

fn quad_a(home: Home, k: u32, end: u32) -> mat4x4<f32> {
    return w4(home.at, k, end);
}

// The coordinate in x that the step reads, or one past any size where it reads padding.
fn coordinate(start: vec4<u32>, step: u32, stride: u32) -> vec4<u32> {
    if !GRAD {
        return start + step;
    }
    let t = start - step;
    if !STRIDED {
        return t;
    }
    let hit = (t % vec4<u32>(stride) == vec4<u32>()) & (t < vec4<u32>(0x80000000u));
    return select(vec4<u32>(0xffffffffu), t / vec4<u32>(stride), hit);
}

// What the four positions read at term t = (channel, ky, kx); zero in the padding and past the last channel.
fn gather(home: Home, t: vec3<u32>) -> vec4<f32> {
    let iy = coordinate(home.ys, t.y * u[4].x, u[3].x);
    let ix = coordinate(home.xs, t.z * u[4].y, u[3].y);
    let inside = (iy < vec4<u32>(u[1].y)) & (ix < vec4<u32>(u[1].z)) & (vec4<u32>(t.x) < vec4<u32>(u[1].x));
    let i = select(vec4<u32>(u[4].z), home.at + (t.x * u[1].y + iy) * u[1].z + ix, inside);
    return select(vec4<f32>(), vec4<f32>(x[i.x], x[i.y], x[i.z], x[i.w]), inside);
}

// The term after `t`.
fn next_term(t: vec3<u32>) -> vec3<u32> {
    let wrap_x = t.z + 1u == u[2].y;
    let wrap_y = wrap_x && t.y + 1u == u[2].x;
    return vec3<u32>(t.x + u32(wrap_y), select(t.y + u32(wrap_x), 0u, wrap_y), select(t.z + 1u, 0u, wrap_x));
}

fn quad_b(home: Home, k: u32, end: u32) -> mat4x4<f32> {
    let taps = u[2].x * u[2].y;
    let tap = k % taps;
    let t = vec3<u32>(k / taps, tap / u[2].y, tap % u[2].y);
    let ta = next_term(t);
    let tb = next_term(ta);
    return mat4x4<f32>(gather(home, t), gather(home, ta), gather(home, tb), gather(home, next_term(tb)));
}

fn rows() -> u32 {
    return u[0].x;
}

fn store(row: u32, col: u32, values: vec4<f32>) {
    let count = u[0].y * u[0].z;
    if row >= u[0].x || col >= count {
        return;
    }
    var v = values;
    for (var c = 0u; c < 4u; c++) {
        if col + c < count {
            let image = (col + c) / u[0].y + (z / u[2].z) * u[0].z;
            let i = ((image * u[2].z + z % u[2].z) * u[0].x + row) * u[0].y + (col + c) % u[0].y;
            if FOURS {
                // Four positions from a multiple of four on are of one image.
                put4(i, values);
                return;
            }
            put(i, v[c]);
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
    let row = (id % u[5].y) * ROWS;
    id /= u[5].y;
    let col = (id % u[5].x) * COLUMNS;
    let own = id / u[5].x;
    if own >= u[2].z * u[2].w {
        return;
    }
    z = own;
    product(index, row, col, 0u, u[0].w);
}
