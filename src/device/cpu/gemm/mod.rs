//! Matrix products of the fast CPU path: blocks of the result in registers, operands laid out for them, and the cut of products into tasks.
//!
//! The sum of an element runs over its terms in order, in blocks of [`BLOCK`] whose sums are added in order. So it is the same bits whatever part of a product
//! is computed with it, by whichever thread.

mod pack;
mod tile;

pub use pack::pack_right;

use super::Threads;
use super::scratch::with_scratch;
use super::threads::Shared;
use pack::pack_left;
use tile::{MOST_COLS, MOST_ROWS, Sum, Tiles, tiles};

/// Terms of one chain of sums: a panel of the right operand of this length stays in the nearest caches.
pub const BLOCK: usize = 256;
/// Rows of the left operand that are laid out at once.
const ROWS: usize = 256;

/// The blocks that `n` terms are cut into, as even as can be: first term and number.
pub fn blocks(n: usize) -> impl Iterator<Item = (usize, usize)> {
    let each = n.div_ceil(n.div_ceil(BLOCK).max(1)).max(1);
    (0..n).step_by(each).map(move |first| (first, each.min(n - first)))
}

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
        // Wider than any product of two sizes.
        let far = |n: usize, step: isize| (n as i128 - 1) * step as i128;
        let (i, j) = (far(rows, self.row), far(cols, self.col));
        let low = self.offset as i128 + i.min(0) + j.min(0);
        let high = self.offset as i128 + i.max(0) + j.max(0);
        low >= 0 && high < self.data.len() as i128
    }
}

/// Columns that are summed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panel {
    /// The first column.
    pub first: usize,
    /// How many there are.
    pub cols: usize,
    /// As laid out: one or two vectors, zeros behind the columns.
    pub width: usize,
}

/// The panels of `n` columns. Laid out one after the other they take [`panels_width`] elements a term, and each begins `first` times the number of terms from
/// the start.
pub fn panels(n: usize) -> impl Iterator<Item = Panel> {
    panels_by(n, tiles().lanes)
}

fn panels_by(n: usize, lanes: usize) -> impl Iterator<Item = Panel> {
    (0..n).step_by(2 * lanes).map(move |first| {
        let cols = (2 * lanes).min(n - first);
        Panel { first, cols, width: cols.next_multiple_of(lanes) }
    })
}

/// Elements a term of `n` columns laid out in panels.
pub fn panels_width(n: usize) -> usize {
    n.next_multiple_of(tiles().lanes)
}

/// The left operand of [`product`]: rows that begin anywhere in a slice, each `runs` runs of `depth` terms.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Where each row begins.
    pub starts: &'a Places,
    /// From one term to the next.
    pub step: usize,
    /// From one run to the next.
    pub run: usize,
    /// How many runs there are.
    pub runs: usize,
    /// Terms of a run.
    pub depth: usize,
}

/// The right operand of [`product`]: a row of the panel's width for each term.
#[derive(Clone, Copy, Debug)]
pub enum Terms<'a> {
    /// Laid out, one after the other.
    Packed(&'a [f32]),
    /// Anywhere in a slice: where `places` say, counted from `first`. What lies behind the columns is read and comes to nothing. The left operand has one run.
    Found {
        /// The elements.
        data: &'a [f32],
        /// Where a row begins whose place is 0.
        first: usize,
        /// A place for each term.
        places: &'a Places,
        /// The first term's.
        from: usize,
    },
}

/// Places in a slice, and the last of them.
#[derive(Clone, Debug)]
pub struct Places {
    at: Vec<usize>,
    last: usize,
}

impl FromIterator<usize> for Places {
    fn from_iter<I: IntoIterator<Item = usize>>(places: I) -> Places {
        let at: Vec<usize> = places.into_iter().collect();
        Places { last: at.iter().copied().max().unwrap_or(0), at }
    }
}

impl std::ops::Deref for Places {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.at
    }
}

