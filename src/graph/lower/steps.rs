//! A run of rows inside one kernel: what they load, compute and store per element, and that as WGSL.

use super::places::Places;
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
    /// The type of what the kernel around the rows computed.
    pub root: Option<DType>,
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
    /// Whether it stores single halves that lie two to a word, which no two invocations may write.
    pub fn shares_words(&self, width: Width, f16: bool) -> bool {
        width == Width::One && !f16 && self.stores.iter().any(|s| s.dtype == DType::F16)
    }

    /// Make the rows the body of the epilogue hook.
    pub fn emit_epilogue(&self, emit: &mut Emit, bindings: &mut Vec<(BindingText, Binding)>, words: &mut Vec<Word>, width: Width) {
        let mut body = self.body(emit, bindings, words, "e", width);
        for (n, s) in self.stores.iter().enumerate() {
            // The first store takes the name of the kernel's own output, so that shaders that mention it elsewhere stay whole.
            let name = if n == 0 { "y".to_string() } else { format!("y{n}") };
            let at = if width == Width::Four { "i >> 2u" } else { "i" };
            let value = self.reg(s.reg);
            let (element, value) = match (s.dtype, width) {
                (DType::F16, Width::One) => ("f16".into(), format!("f16(half_of({value}))")),
                (DType::F16, Width::Four) => ("vec2<u32>".into(), format!("half_words({value})")),
                _ => (width.of(s.dtype), value),
            };
            let _ = writeln!(body, "    {name}[{at}] = {value};");
            bind(bindings, name, s.slot, element, Access::ReadWrite);
        }
        emit.set_hook("epilogue", &body);
    }

    /// Make the rows the body of the load hook.
    pub fn emit_prologue(&self, emit: &mut Emit, bindings: &mut Vec<(BindingText, Binding)>, words: &mut Vec<Word>, width: Width) {
        let mut body = self.body(emit, bindings, words, "p", width);
        if let Some(r) = self.result {
            let _ = writeln!(body, "    return {};", self.reg(r));
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
        let mut places = Places::new(prefix);
        if self.rounded(Reg::Root) {
            let _ = writeln!(body, "    let v0 = {}(v);", width.half());
        }
        for ((n, load), wide) in self.loads.iter().enumerate().zip(self.wide(width)) {
            let element = if wide { width.stored(load.dtype) } else { load.dtype.stored().to_string() };
            let same = |(t, b): &&(BindingText, Binding)| b.slot == load.slot && b.access == Access::Read && t.element == element;
            let name = match bindings.iter().find(same) {
                Some((t, _)) => t.name.clone(),
                None => {
                    let name = format!("{prefix}{n}");
                    bind(bindings, name.clone(), load.slot, element, Access::Read);
                    name
                }
            };
            let place = places.add(load, words);
            let t = width.of(load.dtype);
            if wide || width == Width::One || load.same_for_four() {
                let o = places.at(place, 0, &mut body);
                let _ = match wide {
                    true => writeln!(body, "    let x{n} = {name}[({o}) >> 2u];"),
                    false => writeln!(body, "    let x{n} = {t}({name}[{o}]);"),
                };
            } else {
                let four = [0, 1, 2, 3].map(|lane| format!("{name}[{}]", places.at(place, lane, &mut body)));
                let _ = writeln!(body, "    let x{n} = {t}({});", four.join(", "));
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
                let part = |r: Reg| lane.map_or_else(|| self.reg(r), |k| format!("{}.{}", self.reg(r), LANES[k]));
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
            let _ = match self.rounded(Reg::Step(n as u16)) {
                true => writeln!(body, "    let r{n} = {}({value});", width.half()),
                false => writeln!(body, "    let r{n} = {value};"),
            };
        }
        body
    }

    /// Whether a value is a half that others go on with: they get it rounded, as they would if it had been stored. (Storing rounds by itself.)
    fn rounded(&self, r: Reg) -> bool {
        let dtype = match r {
            Reg::Root => self.root,
            Reg::Step(n) => Some(self.steps[n as usize].out),
            Reg::Load(_) => None,
        };
        dtype == Some(DType::F16) && (self.result == Some(r) || self.steps.iter().any(|s| s.args.contains(&r)))
    }

    /// The name of a value.
    fn reg(&self, r: Reg) -> String {
        match r {
            Reg::Root if self.rounded(r) => "v0".into(),
            Reg::Root => "v".into(),
            Reg::Load(n) => format!("x{n}"),
            Reg::Step(n) => format!("r{n}"),
        }
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

    /// The type of an array's elements that are read so.
    fn stored(self, dtype: DType) -> String {
        match self {
            Width::One => dtype.stored().into(),
            Width::Four => format!("vec4<{}>", dtype.stored()),
        }
    }

    /// The function that rounds to halves.
    fn half(self) -> &'static str {
        match self {
            Width::One => "half_of",
            Width::Four => "half_of4",
        }
    }
}

fn bind(bindings: &mut Vec<(BindingText, Binding)>, name: String, slot: Slot, element: String, access: Access) {
    bindings.push((BindingText { name, element, access }, Binding { slot, access }));
}

/// Append a uniform word and give the expression that reads it.
pub(super) fn word(words: &mut Vec<Word>, w: Word) -> String {
    let n = words.len();
    words.push(w);
    format!("u[{}].{}", n / 4, ["x", "y", "z", "w"][n % 4])
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
