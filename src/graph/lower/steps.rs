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
    /// Whether the offset is a multiple of four elements in every run.
    pub aligned: bool,
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

/// How many neighbouring elements a hook is given at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// One: `epilogue(i, v: T)`, `load(i) -> T`.
    One,
    /// Four, `i` the first: `epilogue(i, v: vec4<T>)`, `load(i) -> vec4<T>`. For index spaces of [`in_fours`].
    Four,
}

/// Whether elements of this shape are taken four at a time: their number is a multiple of four whatever the batch is, so that a last batch of another size
/// needs no other kernel. (A shape of one dimension may be the batch; long ones are not.)
pub(crate) fn in_fours(shape: &[usize]) -> bool {
    const LONG: usize = 4096;
    match shape {
        [] => false,
        [n] => n.is_multiple_of(4) && *n >= LONG,
        [_, rest @ ..] => rest.iter().product::<usize>().is_multiple_of(4),
    }
}

const LANES: [&str; 4] = ["x", "y", "z", "w"];

impl Steps {
    /// Make the rows the body of the epilogue hook.
    pub fn emit_epilogue(&self, emit: &mut Emit, bindings: &mut Vec<(BindingText, Binding)>, words: &mut Vec<Word>, width: Width) {
        let mut body = self.body(emit, bindings, words, "e", width);
        for (n, s) in self.stores.iter().enumerate() {
            // The first store takes the name of the kernel's own output, so that shaders that mention it elsewhere stay whole.
            let name = if n == 0 { "y".to_string() } else { format!("y{n}") };
            let at = if width == Width::Four { "i >> 2u" } else { "i" };
            let _ = writeln!(body, "    {name}[{at}] = {};", reg(s.reg));
            bind(bindings, name, s.slot, width.of(s.dtype), Access::ReadWrite);
        }
        emit.set_hook("epilogue", &body);
    }

    /// Make the rows the body of the load hook.
    pub fn emit_prologue(&self, emit: &mut Emit, bindings: &mut Vec<(BindingText, Binding)>, words: &mut Vec<Word>, width: Width) {
        let mut body = self.body(emit, bindings, words, "p", width);
        if let Some(r) = self.result {
            let _ = writeln!(body, "    return {};", reg(r));
        }
        emit.set_hook("load", &body);
    }

    /// Which loads read four elements at once. A buffer is declared once, so either all loads of it do or none.
    fn wide(&self, width: Width) -> Vec<bool> {
        let all = |slot: Slot| self.loads.iter().filter(|l| l.slot == slot).all(Load::lies_in_fours);
        self.loads.iter().map(|l| width == Width::Four && all(l.slot)).collect()
    }

    fn body(&self, emit: &mut Emit, bindings: &mut Vec<(BindingText, Binding)>, words: &mut Vec<Word>, prefix: &str, width: Width) -> String {
        let mut body = String::new();
        for ((n, load), wide) in self.loads.iter().enumerate().zip(self.wide(width)) {
            let element = if wide { width.of(load.dtype) } else { load.dtype.wgsl().to_string() };
            let same = |(t, b): &&(BindingText, Binding)| b.slot == load.slot && b.access == Access::Read && t.element == element;
            let name = match bindings.iter().find(same) {
                Some((t, _)) => t.name.clone(),
                None => {
                    let name = format!("{prefix}{n}");
                    bind(bindings, name.clone(), load.slot, element, Access::Read);
                    name
                }
            };
            let place = load.place(words);
            let t = width.of(load.dtype);
            if wide {
                let _ = writeln!(body, "    var x{n}: {t};\n    {{\n{}        x{n} = {name}[o >> 2u];\n    }}", place.at("i"));
            } else if width == Width::One || load.same_for_four() {
                let _ = writeln!(body, "    var x{n}: {t};\n    {{\n{}        x{n} = {t}({name}[o]);\n    }}", place.at("i"));
            } else {
                let _ = writeln!(body, "    var x{n}: {t};");
                for (k, lane) in LANES.iter().enumerate() {
                    let _ = writeln!(body, "    {{\n{}        x{n}.{lane} = {name}[o];\n    }}", place.at(&format!("i + {k}u")));
                }
            }
        }
        for (n, step) in self.steps.iter().enumerate() {
            let function = step.function(emit);
            let mut uniform: Vec<String> = Vec::new();
            for f in 0..step.row.floats {
                uniform.push(format!("bitcast<f32>({})", word(words, Word::F32(step.slots + f))));
            }
            for q in 0..step.row.ints {
                let at = step.slots + step.row.floats + q;
                uniform.push(word(words, Word::Low(at)));
                uniform.push(word(words, Word::High(at)));
            }
            let call = |lane: Option<usize>| {
                let part = |r: Reg| lane.map_or_else(|| reg(r), |k| format!("{}.{}", reg(r), LANES[k]));
                let mut args: Vec<String> = step.args.iter().map(|&r| part(r)).chain(uniform.iter().cloned()).collect();
                if step.row.uses_index() {
                    args.push(lane.map_or_else(|| "i".into(), |k| format!("i + {k}u")));
                }
                format!("{function}({})", args.join(", "))
            };
            let value = match width {
                Width::One => call(None),
                Width::Four => format!("{}({})", width.of(step.out), [0, 1, 2, 3].map(|k| call(Some(k))).join(", ")),
            };
            let _ = writeln!(body, "    let r{n} = {value};");
        }
        body
    }
}

