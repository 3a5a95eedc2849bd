//! The emitter: makes a variant of a shader by replacing `const` values, `alias` types and the bodies of hook functions, by writing the bindings, and by
//! joining only those library functions that are used. No preprocessor language: the file as it lies is valid WGSL.

use super::table::{LIBRARIES, PARTS};
use super::{Access, IMAGE_ROW, Kernel};
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::fmt::Write;

/// A storage binding as text: `var<storage, access> name: array<element>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingText {
    /// The variable's name.
    pub name: String,
    /// The array's element type. `half` (or `vec2<half>`, `vec4<half>`) for halves that are read: wherever the text reads the array, it gets `f32`s.
    pub element: String,
    /// How it is used. Wherever the text reads the array, an image is read.
    pub access: Access,
}

/// A variant of one shader in the making.
#[derive(Debug)]
pub struct Emit {
    name: &'static str,
    text: String,
    /// Functions to put in, by name, in order.
    functions: Vec<(String, String)>,
    /// Whether the device has a type for halves.
    f16: bool,
    error: Option<Error>,
}

impl Emit {
    /// Begin from the shader as it lies, with the parts that it has in common with others.
    pub fn new(kernel: &'static Kernel) -> Emit {
        Emit { name: kernel.name, text: with_parts(kernel), functions: Vec::new(), f16: false, error: None }
    }

    /// Let halves be read as the device's own type, where it has one; else as words, two in each. They lie in memory alike.
    pub fn set_f16(&mut self, on: bool) {
        self.f16 = on;
    }

    /// Let [`Emit::finish`] fail, and say what is wrong.
    pub(crate) fn fail(&mut self, what: String) {
        let e = Error::internal(format!("kernel {}: {what}", self.name));
        self.error.get_or_insert(e);
    }

    /// Replace one line that starts with `start`; it must be there.
    fn replace_line(&mut self, start: &str, with: &str) {
        let mut found = false;
        let lines: Vec<&str> = self
            .text
            .lines()
            .map(|l| {
                if l.starts_with(start) {
                    found = true;
                    with
                } else {
                    l
                }
            })
            .collect();
        let text = lines.join("\n");
        if found { self.text = text } else { self.fail(format!("no line `{start}`")) }
    }

    /// Replace the value of `const name: TYPE = VALUE;`, keeping its type.
    pub fn set_const(&mut self, name: &str, value: &str) {
        let start = format!("const {name}:");
        let Some(line) = self.text.lines().find(|l| l.starts_with(&start)) else { return self.fail(format!("no line `{start}`")) };
        let head = line.split('=').next().unwrap_or_default().to_string();
        self.replace_line(&start, &format!("{head}= {value};"));
    }

    /// Replace the type of `alias name = TYPE;`.
    pub fn set_alias(&mut self, name: &str, wgsl_type: &str) {
        self.replace_line(&format!("alias {name} ="), &format!("alias {name} = {wgsl_type};"));
    }

    /// Replace the body of `fn name(..)`; the closing brace of a function stands alone at the start of its line.
    pub fn set_hook(&mut self, name: &str, body: &str) {
        let start = format!("fn {name}(");
        let Some(at) = self.text.find(&start).filter(|&at| at == 0 || self.text.as_bytes()[at - 1] == b'\n') else {
            return self.fail(format!("no hook `{start}`"));
        };
        let text = &self.text[at..];
        let head = text.find('\n').filter(|&end| text[..end].ends_with('{'));
        let (Some(head), Some(close)) = (head, text.find("\n}")) else {
            return self.fail(format!("hook `{start}` is not closed"));
        };
        self.text.replace_range(at + head..at + close, &format!("\n{}", body.trim_end()));
    }

    /// Leave out the line `enable name;`.
    pub fn disable(&mut self, name: &str) {
        self.replace_line(&format!("enable {name};"), "");
    }

    /// Put in a function of that name, once.
    pub fn add_function(&mut self, name: &str, text: &str) {
        if !self.functions.iter().any(|(n, _)| n == name) {
            self.functions.push((name.to_string(), text.to_string()));
        }
    }

