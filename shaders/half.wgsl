// Halves in words: two to a u32, the first in the low bits. They are rounded here, to the nearest, ties to even, and to an infinity beyond the largest: what
// pack2x16float and f16() do there is left to the device.

// The bits of the nearest half to each.
fn half_bits(v: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(v);
    let a = bits & vec4<u32>(0x7fffffffu);
    let normal = ((a + 0xfffu + ((a >> vec4<u32>(13u)) & vec4<u32>(1u))) >> vec4<u32>(13u)) - 0x1c000u;
    // From 0.5 on an f32 counts in steps of 2^-24, as subnormal halves do.
    let small = bitcast<vec4<u32>>(bitcast<vec4<f32>>(a) + 0.5) - 0x3f000000u;
    let half = select(normal, small, a < vec4<u32>(0x38800000u));
    let finite = select(half, vec4<u32>(0x7c00u), a >= vec4<u32>(0x477ff000u));
    let nan = a > vec4<u32>(0x7f800000u);
    return ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u)) | select(finite, vec4<u32>(0x7e00u), nan);
}

// Four neighbours as they lie in memory.
fn half_words(v: vec4<f32>) -> vec2<u32> {
    let h = half_bits(v);
    return h.xz | (h.yw << vec2<u32>(16u));
}

// The values of halves, given as the low 16 bits. Without unpack2x16float, which not every device has.
fn half_values(h: vec4<u32>) -> vec4<f32> {
    let a = h & vec4<u32>(0x7fffu);
    let normal = (a << vec4<u32>(13u)) + 0x38000000u;
    let small = bitcast<vec4<u32>>(vec4<f32>(a) * 5.9604645e-08);
    let finite = select(normal, small, a < vec4<u32>(0x400u));
    let all = select(finite, (a << vec4<u32>(13u)) | vec4<u32>(0x7f800000u), a >= vec4<u32>(0x7c00u));
    return bitcast<vec4<f32>>(all | ((h & vec4<u32>(0x8000u)) << vec4<u32>(16u)));
}

fn half_from4(w: vec2<u32>) -> vec4<f32> {
    return half_values(vec4<u32>(w.x & 0xffffu, w.x >> 16u, w.y & 0xffffu, w.y >> 16u));
}

// Element i, which lies in word w.
fn half_from(w: u32, i: u32) -> f32 {
    return half_values(vec4<u32>((w >> ((i & 1u) * 16u)) & 0xffffu)).x;
}

// The nearest halves as f32s.
fn half_of4(v: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(v);
    let a = bits & vec4<u32>(0x7fffffffu);
    let normal = (a + 0xfffu + ((a >> vec4<u32>(13u)) & vec4<u32>(1u))) & vec4<u32>(0xffffe000u);
    let steps = bitcast<vec4<u32>>(bitcast<vec4<f32>>(a) + 0.5) - 0x3f000000u;
    let small = bitcast<vec4<u32>>(vec4<f32>(steps) * 5.9604645e-08);
    let half = select(normal, small, a < vec4<u32>(0x38800000u));
    let finite = select(half, vec4<u32>(0x7f800000u), a >= vec4<u32>(0x477ff000u));
    let all = select(finite, a, a > vec4<u32>(0x7f800000u));
    return bitcast<vec4<f32>>(all | (bits & vec4<u32>(0x80000000u)));
}

fn half_of(v: f32) -> f32 {
    return half_of4(vec4<f32>(v)).x;
}
