// Adds up elements of x at the places that a sorted index names: one invocation per element of the output, [outer, size, inner].
// u[0]: number of output elements, size, places, inner size
// u[1]: which sorted line an element uses: outer times x plus inner times y; offset of x
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 2>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> pairs: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> starts: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn load(i: u32) -> f32 {
    return x[u[1].z + i];
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
    let size = u[0].y;
    let places = u[0].z;
    let inner = u[0].w;
    let line = i / inner;
    let b = i - line * inner;
    let a = line / size;
    let d = line - a * size;
    let sorted = a * u[1].x + b * u[1].y;
    let first = starts[sorted * (size + 1u) + d];
    let end = starts[sorted * (size + 1u) + d + 1u];
    // As in scatter.wgsl.
    var s = vec3<f32>(0.0);
    for (var k = first; k < end; k++) {
        let j = pairs[sorted * places + k].y;
        s.x += load((a * places + j) * inner + b);
        let count = k - first + 1u;
        if (count & 63u) == 0u {
            s = vec3<f32>(0.0, s.y + s.x, s.z);
        }
        if (count & 4095u) == 0u {
            s = vec3<f32>(s.x, 0.0, s.z + s.y);
        }
    }
    epilogue(i, s.x + s.y + s.z);
}
