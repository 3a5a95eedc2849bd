//! Matrix products of the fast CPU path: matrixmultiply behind a safe door, and the cut of a batch of products into tasks.

use super::Threads;

/// A matrix to read, at any strides over a slice: element `[i, j]` is `data[offset + i * row + j * col]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Where element `[0, 0]` lies.
    pub offset: usize,
    /// From one row to the next.
    pub row: isize,
    /// From one column to the next.
    pub col: isize,
}

impl<'a> Mat<'a> {
    /// Rows of `width` elements, one after the other.
    pub fn rows(data: &'a [f32], width: usize) -> Mat<'a> {
        Mat { data, offset: 0, row: width as isize, col: 1 }
    }

    /// The same elements, rows and columns exchanged.
    pub fn t(self) -> Mat<'a> {
        Mat { row: self.col, col: self.row, ..self }
    }

    /// The part that begins at element `[i, j]`.
    fn at(self, i: usize, j: usize) -> Mat<'a> {
        Mat { offset: (self.offset as isize + i as isize * self.row + j as isize * self.col) as usize, ..self }
    }

    /// Whether all of `rows` x `cols` elements lie in the slice.
    fn holds(&self, rows: usize, cols: usize) -> bool {
        let (i, j) = ((rows as isize - 1) * self.row, (cols as isize - 1) * self.col);
        let low = self.offset as isize + i.min(0) + j.min(0);
        let high = self.offset as isize + i.max(0) + j.max(0);
        low >= 0 && (high as usize) < self.data.len()
    }
}

/// `c = a b + beta c` for a `[m, k]`, b `[k, n]` and c `[m, n]`, whose rows begin `c_row` elements apart. The sum over k runs in order, in blocks,
/// and is the same for an element whatever part of the product is computed with it.
///
/// # Panics
/// Where an element lies outside its slice, or rows of `c` overlap.
#[expect(clippy::too_many_arguments, reason = "BLAS's argument list is what its readers know")]
pub fn gemm(m: usize, k: usize, n: usize, a: Mat<'_>, b: Mat<'_>, beta: f32, c: &mut [f32], c_row: usize) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(c_row >= n && (m - 1) * c_row + n <= c.len(), "gemm: the result does not fit");
    if k == 0 {
        if beta == 0.0 {
            (0..m).for_each(|i| c[i * c_row..i * c_row + n].fill(0.0));
        }
        return;
    }
    assert!(a.holds(m, k) && b.holds(k, n), "gemm: an operand does not fit");
    // SAFETY: the assertions above hold every element that sgemm touches inside its slice; rows of c do not overlap, and c is borrowed alone.
    unsafe { sgemm(m, k, n, a, b, beta, c.as_mut_ptr(), c_row) }
}

/// # Safety
/// Every element of the three matrices lies in memory that may be read (a, b) or written by this thread alone (c).
#[expect(clippy::too_many_arguments, reason = "as gemm")]
unsafe fn sgemm(m: usize, k: usize, n: usize, a: Mat<'_>, b: Mat<'_>, beta: f32, c: *mut f32, c_row: usize) {
    // SAFETY: the caller's promise; offsets lie inside the slices.
    unsafe {
        let (pa, pb) = (a.data.as_ptr().add(a.offset), b.data.as_ptr().add(b.offset));
        matrixmultiply::sgemm(m, k, n, 1.0, pa, a.row, a.col, pb, b.row, b.col, beta, c, c_row as isize, 1);
    }
}

/// Multiplications of one task: about 50 microseconds, well above what waking a thread costs.
const TASK: usize = 1 << 21;

