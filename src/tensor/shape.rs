//! Shapes: up to eight sizes, kept inline so that recording a node allocates nothing for them.

use crate::error::{Error, Result};
use std::fmt;
use std::ops::{Deref, DerefMut};

/// The most dimensions a tensor can have.
pub const MAX_RANK: usize = 8;

/// The size of each dimension, outermost first. Dereferences to a slice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// The shape with these sizes.
    ///
    /// # Panics
    /// Above [`MAX_RANK`] dimensions; [`Shape::try_new`] is the fallible form.
    #[track_caller]
    pub fn new(dims: &[usize]) -> Self {
        match Self::try_new(dims) {
            Ok(shape) => shape,
            Err(e) => panic!("{e}"),
        }
    }

    /// The shape with these sizes, or an error above [`MAX_RANK`] dimensions.
    pub fn try_new(dims: &[usize]) -> Result<Self> {
        if dims.len() > MAX_RANK {
            return Err(Error::shape(format!("shape {dims:?} has {} dimensions, at most {MAX_RANK} are supported", dims.len())));
        }
        let mut shape = Shape { dims: [0; MAX_RANK], rank: dims.len() as u8 };
        shape.dims[..dims.len()].copy_from_slice(dims);
        Ok(shape)
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// The number of elements: the product of the sizes, 1 for a scalar.
    pub fn numel(&self) -> usize {
        self.iter().product()
    }

    /// `dim` counted from the front; negative counts from the back as in PyTorch.
    pub fn dim(&self, dim: isize) -> Result<usize> {
        let rank = self.rank() as isize;
        let d = if dim < 0 { dim + rank } else { dim };
        if d < 0 || d >= rank {
            return Err(Error::shape(format!("dim {dim} is out of range for shape {self}")));
        }
        Ok(d as usize)
    }

    /// This shape with the dimension `dim` taken away.
    pub fn without(&self, dim: usize) -> Shape {
        let mut dims = self.to_vec();
        dims.remove(dim);
        Shape::new(&dims)
    }

    /// This shape with a dimension of `size` put in before `dim`.
    #[track_caller]
    pub fn with(&self, dim: usize, size: usize) -> Shape {
        let mut dims = self.to_vec();
        dims.insert(dim, size);
        Shape::new(&dims)
    }

    /// Row-major strides, in elements.
    pub fn strides(&self) -> [isize; MAX_RANK] {
        let mut strides = [0; MAX_RANK];
        let mut step = 1isize;
        for d in (0..self.rank()).rev() {
            strides[d] = step;
            step *= self.dims[d] as isize;
        }
        strides
    }
}

/// The shape both broadcast to, by NumPy's rule; `None` where they don't.
pub fn broadcast(a: &Shape, b: &Shape) -> Option<Shape> {
    let rank = a.rank().max(b.rank());
    let mut dims = [1usize; MAX_RANK];
    for (i, dim) in dims[..rank].iter_mut().enumerate() {
        let get = |s: &Shape| (i + s.rank()).checked_sub(rank).map_or(1, |j| s[j]);
        *dim = match (get(a), get(b)) {
            (x, y) if x == y => x,
            (1, y) => y,
            (x, 1) => x,
            _ => return None,
        };
    }
    Some(Shape::new(&dims[..rank]))
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }
}

impl DerefMut for Shape {
    fn deref_mut(&mut self) -> &mut [usize] {
        &mut self.dims[..self.rank as usize]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &**self)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &**self)
    }
}

impl From<&[usize]> for Shape {
    #[track_caller]
    fn from(dims: &[usize]) -> Self {
        Shape::new(dims)
    }
}

impl From<&Vec<usize>> for Shape {
    #[track_caller]
    fn from(dims: &Vec<usize>) -> Self {
        Shape::new(dims)
    }
}

impl From<Vec<usize>> for Shape {
    #[track_caller]
    fn from(dims: Vec<usize>) -> Self {
        Shape::new(&dims)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    #[track_caller]
    fn from(dims: [usize; N]) -> Self {
        Shape::new(&dims)
    }
}

impl<const N: usize> From<&[usize; N]> for Shape {
    #[track_caller]
    fn from(dims: &[usize; N]) -> Self {
        Shape::new(dims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        let b = |a: &[usize], c: &[usize]| broadcast(&a.into(), &c.into()).map(|s| s.to_vec());
        assert_eq!(b(&[2, 1, 3], &[4, 1]), Some(vec![2, 4, 3]));
        assert_eq!(b(&[], &[4, 1]), Some(vec![4, 1]));
        assert_eq!(b(&[0], &[1]), Some(vec![0]));
        assert_eq!(b(&[2], &[3]), None);
    }

    #[test]
    fn dims_count_from_either_end() {
        let s = Shape::new(&[2, 3]);
        assert_eq!((s.dim(-1).unwrap(), s.dim(0).unwrap()), (1, 0));
        assert_eq!(s.dim(2).unwrap_err().message(), "dim 2 is out of range for shape [2, 3]");
    }

    #[test]
    fn nine_dimensions_are_refused() {
        assert!(Shape::try_new(&[1; 9]).unwrap_err().message().contains("at most 8"));
    }
}
