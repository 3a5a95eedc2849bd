// use math, layout
// The gradient of cross_entropy.wgsl by its input, where that of the loss is 1: one invocation per element.
// u[0]: elements, classes, positions (inner size), offset of x
// u[1]: offset of the labels, offset of the weights, label to ignore, smoothing
// u[2]: offsets of what was kept and of the total, samples that share a row of weights, samples of a model
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<i32>;
@group(0) @binding(3) var<storage, read> kept: array<f32>;
@group(0) @binding(4) var<storage, read> total: array<f32>;
@group(0) @binding(5) var<storage, read> weights: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

const SMOOTH: bool = true;
const MEAN: bool = true;

// The weight of class c for sample a.
fn weight(a: u32, c: u32) -> f32 {
    return weights[u[1].y + a / u[2].z * u[0].y + c];
}

fn epilogue(i: u32, v: f32) {
    y[i] = v;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x {
        return;
    }
    let classes = u[0].y;
    let inner = u[0].z;
    let at = unravel(i, classes, inner);
    let row = at.x * inner + at.z;
    let label = u32(labels[u[1].x + row]);
    let home = u[2].x + 3u * row;
    var part = 0.0;
    if label == at.y {
        part = weight(at.x, at.y);
    }
    if SMOOTH {
        let s = bitcast<f32>(u[1].w);
        part = (1.0 - s) * part + s / f32(classes) * weight(at.x, at.y);
    }
    var v = kept[home + 2u] * exp_((x[u[0].w + i] - kept[home]) - kept[home + 1u]) - part;
    if MEAN {
        v = v / total[u[2].y + at.x / u[2].w];
    }
    epilogue(i, select(v, 0.0, label == u[1].z));
}
