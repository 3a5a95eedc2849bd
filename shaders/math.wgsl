// What WGSL leaves loose, made exact enough: each function states its error in ulp against the real function, on normal floats.

const F32_MAX: f32 = 3.40282347e38;

fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}
