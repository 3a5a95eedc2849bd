// How matrix products in workgroup memory store their results. The kernel has the words of matmul_tiles, `first`, where the result of a workgroup begins, and FOURS.

// Four columns of a row of the result.
fn store(row: u32, col: u32, values: vec4<f32>) {
    if row >= u[0].x || col >= u[0].y {
        return;
    }
    let i = first + row * u[0].y + col;
    if FOURS {
        put4(i, values);
        return;
    }
    var v = values;
    for (var c = 0u; c < 4u; c++) {
        if col + c < u[0].y {
            put(i + c, v[c]);
        }
    }
}
