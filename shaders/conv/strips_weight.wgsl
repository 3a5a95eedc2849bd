// Gradient of a convolution's weight in strips: a lane owns one channel of x and one row of the kernel, all columns of it, for ROWS channels of g, and one
// part of the sum; it goes along rows of g, STRIP positions a step. No barriers; lanes lie along (channel, row of the kernel).
// u[0]: channels of a group and elements of a plane, of g and of x   u[1]: height and width, of x and of g
// u[2]: images of a model, groups, models, strips of a row           u[3]: height of the kernel, tiles of lanes, blocks of channels of g, parts
// u[4]: rows of g of a part; stride, padding, dilation down           u[5]: offsets of g and of x, elements of each
// u[6]: elements of one part's result, width of the kernel, elements of that result that are sums along the way
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 7>;
@group(0) @binding(1) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// Channels of g that a lane owns, and its sums: one for each and column of the kernel.
const ROWS: u32 = 1u;
const SUMS: u32 = 1u;
// Positions of g in a step, and in what is left of a row.
const STRIP: u32 = 4u;
const REST: u32 = 0u;
// The stride across.
const ACROSS: u32 = 1u;
// Rows of g whose terms are summed before they join the total; and where rows are longer than such a block, its steps.
const BLOCK: u32 = 1u;
const STEPS: u32 = 1u;

var<private> s: array<f32, SUMS>;
var<private> t: array<f32, SUMS>;
// Where g is summed along the way: of each channel that the lane reads for all.
var<private> own_s: vec4<f32>;
var<private> own_t: vec4<f32>;

fn epilogue(i: u32, v: f32) {
    y[i] = v;
}

// Hook: add STRIP positions to s. `at` is the first in x, in column `column` (wrapping), `row` what stays of its bits; `first` is where they lie in
// the first of `channels` planes of g, `own` how much further those that this lane reads for all. No index of g or x passes `last`.
fn step(at: u32, column: u32, row: u32, first: u32, own: vec4<u32>, channels: u32, last: vec2<u32>) {
    s[0] += dot(g[min((first + own.x) >> 2u, last.x)], x[min(at >> 2u, last.y)]);
}

// Hook: the same for the last REST positions of a row.
fn rest(at: u32, column: u32, row: u32, first: u32, own: vec4<u32>, channels: u32, last: vec2<u32>) {
    return;
}

// Add a row's steps to s, from `begin` up to `end`.
fn add(at: u32, row: u32, first: u32, own: vec4<u32>, channels: u32, last: vec2<u32>, begin: u32, end: u32) {
    for (var n = begin; n < end; n++) {
        let column = n * STRIP * ACROSS;
        step(at + column, column, row, first + n * STRIP, own, channels, last);
    }
}

// Hook: add all steps of a row.
fn steps(at: u32, row: u32, first: u32, own: vec4<u32>, channels: u32, last: vec2<u32>) {
    add(at, row, first, own, channels, last, 0u, u[2].w);
}

// Hook: the last indices of g and x.
fn limits() -> vec2<u32> {
    return vec2<u32>((u[5].x + u[5].z) >> 2u, (u[5].y + u[5].w) >> 2u) - vec2<u32>(1u);
}

// Hook: add s to t and clear it.
fn flush() {
    t[0] += s[0];
    s[0] = 0.0;
}

// Hook: store all totals. `first` is where the lane's part of the first channel lies, `rows` how many there are.
fn finish(first: u32, rows: u32) {
    epilogue(first, t[0]);
}

// Hook: store the sums of the channels from `first` on that lane `lane` reads, of which there are `channels`.
fn finish_along(first: u32, part: u32, lane: u32, channels: u32) {
    return;
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_id) lid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    var id = wid.x + wid.y * groups.x;
    let mine = (id % u[3].y) * 8u + lid.x;
    id /= u[3].y;
    let part = id % u[3].w;
    id /= u[3].w;
    let channel = (id % u[3].z) * ROWS;
    // Model and group.
    let z = id / u[3].z;
    if z >= u[2].y * u[2].z {
        return;
    }
    // Lanes past the last go on: others may read g through them.
    let own = min(mine, u[0].z * u[3].x - 1u);
    let k = own % u[3].x;
    let last = limits();
    let channels = u[0].x - channel;
    let planes = min(vec4<u32>(lid.x, lid.x + 8u, lid.x + 16u, lid.x + 24u), vec4<u32>(channels - 1u)) * u[0].y;
    let rows = u[2].x * u[1].z;
    var row = part * u[4].x;
    let end = min(rows, row + u[4].x);
    var down = row % u[1].z;
    // Groups before this one, of all images before this one.
    var before = ((z / u[2].y) * u[2].x + row / u[1].z) * u[2].y + z % u[2].y;
    // A block is a loop of its own: a branch to the totals at each step would cost a processor as much as the step.
    while row < end {
        let stop = min(end, row + BLOCK);
        while row < stop {
            let v = down * u[4].y + k * u[4].w - u[4].z;
            let inside = select(0u, 0xffffffffu, v < u[1].x);
            let at = u[5].y + (before * u[0].z + own / u[3].x) * u[0].w + v * u[1].y;
            let first = u[5].x + (before * u[0].x + channel) * u[0].y + down * u[1].w;
            steps(at, inside, first, planes, channels, last);
            if REST > 0u {
                let column = u[2].w * STRIP * ACROSS;
                rest(at + column, column, inside, first + u[2].w * STRIP, planes, channels, last);
            }
            row += 1u;
            down += 1u;
            if down == u[1].z {
                down = 0u;
                before += u[2].y;
            }
        }
        flush();
    }
    if mine == lid.x {
        finish_along(z * u[0].x + channel + lid.x, part, lid.x, channels);
    }
    if mine < u[0].z * u[3].x {
        finish(part * u[6].x + ((z * u[0].x + channel) * u[0].z * u[3].x + mine) * u[6].y, channels);
    }
}
