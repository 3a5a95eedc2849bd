// a = a x + y over and over on registers, in 8 independent chains an invocation; y gets the sum of the chains. With x = 0.5 and y = 1 it is 16, exactly.
// u[0]: rounds of 4 steps a chain, x, y, where the first sum goes
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    let x = bitcast<f32>(u[0].y);
    let c = bitcast<f32>(u[0].z);
    var a0 = f32(gid.x & 7u);
    var a1 = a0 + 0.25;
    var a2 = a0 + 0.5;
    var a3 = a0 + 0.75;
    var a4 = a0 + 1.0;
    var a5 = a0 + 1.25;
    var a6 = a0 + 1.5;
    var a7 = a0 + 1.75;
    for (var i = 0u; i < u[0].x; i += 1u) {
        a0 = fma(a0, x, c); a1 = fma(a1, x, c); a2 = fma(a2, x, c); a3 = fma(a3, x, c);
        a4 = fma(a4, x, c); a5 = fma(a5, x, c); a6 = fma(a6, x, c); a7 = fma(a7, x, c);
        a0 = fma(a0, x, c); a1 = fma(a1, x, c); a2 = fma(a2, x, c); a3 = fma(a3, x, c);
        a4 = fma(a4, x, c); a5 = fma(a5, x, c); a6 = fma(a6, x, c); a7 = fma(a7, x, c);
        a0 = fma(a0, x, c); a1 = fma(a1, x, c); a2 = fma(a2, x, c); a3 = fma(a3, x, c);
        a4 = fma(a4, x, c); a5 = fma(a5, x, c); a6 = fma(a6, x, c); a7 = fma(a7, x, c);
        a0 = fma(a0, x, c); a1 = fma(a1, x, c); a2 = fma(a2, x, c); a3 = fma(a3, x, c);
        a4 = fma(a4, x, c); a5 = fma(a5, x, c); a6 = fma(a6, x, c); a7 = fma(a7, x, c);
    }
    y[u[0].w + gid.x] = ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7));
}
