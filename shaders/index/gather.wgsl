// use math, layout
// Takes elements of x along a dimension at the places that an index names: one invocation per T of the output, [outer, places, inner].
// u[0]: Ts of the output, size of x's dimension, places, inner size
// u[1]: strides of the index over outer, places and inner, its offset
// u[2].xy: offset of x, which error word
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> index: array<i32>;
@group(0) @binding(3) var<storage, read_write> errors: array<atomic<u32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// What is taken at once, and its elements.
alias T = f32;
const WIDTH: u32 = 1u;

// Hook: where T is a vec4, so is an element of x.
fn load(i: u32) -> T {
    return x[i];
}

fn epilogue(i: u32, v: T) {
    y[i] = v;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let id = gid.x + gid.y * groups.x * 64u;
    if id >= u[0].x {
        return;
    }
    let i = id * WIDTH;
    let size = u[0].y;
    let inner = u[0].w;
    let at = unravel(i, u[0].z, inner);
    // A negative index is a large u32.
    let k = u32(index[u[1].w + at.x * u[1].x + at.y * u[1].y + at.z * u[1].z]);
    if k >= size {
        atomicOr(&errors[u[2].y], 1u);
    }
    epilogue(i, load(u[2].x + (at.x * size + min(k, size - 1u)) * inner + at.z));
}
