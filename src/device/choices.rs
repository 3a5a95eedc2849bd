//! What kernels may choose: tiles, strips, parts of sums. Rules beside the kernels choose well without asking; what was measured to be better on a device stands
//! here, and every kernel's choice goes through [`Choices::pick`].

use crate::error::{Error, Result, nearest};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A row of the table: something that launches choose, each for its key.
#[derive(Debug)]
pub struct Choice {
    /// Its name in files.
    pub name: &'static str,
    /// One line: what is chosen.
    pub about: &'static str,
    /// The sizes that a choice is made for: of one model, never of those stacked; and where the kernel's text follows from it, never of a batch.
    pub key: &'static [&'static str],
    /// What there is to choose from.
    pub options: &'static [&'static str],
}

/// A convolution, whatever the number of its images.
const GEOMETRY: &[&str] = &["grad", "groups", "cg", "og", "h", "w", "kh", "kw", "sy", "sx", "py", "px", "dy", "dx"];
/// Parts of a sum.
const PARTS: &[&str] = &["1", "2", "4", "8", "16", "32", "64"];

/// Rows and vectors of four columns of a lane.
pub static MATMUL_LANES: Choice =
    Choice { name: "matmul_lanes", about: "rows and fours of columns of a lane", key: &["n"], options: &["8x1", "8x2", "16x1", "16x2", "32x1", "32x2"] };
/// Rows and columns of a tile.
pub static MATMUL_TILE: Choice = Choice {
    name: "matmul_tile",
    about: "rows and columns of a workgroup's tile",
    key: &["n"],
    options: &["16x128", "128x16", "32x128", "128x32", "64x64", "128x128"],
};
/// Parts that the terms of a product are cut into.
pub static MATMUL_PARTS: Choice = Choice { name: "matmul_parts", about: "parts of the terms of a product", key: &["m", "k", "n"], options: PARTS };
/// Rows and columns of a tile of a convolution: rows are channels.
pub static CONV_TILE: Choice =
    Choice { name: "conv_tile", about: "channels and columns of a workgroup's tile", key: &["rows"], options: &["16x128", "32x128", "64x64", "128x128"] };
/// Vectors of a lane's strip, in units of the stride.
pub static CONV_STRIP: Choice =
    Choice { name: "conv_strip", about: "fours of columns of a lane's strip", key: GEOMETRY, options: &["1", "2", "3", "4", "5", "6", "7", "8"] };
/// Channels of a lane at most.
pub static CONV_ROWS: Choice = Choice { name: "conv_rows", about: "channels of a lane, at most", key: GEOMETRY, options: &["4", "8", "16", "32"] };
/// Positions of a step of the weight's gradient.
pub static WEIGHT_STRIP: Choice =
    Choice { name: "weight_strip", about: "positions of a step of a weight's gradient", key: GEOMETRY, options: &["4", "8", "12", "16", "row"] };
/// Parts that the terms of a weight's gradient are cut into.
pub static WEIGHT_PARTS: Choice = Choice {
    name: "weight_parts",
    about: "parts of the terms of a weight's gradient",
    key: &["images", "groups", "cg", "og", "oh", "ow", "kh", "kw"],
    options: PARTS,
};
/// Terms that an invocation of a reduction joins.
pub static REDUCE_PART: Choice = Choice {
    name: "reduce_part",
    about: "terms that an invocation of a reduction joins",
    key: &["terms", "fours"],
    options: &["64", "128", "256", "512", "1024", "2048"],
};
/// Elements of a channel that an invocation joins for batch norm.
pub static NORM_PART: Choice = Choice {
    name: "norm_part",
    about: "elements of a channel that an invocation joins",
    key: &["terms", "width"],
    options: &["128", "256", "512", "1024", "2048"],
};
/// Workgroups that walk over a fused elementwise kernel's elements.
pub static MAP_GROUPS: Choice =
    Choice { name: "map_groups", about: "workgroups of an elementwise kernel, at most", key: &["log2"], options: &["64", "256", "1024", "4096"] };

/// Every choice.
pub static CHOICES: &[&Choice] =
    &[&MATMUL_LANES, &MATMUL_TILE, &MATMUL_PARTS, &CONV_TILE, &CONV_STRIP, &CONV_ROWS, &WEIGHT_STRIP, &WEIGHT_PARTS, &REDUCE_PART, &NORM_PART, &MAP_GROUPS];