    /// The whole module: `words` u32s of uniforms at binding 0, storage bindings from 1 on.
    pub fn finish(mut self, bindings: &[BindingText], words: usize) -> Result<String> {
        if let Some(e) = self.error {
            return Err(e);
        }
        let enables = self.text.lines().filter(|l| l.starts_with("enable "));
        let mut out: String = enables.map(|l| format!("{l}\n")).collect();
        // Elements as they lie, and functions that read those that are no arrays of what the text takes them for.
        let readers: Vec<Option<Reader>> = bindings.iter().map(|b| Reader::of(b, self.f16)).collect();
        let elements = bindings.iter().zip(&readers).map(|(b, r)| r.as_ref().map_or(b.element.as_str(), |r| r.element));
        let elements: Vec<&str> = elements.collect();
        if !out.contains("enable f16;") && elements.iter().any(|e| e.contains("f16")) {
            out.push_str("enable f16;\n");
        }
        let _ = writeln!(out, "@group(0) @binding(0) var<uniform> u: array<vec4<u32>, {}>;", words.div_ceil(4).max(1));
        for (n, (b, element)) in bindings.iter().zip(elements).enumerate().filter(|(_, (b, _))| b.access != Access::Image) {
            let access = if b.access.writes() { "read_write" } else { "read" };
            let _ = writeln!(out, "@group(0) @binding({}) var<storage, {access}> {}: array<{element}>;", n + 1, b.name);
        }
        for (n, b) in bindings.iter().filter(|b| b.access.images()).enumerate() {
            let _ = writeln!(out, "@group(0) @binding({}) var {}_image: texture_2d<f32>;", n + bindings.len() + 1, b.name);
        }
        let written_elsewhere = |l: &&str| ["@group(", "enable ", "//"].iter().any(|start| l.trim_start().starts_with(start));
        self.text = self.text.lines().filter(|l| !written_elsewhere(l)).collect::<Vec<_>>().join("\n");
        let mut body = String::new();
        for (_, text) in &self.functions {
            let _ = writeln!(body, "{}", text.trim_end());
        }
        body.push_str(self.text.trim());
        body.push('\n');
        for (b, r) in bindings.iter().zip(&readers) {
            let Some(r) = r else { continue };
            body = read_through(&body, &b.name)?;
            out.push_str(&r.function);
        }
        out.push_str(&body);
        // Rows may call any library, so all are searched; a file's own `// use` line is for editors and the tests.
        let needed = needed_items(&out);
        out.push_str(&needed);
        Ok(out)
    }
}

/// A binding of halves, or an image: what elements lie there, and the function that reads them.
struct Reader {
    element: &'static str,
    function: String,
}

impl Reader {
    fn of(b: &BindingText, f16: bool) -> Option<Reader> {
        let name = &b.name;
        let texel = |i: &str| format!("textureLoad({name}_image, vec2<u32>({i} % {IMAGE_ROW}u, {i} / {IMAGE_ROW}u), 0)");
        let (element, to, value) = match (b.element.as_str(), f16) {
            ("f32", _) if b.access.images() => ("f32", "f32", format!("{}[i % 4u]", texel("(i / 4u)"))),
            _ if b.access.images() => ("vec4<f32>", "vec4<f32>", texel("i")),
            ("half", true) => ("f16", "f32", format!("f32({name}[i])")),
            ("half", false) => ("u32", "f32", format!("half_from({name}[i >> 1u], i)")),
            ("vec2<half>", true) => ("vec2<f16>", "vec2<f32>", format!("vec2<f32>({name}[i])")),
            ("vec2<half>", false) => ("u32", "vec2<f32>", format!("half_from4(vec2<u32>({name}[i], 0u)).xy")),
            ("vec4<half>", true) => ("vec4<f16>", "vec4<f32>", format!("vec4<f32>({name}[i])")),
            ("vec4<half>", false) => ("vec2<u32>", "vec4<f32>", format!("half_from4({name}[i])")),
            _ => return None,
        };
        Some(Reader { element, function: format!("fn read_{name}(i: u32) -> {to} {{\n    return {value};\n}}\n") })
    }
}

/// `text` with every `name[..]` that is read a call of `read_name`.
fn read_through(text: &str, name: &str) -> Result<String> {
    with_elements(text, name, &mut |index, written| (!written).then(|| format!("read_{name}({index})")))
}

/// `text` with what `new` puts in the place of every `name[index]`, told the index and whether the element is assigned to; none leaves it.
pub(super) fn with_elements(text: &str, name: &str, new: &mut dyn FnMut(&str, bool) -> Option<String>) -> Result<String> {
    let start = format!("{name}[");
    let mut out = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(at) = rest.find(&start) {
        let whole = !rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.');
        let inside = &rest[at + start.len()..];
        let mut depth = 1;
        let close = inside.find(|c| {
            depth += i32::from(c == '[') - i32::from(c == ']');
            depth == 0
        });
        let Some(close) = close else { return Err(Error::internal(format!("kernel: {start} is not closed"))) };
        out.push_str(&rest[..at]);
        // What is inside may name it again.
        let index = with_elements(&inside[..close], name, new)?;
        rest = &inside[close + 1..];
        let written = rest.trim_start().strip_prefix('=').is_some_and(|after| !after.starts_with('='));
        let put = if whole { new(&index, written) } else { None };
        out.push_str(&put.unwrap_or_else(|| format!("{start}{index}]")));
    }
    out.push_str(rest);
    Ok(out)
}

