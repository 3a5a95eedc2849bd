//! The words of a kernel as processors read them.
//!
//! Where lanes are masked, a processor's Vulkan loads a uniform word once for each lane, each time it is named: a loop or a guard around the body makes every
//! word in it dear (measured on lavapipe: a fused elementwise kernel of 4 Mi values takes 1.2 times as long). Before the first branch it is one load.
//!
//! And no word lies at the beginning of the window. Lavapipe puts the values of words that shaders branch by into them, and compiles them again, at each
//! dispatch that this changes something in. Mesa 22 confuses where the words of a uniform buffer lie, and puts in the one at its beginning: a shader that loads
//! it is compiled at every dispatch, and what was compiled is kept (measured: a tenth of a millisecond and 140 KB each); where none does, nothing changes.

use super::emit::{BindingText, Emit, with_elements};
use crate::error::Result;
use std::collections::BTreeSet;

/// Words before the first one that a kernel reads: a vec4 of them.
const UNREAD: usize = 4;

impl Emit {
    /// [`Emit::finish`] for a device of that kind, and how many words that no kernel reads stand before its own `words` there.
    ///
    /// # Errors
    /// Those of [`Emit::finish`].
    pub(crate) fn finish_for(self, processor: bool, bindings: &[BindingText], words: usize) -> Result<(String, usize)> {
        if !processor {
            return Ok((self.finish(bindings, words)?, 0));
        }
        Ok((for_processors(&self.finish(bindings, UNREAD + words)?)?, UNREAD))
    }
}

/// `text` with its `u[k]` behind [`UNREAD`] words, and loaded at the start of `main` where all are asked for by number.
///
/// A module with barriers loads where it reads: what a variable holds is not uniform to the validator, and a barrier must be reached uniformly.
///
/// # Errors
/// A bracket that is not closed.
fn for_processors(text: &str) -> Result<String> {
    let number = |index: &str| -> Option<u32> { index.strip_suffix('u').unwrap_or(index).parse().ok() };
    let mut named = Vec::new();
    with_elements(text, "u", &mut |index, _| {
        named.push(number(index));
        None
    })?;
    let main = text.find("fn main(").and_then(|main| Some(main + text[main..].find("{\n")? + 2));
    let held: Option<BTreeSet<u32>> = named.into_iter().collect();
    let (Some(main), Some(held), false) = (main, held, text.contains("workgroupBarrier")) else {
        return with_elements(text, "u", &mut |index, _| Some(number(index).map_or_else(|| format!("u[{index} + 1u]"), |n| format!("u[{}]", n + 1))));
    };
    let by_name = |text: &str| with_elements(text, "u", &mut |index, _| number(index).map(|n| format!("u_{n}")));
    let mut out = by_name(&text[..main])?;
    held.iter().for_each(|n| out.push_str(&format!("    u_{n} = u[{}];\n", n + 1)));
    out.push_str(&by_name(&text[main..])?);
    held.iter().for_each(|n| out.push_str(&format!("var<private> u_{n}: vec4<u32>;\n")));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_loaded_once_before_the_first_branch() {
        let text = "\
var<uniform> u: array<vec4<u32>, 3>;
fn f() -> u32 {
    return u[1u].y + menu[3];
}
fn main() {
    if u[0].x > 1u {
        y[u[0].z] = f();
    }
}
";
        let want = "\
var<uniform> u: array<vec4<u32>, 3>;
fn f() -> u32 {
    return u_1.y + menu[3];
}
fn main() {
    u_0 = u[1];
    u_1 = u[2];
    if u_0.x > 1u {
        y[u_0.z] = f();
    }
}
var<private> u_0: vec4<u32>;
var<private> u_1: vec4<u32>;
";
        assert_eq!(for_processors(text).unwrap(), want);
    }

    #[test]
    fn a_table_of_words_and_what_has_barriers_load_where_they_read() {
        assert_eq!(for_processors("fn main() {\n    y[0] = u[u[2].x + i].x;\n}\n").unwrap(), "fn main() {\n    y[0] = u[u[3].x + i + 1u].x;\n}\n");
        let barrier = "fn main() {\n    workgroupBarrier(); y[0] = u[0u].x;\n}\n";
        assert_eq!(for_processors(barrier).unwrap(), barrier.replace("u[0u]", "u[1]"));
        assert!(for_processors("fn main() {\n    y[0] = u[0;\n}\n").is_err());
    }
}
