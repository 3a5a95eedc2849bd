//! Randomness: counted, not timed; the same on every device.

use super::{bits, cpu, devices, gpu};
use std::collections::HashSet;
use wgrad::device::Caps;
use wgrad::graph::watch;
use wgrad::{Generator, Tensor};

#[test]
fn a_hundred_draws_are_a_hundred_masks_and_reads_change_none() {
    for device in devices() {
        let draw = |read: bool| -> Vec<Vec<u32>> {
            let generator = Generator::new(7);
            let x = Tensor::ones([257], &device);
            let masks: Vec<Tensor> = (0..100)
                .map(|n| {
                    let mask = x.dropout(0.5, true, &generator);
                    if read && n % 3 == 0 {
                        mask.to_vec::<f32>().unwrap();
                    }
                    if read && n % 7 == 0 {
                        wgrad::graph::flush(&device).unwrap();
                    }
                    mask
                })
                .collect();
            masks.iter().map(bits).collect()
        };
        let plain = draw(false);
        assert_eq!(plain.iter().collect::<HashSet<_>>().len(), 100, "{device:?}");
        assert_eq!(plain, draw(true), "{device:?}");
    }
}

#[test]
fn uniforms_have_the_same_bits_everywhere_and_normals_agree() {
    let (cpu, Some(gpu)) = (cpu(), gpu()) else { return };
    for (seed, n) in [(0u64, 1usize), (1, 1003), (u64::MAX, 65_537), (0x1234_5678_9abc_def0, 300)] {
        for offset in [0, 5, 1 << 40] {
            let draw = |d| Tensor::rand([n], &Generator::restore(seed, offset), d).unwrap();
            assert_eq!(bits(&draw(&cpu)), bits(&draw(&gpu)), "seed {seed} offset {offset}");
            let draw = |d| Tensor::randn([n], &Generator::restore(seed, offset), d).unwrap().to_vec::<f32>().unwrap();
            let (a, b) = (draw(&cpu), draw(&gpu));
            // The row's stated bound, of the largest value.
            let bound = wgrad::ops::rows::row("normal").ulp as f32 * f32::EPSILON * a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= bound, "seed {seed} offset {offset}: {worst} of {bound}");
        }
    }
}

#[test]
fn a_random_tensor_that_is_held_is_drawn_once() {
    for device in devices() {
        let x = Tensor::randn([1000], &Generator::new(3), &device).unwrap();
        let drawn = |f: &dyn Fn() -> Vec<f32>| {
            let (values, seen) = watch(&Caps::floor(), f);
            (values, seen.nodes.contains("normal"))
        };
        let (doubled, first) = drawn(&|| (&x * 2.0).to_vec().unwrap());
        let (own, again) = drawn(&|| x.to_vec().unwrap());
        let (tripled, later) = drawn(&|| (&x * 3.0).to_vec().unwrap());
        assert_eq!((first, again, later), (true, false, false), "{device:?}");
        assert!(own.iter().zip(&doubled).all(|(x, y)| x * 2.0 == *y) && own.iter().zip(&tripled).all(|(x, y)| x * 3.0 == *y), "{device:?}");
    }
}
