//! A run of rows inside one kernel: what they load, compute and store per element, and that as WGSL.

use crate::device::{Access, Binding, Slot, Word};
use crate::kernel::{BindingText, Emit};
use crate::ops::rows::{Row, Sig};
use crate::tensor::{DType, Layout};
use smallvec::SmallVec;
use std::fmt::Write;

/// A value inside the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reg {
    /// What the kernel around the rows computed for this element.
    Root,
    /// The n-th load.
    Load(u16),
    /// The n-th row's result.
    Step(u16),
}

/// A value loaded from a buffer; the element is found from the row-major index by the layout.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub slot: Slot,
    pub dtype: DType,
    pub layout: Layout,
    /// Which entry of the data holds the offset.
    pub offset: usize,
}

/// One row at work.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub row: &'static Row,
    pub args: SmallVec<[Reg; 3]>,
    /// The type of its operands (the last one's, which `T` in the row's WGSL stands for).
    pub operand: DType,
    pub out: DType,
    /// Where its slots begin in the data: the floats, then the integers.
    pub slots: usize,
}

/// A value written to a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Store {
    pub reg: Reg,
    pub slot: Slot,
    pub dtype: DType,
}

/// Rows over one index space.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    pub loads: Vec<Load>,
    pub steps: Vec<Step>,
    pub stores: Vec<Store>,
    /// What a prologue hands to the kernel.
    pub result: Option<Reg>,
}

impl Steps {
    /// Make the rows the body of the hook `fn epilogue(i: u32, v: T)`.
    pub fn emit_epilogue(&self, emit: &mut Emit, bindings: &mut Vec<(BindingText, Binding)>, words: &mut Vec<Word>) {
        let mut body = self.body(emit, bindings, words, "e");
        for (n, s) in self.stores.iter().enumerate() {
            // The first store takes the name of the kernel's own output, so that shaders that mention it elsewhere stay whole.
            let name = if n == 0 { "y".to_string() } else { format!("y{n}") };
            let _ = writeln!(body, "    {name}[i] = {};", reg(s.reg));
            bind(bindings, name, s.slot, s.dtype, Access::ReadWrite);
        }
        emit.set_hook("epilogue", &body);
    }

    /// Make the rows the body of the hook `fn load(i: u32) -> T`.
    pub fn emit_prologue(&self, emit: &mut Emit, bindings: &mut Vec<(BindingText, Binding)>, words: &mut Vec<Word>) {
        let mut body = self.body(emit, bindings, words, "p");
        if let Some(r) = self.result {
            let _ = writeln!(body, "    return {};", reg(r));
        }
        emit.set_hook("load", &body);
    }

    fn body(&self, emit: &mut Emit, bindings: &mut Vec<(BindingText, Binding)>, words: &mut Vec<Word>, prefix: &str) -> String {
        let mut body = String::new();
        for (n, load) in self.loads.iter().enumerate() {
            let same = |(t, b): &&(BindingText, Binding)| b.slot == load.slot && b.access == Access::Read && t.element == load.dtype.wgsl();
            let name = match bindings.iter().find(same) {
                Some((t, _)) => t.name.clone(),
                None => {
                    let name = format!("{prefix}{n}");
                    bind(bindings, name.clone(), load.slot, load.dtype, Access::Read);
                    name
                }
            };
            let index = load.index(n, &mut body, words);
            let _ = writeln!(body, "    let x{n} = {name}[{index}];");
        }
        for (n, step) in self.steps.iter().enumerate() {
            let function = step.function(emit);
            let mut args: Vec<String> = step.args.iter().map(|&r| reg(r)).collect();
            for f in 0..step.row.floats {
                args.push(format!("bitcast<f32>({})", word(words, Word::F32(step.slots + f))));
            }
            for q in 0..step.row.ints {
                let at = step.slots + step.row.floats + q;
                args.push(word(words, Word::Low(at)));
                args.push(word(words, Word::High(at)));
            }
            if step.row.uses_index() {
                args.push("i".into());
            }
            let _ = writeln!(body, "    let r{n} = {function}({});", args.join(", "));
        }
        body
    }
}

