// Convolution as a matrix product whose right operand is gathered from the image, and the same with the steps turned round: the gradient of the image.
// y[image][group * rows + r][position] = sum over k = (channel, ky, kx) of w[r][k] * x at that position and step. No barriers: an invocation owns ROWS rows x 4
// positions (8 apart); lanes lie along positions. As in matmul.wgsl, a 4x4 block of w has row r as column r, one of x has step k as column k.
// u[0]: rows of a group, positions of an image, images of a model, K     u[1]: channels of a group in x, height and width of x, width of y
// u[2]: kernel height and width, groups, models                          u[3]: stride, padding (height, width each)
// u[4]: dilation (height, width), offsets of x and w                     u[5]: tiles along positions and along rows
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 6>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// Whether x is the gradient of the outputs and y that of the image.
const GRAD: bool = false;
// Rows of an invocation: 4, 8 or 16.
const ROWS: u32 = 16u;
// Rows of invocations in a workgroup, one below the other along positions.
const GROUP_ROWS: u32 = 1u;
// Terms summed before they join the total.
const BLOCK: u32 = 256u;

fn epilogue(i: u32, v: f32) {
    y[i] = v;
}

// Steps k .. k + 4 of the rows that begin at p, a row a column; zero past the end.
fn w4(p: vec4<u32>, k: u32) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(w1(p, k), w1(p, k + 1u), w1(p, k + 2u), w1(p, k + 3u)));
}

fn w1(p: vec4<u32>, k: u32) -> vec4<f32> {
    let q = p + min(k, u[0].w - 1u);
    return select(vec4<f32>(), vec4<f32>(w[q.x], w[q.y], w[q.z], w[q.w]), k < u[0].w);
}

// Where the rows of w from `row` on begin; past the end, the last one is read again (and not stored).
fn rows_at(base: u32, row: u32) -> vec4<u32> {
    return base + min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(u[0].x - 1u)) * u[0].w;
}

struct Weights {
    a: mat4x4<f32>,
    b: mat4x4<f32>,
    c: mat4x4<f32>,
    d: mat4x4<f32>,
}

// Steps k .. k + 4 of the invocation's rows.
fn weights(p: array<vec4<u32>, 4>, k: u32) -> Weights {
    var r = Weights();
    r.a = w4(p[0], k);
    if ROWS > 4u {
        r.b = w4(p[1], k);
    }
    if ROWS > 8u {
        r.c = w4(p[2], k);
        r.d = w4(p[3], k);
    }
    return r;
}

// The step after `t` = (channel, ky, kx).
fn next(t: vec3<u32>) -> vec3<u32> {
    let wrap_x = t.z + 1u == u[2].y;
    let wrap_y = wrap_x && t.y + 1u == u[2].x;
    return vec3<u32>(t.x + u32(wrap_y), select(t.y + u32(wrap_x), 0u, wrap_y), select(t.z + 1u, 0u, wrap_x));
}

// The coordinate in x that the step reads, or one past any size where it reads padding.
fn coordinate(start: vec4<u32>, step: u32, stride: u32) -> vec4<u32> {
    if GRAD {
        let t = start - step;
        let hit = (t % vec4<u32>(stride) == vec4<u32>()) & (t < vec4<u32>(0x80000000u));
        return select(vec4<u32>(0xffffffffu), t / vec4<u32>(stride), hit);
    }
    return start + step;
}

fn gather(base: vec4<u32>, ys: vec4<u32>, xs: vec4<u32>, t: vec3<u32>) -> vec4<f32> {
    let iy = coordinate(ys, t.y * u[4].x, u[3].x);
    let ix = coordinate(xs, t.z * u[4].y, u[3].y);
    let inside = (iy < vec4<u32>(u[1].y)) & (ix < vec4<u32>(u[1].z)) & (vec4<u32>(t.x) < vec4<u32>(u[1].x));
    let i = select(vec4<u32>(), base + (t.x * u[1].y + iy) * u[1].z + ix, inside);
    return select(vec4<f32>(), vec4<f32>(x[i.x], x[i.y], x[i.z], x[i.w]), inside);
}

fn store(first: vec4<u32>, columns: vec4<bool>, row: u32, values: mat4x4<f32>) {
    var v = values;
    var at = first;
    var wanted = columns;
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            if row + r < u[0].x && wanted[c] {
                epilogue(at[c] + (row + r) * u[0].y, v[r][c]);
            }
        }
    }
}

@compute @workgroup_size(8, GROUP_ROWS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_id) lid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    var id = wid.x + wid.y * groups.x;
    let tile = (id % u[5].x) * GROUP_ROWS + lid.y;
    id /= u[5].x;
    let row = (id % u[5].y) * ROWS;
    // Model and group.
    let z = id / u[5].y;
    let count = u[0].y * u[0].z;
    let first = tile * 32u + lid.x;
    if z >= u[2].z * u[2].w || first >= count {
        return;
    }
    let column = vec4<u32>(first, first + 8u, first + 16u, first + 24u);
    let wanted = column < vec4<u32>(count);
    let c = min(column, vec4<u32>(count - 1u));
    let position = c % vec4<u32>(u[0].y);
    let image = c / vec4<u32>(u[0].y) + (z / u[2].z) * u[0].z;
    let oy = position / vec4<u32>(u[1].w);
    let ox = position % vec4<u32>(u[1].w);
    // Channels of all groups before this one, of all images before this one.
    let before = image * u[2].z + z % u[2].z;
    let base = u[4].z + before * (u[1].x * u[1].y * u[1].z);
    let ys = select(oy * u[3].x - u[3].z, oy + u[3].z, GRAD);
    let xs = select(ox * u[3].y - u[3].w, ox + u[3].w, GRAD);
    let start = u[4].w + z * u[0].x * u[0].w;
    let p = array<vec4<u32>, 4>(rows_at(start, row), rows_at(start, row + 4u), rows_at(start, row + 8u), rows_at(start, row + 12u));
    var t0 = mat4x4<f32>();
    var t1 = mat4x4<f32>();
    var t2 = mat4x4<f32>();
    var t3 = mat4x4<f32>();
    var t = vec3<u32>();
    var k = 0u;
    while k < u[0].w {
        let stop = min(u[0].w, k + BLOCK);
        var s0 = mat4x4<f32>();
        var s1 = mat4x4<f32>();
        var s2 = mat4x4<f32>();
        var s3 = mat4x4<f32>();
        while k < stop {
            let ta = next(t);
            let tb = next(ta);
            let tc = next(tb);
            let b = mat4x4<f32>(gather(base, ys, xs, t), gather(base, ys, xs, ta), gather(base, ys, xs, tb), gather(base, ys, xs, tc));
            t = next(tc);
            let r = weights(p, k);
            s0 += b * r.a;
            if ROWS > 4u {
                s1 += b * r.b;
            }
            if ROWS > 8u {
                s2 += b * r.c;
                s3 += b * r.d;
            }
            k += 4u;
        }
        t0 += s0;
        t1 += s1;
        t2 += s2;
        t3 += s3;
    }
    let out = before * u[0].x * u[0].y + position;
    store(out, wanted, row, t0);
    if ROWS > 4u {
        store(out, wanted, row + 4u, t1);
    }
    if ROWS > 8u {
        store(out, wanted, row + 8u, t2);
        store(out, wanted, row + 12u, t3);
    }
}
