// use put
// Convolution, and the gradient of its image, in strips: a lane owns ROWS channels x STRIP neighbours of one row of y. It reads what they need of a row of x
// once, for all steps of the kernel across. No barriers; lanes lie along strips. For the gradient, w is packed (pack_strips.wgsl).
// u[0]: channels of a group and elements of a plane, of y and of x   u[1]: height and width, of x and of y
// u[2]: images of a model, groups, models, strips of a row           u[3]: height of the kernel, tiles of strips, blocks of channels of y, phases
// u[4]: rows of a phase; stride, padding, dilation down               u[5]: offset of x, elements of x, elements of w in a row of the kernel, offset of w
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 6>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// Whether x is the gradient of the outputs and y that of the image. Rows of y then come in phases: those of one phase meet the same rows of the kernel.
const GRAD: bool = false;
// Channels of y and columns of y that a lane owns.
const ROWS: u32 = 1u;
const STRIP: u32 = 4u;
// Its columns as vectors: the n-th has columns n / SPAN + STEP * (4 * (n % SPAN) + 0..4).
const VECTORS: u32 = 1u;
const SPAN: u32 = 1u;
const STEP: u32 = 1u;
// Whether lanes read w for each other: each one row of eight.
const SHARES: bool = false;
// Channels of x in a step.
const CHANNELS: u32 = 1u;
// The stride across.
const ACROSS: u32 = 1u;
// Whether rows of y are whole vectors.
const FOURS: bool = false;
// What is stored at once.
alias Stored = f32;
// Channels of x whose terms are summed before they join the total.
const BLOCK: u32 = 1u;
// Vectors of x that a step reads.
const MASKS: u32 = 1u;

// The sums of a block's terms, the totals, and which columns of x are inside of it.
var<private> s: array<vec4<f32>, ROWS * VECTORS>;
var<private> t: array<vec4<f32>, ROWS * VECTORS>;
var<private> mask: array<vec4<u32>, MASKS>;
// How far the rows of w that the lane reads lie behind the first of the block; past the last row, that one is read again (and not stored).
var<private> own: array<u32, ROWS>;

fn epilogue(i: u32, v: Stored) {
    y[i] = v;
}

// Hook: set the masks of the place that reads column `column` of x first of all.
fn columns(column: u32) {
    mask[0] = vec4<u32>(0xffffffffu);
}

// Hook: add one step to s. `at` is where the row lies in x, `row` what stays of its bits, `p` where the step's weights begin, `channel` the first in x.
fn step(at: u32, row: u32, p: u32, lane: u32, channel: u32, limit: u32) {
    s[0] += w[p + own[0]] * x[min(at >> 2u, limit)];
}

// Hook: the last index of x.
fn limit() -> u32 {
    return ((u[5].x + u[5].y) >> 2u) - 1u;
}

// Hook: add s to t and clear it.
fn flush() {
    t[0] += s[0];
    s[0] = vec4<f32>();
}

fn store(first: u32, column: u32, values: vec4<f32>) {
    if FOURS {
        if column < u[1].w {
            put4(first + column, values);
        }
        return;
    }
    var v = values;
    for (var i = 0u; i < 4u; i++) {
        if column + i * STEP < u[1].w {
            put(first + column + i * STEP, v[i]);
        }
    }
}

// Hook: store all totals; `rows` is how many there are.
fn finish(first: u32, column: u32, rows: u32) {
    store(first, column, t[0]);
}

// Where the lane reads x and w, and how it goes on: from a channel to the next, and from a row of the kernel.
struct Walk {
    plane: u32,
    p: u32,
    next_p: u32,
    y0: u32,
    next_y: u32,
    k0: u32,
    next_k: u32,
    lane: u32,
    last: u32,
}

// Add the terms of some channels to s.
fn add(begin: u32, end: u32, w: Walk) {
    var p = w.p + begin / CHANNELS * w.next_p;
    var plane = w.plane + begin * u[0].w;
    for (var channel = begin; channel < end; channel += CHANNELS) {
        var v = w.y0;
        for (var k = w.k0; k < u[3].x; k += w.next_k) {
            step(plane + v * u[1].y, select(0u, 0xffffffffu, v < u[1].x), p + k * u[5].z, w.lane, channel, w.last);
            v += w.next_y;
        }
        p += w.next_p;
        plane += CHANNELS * u[0].w;
    }
}

// Hook: all terms. A block is a loop of its own: a branch to the totals at each step would cost a processor as much as the step.
fn terms(w: Walk) {
    for (var begin = 0u; begin < u[0].z; begin += BLOCK) {
        add(begin, min(u[0].z, begin + BLOCK), w);
        flush();
    }
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_id) lid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    var id = wid.x + wid.y * groups.x;
    let tile = id % u[3].y;
    id /= u[3].y;
    let phase = id % u[3].w;
    id /= u[3].w;
    let row = (id % u[3].z) * ROWS;
    // Model and group.
    let z = id / u[3].z;
    if z >= u[2].y * u[2].z {
        return;
    }
    // Lanes past the last strip go on: others may read weights through them.
    let count = u[4].x * u[2].x * u[2].w;
    let mine = tile * 8u + lid.x;
    let c = min(mine, count - 1u);
    let column = (c % u[2].w) * STRIP;
    let down = (c / u[2].w) % u[4].x;
    let image = c / u[2].w / u[4].x + (z / u[2].y) * u[2].x;
    // The first row of the kernel that the phase meets, the row of x that it reads, and how far the next are.
    var k0 = 0u;
    var y0 = down * u[4].y - u[4].z;
    var next_k = 1u;
    var next_y = u[4].w;
    var out = down;
    var reads = column * ACROSS;
    if GRAD {
        k0 = (phase + u[4].z) % u[4].y;
        y0 = (phase + u[4].z - k0) / u[4].y + down;
        next_k = u[4].y;
        next_y = 0u - u[4].w;
        out = phase + down * u[4].y;
        reads = column / ACROSS;
    }
    columns(reads);
    // Channels of all groups before this one, of all images before this one.
    let before = image * u[2].y + z % u[2].y;
    let block = u[3].x * u[5].z;
    var p = (id * ((u[0].z + CHANNELS - 1u) / CHANNELS)) * block;
    var next_p = block;
    if !GRAD {
        let length = u[0].z * block;
        p = u[5].w + (z * u[0].x + row) * length;
        next_p = CHANNELS * block;
        for (var r = 0u; r < ROWS; r++) {
            own[r] = min(select(r, r * 8u + lid.x, SHARES), u[0].x - 1u - row) * length;
        }
    }
    let plane = u[5].x + before * u[0].z * u[0].w + reads;
    terms(Walk(plane, p, next_p, y0, next_y, k0, next_k, lid.x, limit()));
    if mine >= count || out >= u[1].z {
        return;
    }
    finish((before * u[0].x + row) * u[0].y + out * u[1].w, column, u[0].x - row);
}