fn reg(r: Reg) -> String {
    match r {
        Reg::Root => "v".into(),
        Reg::Load(n) => format!("x{n}"),
        Reg::Step(n) => format!("r{n}"),
    }
}

fn bind(bindings: &mut Vec<(BindingText, Binding)>, name: String, slot: Slot, dtype: DType, access: Access) {
    bindings.push((BindingText { name, element: dtype.wgsl().into(), access }, Binding { slot, access }));
}

/// Append a uniform word and give the expression that reads it.
fn word(words: &mut Vec<Word>, w: Word) -> String {
    let n = words.len();
    words.push(w);
    format!("u[{}].{}", n / 4, ["x", "y", "z", "w"][n % 4])
}

impl Load {
    /// The index expression; text depends on the class of the layout (linear, scalar, or the rank after merging), never on its sizes.
    fn index(&self, n: usize, body: &mut String, words: &mut Vec<Word>) -> String {
        let offset = word(words, Word::Low(self.offset));
        let dims = self.layout.merged();
        match dims[..] {
            [] => offset,
            [(_, 1)] => format!("{offset} + i"),
            [(_, 0)] => offset,
            [(_, stride)] => {
                let s = word(words, Word::Const(stride as i32 as u32));
                format!("{offset} + i * {s}")
            }
            _ => {
                // Innermost first: divide the index by each size, add what is left times the stride. Negative strides wrap around, as u32 does.
                let _ = writeln!(body, "    var o{n} = {offset};\n    var q{n} = i;");
                for &(size, stride) in dims[1..].iter().rev() {
                    let size = word(words, Word::Const(size as u32));
                    let stride = word(words, Word::Const(stride as i32 as u32));
                    let _ = writeln!(body, "    o{n} += (q{n} % {size}) * {stride};\n    q{n} = q{n} / {size};");
                }
                let stride = word(words, Word::Const(dims[0].1 as i32 as u32));
                format!("o{n} + q{n} * {stride}")
            }
        }
    }
}

impl Step {
    /// Put the row into the shader as a function of its operand type, and give its name.
    fn function(&self, emit: &mut Emit) -> String {
        let name = format!("row_{}_{}", self.row.name, self.operand.name());
        emit.add_function(&name, &self.row.wgsl_function(&name, self.operand, self.out));
        name
    }
}

impl Row {
    /// Whether its WGSL reads the element's index.
    pub(crate) fn uses_index(&self) -> bool {
        words_of(self.wgsl).any(|w| w == "i")
    }

    /// The row as a WGSL function over operands of type `operand`.
    pub fn wgsl_function(&self, name: &str, operand: DType, out: DType) -> String {
        let mut params: Vec<String> = ["x", "y", "z"][..self.arity]
            .iter()
            .enumerate()
            .map(|(n, p)| {
                let t = if self.sig == Sig::Select && n == 0 { "u32" } else { operand.wgsl() };
                format!("{p}: {t}")
            })
            .collect();
        params.extend((0..self.floats).map(|n| format!("p{n}: f32")));
        params.extend((0..self.ints).flat_map(|n| [format!("q{n}: u32"), format!("q{n}h: u32")]));
        if self.uses_index() {
            params.push("i: u32".into());
        }
        let body = replace_word(self.wgsl, "T", operand.wgsl());
        format!("fn {name}({}) -> {} {{\n    return {body};\n}}", params.join(", "), out.wgsl())
    }
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty())
}

/// `text` with every whole word `from` replaced.
fn replace_word(text: &str, from: &str, to: &str) -> String {
    let mut out = String::new();
    let mut current = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_alphanumeric() || c == '_' {
            current.push(c);
        } else {
            out.push_str(if current == from { to } else { &current });
            current.clear();
            if c != '\0' {
                out.push(c);
            }
        }
    }
    out
}
