// Negative log likelihood of labels: of each row (a sample, at a position) its loss and its weight; one invocation per row.
// u[0]: rows, classes, positions (inner size), offset of x
// u[1]: offset of the labels, offset of the weights, label to ignore, smoothing
// u[2].xy: samples that share a row of weights, which error word
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<i32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> errors: array<atomic<u32>>;
@group(0) @binding(5) var<storage, read_write> loss: array<f32>;
@group(0) @binding(6) var<storage, read_write> total: array<f32>;

const SMOOTH: bool = true;

// The weight of class c for sample a.
fn weight(a: u32, c: u32) -> f32 {
    return weights[u[1].y + a / u[2].x * u[0].y + c];
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x {
        return;
    }
    let classes = u[0].y;
    let inner = u[0].z;
    let a = i / inner;
    let base = u[0].w + a * classes * inner + (i - a * inner);
    let label = u32(labels[u[1].x + i]);
    if label == u[1].z {
        loss[i] = 0.0;
        total[i] = 0.0;
        return;
    }
    if label >= classes {
        atomicOr(&errors[u[2].y], 1u);
    }
    let c = min(label, classes - 1u);
    let w = weight(a, c);
    var v = w * x[base + c * inner];
    if SMOOTH {
        // Smoothing spreads a part of the label over all classes.
        let s = bitcast<f32>(u[1].w);
        var sum = vec2<f32>(0.0);
        for (var k = 0u; k < classes; k++) {
            sum.x += weight(a, k) * x[base + k * inner];
            if (k & 63u) == 63u {
                sum = vec2<f32>(0.0, sum.y + sum.x);
            }
        }
        v = (1.0 - s) * v + s / f32(classes) * (sum.x + sum.y);
    }
    loss[i] = -v;
    total[i] = w;
}
