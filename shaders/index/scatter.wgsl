// use math, layout
// Adds up elements of x at the places that an index names, in the order of the index: one invocation per element of the output, [outer, size, inner].
// As it lies it looks through the whole index, for small cases; for larger ones the hooks look a destination's terms up in the sorted index.
// u[0]: number of output elements, size, places, inner size
// u[1]: strides of the index over outer, places and inner, its offset; of a sorted one: lines of it over outer, -, over inner, -
// u[2]: offset of x, which error word; of a sorted one: how many of its terms were added before, and how many are added now at most
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> index: array<i32>;
@group(0) @binding(3) var<storage, read_write> errors: array<atomic<u32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn load(i: u32) -> f32 {
    return x[u[2].x + i];
}

// The candidates for destination d of a line of the index, which begins at `line` (of a sorted one: its number): the first, and the end.
fn candidates(line: u32, d: u32) -> vec2<u32> {
    return vec2<u32>(0u, u[0].z);
}

// Candidate k of a line, as (key, place).
fn pair(line: u32, k: u32) -> vec2<u32> {
    return vec2<u32>(u32(index[u[1].w + line + k * u[1].y]), k);
}

// What was added to output i before.
fn before(i: u32) -> f32 {
    return 0.0;
}

// An index was out of range.
fn report() {
    atomicOr(&errors[u[2].y], 1u);
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
    let at = unravel(i, size, inner);
    let line = at.x * u[1].x + at.z * u[1].z;
    let range = candidates(line, at.y);
    // Sums of 64 terms, of 64 such sums, and of those: no long chain, and the same bits however the terms are found.
    var s = vec3<f32>(0.0);
    var count = 0u;
    var outside = false;
    for (var k = range.x; k < range.y; k++) {
        let p = pair(line, k);
        outside = outside || p.x >= size;
        if p.x == at.y {
            s.x += load((at.x * places + p.y) * inner + at.z);
            count++;
            if (count & 63u) == 0u {
                s = vec3<f32>(0.0, s.y + s.x, s.z);
            }
            if (count & 4095u) == 0u {
                s = vec3<f32>(s.x, 0.0, s.z + s.y);
            }
        }
    }
    if outside && at.y == 0u {
        report();
    }
    epilogue(i, before(i) + (s.x + s.y + s.z));
}
