//! Augmentation of images: small random shifts, rotations and changes of size, and noise.

use super::draws::{Draws, Generator, Purpose};
use crate::error::{Error, Result};

/// How much each image may be changed. What is zero is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Augment {
    /// Whole pixels, in each direction.
    pub shift: usize,
    /// Degrees, either way.
    pub rotate: f32,
    /// Change of size: 0.1 draws a factor from 0.9 to 1.1.
    pub scale: f32,
    /// Standard deviation of the noise added to each value.
    pub noise: f32,
}

impl Augment {
    /// Whether it changes nothing.
    pub fn is_none(&self) -> bool {
        *self == Augment::default()
    }

    /// Whether the limits make sense.
    pub fn check(&self) -> Result<()> {
        for (name, value, limit) in [("rotate", self.rotate, 180.0), ("scale", self.scale, 0.9), ("noise", self.noise, f32::MAX)] {
            if !(0.0..=limit).contains(&value) {
                return Err(Error::invalid(format!("augment: {name} must be from 0 to {limit:?}: {value}")));
            }
        }
        Ok(())
    }

    /// One image `[c, h, w]`, changed. What comes from beyond its edge is 0, so this goes before any centring of the values.
    ///
    /// # Panics
    /// Where `image` or `out` is not of that shape.
    #[track_caller]
    pub fn apply(&self, image: &[f32], [c, h, w]: [usize; 3], draws: &mut Draws, out: &mut [f32]) {
        assert!(image.len() == c * h * w && out.len() == image.len(), "augment: {} and {} values for an image [{c}, {h}, {w}]", image.len(), out.len());
        // All are drawn whatever is used, so that switching one off leaves the others as they were.
        let mut shift = || draws.below(2 * self.shift as u64 + 1) as f32 - self.shift as f32;
        let (dy, dx) = (shift(), shift());
        let angle = draws.symmetric(self.rotate).to_radians();
        let factor = 1.0 + draws.symmetric(self.scale);
        if h * w > 0 {
            let (sin, cos) = (angle.sin() / factor, angle.cos() / factor);
            let (cy, cx) = ((h as f32 - 1.0) / 2.0, (w as f32 - 1.0) / 2.0);
            for (plane, out) in image.chunks_exact(h * w).zip(out.chunks_exact_mut(h * w)) {
                for (i, o) in out.iter_mut().enumerate() {
                    // Backwards from each pixel to where it came from: shift, then turn and scale about the centre.
                    let (y, x) = ((i / w) as f32 - dy - cy, (i % w) as f32 - dx - cx);
                    *o = bilinear(plane, h, w, cos * y - sin * x + cy, sin * y + cos * x + cx);
                }
            }
        }
        if self.noise > 0.0 {
            out.iter_mut().for_each(|o| *o += self.noise * draws.normal());
        }
    }

    /// All images `[n, c, h, w]` as an epoch sees them. Image `i` depends on (seed, epoch, i) alone.
    ///
    /// # Panics
    /// Where `images` are no whole number of that shape, or `out` is not as long.
    #[track_caller]
    pub fn epoch(&self, images: &[f32], shape: [usize; 3], seed: u64, epoch: u32, generator: Generator, out: &mut [f32]) {
        let size = shape.iter().product::<usize>();
        assert!(images.len() == out.len() && images.len().checked_rem(size).unwrap_or(0) == 0, "augment: {} values for images {shape:?}", images.len());
        for (i, (image, out)) in images.chunks_exact(size.max(1)).zip(out.chunks_exact_mut(size.max(1))).enumerate() {
            self.apply(image, shape, &mut Draws::new(generator, seed, Purpose::Augment, epoch, i as u32), out);
        }
    }
}