/// `out[z] = a[z] b[z]` for every pair of offsets `z` in `batch` (which replace those of `a` and `b`), `out` being `[batch, m, n]`.
/// Cut into tasks by shape only; the cut changes no bits.
///
/// # Panics
/// As [`gemm`].
#[expect(clippy::too_many_arguments, reason = "as gemm")]
pub fn gemm_batch(threads: &Threads, batch: &[(usize, usize)], m: usize, k: usize, n: usize, a: Mat<'_>, b: Mat<'_>, out: &mut [f32]) {
    assert_eq!(out.len(), batch.len() * m * n, "gemm: the result does not fit");
    if out.is_empty() {
        return;
    }
    let work = m * n * k.max(1);
    if work < TASK {
        // Whole products, several to a task.
        let each = (TASK / work).max(1);
        let run = |first: usize, part: &mut [f32]| {
            let of_part = &batch[first / (m * n)..];
            for (c, &(oa, ob)) in part.chunks_mut(m * n).zip(of_part) {
                gemm(m, k, n, Mat { offset: oa, ..a }, Mat { offset: ob, ..b }, 0.0, c, n);
            }
        };
        return threads.chunks(out, each * m * n, run);
    }
    // Blocks of one product, across its longer side first.
    let pieces = (work / TASK).next_power_of_two().min(64);
    let side = |length: usize, pieces: usize| length.div_ceil(pieces.max(1)).next_multiple_of(16).max(32).min(length);
    let (block_m, block_n) = if m >= n {
        let rows = side(m, pieces.min(8));
        (rows, side(n, pieces / m.div_ceil(rows)))
    } else {
        let cols = side(n, pieces.min(8));
        (side(m, pieces / n.div_ceil(cols)), cols)
    };
    let (over_m, over_n) = (m.div_ceil(block_m), n.div_ceil(block_n));
    for &(oa, ob) in batch {
        assert!(k == 0 || (Mat { offset: oa, ..a }.holds(m, k) && Mat { offset: ob, ..b }.holds(k, n)), "gemm: an operand does not fit");
    }
    if k == 0 {
        return out.fill(0.0);
    }
    let result = Shared(out.as_mut_ptr());
    threads.each(batch.len() * over_m * over_n, |task| {
        let (z, rest) = (task / (over_m * over_n), task % (over_m * over_n));
        let (i, j) = (rest / over_n * block_m, rest % over_n * block_n);
        let (rows, cols) = (block_m.min(m - i), block_n.min(n - j));
        let (a, b) = (Mat { offset: batch[z].0, ..a }.at(i, 0), Mat { offset: batch[z].1, ..b }.at(0, j));
        // SAFETY: operands were checked whole above; the block [rows, cols] at [z, i, j] lies inside `out`, and no two tasks have a block in common.
        unsafe { sgemm(rows, k, cols, a, b, 0.0, result.at(z * m * n + i * n + j), n) }
    });
}

/// The result that tasks write disjoint blocks of.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

impl Shared {
    /// # Safety
    /// `offset` lies inside the result.
    unsafe fn at(&self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

// SAFETY: the pointer is used for writes to disjoint blocks only, while the one borrow of the result is held by gemm_batch.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed;
        (0..n)
            .map(|_| {
                s = s.wrapping_mul(1664525).wrapping_add(1013904223);
                (s >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn blocks_have_the_bits_of_the_whole() {
        // Sizes on both sides of the cut, transposed operands, and a batch that reads one b twice.
        for (m, k, n) in [(3, 5, 7), (130, 257, 129), (40, 70, 1100), (1100, 33, 70), (1, 9000, 300)] {
            let (a, b) = (values(2 * m * k, 1), values(k * n, 2));
            let (av, bv) = (Mat { data: &a, offset: 0, row: 1, col: m as isize }, Mat { data: &b, offset: 0, row: n as isize, col: 1 });
            let batch = [(0, 0), (m * k, 0)];
            let mut want = vec![0f32; 2 * m * n];
            for (z, &(oa, ob)) in batch.iter().enumerate() {
                gemm(m, k, n, Mat { offset: oa, ..av }, Mat { offset: ob, ..bv }, 0.0, &mut want[z * m * n..], n);
            }
            for count in [1, 2, 3] {
                let mut got = vec![f32::NAN; 2 * m * n];
                gemm_batch(&Threads::new(count).unwrap(), &batch, m, k, n, av, bv, &mut got);
                assert!(got == want, "{m} {k} {n} on {count} threads");
            }
            let exact = |z: usize, i: usize, j: usize| (0..k).map(|p| a[z * m * k + p * m + i] as f64 * b[p * n + j] as f64).sum::<f64>();
            let worst = (0..2 * m * n).map(|e| (want[e] as f64 - exact(e / (m * n), e / n % m, e % n)).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-6 * (k as f64).sqrt() * 4.0, "{m} {k} {n}: {worst}");
        }
    }

    #[test]
    fn an_empty_sum_is_zero() {
        let mut c = [1f32; 6];
        gemm_batch(&Threads::new(1).unwrap(), &[(0, 0)], 2, 0, 3, Mat::rows(&[], 0), Mat::rows(&[], 3), &mut c);
        assert_eq!(c, [0.0; 6]);
    }
}
