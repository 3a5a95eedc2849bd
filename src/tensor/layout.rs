//! Strided layouts: how a view lies over the buffer of the value it looks at.

use super::shape::{MAX_RANK, Shape};

/// Shape, strides and offset of a view, in elements of its base buffer. Strides may be 0 (expand) or negative (flip).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The size of each dimension.
    pub shape: Shape,
    strides: [isize; MAX_RANK],
    /// Where element `[0, 0, ...]` lies.
    pub offset: usize,
}

impl Layout {
    /// Row-major, from the start of the buffer.
    pub fn contiguous(shape: Shape) -> Self {
        Layout { shape, strides: shape.strides(), offset: 0 }
    }

    /// The layout with these parts; `strides` has one entry a dimension.
    pub fn new(shape: Shape, strides: &[isize], offset: usize) -> Self {
        let mut s = [0; MAX_RANK];
        s[..shape.rank()].copy_from_slice(&strides[..shape.rank()]);
        Layout { shape, strides: s, offset }
    }

    /// The strides, one a dimension, in elements.
    pub fn strides(&self) -> &[isize] {
        &self.strides[..self.shape.rank()]
    }

    /// Whether the elements lie in row-major order without gaps (wherever they start).
    pub fn is_contiguous(&self) -> bool {
        let want = self.shape.strides();
        self.shape.numel() <= 1 || (0..self.shape.rank()).all(|d| self.shape[d] == 1 || self.strides[d] == want[d])
    }

    /// Whether these are all elements of a buffer of `numel`, in row-major order: then element i of the view is element i of the buffer, whatever the offset
    /// is yet to be.
    pub fn is_whole(&self, numel: usize) -> bool {
        self.is_contiguous() && self.shape.numel() == numel
    }

    /// The dimensions in the order `dims`.
    pub fn permute(&self, dims: &[usize]) -> Layout {
        let shape: Vec<usize> = dims.iter().map(|&d| self.shape[d]).collect();
        let strides: Vec<isize> = dims.iter().map(|&d| self.strides[d]).collect();
        Layout::new(Shape::new(&shape), &strides, self.offset)
    }

    /// Repeat dimensions of size 1 up to `shape`, which this one broadcasts to.
    pub fn expand(&self, shape: Shape) -> Layout {
        let lead = shape.rank() - self.shape.rank();
        let mut strides = [0isize; MAX_RANK];
        for d in 0..self.shape.rank() {
            if self.shape[d] == shape[d + lead] {
                strides[d + lead] = self.strides[d];
            }
        }
        Layout { shape, strides, offset: self.offset }
    }

    /// The window `start..start + length` of `dim`.
    pub fn narrow(&self, dim: usize, start: usize, length: usize) -> Layout {
        let mut l = *self;
        l.shape[dim] = length;
        l.offset = (l.offset as isize + start as isize * l.strides[dim]) as usize;
        l
    }

    /// The elements of `dim` in reverse order.
    pub fn flip(&self, dim: usize) -> Layout {
        let mut l = *self;
        if l.shape[dim] > 0 {
            l.offset = (l.offset as isize + (l.shape[dim] as isize - 1) * l.strides[dim]) as usize;
            l.strides[dim] = -l.strides[dim];
        }
        l
    }

    /// Every `step`-th element of `dim`.
    pub fn step(&self, dim: usize, step: usize) -> Layout {
        let mut l = *self;
        l.shape[dim] = l.shape[dim].div_ceil(step);
        l.strides[dim] *= step as isize;
        l
    }