/// `c = a b`, or with `add` `c += a b`, for one panel of `b`; rows of `c` begin `c_row` elements apart.
///
/// # Panics
/// Where an element lies outside its slice, or rows of `c` overlap.
pub fn product(a: Rows<'_>, b: Terms<'_>, panel: Panel, c: &mut [f32], c_row: usize, add: bool) {
    let Rows { data, starts, step, run, runs, depth } = a;
    if starts.is_empty() {
        return;
    }
    assert!(behind(starts.len(), c_row, panel.cols) <= c.len() as u128 && panel.cols <= c_row, "gemm: the result does not fit");
    let reach = starts.last as u128 + behind(runs, run, 0) + behind(depth, step, 1);
    let (right, at, fits) = match b {
        Terms::Packed(b) => (b, std::ptr::null(), behind(runs.saturating_mul(depth), panel.width, panel.width) <= b.len() as u128),
        Terms::Found { data, first, places, from } => {
            let right = data.get(first..).unwrap_or_default();
            let at = places.get(from..).unwrap_or_default();
            (right, at.as_ptr(), runs == 1 && depth <= at.len() && behind(2, places.last, panel.width) <= right.len() as u128)
        }
    };
    assert!(reach <= data.len() as u128 && fits, "gemm: an operand does not fit");
    let vectors = panel.width / tiles().lanes;
    assert!(panel.cols <= panel.width && vectors * tiles().lanes == panel.width && (1..=2).contains(&vectors), "gemm: no panel: {panel:?}");
    let sum = Sum { a: [data.as_ptr(); MOST_ROWS], step, run, runs, depth, b: right.as_ptr(), b_row: panel.width, at, c: c.as_mut_ptr(), c_row, add };
    // SAFETY: the assertions above hold every element of a, b and c inside its slice; c is borrowed alone.
    unsafe { strip(tiles(), sum, starts.len(), panel, |i| data.as_ptr().add(starts[i])) }
}

/// What the last of `n` rows that are `step` apart reaches, with `width` elements; more than any sum of sizes is no overflow here.
fn behind(n: usize, step: usize, width: usize) -> u128 {
    n.saturating_sub(1) as u128 * step as u128 + width as u128
}

/// All blocks of rows of one panel; `sum` says what they have in common.
///
/// # Safety
/// As the tiles: all that the rows `0..m` read at `row(i)` and write at `i` rows below `sum.c`, in `panel.cols` columns, may be read and written; and of the
/// right operand `panel.width` elements a term may be read.
unsafe fn strip(tiles: &Tiles, sum: Sum, m: usize, panel: Panel, row: impl Fn(usize) -> *const f32) {
    let (vectors, narrow) = (panel.width / tiles.lanes, panel.cols < panel.width);
    let each = m.div_ceil(m.div_ceil(tiles.rows).max(1)).max(1);
    for i in (0..m).step_by(each) {
        let rows = each.min(m - i);
        let tile = tiles.get(rows, vectors, !sum.at.is_null());
        let mut block = sum;
        (0..rows).for_each(|r| block.a[r] = row(i + r));
        // SAFETY: the caller's promise.
        unsafe {
            block.c = sum.c.add(i * sum.c_row);
            if narrow { aside(tile, block, rows, panel) } else { tile(&block) }
        }
    }
}

/// A block that is wider than the result's part: computed where the largest block fits.
///
/// # Safety
/// As [`strip`], for the rows of one block.
unsafe fn aside(tile: tile::Tile, block: Sum, rows: usize, panel: Panel) {
    let mut wide = [0f32; MOST_ROWS * MOST_COLS];
    // SAFETY: the caller's promise.
    unsafe { tile(&Sum { c: wide.as_mut_ptr(), c_row: panel.width, add: false, ..block }) };
    for (r, from) in wide.chunks_exact(panel.width).take(rows).enumerate() {
        // SAFETY: the caller's promise: rows of the result do not overlap, and this is the only reference to this one.
        let to = unsafe { std::slice::from_raw_parts_mut(block.c.add(r * block.c_row), panel.cols) };
        if block.add { to.iter_mut().zip(from).for_each(|(t, f)| *t += f) } else { to.copy_from_slice(&from[..panel.cols]) }
    }
}

/// `c = a b`, or with `add` `c += a b`, for a `[m, k]`, b `[k, n]` and c `[m, n]`, whose rows begin `c_row` elements apart.
///
/// # Panics
/// Where an element lies outside its slice, or rows of `c` overlap.
#[expect(clippy::too_many_arguments, reason = "BLAS's argument list is what its readers know")]
pub fn gemm(m: usize, k: usize, n: usize, a: Mat<'_>, b: Mat<'_>, add: bool, c: &mut [f32], c_row: usize) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(c_row >= n && behind(m, c_row, n) <= c.len() as u128, "gemm: the result does not fit");
    if k == 0 {
        if !add {
            (0..m).for_each(|i| c[i * c_row..i * c_row + n].fill(0.0));
        }
        return;
    }
    assert!(a.holds(m, k) && b.holds(k, n), "gemm: an operand does not fit");
    // SAFETY: the assertions above hold every element of the operands and the result inside its slice; rows of c do not overlap, and c is borrowed alone.
    unsafe { multiply(tiles(), [m, k, n], a, b, add, c.as_mut_ptr(), c_row) }
}

