//! Where the loads of a kernel find an element, as WGSL. Its text depends on the classes of the layouts (their dimensions after merging; strides of 0 and 1),
//! never on their sizes.

use super::steps::{Load, word};
use crate::device::Word;
use crate::kernel::divisor;
use std::collections::HashSet;
use std::fmt::Write;

/// The places of all loads of one hook. Loads that cut the index at the same dimensions share its coordinates.
pub(super) struct Places {
    /// What the names of coordinates begin with.
    prefix: String,
    cuts: Vec<Cut>,
    places: Vec<Place>,
    /// The coordinates that are declared already: cut and lane.
    declared: HashSet<(usize, usize)>,
}

/// An index cut into coordinates, innermost first; the last is what is left.
struct Cut {
    sizes: Vec<usize>,
    /// Of each size: the expressions of size, magic number and shift.
    words: Vec<[String; 3]>,
}

/// A load's offset, and how each coordinate moves it.
struct Place {
    offset: String,
    cut: Option<usize>,
    strides: Vec<Stride>,
}

enum Stride {
    Zero,
    One,
    /// The expression of another.
    By(String),
}

impl Places {
    pub fn new(prefix: &str) -> Places {
        Places { prefix: prefix.into(), cuts: Vec::new(), places: Vec::new(), declared: HashSet::new() }
    }

    /// Add a load, and give the number of its place.
    pub fn add(&mut self, load: &Load, words: &mut Vec<Word>) -> usize {
        let offset = word(words, Word::Low(load.offset));
        let merged = load.layout.merged();
        let place = if merged.iter().all(|d| d.1 == 0) {
            Place { offset, cut: None, strides: Vec::new() }
        } else {
            let sizes: Vec<usize> = merged[1..].iter().rev().map(|d| d.0).collect();
            let cut = self.cuts.iter().position(|c| c.sizes == sizes).unwrap_or_else(|| {
                let of = |&d: &usize| {
                    let [magic, shift] = divisor(d);
                    [d as u32, magic, shift].map(|w| word(words, Word::Const(w)))
                };
                let words = sizes.iter().map(of).collect();
                self.cuts.push(Cut { sizes, words });
                self.cuts.len() - 1
            });
            let stride = |d: &(usize, isize)| match d.1 {
                0 => Stride::Zero,
                1 => Stride::One,
                by => Stride::By(word(words, Word::Const(by as i32 as u32))),
            };
            let strides = merged.iter().rev().map(stride).collect();
            Place { offset, cut: Some(cut), strides }
        };
        self.places.push(place);
        self.places.len() - 1
    }

    /// The expression of where element `i + lane` lies; what it needs is declared in `body`. Negative strides wrap around, as u32 does.
    pub fn at(&mut self, place: usize, lane: usize, body: &mut String) -> String {
        let Place { offset, cut, strides } = &self.places[place];
        let Some(cut) = *cut else { return offset.clone() };
        let Cut { sizes, words } = &self.cuts[cut];
        let name = |d: usize| format!("{}{cut}_{lane}_{d}", self.prefix);
        if self.declared.insert((cut, lane)) {
            let mut rest = if lane == 0 { "i".to_string() } else { format!("i + {lane}u") };
            for (d, [size, magic, shift]) in words.iter().enumerate() {
                let next = format!("{}q", name(d));
                let _ = writeln!(body, "    let {next} = quotient({rest}, {magic}, {shift});\n    let {} = {rest} - {next} * {size};", name(d));
                rest = next;
            }
            let _ = writeln!(body, "    let {} = {rest};", name(sizes.len()));
        }
        let terms = strides.iter().enumerate().filter_map(|(d, s)| match s {
            Stride::Zero => None,
            Stride::One => Some(name(d)),
            Stride::By(stride) => Some(format!("{} * {stride}", name(d))),
        });
        std::iter::once(offset.clone()).chain(terms).collect::<Vec<_>>().join(" + ")
    }
}