    /// The same elements in another shape, where strides can say so; `None` where a copy is needed.
    pub fn reshape(&self, shape: Shape) -> Option<Layout> {
        debug_assert_eq!(shape.numel(), self.shape.numel());
        if self.is_contiguous() {
            return Some(Layout { shape, strides: shape.strides(), offset: self.offset });
        }
        // Walk both shapes from the back, matching runs of the old dimensions that lie evenly with runs of the new ones.
        let old: Vec<(usize, isize)> = (0..self.shape.rank()).filter(|&d| self.shape[d] != 1).map(|d| (self.shape[d], self.strides[d])).collect();
        let mut strides = [0isize; MAX_RANK];
        let (mut o, mut n) = (old.len(), shape.rank());
        while o > 0 {
            let (mut old_size, stride) = old[o - 1];
            o -= 1;
            let mut run = old_size as isize * stride;
            let mut new_size = 1usize;
            let mut step = stride;
            loop {
                while n > 0 && new_size < old_size {
                    n -= 1;
                    strides[n] = step;
                    step *= shape[n] as isize;
                    new_size *= shape[n];
                }
                if new_size == old_size {
                    break;
                }
                // The new run is longer: the next old dimension must continue this one evenly.
                if o == 0 || old[o - 1].1 != run {
                    return None;
                }
                o -= 1;
                old_size *= old[o].0;
                run *= old[o].0 as isize;
            }
        }
        Some(Layout { shape, strides, offset: self.offset })
    }

    /// Sizes and strides with the dimensions of size 1 dropped and those that lie evenly joined: the fewest loops that walk it.
    pub fn merged(&self) -> Vec<(usize, isize)> {
        let mut out: Vec<(usize, isize)> = Vec::with_capacity(self.shape.rank());
        for d in 0..self.shape.rank() {
            let (size, stride) = (self.shape[d], self.strides[d]);
            if size == 1 {
                continue;
            }
            match out.last_mut() {
                Some((s, t)) if *t == stride * size as isize => {
                    *s *= size;
                    *t = stride;
                }
                _ => out.push((size, stride)),
            }
        }
        out
    }

    /// Where each element lies in the buffer, in row-major order of the view.
    pub fn indices(&self) -> impl Iterator<Item = usize> + use<> {
        let layout = *self;
        let rank = layout.shape.rank();
        let mut index = [0usize; MAX_RANK];
        let mut at = layout.offset as isize;
        (0..layout.shape.numel()).map(move |_| {
            let here = at as usize;
            for d in (0..rank).rev() {
                index[d] += 1;
                at += layout.strides[d];
                if index[d] < layout.shape[d] {
                    break;
                }
                at -= layout.strides[d] * layout.shape[d] as isize;
                index[d] = 0;
            }
            here
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lay(shape: &[usize]) -> Layout {
        Layout::contiguous(Shape::new(shape))
    }

    #[test]
    fn indices_walk_a_transposed_window() {
        let l = lay(&[3, 4]).narrow(1, 1, 2).permute(&[1, 0]);
        assert_eq!(l.indices().collect::<Vec<_>>(), [1, 5, 9, 2, 6, 10]);
        assert_eq!(lay(&[3]).flip(0).indices().collect::<Vec<_>>(), [2, 1, 0]);
        assert_eq!(lay(&[0, 3]).indices().count(), 0);
        assert_eq!(lay(&[]).indices().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn reshape_keeps_views_where_strides_allow() {
        let t = lay(&[2, 3, 4]).permute(&[1, 0, 2]); // [3, 2, 4]
        assert!(t.reshape(Shape::new(&[6, 4])).is_none());
        let r = t.reshape(Shape::new(&[3, 2, 2, 2])).unwrap();
        assert_eq!(r.indices().collect::<Vec<_>>(), t.indices().collect::<Vec<_>>());
        let e = lay(&[4, 1]).expand(Shape::new(&[4, 6]));
        let r = e.reshape(Shape::new(&[2, 2, 3, 2])).unwrap();
        assert_eq!(r.indices().collect::<Vec<_>>(), e.indices().collect::<Vec<_>>());
        assert!(e.reshape(Shape::new(&[24])).is_none());
        let n = lay(&[4, 6]).narrow(1, 0, 4);
        let r = n.reshape(Shape::new(&[2, 2, 1, 4])).unwrap();
        assert_eq!(r.indices().collect::<Vec<_>>(), n.indices().collect::<Vec<_>>());
    }

    #[test]
    fn merged_joins_even_dimensions() {
        assert_eq!(lay(&[2, 1, 3]).merged(), [(6, 1)]);
        assert_eq!(lay(&[5]).expand(Shape::new(&[2, 3, 5])).merged(), [(6, 0), (5, 1)]);
        assert!(lay(&[]).merged().is_empty());
    }
}