impl Choice {
    /// The row of that name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn named(name: &str) -> Result<&'static Choice> {
        CHOICES.iter().copied().find(|c| c.name == name).ok_or_else(|| {
            let e = Error::invalid(format!("no kernel chooses {name}"));
            nearest(name, CHOICES.iter().map(|c| c.name)).map_or(e.clone(), |n| e.help(format!("did you mean {n}?")))
        })
    }

    /// A key in words: `m64 k784 n256`.
    pub fn key_text(&self, key: &[usize]) -> String {
        let mut text = String::new();
        for (n, (name, size)) in self.key.iter().zip(key).enumerate() {
            let _ = write!(text, "{}{name}{}{size}", if n > 0 { " " } else { "" }, if name.ends_with(|c: char| c.is_ascii_digit()) { ":" } else { "" });
        }
        text
    }

    /// The key that such words name.
    fn read_key(&self, text: &str) -> Result<Vec<usize>> {
        let words: Vec<&str> = text.split(' ').collect();
        let size = |(word, name): (&&str, &&str)| word.strip_prefix(name)?.trim_start_matches(':').parse().ok();
        let key: Option<Vec<usize>> = words.iter().zip(self.key).map(size).collect();
        key.filter(|k| k.len() == self.key.len() && words.len() == k.len())
            .ok_or_else(|| Error::invalid(format!("{}: not a key: {text}", self.name)).help(format!("a key names the sizes {}", self.key.join(", "))))
    }

    fn option(&self, text: &str) -> Result<usize> {
        self.options
            .iter()
            .position(|o| *o == text)
            .ok_or_else(|| Error::invalid(format!("{}: there is no option {text}", self.name)).help(format!("there are {}", self.options.join(", "))))
    }

    /// The option that is this number.
    pub(crate) fn number(&self, number: usize) -> Option<usize> {
        self.options.iter().position(|o| o.parse() == Ok(number))
    }

    /// The number that an option is.
    pub(crate) fn value(&self, option: usize) -> usize {
        self.options[option].parse().unwrap_or_default()
    }
}

/// A choice that a plan's launches made.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What.
    pub choice: &'static Choice,
    /// For which sizes.
    pub key: Vec<usize>,
    /// What the rule beside the kernel chooses, where that is an option.
    pub rule: Option<usize>,
    /// The options that fit there.
    pub fits: Vec<usize>,
    /// The launches of the program that it is about.
    pub launches: Vec<usize>,
}

/// What the lowering of a plan asked.
#[derive(Debug, Default)]
struct Heard {
    asked: Vec<Asked>,
    /// Those whose launches are still to come.
    open: Vec<usize>,
    flops: u64,
}

/// Choices for a device. None made: the rules hold.
#[derive(Debug, Default)]
pub struct Choices {
    made: BTreeMap<(&'static str, Vec<usize>), usize>,
    /// For tests: an option wherever it fits.
    everywhere: BTreeMap<&'static str, usize>,
    heard: Option<Mutex<Heard>>,
}

impl PartialEq for Choices {
    fn eq(&self, other: &Choices) -> bool {
        (&self.made, &self.everywhere) == (&other.made, &other.everywhere)
    }
}

impl Clone for Choices {
    /// The choices, and not what was asked of them.
    fn clone(&self) -> Choices {
        Choices { made: self.made.clone(), everywhere: self.everywhere.clone(), heard: None }
    }
}

impl Choices {
    /// The same, hearing what is asked.
    pub fn hearing(&self) -> Choices {
        Choices { heard: Some(Mutex::default()), ..self.clone() }
    }