/// The libraries that a file's first line names.
pub(crate) fn libraries(text: &str) -> Vec<&str> {
    text.lines().next().and_then(|l| l.strip_prefix("// use ")).map(|l| l.split(',').map(str::trim).collect()).unwrap_or_default()
}

/// A shader joined with all that it names: a whole module as it lies.
pub fn joined(kernel: &Kernel) -> String {
    let mut out = with_parts(kernel);
    for (_, text) in LIBRARIES.iter().filter(|(n, _)| libraries(kernel.text).contains(n)) {
        out.push('\n');
        out.push_str(text);
    }
    out
}

/// A shader with the parts it names.
fn with_parts(kernel: &Kernel) -> String {
    let parts = PARTS.iter().filter(|(n, _)| libraries(kernel.text).contains(n));
    parts.fold(kernel.text.to_string(), |text, (_, part)| text + "\n" + part)
}

/// The text of every library item that `text` names, directly or through others, in library order.
fn needed_items(text: &str) -> String {
    let items: Vec<(&str, &str)> = LIBRARIES.iter().flat_map(|(_, t)| items(t)).collect();
    let mut wanted: HashSet<&str> = HashSet::new();
    let mut queue: Vec<&str> = vec![text];
    while let Some(t) = queue.pop() {
        let words: HashSet<&str> = t.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        for (name, body) in &items {
            if words.contains(name) && wanted.insert(name) {
                queue.push(body);
            }
        }
    }
    items.iter().filter(|(n, _)| wanted.contains(n)).map(|(_, t)| format!("{t}\n")).collect()
}

/// The top-level items of a library: consts (one line) and functions (to the first line that is `}`), by name.
fn items(text: &str) -> Vec<(&str, &str)> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line_end = rest.find('\n').map_or(rest.len(), |i| i + 1);
        let line = &rest[..line_end];
        let word = |prefix: &str| line.strip_prefix(prefix).and_then(|l| l.split(|c: char| !c.is_alphanumeric() && c != '_').next());
        if let Some(name) = word("fn ") {
            let end = rest.find("\n}").map_or(rest.len(), |i| i + 2);
            out.push((name, &rest[..end]));
            rest = &rest[end..];
        } else {
            if let Some(name) = word("const ") {
                out.push((name, line.trim_end()));
            }
            rest = &rest[line_end..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::find;

    /// `name: array<element>`, with this access.
    fn binding(name: &str, element: &str, access: Access) -> BindingText {
        BindingText { name: name.into(), element: element.into(), access }
    }

    #[test]
    fn what_is_read_goes_through_the_image_and_what_is_written_does_not() {
        let four = "vec4<f32>";
        let bindings = [binding("values", four, Access::Update), binding("grads", four, Access::Image), binding("table", "u32", Access::Read)];
        let text = Emit::new(find("update").unwrap()).finish(&bindings, 12).unwrap();
        assert!(text.contains("values[i] = update(read_grads(i) * s.x, read_values(i), i);"), "{text}");
        assert!(text.contains("let group = table[first / BLOCK];"), "{text}");
        // Buffers keep their places, and images come behind them all; what is only read is no buffer to the text.
        let declared: Vec<&str> = text.lines().filter(|l| l.starts_with("@group(0)")).collect();
        let want = [
            "@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;",
            "@group(0) @binding(1) var<storage, read_write> values: array<vec4<f32>>;",
            "@group(0) @binding(3) var<storage, read> table: array<u32>;",
            "@group(0) @binding(4) var values_image: texture_2d<f32>;",
            "@group(0) @binding(5) var grads_image: texture_2d<f32>;",
        ];
        assert_eq!(declared, want);
    }

    #[test]
    fn reads_inside_of_reads_are_found_and_longer_names_are_left_alone() {
        let through = read_through("x[x[i] + 1u] + ax[i] + x [i]; x[i] == y; x[i] = x[i];", "x").unwrap();
        assert_eq!(through, "read_x(read_x(i) + 1u) + ax[i] + x [i]; read_x(i) == y; x[i] = read_x(i);");
    }
}
