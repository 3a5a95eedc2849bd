// use rows, math, layout
// The gradient of cross_entropy.wgsl by its input, where that of the loss is 1: one invocation per V.
// u[0]: Vs, classes, positions (inner size), offset of x
// u[1]: offset of the labels, offset of the weights, label to ignore, smoothing
// u[2]: offsets of what was kept and of the total, samples that share a row of weights, samples of a model
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<i32>;
@group(0) @binding(3) var<storage, read> kept: array<f32>;
@group(0) @binding(4) var<storage, read> weighed: array<f32>;
@group(0) @binding(5) var<storage, read> weights: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

const SMOOTH: bool = true;
const MEAN: bool = true;
// Whether, for each element of a V.
alias B = bool;

// The weight of class c for sample a.
fn weight(a: u32, c: u32) -> f32 {
    return weights[u[1].y + a / u[2].z * u[0].y + c];
}

// Hooks: the weights of a V's classes from `c` on, and which of them is the label.
fn weights_of(a: u32, c: u32) -> V {
    return weight(a, c);
}

fn own(c: u32, label: u32) -> B {
    return c == label;
}

fn epilogue(i: u32, v: V) {
    y[i] = v;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let id = gid.x + gid.y * groups.x * 64u;
    if id >= u[0].x {
        return;
    }
    let i = id * WIDTH;
    let classes = u[0].y;
    let inner = u[0].z;
    let at = unravel(i, classes, inner);
    let row = at.x * inner + at.z;
    let label = u32(labels[u[1].x + row]);
    let home = u[2].x + 3u * row;
    let weights_here = weights_of(at.x, at.y);
    var part = select(V(0.0), weights_here, own(at.y, label));
    if SMOOTH {
        let s = bitcast<f32>(u[1].w);
        part = (1.0 - s) * part + s / f32(classes) * weights_here;
    }
    var v = kept[home + 2u] * power((load(u[0].w + i) - kept[home]) - kept[home + 1u]) - part;
    if MEAN {
        v = v / weighed[u[2].y + at.x / u[2].w];
    }
    epilogue(i, select(v, V(0.0), label == u[1].z));
}