/// # Safety
/// Every element of the three matrices lies in its slice (a, b) or in memory that this thread alone may write (c).
unsafe fn multiply(tiles: &Tiles, [m, k, n]: [usize; 3], a: Mat<'_>, b: Mat<'_>, add: bool, c: *mut f32, c_row: usize) {
    // Rows a large power of two apart fall on each other in the caches, and so do many terms, which are read a line each.
    let in_place = (a.col == 1 && a.row >= 0 && (a.row % 512 != 0 || n <= 4 * MOST_COLS)) || (a.row == 1 && a.col >= 0 && (k <= 128 || n <= 4 * MOST_COLS));
    let lay_out_left = !in_place;
    // What is read once is not worth laying out.
    let read_right = m <= tiles.rows && b.col == 1 && b.row >= 0;
    let (of_left, of_right) = (if lay_out_left { ROWS.min(m) * BLOCK } else { 0 }, MOST_COLS * BLOCK);
    with_scratch(of_left + of_right, |scratch| {
        let (left, right) = scratch.split_at_mut(of_left);
        for i in (0..m).step_by(ROWS) {
            let rows = ROWS.min(m - i);
            for (p, depth) in blocks(k) {
                let part = a.at(i, p);
                let each = rows.div_ceil(rows.div_ceil(tiles.rows));
                if lay_out_left {
                    for r in (0..rows).step_by(each) {
                        let count = each.min(rows - r);
                        pack_left(part.at(r, 0), count, depth, &mut left[r * depth..]);
                    }
                }
                for panel in panels_by(n, tiles.lanes) {
                    let columns = b.at(p, panel.first);
                    let (from, b_row) = if read_right && panel.cols == panel.width {
                        (columns.data[columns.offset..].as_ptr(), b.row as usize)
                    } else {
                        pack_right(columns, depth, panel.cols, panel.width, right);
                        (right.as_ptr(), panel.width)
                    };
                    // SAFETY: the caller's promise; the block of c begins inside it.
                    unsafe {
                        let to = c.add(i * c_row + panel.first);
                        let nowhere = [a.data.as_ptr(); MOST_ROWS];
                        let mut sum = Sum {
                            a: nowhere,
                            step: a.col.max(0) as usize,
                            run: 0,
                            runs: 1,
                            depth,
                            b: from,
                            b_row,
                            at: std::ptr::null(),
                            c: to,
                            c_row,
                            add: add || p > 0,
                        };
                        if !lay_out_left {
                            strip(tiles, sum, rows, panel, |r| part.data.as_ptr().add(part.offset + r * part.row as usize));
                            continue;
                        }
                        for r in (0..rows).step_by(each) {
                            sum.step = each.min(rows - r);
                            sum.c = to.add(r * c_row);
                            strip(tiles, sum, sum.step, panel, |row| left.as_ptr().add(r * depth + row));
                        }
                    }
                }
            }
        }
    });
}

