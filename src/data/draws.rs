//! Random numbers for work on data: a counter-based generator at a place that (seed, purpose, epoch, sample) names.
//!
//! A draw depends on its place alone, so samples can be worked on in any order, and what one purpose draws changes nothing for another.

/// A counter-based generator: four words for a key and a counter. Philox 4x32-10 everywhere in this library.
pub type Generator = fn(key: [u32; 2], counter: [u32; 4]) -> [u32; 4];

/// What draws are for. Part of the counter; the values keep clear of the small numbers that tensors' counters have there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Cutting a data set into parts.
    Split = 0xda7a_0001,
    /// The order of an epoch.
    Shuffle = 0xda7a_0002,
    /// Changing a sample at random.
    Augment = 0xda7a_0003,
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Draws {
    generator: Generator,
    key: [u32; 2],
    counter: [u32; 4],
    words: [u32; 4],
    used: usize,
    spare: Option<f32>,
}

impl Draws {
    /// The stream of this seed, purpose, epoch and sample, from its beginning.
    pub fn new(generator: Generator, seed: u64, purpose: Purpose, epoch: u32, sample: u32) -> Draws {
        let counter = [0, purpose as u32, epoch, sample];
        Draws { generator, key: [seed as u32, (seed >> 32) as u32], counter, words: [0; 4], used: 4, spare: None }
    }

    /// 32 random bits.
    pub fn bits(&mut self) -> u32 {
        if self.used == 4 {
            self.words = (self.generator)(self.key, self.counter);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// A whole number in `0..n`, each as likely as the others; 0 where `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // The high half of bits * n is even but for a few low halves, which are drawn again.
        let reject = n.wrapping_neg().checked_rem(n).unwrap_or(0);
        loop {
            let bits = u64::from(self.bits()) << 32 | u64::from(self.bits());
            let product = u128::from(bits) * u128::from(n);
            if product as u64 >= reject {
                return (product >> 64) as u64;
            }
        }
    }

    /// A float in `[0, 1)`, a multiple of 2^-24.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// A float from `-limit` to `limit`.
    pub fn symmetric(&mut self, limit: f32) -> f32 {
        (2.0 * self.uniform() - 1.0) * limit
    }

    /// A float of the standard normal distribution (Box-Muller, both of each pair used).
    pub fn normal(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        // 1 - u lies in (0, 1], where the logarithm is finite.
        let radius = (-2.0 * (1.0 - f64::from(self.uniform())).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * f64::from(self.uniform())).sin_cos();
        self.spare = Some((radius * sin) as f32);
        (radius * cos) as f32
    }
}

/// A stand-in for Philox that needs nothing from outside: it mixes the words as splitmix64 does.
#[cfg(test)]
pub(super) fn mix(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let words = [key[0], key[1], counter[0], counter[1], counter[2], counter[3]];
    let mut state = 0u64;
    let mut next = |add: u32| {
        state = (state ^ u64::from(add)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
        state as u32
    };
    for word in words {
        next(word);
    }
    [next(1), next(2), next(3), next(4)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64, sample: u32) -> Draws {
        Draws::new(mix, seed, Purpose::Augment, 0, sample)
    }

    #[test]
    fn a_stream_depends_on_its_place_alone() {
        let take = |mut d: Draws| (0..9).map(|_| d.bits()).collect::<Vec<_>>();
        assert_eq!(take(draws(1, 2)), take(draws(1, 2)));
        assert_ne!(take(draws(1, 2)), take(draws(1, 3)));
        assert_ne!(take(draws(1, 2)), take(draws(1 << 40, 2)));
        assert_ne!(take(draws(1, 2)), take(Draws::new(mix, 1, Purpose::Shuffle, 0, 2)));
    }

    #[test]
    fn below_is_even() {
        let mut d = draws(7, 0);
        let mut counts = [0; 6];
        (0..6000).for_each(|_| counts[d.below(6) as usize] += 1);
        assert!(counts.iter().all(|c| (900..1100).contains(c)), "{counts:?}");
        assert_eq!((d.below(0), d.below(1)), (0, 0));
    }

    #[test]
    fn floats_have_their_distributions() {
        let mut d = draws(3, 0);
        let u: Vec<f32> = (0..10_000).map(|_| d.symmetric(2.0)).collect();
        assert!(u.iter().all(|x| (-2.0..2.0).contains(x)));
        assert!(u.iter().sum::<f32>().abs() / 1e4 < 0.05);
        let z: Vec<f32> = (0..10_000).map(|_| d.normal()).collect();
        let (mean, square) = (z.iter().sum::<f32>() / 1e4, z.iter().map(|x| x * x).sum::<f32>() / 1e4);
        assert!(mean.abs() < 0.04 && (square - 1.0).abs() < 0.06, "{mean} {square}");
    }
}
