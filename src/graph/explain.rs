//! What WGRAD_DEBUG tells about plans: a graph in lines, and where it differs from the nearest one that was seen.

use super::Key;
use super::canon::{Canon, Place, Src};

/// A graph in canonical form, a line for each leaf, node and output.
pub(super) fn describe(canon: &Canon) -> Vec<String> {
    let mut lines: Vec<String> = canon
        .leaf_metas
        .iter()
        .zip(&canon.leaf_alias)
        .enumerate()
        .map(|(i, (meta, &alias))| format!("leaf{i}: {meta}{}", if alias as usize == i { String::new() } else { format!(", in the buffer of leaf{alias}") }))
        .collect();
    for (i, node) in canon.nodes.iter().enumerate() {
        let mut key = Key::default();
        node.op.key(&mut key);
        let inputs: Vec<String> = node
            .inputs
            .iter()
            .map(|x| {
                let from = match x.src {
                    Src::Leaf(l) => format!("leaf{l}"),
                    Src::Node(n, 0) => format!("n{n}"),
                    Src::Node(n, o) => format!("n{n}.{o}"),
                };
                let strides = if x.layout.is_contiguous() { String::new() } else { format!(" by {:?}", x.layout.strides()) };
                format!("{from}{}{strides}{}", x.layout.shape, if x.aligned { "" } else { " unaligned" })
            })
            .collect();
        let outs: Vec<String> = node.outs.iter().map(ToString::to_string).collect();
        let (inputs, outs) = (inputs.join(", "), outs.join(", "));
        lines.push(format!("n{i}: {}({inputs}) -> {outs}, attributes {:?}, {:?}, scope {}", node.op.name(), key.0, node.phase, node.scope));
    }
    for o in &canon.outputs {
        let place = match o.place {
            Place::Pool => String::new(),
            Place::Arena(leaf, slice) => format!(" in slice {slice} of leaf{leaf}"),
        };
        lines.push(format!("stored: n{}.{}{place}", o.node, o.out));
    }
    lines
}

/// The first line in which `new` differs from the graph nearest to it: the one with which it shares the longest beginning.
pub(super) fn nearest(new: &[String], known: &[(String, Vec<String>)]) -> String {
    let shared = |old: &[String]| new.iter().zip(old).take_while(|(a, b)| a == b).count();
    match known.iter().max_by_key(|(_, lines)| shared(lines)) {
        None => "it is the first".to_string(),
        Some((name, lines)) => {
            let at = shared(lines);
            let line = |l: &[String]| l.get(at).cloned().unwrap_or_else(|| "(the end)".to_string());
            format!("the nearest is {name}, which differs in line {at}:\n    there: {}\n    here:  {}", line(lines), line(new))
        }
    }
}
