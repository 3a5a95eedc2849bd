//! Operands laid out as the innermost loop reads them.

use super::Mat;

/// Terms `0..depth` of columns `0..cols` of `b`, a row of `width` elements a term, zeros behind the columns.
///
/// # Panics
/// Where an element lies outside its slice.
pub fn pack_right(b: Mat<'_>, depth: usize, cols: usize, width: usize, to: &mut [f32]) {
    assert!(cols <= width && depth * width <= to.len() && b.holds(depth, cols), "gemm: an operand does not fit");
    let to = &mut to[..depth * width];
    if b.col == 1 && b.row >= 0 {
        let (from, row) = (&b.data[b.offset..], b.row as usize);
        match (cols, width) {
            (32, 32) => copy_rows::<32>(from, row, to),
            (16, 16) => copy_rows::<16>(from, row, to),
            (8, 8) => copy_rows::<8>(from, row, to),
            (6, 6) => copy_rows::<6>(from, row, to),
            (4, 4) => copy_rows::<4>(from, row, to),
            _ => {
                for (p, to) in to.chunks_exact_mut(width).enumerate() {
                    to[..cols].copy_from_slice(&from[p * row..][..cols]);
                    to[cols..].fill(0.0);
                }
            }
        }
        return;
    }
    if cols < width {
        to.chunks_exact_mut(width).for_each(|to| to[cols..].fill(0.0));
    }
    transpose(b.t(), cols, depth, to, width);
}

/// Rows of a width that the compiler knows.
fn copy_rows<const W: usize>(from: &[f32], row: usize, to: &mut [f32]) {
    for (p, to) in to.as_chunks_mut::<W>().0.iter_mut().enumerate() {
        let from = &from[p * row..][..W];
        to.copy_from_slice(from);
    }
}

/// Terms `0..depth` of rows `0..rows` of `a`, `rows` neighbouring elements a term.
///
/// # Panics
/// As [`pack_right`].
pub(super) fn pack_left(a: Mat<'_>, rows: usize, depth: usize, to: &mut [f32]) {
    pack_right(a.t(), depth, rows, rows, to);
}

/// `to[j][i] = from[i][j]`, rows of `to` being `to_row` elements apart; some of what lies between them may be set to zero.
///
/// # Panics
/// As [`pack_right`].
fn transpose(from: Mat<'_>, rows: usize, cols: usize, to: &mut [f32], to_row: usize) {
    if rows == 0 || cols == 0 {
        return;
    }
    assert!(from.holds(rows, cols) && rows <= to_row && (cols - 1) * to_row + rows <= to.len(), "gemm: an operand does not fit");
    #[cfg(target_arch = "x86_64")]
    if from.col == 1 && from.row >= 0 && is_x86_feature_detected!("avx") {
        let (whole_rows, whole_cols) = (rows / 8 * 8, cols / 8 * 8);
        for j in (0..whole_cols).step_by(8) {
            for i in (0..whole_rows).step_by(8) {
                // SAFETY: the processor has AVX, and the eight by eight elements at [i, j] lie inside `from`, those at [j, i] inside `to`, as asserted.
                unsafe {
                    let source = from.data.as_ptr().add(from.offset + i * from.row as usize + j);
                    eight_by_eight(source, from.row as usize, to.as_mut_ptr().add(j * to_row + i), to_row);
                }
            }
        }
        // The last rows are eight, too, where there is place for zeros behind them.
        let tail = rows - whole_rows;
        let mut done = 0;
        if tail > 0 && to_row >= whole_rows + 8 && whole_cols > 0 && (whole_cols - 1) * to_row + whole_rows + 8 <= to.len() {
            let mut block = [0f32; 64];
            for j in (0..whole_cols).step_by(8) {
                for i in 0..tail {
                    block[i * 8..][..8].copy_from_slice(&from.data[from.offset + (whole_rows + i) * from.row as usize + j..][..8]);
                }
                // SAFETY: the processor has AVX; the block is eight by eight, and eight rows of `to` have place for eight elements from there on, as was asked.
                unsafe { eight_by_eight(block.as_ptr(), 8, to.as_mut_ptr().add(j * to_row + whole_rows), to_row) };
            }
            done = whole_cols;
        }
        singly(from, whole_rows..rows, done..cols, to, to_row);
        singly(from, 0..whole_rows, whole_cols..cols, to, to_row);
        return;
    }
    singly(from, 0..rows, 0..cols, to, to_row);
}

fn singly(from: Mat<'_>, rows: std::ops::Range<usize>, cols: std::ops::Range<usize>, to: &mut [f32], to_row: usize) {
    // Blocks, so that lines of both sides stay in the first cache level.
    for first in cols.clone().step_by(16) {
        for i in rows.clone() {
            let base = from.offset as isize + i as isize * from.row;
            for j in first..(first + 16).min(cols.end) {
                to[j * to_row + i] = from.data[(base + j as isize * from.col) as usize];
            }
        }
    }
}

/// # Safety
/// The processor has AVX; eight rows of eight elements may be read at `from` and written at `to`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn eight_by_eight(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
    use std::arch::x86_64::*;
    // SAFETY: the caller's promise.
    let r: [__m256; 8] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(from.add(i * from_row)) });
    // Pairs of rows by element, then fours, then the halves.
    let low: [__m256; 4] = std::array::from_fn(|i| _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]));
    let high: [__m256; 4] = std::array::from_fn(|i| _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]));
    let four = |a: __m256, b: __m256| (_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xee>(a, b));
    let ((a0, a1), (a2, a3)) = (four(low[0], low[1]), four(high[0], high[1]));
    let ((b0, b1), (b2, b3)) = (four(low[2], low[3]), four(high[2], high[3]));
    for (k, (a, b)) in [(a0, b0), (a1, b1), (a2, b2), (a3, b3)].into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_ps(to.add(k * to_row), _mm256_permute2f128_ps::<0x20>(a, b));
            _mm256_storeu_ps(to.add((k + 4) * to_row), _mm256_permute2f128_ps::<0x31>(a, b));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_laid_out_is_what_was_there() {
        let data: Vec<f32> = (0..40 * 50).map(|i| i as f32).collect();
        for (depth, cols, width) in [(1, 1, 4), (8, 8, 8), (17, 16, 16), (23, 19, 32), (40, 32, 32), (9, 6, 6)] {
            for b in [Mat::rows(&data, 50), Mat::rows(&data, 40).t(), Mat { data: &data, offset: 1999, row: -40, col: -1 }] {
                let mut to = vec![f32::NAN; depth * width];
                pack_right(b, depth, cols, width, &mut to);
                for (e, v) in to.iter().enumerate() {
                    let (p, j) = (e / width, e % width);
                    let at = b.offset as isize + p as isize * b.row + j as isize * b.col;
                    assert_eq!(*v, if j < cols { data[at as usize] } else { 0.0 });
                }
            }
        }
    }
}
