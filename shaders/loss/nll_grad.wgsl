// use math, layout
// The gradient of nll.wgsl by its input, from that of each row's loss: one invocation per element of the input.
// u[0]: elements, classes, positions (inner size), offset of g
// u[1]: offset of the labels, offset of the weights, label to ignore, smoothing
// u[2].x: samples that share a row of weights
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<i32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

const SMOOTH: bool = true;
// 1 where there is a gradient for each row, 0 where one serves all.
const STEP: u32 = 1u;

// The weight of class c for sample a.
fn weight(a: u32, c: u32) -> f32 {
    return weights[u[1].y + a / u[2].x * u[0].y + c];
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
    var v = 0.0;
    if label == at.y {
        v = weight(at.x, at.y);
    }
    if SMOOTH {
        let s = bitcast<f32>(u[1].w);
        v = (1.0 - s) * v + s / f32(classes) * weight(at.x, at.y);
    }
    // An ignored row has no gradient, even where that of a mean over no rows is infinite.
    epilogue(i, select(-v * g[u[0].w + row * STEP], 0.0, label == u[1].z));
}