    /// An option of one choice wherever it fits. For tests.
    #[doc(hidden)]
    pub fn everywhere(choice: &'static Choice, option: usize) -> Choices {
        Choices { everywhere: [(choice.name, option)].into(), ..Choices::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.made.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    /// The same with one more, or with another in its place; without an option: as the rule has it.
    #[must_use]
    pub fn with(&self, choice: &'static Choice, key: &[usize], option: Option<usize>) -> Choices {
        let mut new = self.clone();
        match option {
            Some(option) => new.made.insert((choice.name, key.to_vec()), option),
            None => new.made.remove(&(choice.name, key.to_vec())),
        };
        new
    }

    /// The option made for that key.
    pub fn get(&self, choice: &Choice, key: &[usize]) -> Option<usize> {
        self.made.get(&(choice.name, key.to_vec())).copied()
    }

    /// The option to take for a launch of these sizes; none: what the rule says, which is `rule` where that is an option. An option that does not fit there
    /// (another alignment of an operand, say) is not taken.
    pub(crate) fn pick(&self, choice: &'static Choice, key: &[usize], rule: Option<usize>, fits: impl Fn(usize) -> bool) -> Option<usize> {
        debug_assert_eq!(key.len(), choice.key.len(), "{}", choice.name);
        if let Some(mut heard) = self.heard() {
            let at = heard.asked.iter().position(|a| a.choice.name == choice.name && a.key == key).unwrap_or_else(|| {
                let fits = (0..choice.options.len()).filter(|&n| fits(n)).collect();
                heard.asked.push(Asked { choice, key: key.to_vec(), rule, fits, launches: Vec::new() });
                heard.asked.len() - 1
            });
            heard.open.push(at);
        }
        if self.made.is_empty() && self.everywhere.is_empty() {
            return None;
        }
        let made = self.everywhere.get(choice.name).copied().or_else(|| self.get(choice, key));
        made.filter(|&n| fits(n))
    }

    /// The number to take: of `rule` where nothing else was chosen.
    pub(crate) fn number(&self, choice: &'static Choice, key: &[usize], rule: usize, fits: impl Fn(usize) -> bool) -> usize {
        self.pick(choice, key, choice.number(rule), |n| fits(choice.value(n))).map_or(rule, |n| choice.value(n))
    }

    fn heard(&self) -> Option<MutexGuard<'_, Heard>> {
        self.heard.as_ref().map(|h| h.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The lowering of a plan begins.
    pub(crate) fn begin(&self) {
        if let Some(mut heard) = self.heard() {
            *heard = Heard::default();
        }
    }

    /// What was asked since the last call was about these launches.
    pub(crate) fn launched(&self, launches: Range<usize>, flops: u64) {
        if let Some(mut heard) = self.heard() {
            heard.flops += flops;
            for at in std::mem::take(&mut heard.open) {
                heard.asked[at].launches.extend(launches.clone());
            }
        }
    }

    /// What the last plan asked, and its floating-point operations.
    pub fn asked(&self) -> (Vec<Asked>, u64) {
        self.heard().map_or_else(Default::default, |h| (h.asked.clone(), h.flops))
    }

    /// Each in three words: what is chosen, for which sizes, and what.
    pub fn lines(&self) -> Vec<[String; 3]> {
        let of = |name: &str| CHOICES.iter().find(|c| c.name == name);
        let line = |((name, key), option): (&(&'static str, Vec<usize>), &usize)| {
            of(name).map(|c| [c.name.to_string(), c.key_text(key), c.options[*option].to_string()])
        };
        self.made.iter().filter_map(line).collect()
    }

    /// The choices that such lines name.
    ///
    /// # Errors
    /// A choice, a key or an option that does not exist, by name.
    pub fn from_lines(lines: &[[String; 3]]) -> Result<Choices> {
        lines.iter().try_fold(Choices::default(), |all, [name, key, option]| {
            let choice = Choice::named(name)?;
            Ok(all.with(choice, &choice.read_key(key)?, Some(choice.option(option)?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_come_back_from_their_lines() {
        let all = Choices::default().with(&MATMUL_LANES, &[256], Some(4)).with(&CONV_STRIP, &[0, 1, 3, 16, 32, 32, 3, 3, 1, 1, 1, 1, 1, 1], Some(7));
        let all = all.with(&MAP_GROUPS, &[20], Some(0));
        assert_eq!(Choices::from_lines(&all.lines()).unwrap(), all);
        assert_eq!(all.lines()[2], ["matmul_lanes", "n256", "32x1"].map(String::from));
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let says = |words: [&str; 3]| Choices::from_lines(&[words.map(String::from)]).unwrap_err().to_string();
        assert_eq!(says(["matmul_lane", "n256", "32x1"]), "no kernel chooses matmul_lane\nhelp: did you mean matmul_lanes?");
        assert_eq!(says(["matmul_parts", "m2 k3", "2"]), "matmul_parts: not a key: m2 k3\nhelp: a key names the sizes m, k, n");
        assert_eq!(says(["matmul_parts", "m2 k3 n4", "3"]), "matmul_parts: there is no option 3\nhelp: there are 1, 2, 4, 8, 16, 32, 64");
    }

    #[test]
    fn the_rule_holds_where_nothing_else_fits() {
        let all = Choices::default().with(&REDUCE_PART, &[100, 0], Some(0));
        let part = |c: &Choices, key: &[usize]| c.number(&REDUCE_PART, key, 256, |n| n < 100);
        assert_eq!((part(&all, &[100, 0]), part(&all, &[101, 0]), part(&Choices::default(), &[100, 0])), (64, 256, 256));
        let heard = all.hearing();
        assert_eq!(part(&heard, &[7, 1]), 256);
        heard.launched(3..5, 9);
        let (asked, flops) = heard.asked();
        assert_eq!((asked[0].rule, &asked[0].fits[..], &asked[0].launches[..], flops), (Some(2), &[0][..], &[3, 4][..], 9));
        assert_eq!(heard, all, "what was heard is no choice");
    }
}
