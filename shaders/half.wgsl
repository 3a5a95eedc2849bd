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

fn half_from4(w: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));
}

// Element i, which lies in word w.
fn half_from(w: u32, i: u32) -> f32 {
    let pair = unpack2x16float(w);
    return select(pair.x, pair.y, (i & 1u) == 1u);
}

// The nearest halves as f32s.
fn half_of4(v: vec4<f32>) -> vec4<f32> {
    return half_from4(half_words(v));
}

fn half_of(v: f32) -> f32 {
    return half_of4(vec4<f32>(v, 0.0, 0.0, 0.0)).x;
}
