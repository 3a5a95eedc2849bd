// Gradient of a convolution's weight: gw[o][channel, ky, kx] = sum over images and positions of g[o][position] * x at that position and step. No barriers: an
// invocation owns 8 output channels x 4 columns (8 apart), and one part of the sum; lanes lie along columns. Blocks are matrices as in matmul.wgsl.
// u[0]: output channels and columns of a group, positions of an image, images of a model   u[1]: channels of a group in x, height and width of x, width of g
// u[2]: kernel height and width, groups, models                                            u[3]: stride, padding (height, width each)
// u[4]: dilation (height, width), offsets of g and x                                       u[5]: tiles along columns, along rows, parts, terms of a part
// u[6]: elements of one part's result
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 7>;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// Rows of invocations in a workgroup.
const GROUP_ROWS: u32 = 1u;
// Terms summed before they join the total.
const BLOCK: u32 = 256u;

fn epilogue(i: u32, v: f32) {
    y[i] = v;
}

// Where the planes of four output channels lie, in the first image; past the end, the last one is read again (and not stored).
fn planes_at(base: u32, row: u32) -> vec4<u32> {
    return base + min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(u[0].x - 1u)) * u[0].z;
}

// One position of the four planes; zero where there is none.
fn g1(p: vec4<u32>, t: vec4<u32>) -> vec4<f32> {
    let q = p + t.w;
    return select(vec4<f32>(), vec4<f32>(g[q.x], g[q.y], g[q.z], g[q.w]), t.x < u[0].w);
}

// Four positions of the four planes, a plane a column.
fn g4(p: vec4<u32>, ta: vec4<u32>, tb: vec4<u32>, tc: vec4<u32>, td: vec4<u32>) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(g1(p, ta), g1(p, tb), g1(p, tc), g1(p, td)));
}

struct Planes {
    a: mat4x4<f32>,
    b: mat4x4<f32>,
}

// Four positions of the invocation's eight planes.
fn planes(p: vec4<u32>, q: vec4<u32>, ta: vec4<u32>, tb: vec4<u32>, tc: vec4<u32>, td: vec4<u32>) -> Planes {
    return Planes(g4(p, ta, tb, tc, td), g4(q, ta, tb, tc, td));
}

// The term after `t` = (image, oy, ox, offset of the position in g): past the last image, the offset stays on the last term.
fn next(t: vec4<u32>, height: u32) -> vec4<u32> {
    let wrap_x = t.z + 1u == u[1].w;
    let wrap_y = wrap_x && t.y + 1u == height;
    let image = t.x + u32(wrap_y);
    let step = select(1u, 1u + (u[2].z * u[0].x - 1u) * u[0].z, wrap_y);
    return vec4<u32>(image, select(t.y + u32(wrap_x), 0u, wrap_y), select(t.z + 1u, 0u, wrap_x), select(t.w, t.w + step, image < u[0].w));
}

// What the four columns read at that position; zero in the padding and past the last image.
fn gather(base: vec4<u32>, ys: vec4<u32>, xs: vec4<u32>, t: vec4<u32>) -> vec4<f32> {
    let iy = ys + t.y * u[3].x;
    let ix = xs + t.z * u[3].y;
    let inside = (iy < vec4<u32>(u[1].y)) & (ix < vec4<u32>(u[1].z)) & (vec4<u32>(t.x) < vec4<u32>(u[0].w));
    let i = select(vec4<u32>(), base + (t.x * u[2].z * u[1].x * u[1].y + iy) * u[1].z + ix, inside);
    return select(vec4<f32>(), vec4<f32>(x[i.x], x[i.y], x[i.z], x[i.w]), inside);
}

fn store(first: u32, column: vec4<u32>, row: u32, values: mat4x4<f32>) {
    var v = values;
    var at = column;
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            if row + r < u[0].x && at[c] < u[0].y {
                epilogue(first + (row + r) * u[0].y + at[c], v[r][c]);
            }
        }
    }
}

@compute @workgroup_size(8, GROUP_ROWS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_id) lid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    var id = wid.x + wid.y * groups.x;
    let tile = (id % u[5].x) * 32u + lid.x;
    id /= u[5].x;
    let row = ((id % u[5].y) * GROUP_ROWS + lid.y) * 8u;
    id /= u[5].y;
    let part = id % u[5].z;
    // Model and group.
    let z = id / u[5].z;
    if z >= u[2].z * u[2].w || row >= u[0].x || tile >= u[0].y {
        return;
    }
    let column = vec4<u32>(tile, tile + 8u, tile + 16u, tile + 24u);
    let c = min(column, vec4<u32>(u[0].y - 1u));
    let taps = u[2].x * u[2].y;
    let tap = c % vec4<u32>(taps);
    let ys = (tap / vec4<u32>(u[2].y)) * u[4].x - u[3].z;
    let xs = (tap % vec4<u32>(u[2].y)) * u[4].y - u[3].w;
    // Groups before this one in the model's first image.
    let before = (z / u[2].z) * u[0].w * u[2].z + z % u[2].z;
    let base = u[4].w + (before * u[1].x + c / vec4<u32>(taps)) * (u[1].y * u[1].z);
    let start = u[4].z + before * u[0].x * u[0].z;
    let p0 = planes_at(start, row);
    let p1 = planes_at(start, row + 4u);
    let height = u[0].z / u[1].w;
    var q = part * u[5].w;
    let end = min(u[0].z * u[0].w, q + u[5].w);
    let image = q / u[0].z;
    let position = q % u[0].z;
    var t = vec4<u32>(image, position / u[1].w, position % u[1].w, image * u[2].z * u[0].x * u[0].z + position);
    var t0 = mat4x4<f32>();
    var t1 = mat4x4<f32>();
    while q < end {
        let stop = min(end, q + BLOCK);
        var s0 = mat4x4<f32>();
        var s1 = mat4x4<f32>();
        // Parts are whole blocks, so that only the last term of all lies inside a step of four.
        while q < stop {
            let ta = next(t, height);
            let tb = next(ta, height);
            let tc = next(tb, height);
            let b = mat4x4<f32>(gather(base, ys, xs, t), gather(base, ys, xs, ta), gather(base, ys, xs, tb), gather(base, ys, xs, tc));
            let r = planes(p0, p1, t, ta, tb, tc);
            s0 += b * r.a;
            s1 += b * r.b;
            t = next(tc, height);
            q += 4u;
        }
        t0 += s0;
        t1 += s1;
    }
    let first = part * u[6].x + z * u[0].x * u[0].y;
    store(first, column, row, t0);
    store(first, column, row + 4u, t1);
}
