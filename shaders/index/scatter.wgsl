// Adds up elements of x at the places that an index names, in the order of the index: one invocation per element of the output, [outer, size, inner],
// which looks through the whole index. For small cases; larger ones sort the index first.
// u[0]: number of output elements, size, places, inner size
// u[1]: strides of the index over outer, places and inner, its offset
// u[2].xy: offset of x, which error word
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> index: array<i32>;
@group(0) @binding(3) var<storage, read_write> errors: array<atomic<u32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn load(i: u32) -> f32 {
    return x[u[2].x + i];
}

fn index_at(i: u32) -> u32 {
    return u32(index[u[1].w + i]);
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
    let base = a * u[1].x + b * u[1].z;
    // Sums of 64 terms, of 64 such sums, and of those: no long chain. scatter_sorted.wgsl adds in the same order, to the same bits.
    var s = vec3<f32>(0.0);
    var count = 0u;
    var outside = false;
    for (var j = 0u; j < places; j++) {
        let k = index_at(base + j * u[1].y);
        outside = outside || k >= size;
        if k == d {
            s.x += load((a * places + j) * inner + b);
            count++;
            if (count & 63u) == 0u {
                s = vec3<f32>(0.0, s.y + s.x, s.z);
            }
            if (count & 4095u) == 0u {
                s = vec3<f32>(s.x, 0.0, s.z + s.y);
            }
        }
    }
    if outside && d == 0u {
        atomicOr(&errors[u[2].y], 1u);
    }
    epilogue(i, s.x + s.y + s.z);
}
