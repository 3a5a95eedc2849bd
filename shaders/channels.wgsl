// How kernels sum over the channels of x [models, n, channels, inner]: one invocation per part of a channel, which it reads once. Where a channel has several
// parts they go to scratch, [parts, channels], and a second launch of the kernel joins them, LANES invocations a channel.
// The kernel has the words of them, V (in which elements are counted), WIDTH, and `walk`, `joined` and `finish`: what a part gives, what a channel's parts give,
// and what to do with either.
// u[0]: channels of all models, elements of a channel, parts of each    u[1]: channels of a model, elements of a row (inner), a step of `parts` elements as
// (image, element of its row)    u[2]: images of a model, parts to join

// Whether neighbours take neighbouring elements of a channel, or neighbouring channels.
const ROWS: bool = true;
const LANES: u32 = 1u;

var<workgroup> values: array<f32, 64>;
// The row that the invocation is in, and the element of it.
var<private> row: u32;
var<private> inner: u32;

// Hook: the sum of what the invocations of a channel have; those of a workgroup, where they are several.
fn total(v: f32, index: u32) -> f32 {
    return v;
}

// Elements of part p.
fn elements(p: u32, parts: u32) -> u32 {
    return (u[0].y + parts - 1u - p) / parts;
}

// To the first element of a part of channel c.
fn begin(c: u32, part: u32) {
    let model = c / u[1].x;
    let image = part / u[1].y;
    row = (model * u[2].x * u[1].x + (c - model * u[1].x)) * u[1].y + image * u[1].x * u[1].y;
    inner = part - image * u[1].y;
}

// To its next.
fn next() {
    row += u[1].z * u[1].x * u[1].y;
    inner += u[1].w;
    if inner >= u[1].y {
        row += u[1].x * u[1].y;
        inner -= u[1].y;
    }
}

// Hook: which of the two.
fn result(c: u32, part: u32, lane: u32) -> vec2<f32> {
    return walk(c, part);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let id = gid.x + gid.y * groups.x * 64u;
    // Lanes that join do so behind barriers, which all of a workgroup must reach: past the last, that one is joined again, and not stored.
    let all = u[0].x * u[0].z;
    if LANES == 1u && id >= all {
        return;
    }
    let j = min(id / LANES, all - 1u);
    let part = select(j / u[0].x, j % u[0].z, ROWS);
    let c = select(j % u[0].x, j / u[0].z, ROWS);
    let v = result(c, part, id % LANES);
    if id % LANES == 0u && id / LANES < all {
        finish(c, part, v);
    }
}