/// Multiplications of one task: about 20 microseconds, well above what handing it to a thread costs.
const TASK: usize = 1 << 20;

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
    if work < 2 * TASK {
        // Whole products, several to a task.
        let each = (TASK / work).max(1);
        let run = |first: usize, part: &mut [f32]| {
            let of_part = &batch[first / (m * n)..];
            for (c, &(oa, ob)) in part.chunks_mut(m * n).zip(of_part) {
                gemm(m, k, n, Mat { offset: oa, ..a }, Mat { offset: ob, ..b }, false, c, n);
            }
        };
        return threads.chunks(out, each * m * n, run);
    }
    // Blocks of one product: across the columns first, because each task lays out its part of the right operand.
    let pieces = (work / TASK).min(64);
    let block_n = n.div_ceil(pieces.min(n.div_ceil(MOST_COLS))).next_multiple_of(MOST_COLS);
    let over_n = n.div_ceil(block_n);
    let block_m = m.div_ceil((pieces / over_n).max(1)).next_multiple_of(MOST_ROWS).max(2 * MOST_ROWS);
    let over_m = m.div_ceil(block_m);
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
        unsafe { multiply(tiles(), [rows, k, cols], a, b, false, result.at(z * m * n + i * n + j), n) }
    });
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Numbers from -1 to 1, for tests of what multiplies.
    pub(crate) fn values(n: usize, seed: u32) -> Vec<f32> {
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
                gemm(m, k, n, Mat { offset: oa, ..av }, Mat { offset: ob, ..bv }, false, &mut want[z * m * n..], n);
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
    fn every_set_of_loops_sums_the_same() {
        // Sizes on both sides of blocks, panels and chains; operands that lie each way, and one that is laid out for its rows' distance.
        for (m, k, n) in [(1, 1, 1), (1, 300, 37), (5, 9, 3), (8, 257, 32), (13, 40, 47), (20, 600, 16), (300, 12, 70), (9, 512, 140)] {
            let (a, b, old) = (values(m * k, 3), values(k * n, 4), values(m * n, 5));
            let exact = |i: usize, j: usize| (0..k).map(|p| a[i * k + p] as f64 * b[p * n + j] as f64).sum::<f64>();
            let turned = |from: &[f32], rows: usize, cols: usize| (0..rows * cols).map(|e| from[e % rows * cols + e / rows]).collect::<Vec<f32>>();
            let (at, bt) = (turned(&a, m, k), turned(&b, k, n));
            for tiles in tile::all() {
                let mut before: Option<Vec<f32>> = None;
                for (left, right) in [(Mat::rows(&a, k), Mat::rows(&b, n)), (Mat::rows(&at, m).t(), Mat::rows(&bt, k).t())] {
                    for add in [false, true] {
                        let mut c = old.clone();
                        // SAFETY: the operands and the result have these sizes.
                        unsafe { multiply(tiles, [m, k, n], left, right, add, c.as_mut_ptr(), n) };
                        for (e, &c) in c.iter().enumerate() {
                            let want = exact(e / n, e % n) + if add { f64::from(old[e]) } else { 0.0 };
                            assert!((f64::from(c) - want).abs() < 1e-6 * (4.0 + 2.0 * (k as f64).sqrt()), "{m} {k} {n}: {c} is not {want}");
                        }
                        if !add {
                            assert!(before.replace(c.clone()).is_none_or(|b| b == c), "{m} {k} {n}: bits depend on how the operands lie");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn products_take_rows_from_anywhere() {
        let (rows, depth, runs, n) = (11, 5, 3, tiles().lanes + 3);
        let (a, b) = (values(400, 6), values(200 + 40, 7));
        let starts: Places = (0..rows).map(|i| i * 7 % 40).collect();
        let panel = panels(n).next().unwrap();
        let left = Rows { data: &a, starts: &starts, step: 2, run: 90, runs, depth };
        let packed = values(runs * depth * panel.width, 8);
        let mut c = vec![1f32; rows * n];
        product(left, Terms::Packed(&packed), Panel { cols: panel.cols.min(n), ..panel }, &mut c, n, true);
        let places: Places = (0..depth + 1).map(|p| p * 31 % 100).collect();
        let mut d = vec![f32::NAN; rows * n];
        let found = Terms::Found { data: &b, first: 10, places: &places, from: 1 };
        product(Rows { runs: 1, ..left }, found, panel, &mut d, n, false);
        for i in 0..rows {
            for j in 0..panel.cols.min(n) {
                let x = |r: usize, p: usize| f64::from(a[starts[i] + r * 90 + p * 2]);
                let want: f64 = 1.0 + (0..runs * depth).map(|t| x(t / depth, t % depth) * f64::from(packed[t * panel.width + j])).sum::<f64>();
                assert!((f64::from(c[i * n + j]) - want).abs() < 1e-5);
                let want: f64 = (0..depth).map(|p| x(0, p) * f64::from(b[10 + places[p + 1] + j])).sum();
                assert!((f64::from(d[i * n + j]) - want).abs() < 1e-5);
            }
        }
    }

    // A place outside of the data is a mistake of the caller's, which must not become a read outside of it.
    #[test]
    #[should_panic(expected = "an operand does not fit")]
    fn places_behind_the_data_are_refused() {
        let places: Places = [0, 65].into_iter().collect();
        let starts: Places = [0].into_iter().collect();
        let panel = panels(1).next().unwrap();
        let left = Rows { data: &[1.0; 2], starts: &starts, step: 1, run: 0, runs: 1, depth: 2 };
        product(left, Terms::Found { data: &[0.0; 64 + 1], first: 0, places: &places, from: 0 }, panel, &mut [0.0], 1, false);
    }

    #[test]
    fn an_empty_sum_is_zero() {
        let mut c = [1f32; 6];
        gemm_batch(&Threads::new(1).unwrap(), &[(0, 0)], 2, 0, 3, Mat::rows(&[], 0), Mat::rows(&[], 3), &mut c);
        assert_eq!(c, [0.0; 6]);
    }
}
