//! The emitter: makes a variant of a shader by replacing `const` values, `alias` types and the bodies of hook functions, by writing the bindings, and by
//! joining only those library functions that are used. No preprocessor language: the file as it lies, joined with its libraries, is valid WGSL.

use super::Access;
use super::{Kernel, table::LIBRARIES};
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::fmt::Write;

/// A storage binding as text: `var<storage, access> name: array<element>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingText {
    /// The variable's name.
    pub name: String,
    /// The array's element type.
    pub element: String,
    /// Read, or read and write.
    pub access: Access,
}

/// A variant of one shader in the making.
#[derive(Debug)]
pub struct Emit {
    name: &'static str,
    text: String,
    /// What the kernel takes from the libraries that it names, and rows from those that all may use.
    items: Vec<(&'static str, &'static str)>,
    /// Functions to put in, by name, in order.
    functions: Vec<(String, String)>,
    error: Option<Error>,
}

impl Emit {
    /// Begin from the shader as it lies.
    pub fn new(kernel: &'static Kernel) -> Emit {
        let named = libraries(kernel.text);
        let items = LIBRARIES.iter().filter(|l| l.any || named.contains(&l.name)).flat_map(|l| items(l.text)).collect();
        Emit { name: kernel.name, text: kernel.text.to_string(), items, functions: Vec::new(), error: None }
    }

    fn fail(&mut self, what: String) {
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

    /// Replace the body of `fn name(..)`, which may stand in a library; the closing brace of a function stands alone at the start of its line.
    pub fn set_hook(&mut self, name: &str, body: &str) {
        if let Some((_, text)) = self.items.iter().find(|(n, t)| *n == name && t.starts_with("fn ")) {
            // From here on it is the kernel's own.
            self.text.push_str(&format!("\n{text}\n"));
            self.items.retain(|(n, _)| *n != name);
        }
        let start = format!("fn {name}(");
        let Some(at) = self.text.find(&start).filter(|&at| at == 0 || self.text.as_bytes()[at - 1] == b'\n') else {
            return self.fail(format!("no hook `{start}`"));
        };
        let (Some(open), Some(close)) = (self.text[at..].find("{\n"), self.text[at..].find("\n}")) else {
            return self.fail(format!("hook `{start}` is not closed"));
        };
        self.text.replace_range(at + open + 2..at + close, body.trim_end());
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
        let mut out: String = self.text.lines().filter(|l| l.starts_with("enable ")).map(|l| format!("{l}\n")).collect();
        let _ = writeln!(out, "@group(0) @binding(0) var<uniform> u: array<vec4<u32>, {}>;", words.div_ceil(4).max(1));
        for (n, b) in bindings.iter().enumerate() {
            let access = match b.access {
                Access::Read => "read",
                Access::ReadWrite => "read_write",
            };
            let _ = writeln!(out, "@group(0) @binding({}) var<storage, {access}> {}: array<{}>;", n + 1, b.name, b.element);
        }
        self.text = self.text.lines().filter(|l| !l.starts_with("@group(") && !l.starts_with("enable ") && !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        for (_, text) in &self.functions {
            let _ = writeln!(out, "{}", text.trim_end());
        }
        out.push_str(self.text.trim());
        out.push('\n');
        let needed = needed_items(&out, &self.items);
        out.push_str(&needed);
        Ok(out)
    }
}

/// The libraries that a file's first line names.
pub(crate) fn libraries(text: &str) -> Vec<&str> {
    text.lines().next().and_then(|l| l.strip_prefix("// use ")).map(|l| l.split(',').map(str::trim).collect()).unwrap_or_default()
}

/// A shader joined with the libraries it names: a whole module as it lies.
pub fn joined(kernel: &Kernel) -> String {
    let mut out = kernel.text.to_string();
    for name in libraries(kernel.text) {
        if let Some(library) = LIBRARIES.iter().find(|l| l.name == name) {
            out.push('\n');
            out.push_str(library.text);
        }
    }
    out
}

/// The text of every item that `text` names, directly or through others, in library order.
fn needed_items(text: &str, items: &[(&str, &str)]) -> String {
    let mut wanted: HashSet<&str> = HashSet::new();
    let mut queue: Vec<&str> = vec![text];
    while let Some(t) = queue.pop() {
        let words: HashSet<&str> = t.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        for (name, body) in items {
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
