//! The text with which a lane reads a few neighbours of one row of an image: in fours wherever the row lies, since a load costs the same for one float as for
//! four.

use std::fmt::Write;

/// How the buffer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// Every row begins at a multiple of four.
    Fours,
    /// All images together are whole fours, single rows are not: more is read, and shifted into place.
    Shifted,
    /// One float at a time.
    Single,
}

impl Reads {
    /// The widest reads that rows of `width`, images of `elements` allow. Depends on an image, never on their number.
    pub fn of(aligned: bool, width: usize, elements: usize) -> Reads {
        match (aligned && elements.is_multiple_of(4), width.is_multiple_of(4)) {
            (false, _) => Reads::Single,
            (true, false) => Reads::Shifted,
            (true, true) => Reads::Fours,
        }
    }

    pub fn element(self) -> &'static str {
        if self == Reads::Single { "f32" } else { "vec4<f32>" }
    }

    /// Loads of neighbours `first..=last`.
    pub fn loads(self, first: isize, last: isize) -> usize {
        match self {
            Reads::Fours => (last.div_euclid(4) - first.div_euclid(4)) as usize + 1,
            Reads::Shifted => (3 + last - first) as usize / 4 + 1,
            Reads::Single => (last - first) as usize + 1,
        }
    }

    /// The index of the last thing that may be read, where that many elements lie from `offset` on.
    pub fn limit(self, offset: &str, elements: &str) -> String {
        match self {
            Reads::Single => format!("{offset} + {elements} - 1u"),
            _ => format!("(({offset} + {elements}) >> 2u) - 1u"),
        }
    }
}

/// What is read around a place of a row: neighbours `first..=last`, as `vec4`s.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub reads: Reads,
    pub first: isize,
    pub last: isize,
}

const LANES: [&str; 4] = ["x", "y", "z", "w"];

/// A number of a wrapping index.
fn wrapping(n: isize) -> String {
    format!("{}u", n as i32 as u32)
}

impl Window {
    /// The neighbour that the first component of the first vector is.
    pub fn origin(&self) -> isize {
        if self.reads == Reads::Fours { self.first.div_euclid(4) * 4 } else { self.first }
    }

    /// Vectors that hold the neighbours.
    pub fn vectors(&self) -> usize {
        (self.last - self.origin()) as usize / 4 + 1
    }

    /// The same without what lies outside of a row of `width` that the place is the beginning of: it is known to be padding, and never read.
    pub fn within(self, width: usize) -> Option<Window> {
        let (first, last) = (self.first.max(0), self.last.min(width as isize - 1));
        (first <= last).then_some(Window { first, last, ..self })
    }

    /// The neighbour's component; none where it was left out.
    pub fn element(&self, name: &str, neighbour: isize) -> Option<String> {
        let i = (neighbour - self.origin()) as usize;
        (self.first..=self.last).contains(&neighbour).then(|| format!("{name}{}.{}", i / 4, LANES[i % 4]))
    }

    /// Four components: neighbours `first`, `first + step`, ..; a whole vector where they are one, none where all were left out.
    pub fn four(&self, name: &str, first: isize, step: isize) -> Option<String> {
        let i = first - self.origin();
        if step == 1 && i % 4 == 0 && first >= self.first && first + 3 <= self.last {
            return Some(format!("{name}{}", i / 4));
        }
        let parts: Vec<Option<String>> = (0..4).map(|n| self.element(name, first + n * step)).collect();
        parts.iter().any(Option::is_some).then(|| {
            let parts: Vec<&str> = parts.iter().map(|p| p.as_deref().unwrap_or("0.0")).collect();
            format!("vec4<f32>({})", parts.join(", "))
        })
    }

    /// Lines that read the neighbours of element `at` of `buffer` into `name0`, `name1`, ..; no index passes `limit`. `mask` gives the bits that stay of a
    /// vector, by its number.
    pub fn read(&self, buffer: &str, name: &str, at: &str, limit: &str, mask: impl Fn(usize) -> Option<String>) -> String {
        let mut out = String::new();
        let kept = |n: usize, v: String| match mask(n) {
            Some(m) => format!("bitcast<vec4<f32>>(bitcast<vec4<u32>>({v}) & {m})"),
            None => v,
        };
        match self.reads {
            Reads::Fours => {
                let _ = writeln!(out, "    let {name}q = (({at}) >> 2u) + {};", wrapping(self.first.div_euclid(4)));
                for n in 0..self.vectors() {
                    let v = kept(n, format!("{buffer}[min({name}q + {n}u, {limit})]"));
                    let _ = writeln!(out, "    let {name}{n} = {v};");
                }
            }
            Reads::Shifted => {
                let loads = self.reads.loads(self.first, self.last);
                let _ = writeln!(out, "    let {name}e = {at} + {};", wrapping(self.first));
                // A row that begins before the buffer is not read; its index must stay small all the same.
                let _ = writeln!(out, "    let {name}q = bitcast<u32>(bitcast<i32>({name}e) >> 2u);");
                for n in 0..loads {
                    let _ = writeln!(out, "    let {name}a{n} = {buffer}[min({name}q + {n}u, {limit})];");
                }
                for (from, to, bit) in [("a", "b", 1), ("b", "c", 2)] {
                    let _ = writeln!(out, "    let {name}{to} = ({name}e & {bit}u) == {bit}u;");
                    for n in 0..loads {
                        let at = |i: usize| format!("{name}{from}{}.{}", (n + (i + bit) / 4).min(loads - 1), LANES[(i + bit) % 4]);
                        let moved = format!("vec4<f32>({}, {}, {}, {})", at(0), at(1), at(2), at(3));
                        let _ = writeln!(out, "    let {name}{to}{n} = select({name}{from}{n}, {moved}, {name}{to});");
                    }
                }
                for n in 0..self.vectors() {
                    let _ = writeln!(out, "    let {name}{n} = {};", kept(n, format!("{name}c{n}")));
                }
            }
            Reads::Single => {
                let _ = writeln!(out, "    let {name}e = {at} + {};", wrapping(self.first));
                for n in 0..self.vectors() {
                    let one = |i: usize| {
                        let i = n * 4 + i;
                        if i as isize > self.last - self.first { "0.0".to_string() } else { format!("{buffer}[min({name}e + {i}u, {limit})]") }
                    };
                    let v = kept(n, format!("vec4<f32>({}, {}, {}, {})", one(0), one(1), one(2), one(3)));
                    let _ = writeln!(out, "    let {name}{n} = {v};");
                }
            }
        }
        out
    }

    /// For each vector, the bits that lie inside a row of `width`, for the place that is column `x` of it.
    pub fn masks(&self, x: &str, width: &str) -> Vec<String> {
        let one = |n: usize| {
            let first = wrapping(self.origin() + 4 * n as isize);
            let columns = format!("vec4<u32>({x} + {first}) + vec4<u32>(0u, 1u, 2u, 3u)");
            format!("select(vec4<u32>(), vec4<u32>(0xffffffffu), ({columns}) < vec4<u32>({width}))")
        };
        (0..self.vectors()).map(one).collect()
    }
}