/// The value between pixels, 0 beyond the edge. Exact where the place is a pixel.
fn bilinear(plane: &[f32], h: usize, w: usize, y: f32, x: f32) -> f32 {
    let (top, left) = (y.floor(), x.floor());
    let (fy, fx) = (y - top, x - left);
    let at = |dy: f32, dx: f32| {
        let (y, x) = (top + dy, left + dx);
        let inside = y >= 0.0 && x >= 0.0 && y < h as f32 && x < w as f32;
        if inside { plane[y as usize * w + x as usize] } else { 0.0 }
    };
    let upper = at(0.0, 0.0) * (1.0 - fx) + at(0.0, 1.0) * fx;
    let lower = at(1.0, 0.0) * (1.0 - fx) + at(1.0, 1.0) * fx;
    upper * (1.0 - fy) + lower * fy
}

#[cfg(test)]
mod tests {
    use super::super::draws::mix;
    use super::*;

    const IMAGE: [f32; 9] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];

    fn one(a: &Augment, seed: u64) -> Vec<f32> {
        let mut out = vec![f32::NAN; 9];
        a.apply(&IMAGE, [1, 3, 3], &mut Draws::new(mix, seed, Purpose::Augment, 0, 0), &mut out);
        out
    }

    #[test]
    fn nothing_changes_nothing() {
        assert_eq!(one(&Augment::default(), 1), IMAGE);
    }

    #[test]
    fn shifts_are_exact_and_fill_with_zero() {
        let a = Augment { shift: 1, ..Augment::default() };
        let shifted = |dy: i32, dx: i32| -> Vec<f32> {
            let at = |y: i32, x: i32| if (0..3).contains(&y) && (0..3).contains(&x) { IMAGE[(y * 3 + x) as usize] } else { 0.0 };
            (0..9).map(|i| at(i / 3 - dy, i % 3 - dx)).collect()
        };
        let all: Vec<Vec<f32>> = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx))).map(|(dy, dx)| shifted(dy, dx)).collect();
        let mut seen = [false; 9];
        for seed in 0..200 {
            let out = one(&a, seed);
            seen[all.iter().position(|s| *s == out).expect("a shift by at most one pixel")] = true;
        }
        assert_eq!(seen, [true; 9]);
    }

    #[test]
    fn rotation_and_scale_keep_the_centre() {
        let a = Augment { rotate: 30.0, scale: 0.2, ..Augment::default() };
        for seed in 0..50 {
            let out = one(&a, seed);
            assert!((out[4] - 5.0).abs() < 1e-5 && out != IMAGE, "{out:?}");
        }
        assert_eq!(bilinear(&IMAGE, 3, 3, 0.5, 0.5), 3.0);
        assert_eq!(bilinear(&IMAGE, 3, 3, -0.5, 0.0), 0.5);
    }

    #[test]
    fn an_image_depends_on_seed_epoch_and_place_alone() {
        let a = Augment { shift: 1, rotate: 10.0, scale: 0.1, noise: 0.1 };
        let images = [IMAGE, IMAGE, IMAGE].concat();
        let run = |seed, epoch, n: usize| {
            let mut out = vec![0.0; n * 9];
            a.epoch(&images[..n * 9], [1, 3, 3], seed, epoch, mix, &mut out);
            out
        };
        let all = run(1, 0, 3);
        assert_eq!(run(1, 0, 2), all[..18]);
        assert_ne!(all[..9], all[9..18]);
        assert_ne!(run(1, 1, 3), all);
        assert_ne!(run(2, 0, 3), all);
        // Noise comes on top of the same shift.
        let plain = one(&Augment { noise: 0.0, ..a.clone() }, 1);
        assert!(one(&a, 1).iter().zip(&plain).all(|(x, y)| (x - y).abs() < 0.6));
    }

    #[test]
    fn limits_are_checked() {
        let bad = Augment { scale: 1.5, ..Augment::default() };
        assert_eq!(bad.check().unwrap_err().message(), "augment: scale must be from 0 to 0.9: 1.5");
        assert!(Augment { rotate: -1.0, ..Augment::default() }.check().is_err());
        assert!(Augment { noise: f32::NAN, ..Augment::default() }.check().is_err());
        assert!(Augment { shift: 2, rotate: 10.0, scale: 0.1, noise: 0.05 }.check().is_ok());
    }
}
