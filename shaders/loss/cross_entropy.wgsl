// use rows, math
// Cross entropy of rows (a sample, at a position), put together: a workgroup owns one part of the rows of one model, LANES invocations one row of it.
// u[0]: samples of a model, classes, positions (inner size), offset of x
// u[1]: offset of the labels, offset of the weights, label to ignore, smoothing
// u[2]: rows of a part, parts of a model, samples that share a row of weights, models    u[3].x: which error word
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 4>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<i32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> errors: array<atomic<u32>>;
@group(0) @binding(5) var<storage, read_write> kept: array<f32>;
@group(0) @binding(6) var<storage, read_write> loss: array<f32>;
@group(0) @binding(7) var<storage, read_write> weighed: array<f32>;

const SMOOTH: bool = true;
const MEAN: bool = true;
const LANES: u32 = 1u;

var<workgroup> sums: array<vec2<f32>, 64>;
var<workgroup> values: array<f32, 64>;

// The weight of class c for sample a.
fn weight(a: u32, c: u32) -> f32 {
    return weights[u[1].y + a / u[2].z * u[0].y + c];
}

// Hook: an element.
fn at(i: u32) -> f32 {
    return x[i];
}

// Hook: what a part gives.
fn finish(part: u32, v: vec2<f32>) {
    if MEAN {
        loss[part] = v.x / v.y;
    } else {
        loss[part] = v.x;
    }
    weighed[part] = v.y;
}

// Loss and weight of row i; the invocation whose `lane` is 0 keeps what the gradient needs.
fn row(i: u32, lane: u32) -> vec2<f32> {
    let classes = u[0].y;
    let inner = u[0].z;
    let a = i / inner;
    let base = u[0].w + a * classes * inner + (i - a * inner);
    var m = LOWEST;
    for (var k = lane * WIDTH; k < classes; k += LANES * WIDTH) {
        m = max(m, most(load(base + k * inner)));
    }
    // NaN and infinity make the whole row NaN: max may lose them, but the differences below don't.
    m = largest(m, lane);
    var s = vec4<f32>(0.0);
    for (var k = lane * WIDTH; k < classes; k += LANES * WIDTH) {
        s = add(s, power(load(base + k * inner) - m));
    }
    let offset = log_(total((s.x + s.y) + (s.z + s.w), lane));
    let label = u32(labels[u[1].x + i]);
    let c = min(label, classes - 1u);
    let w = weight(a, c);
    var v = w * ((at(base + c * inner) - m) - offset);
    var parts = w;
    if SMOOTH {
        // Smoothing spreads a part of the label over all classes.
        let smoothing = bitcast<f32>(u[1].w);
        var losses = vec4<f32>(0.0);
        var weighs = vec4<f32>(0.0);
        for (var k = lane; k < classes; k += LANES) {
            let own = weight(a, k);
            losses = vec4<f32>(losses.yzw, losses.x + own * ((at(base + k * inner) - m) - offset));
            weighs = vec4<f32>(weighs.yzw, weighs.x + own);
        }
        v = (1.0 - smoothing) * v + smoothing / f32(classes) * total((losses.x + losses.y) + (losses.z + losses.w), lane);
        parts = (1.0 - smoothing) * w + smoothing / f32(classes) * total((weighs.x + weighs.y) + (weighs.z + weighs.w), lane);
    }
    let ignored = label == u[1].z;
    if lane == 0u {
        kept[3u * i] = m;
        kept[3u * i + 1u] = offset;
        kept[3u * i + 2u] = select(parts, 0.0, ignored);
        if label >= classes && !ignored {
            atomicOr(&errors[u[3].x], 1u);
        }
    }
    return select(vec2<f32>(-v, w), vec2<f32>(0.0), ignored);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_id) lid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let part = wid.x + wid.y * groups.x;
    let model = part / u[2].y;
    if model >= u[2].w {
        return;
    }
    let rows = u[0].x * u[0].z;
    let begin = (part - model * u[2].y) * u[2].x;
    let end = min(rows, begin + u[2].x);
    let lane = lid.x % LANES;
    var sum = vec2<f32>(0.0);
    for (var r = begin; r < end; r += 64u / LANES) {
        let mine = r + lid.x / LANES;
        // Only where an invocation has a row of its own may some have none; those of one row go together.
        if LANES > 1u || mine < end {
            let v = row(model * rows + mine, lane);
            if lane == 0u {
                sum += v;
            }
        }
    }
    sums[lid.x] = sum;
    // All sums are there.
    workgroupBarrier();
    if lid.x == 0u {
        for (var j = 1u; j < 64u; j++) {
            sum += sums[j];
        }
        finish(part, sum);
    }
}
