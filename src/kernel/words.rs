//! The words of a kernel kept in variables, for processors.
//!
//! Where lanes are masked, a processor's Vulkan loads a uniform word once for each lane, each time it is named: a loop or a guard around the body makes every
//! word in it dear (measured on lavapipe: a fused elementwise kernel of 4 Mi values takes 1.2 times as long). Before the first branch it is one load.

use std::collections::BTreeSet;

/// `text` with each `u[k]` loaded at the start of `main`, where all are asked for by number.
///
/// A module with barriers stays as it is: what a variable holds is not uniform to the validator, and a barrier must be reached uniformly.
pub fn hold_words(text: &str) -> Option<String> {
    if text.contains("workgroupBarrier") {
        return None;
    }
    let main = text.find("fn main(")?;
    let (head, body) = text.split_at(main + text[main..].find("{\n")? + 2);
    let mut held = BTreeSet::new();
    let mut out = by_name(head, &mut held)?;
    let body = by_name(body, &mut held)?;
    held.iter().for_each(|n| out.push_str(&format!("    u_{n} = u[{n}];\n")));
    out.push_str(&body);
    held.iter().for_each(|n| out.push_str(&format!("var<private> u_{n}: vec4<u32>;\n")));
    Some(out)
}

/// `text` with `u_k` for each `u[k]`, the numbers put into `held`; none where an index is not a number.
fn by_name(text: &str, held: &mut BTreeSet<u32>) -> Option<String> {
    let mut out = String::with_capacity(text.len() + 256);
    let mut rest = text;
    while let Some(at) = rest.find("u[") {
        let (before, tail) = (&rest[..at], &rest[at + 2..]);
        out.push_str(before);
        // The end of a longer name.
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            out.push_str("u[");
            rest = tail;
            continue;
        }
        let (number, after) = tail.split_once(']')?;
        let number = number.strip_suffix('u').unwrap_or(number).parse().ok()?;
        held.insert(number);
        out.push_str(&format!("u_{number}"));
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_loaded_once_before_the_first_branch() {
        let text = "\
var<uniform> u: array<vec4<u32>, 2>;
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
var<uniform> u: array<vec4<u32>, 2>;
fn f() -> u32 {
    return u_1.y + menu[3];
}
fn main() {
    u_0 = u[0];
    u_1 = u[1];
    if u_0.x > 1u {
        y[u_0.z] = f();
    }
}
var<private> u_0: vec4<u32>;
var<private> u_1: vec4<u32>;
";
        assert_eq!(hold_words(text).unwrap(), want);
    }

    #[test]
    fn a_table_of_words_and_a_barrier_stay() {
        assert!(hold_words("fn main() {\n    y[0] = u[i].x;\n}\n").is_none());
        assert!(hold_words("fn main() {\n    workgroupBarrier(); y[0] = u[0].x;\n}\n").is_none());
    }
}
