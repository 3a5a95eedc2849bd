// How kernels of products store a result. The kernel has the type Stored and the hook `epilogue`; where it says FOURS, only put4 is called.

// Store one element, or four neighbours, of which only one is called (FOURS).
fn put(i: u32, v: f32) {
    epilogue(i, v);
}

fn put4(i: u32, v: vec4<f32>) {
    put(i, v.x);
    put(i + 1u, v.y);
    put(i + 2u, v.z);
    put(i + 3u, v.w);
}
