// use operands, quads
// The power of two by which each row of a, and each column of b, is multiplied so that its largest finite element lies in [2^14, 2^15), where f16 has it: for each
// batch the rows, then the columns. A workgroup takes four of them.
// u: as in matmul_tiles.wgsl
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 10>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const GROUP: u32 = 64u;

var<workgroup> largest: array<vec4<u32>, GROUP>;

// The bits of the magnitudes, which are ordered as they are; none of what is not finite.
fn magnitude(v: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu);
    return select(bits, vec4<u32>(), bits >= vec4<u32>(0x7f800000u));
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) index: u32, @builtin(num_workgroups) groups: vec3<u32>) {
    let rows = (u[0].x + 3u) / 4u;
    let each = rows + (u[0].y + 3u) / 4u;
    let id = wid.x + wid.y * groups.x;
    let z = id / each;
    if z >= u[3].w {
        return;
    }
    let four = id % each;
    begin_batch(z);
    var most = vec4<u32>();
    if four < rows {
        let home = home_a(4u * four);
        for (var k = 4u * index; k < u[0].z; k += 4u * GROUP) {
            let q = quad_a(home, k, u[0].z);
            most = max(most, max(max(magnitude(q[0]), magnitude(q[1])), max(magnitude(q[2]), magnitude(q[3]))));
        }
    } else {
        let home = home_b(4u * (four - rows));
        for (var k = 4u * index; k < u[0].z; k += 4u * GROUP) {
            let q = quad_b(home, k, u[0].z);
            most = max(most, max(max(magnitude(q[0]), magnitude(q[1])), max(magnitude(q[2]), magnitude(q[3]))));
        }
    }
    largest[index] = most;
    for (var h = GROUP / 2u; h > 0u; h /= 2u) {
        workgroupBarrier();
        if index < h {
            largest[index] = max(largest[index], largest[index + h]);
        }
    }
    workgroupBarrier();
    if index < 4u {
        put_scale(four, rows, z, index);
    }
}

fn put_scale(four: u32, rows: u32, z: u32, index: u32) {
    let exponent = largest[0][index] >> 23u;
    // 2^(14 - exponent), kept where its inverse is a normal number, too; 1 for what is all zero.
    let scale = select(bitcast<f32>(clamp(268u - exponent, 1u, 253u) << 23u), 1.0, exponent == 0u);
    let place = select(u[0].x + 4u * (four - rows), 4u * four, four < rows) + index;
    let end = select(u[0].x + u[0].y, u[0].x, four < rows);
    if place < end {
        y[z * (u[0].x + u[0].y) + place] = scale;
    }
}