impl Width {
    /// The WGSL type of what a hook gets of elements of this type.
    fn of(self, dtype: DType) -> String {
        match self {
            Width::One => dtype.wgsl().into(),
            Width::Four => format!("vec4<{}>", dtype.wgsl()),
        }
    }
}

fn reg(r: Reg) -> String {
    match r {
        Reg::Root => "v".into(),
        Reg::Load(n) => format!("x{n}"),
        Reg::Step(n) => format!("r{n}"),
    }
}

fn bind(bindings: &mut Vec<(BindingText, Binding)>, name: String, slot: Slot, element: String, access: Access) {
    bindings.push((BindingText { name, element, access }, Binding { slot, access }));
}

/// Append a uniform word and give the expression that reads it.
fn word(words: &mut Vec<Word>, w: Word) -> String {
    let n = words.len();
    words.push(w);
    format!("u[{}].{}", n / 4, ["x", "y", "z", "w"][n % 4])
}

/// Where a load finds an element, as WGSL: an offset, and sizes and strides, innermost first. Its text depends on the class of the layout (the dimensions after
/// merging; strides of 0 and 1), never on its sizes.
struct PlaceText {
    offset: String,
    /// Size (none for the outermost) and stride, none where it is 1.
    dims: Vec<(Option<String>, Option<String>)>,
}

impl Load {
    /// Whether four neighbouring elements (from a multiple of four on) lie side by side at a multiple of four.
    fn lies_in_fours(&self) -> bool {
        match self.layout.merged().split_last() {
            Some((&(size, 1), [])) => self.aligned && size > 0,
            Some((&(size, 1), outer)) => self.aligned && size.is_multiple_of(4) && outer.iter().all(|d| d.1 % 4 == 0),
            _ => false,
        }
    }

    /// Whether four neighbouring elements are one.
    fn same_for_four(&self) -> bool {
        match self.layout.merged().split_last() {
            None => true,
            Some((&(size, 0), outer)) => outer.is_empty() || size.is_multiple_of(4),
            _ => false,
        }
    }

    fn place(&self, words: &mut Vec<Word>) -> PlaceText {
        let offset = word(words, Word::Low(self.offset));
        let merged = self.layout.merged();
        if let [(_, 0)] = merged[..] {
            return PlaceText { offset, dims: Vec::new() };
        }
        let mut dims: Vec<_> = merged
            .iter()
            .rev()
            .map(|&(size, stride)| {
                let size = (merged.len() > 1).then(|| word(words, Word::Const(size as u32)));
                (size, (stride != 1 || merged.len() > 1).then(|| word(words, Word::Const(stride as i32 as u32))))
            })
            .collect();
        if let Some(outermost) = dims.last_mut() {
            outermost.0 = None;
        }
        PlaceText { offset, dims }
    }
}

impl PlaceText {
    /// Statements that declare `o`, where element `i` lies. Negative strides wrap around, as u32 does.
    fn at(&self, i: &str) -> String {
        let offset = &self.offset;
        match &self.dims[..] {
            [] => format!("        let o = {offset};\n"),
            [(_, None)] => format!("        let o = {offset} + {i};\n"),
            [(_, Some(stride))] => format!("        let o = {offset} + ({i}) * {stride};\n"),
            dims => {
                // Divide the index by each size, add what is left times the stride.
                let mut text = format!("        var o = {offset};\n        var q = {i};\n");
                for (size, stride) in dims {
                    let stride = stride.as_deref().unwrap_or("1u");
                    let _ = match size {
                        Some(size) => writeln!(text, "        o += (q % {size}) * {stride};\n        q = q / {size};"),
                        None => writeln!(text, "        o += q * {stride};"),
                    };
                }
                text
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
