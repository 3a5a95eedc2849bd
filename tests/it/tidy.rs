//! The invariants of ARCHITECTURE.md that text can show. Each test says what it forbids and where it was found.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules that name each other and count as one: Tensor, Node and Op cannot be told apart.
const KNOT: [&str; 3] = ["autograd", "graph", "ops"];

/// A file of the repository.
struct File {
    /// From the repository's root, with `/`.
    path: String,
    text: String,
}

impl File {
    /// The lines that are code, with their numbers: no comments, and nothing from the unit tests at the end of a file on.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(n, line)| (n + 1, line));
        lines
            .take_while(|(_, line)| *line != "#[cfg(test)]")
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(n, line)| (n, before_comment(line)))
    }
}

/// The part of a line before ` //`: good enough where no string holds that.
fn before_comment(line: &str) -> &str {
    line.split(" // ").next().unwrap_or(line)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` whose name ends so, in order.
fn files(folder: &str, ending: &str) -> Vec<File> {
    let mut found = Vec::new();
    collect(&root().join(folder), ending, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no *{ending} in {folder}/");
    found
}

fn collect(folder: &Path, ending: &str, found: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, ending, found);
        } else if path.to_string_lossy().ends_with(ending) {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            found.push(File { path: name, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Fail with all that was found, a line each.
#[track_caller]
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// The modules of lib.rs, in order.
fn modules() -> Vec<String> {
    let lib = read("src/lib.rs");
    let name = |line: &str| line.strip_prefix("pub mod ").or(line.strip_prefix("mod ")).and_then(|m| m.strip_suffix(';')).map(str::to_string);
    lib.lines().filter_map(name).collect()
}

/// What a line of code names of this crate: the `x` of `crate::x` and of `crate::{x, y::z}`.
fn crate_names(line: &str) -> Vec<String> {
    let ident = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            names.push(ident(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    names.push(ident(list[start..i].trim()));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    names.push(ident(list[start..i].trim()));
                    start = i + 1;
                }
                _ => {}
            }
        }
    }
    names
}

#[test]
fn crate_names_are_found() {
    assert_eq!(crate_names("use crate::error::{Error, Result};"), ["error"]);
    assert_eq!(crate_names("use crate::{env, ops::{a, b}, rng};"), ["env", "ops", "rng"]);
}

#[test]
fn a_module_uses_only_what_stands_before_it() {
    let order = modules();
    assert!(order.len() > 8, "{order:?}");
    let knot = |m: &str| KNOT.contains(&m);
    let mut wrong = Vec::new();
    for file in files("src", ".rs") {
        let own = file.path["src/".len()..].split(['/', '.']).next().unwrap();
        let Some(place) = order.iter().position(|m| m == own) else {
            assert!(own == "lib" || own == "main", "{} belongs to no module of lib.rs", file.path);
            continue;
        };
        // The unit tests at the end of a file are held to the same rule.
        let lines = file.text.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//"));
        for (n, line) in lines {
            for name in crate_names(line) {
                match order.iter().position(|m| *m == name) {
                    Some(other) if other <= place || knot(own) && knot(&name) => {}
                    Some(_) => wrong.push(format!("{}:{}: {own} stands before {name} in lib.rs", file.path, n + 1)),
                    None => wrong.push(format!("{}:{}: crate::{name}: name it by its module", file.path, n + 1)),
                }
            }
        }
    }
    none("modules that look ahead", wrong);
}

#[test]
fn only_the_gpu_folder_names_wgpu() {
    let mut wrong = Vec::new();
    for file in files("src", ".rs").iter().filter(|f| !f.path.starts_with("src/device/gpu/") && f.path != "src/lib.rs") {
        let found = file.code().filter(|(_, line)| line.contains("wgpu::") || line.contains("use wgpu"));
        wrong.extend(found.map(|(n, line)| format!("{}:{n}: {}", file.path, line.trim())));
    }
    none("wgpu outside of src/device/gpu/", wrong);
}

#[test]
fn unsafe_stands_in_the_device_layer_with_its_reason() {
    let mut wrong = Vec::new();
    for file in files("src", ".rs") {
        let lines: Vec<&str> = file.text.lines().collect();
        for (n, line) in file.code() {
            if !line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe") {
                continue;
            }
            // A block has a SAFETY line; a function has a Safety section, which may be some lines up.
            let near = &lines[n.saturating_sub(8)..n];
            let reason = near.iter().any(|l| l.contains("SAFETY:") || l.contains("# Safety") || l.contains("Safety:"));
            if !file.path.starts_with("src/device/") || !reason {
                wrong.push(format!("{}:{n}: {}", file.path, line.trim()));
            }
        }
    }
    none("unsafe outside of src/device/, or without a SAFETY line above", wrong);
}

#[test]
fn shaders_do_not_ask_whether_floats_differ() {
    // `x != x` is false for NaN on two drivers of three. Where the operands are integers, the line says so: `// integers`.
    let mut wrong = Vec::new();
    for file in files("shaders", ".wgsl") {
        let found = file.text.lines().enumerate().filter(|(_, l)| l.split("//").next().is_some_and(|code| code.contains("!=")) && !l.contains("// integers"));
        wrong.extend(found.map(|(n, l)| format!("{}:{}: {}", file.path, n + 1, l.trim())));
    }
    none("!= in shaders", wrong);
}

#[test]
fn every_shader_is_registered() {
    let table = read("src/kernel/table.rs");
    let wrong = files("shaders", ".wgsl").into_iter().map(|f| f.path).filter(|path| !table.contains(path.trim_start_matches("shaders/"))).collect();
    none("shaders that src/kernel/table.rs does not name", wrong);
}

#[test]
fn files_are_short_and_their_first_line_says_what_they_are() {
    let mut wrong = Vec::new();
    let rust = ["src", "tests", "examples"].into_iter().flat_map(|folder| files(folder, ".rs"));
    for file in rust.chain(files("shaders", ".wgsl")) {
        let lines: Vec<&str> = file.text.lines().collect();
        let limit = if file.path.starts_with("examples/") { 150 } else { 500 };
        if lines.len() > limit {
            wrong.push(format!("{}: {} lines, at most {limit}", file.path, lines.len()));
        }
        let begins = if file.path.ends_with(".rs") { "//! " } else { "// " };
        // A shader's first line may name the files it is joined with; then the second one speaks.
        let first = usize::from(lines.first().is_some_and(|l| l.starts_with("// use ")));
        if !lines.get(first).is_some_and(|l| l.starts_with(begins) && l.trim_end().len() > 8) {
            wrong.push(format!("{}: line {} does not say what the file is", file.path, first + 1));
        }
    }
    none("files", wrong);
}

#[test]
fn the_library_does_not_print_and_leaves_nothing_undone() {
    let mut wrong = Vec::new();
    for file in files("src", ".rs") {
        for (n, line) in file.code() {
            let undone = ["todo!(", "unimplemented!(", "dbg!("].iter().any(|m| line.contains(m));
            // These panic where nobody reads: the command line has `say!`, and writes results by `writeln!`.
            let prints = ["println!(", "print!("].iter().any(|m| line.contains(m));
            if undone || prints {
                wrong.push(format!("{}:{n}: {}", file.path, line.trim()));
            }
        }
    }
    none("macros that do not belong here", wrong);
}

#[test]
fn lints_are_allowed_for_single_items_and_with_a_reason() {
    let mut wrong = Vec::new();
    for file in ["src", "tests", "examples"].into_iter().flat_map(|folder| files(folder, ".rs")) {
        let lines: Vec<&str> = file.text.lines().collect();
        for (n, line) in lines.iter().enumerate().filter(|(_, l)| l.trim_start().starts_with("#[allow(") || l.trim_start().starts_with("#![allow(")) {
            let reason = line.contains("] // ") || n > 0 && lines[n - 1].trim_start().starts_with("// ") || line.contains("reason = ");
            if line.trim_start().starts_with("#!") || !reason {
                wrong.push(format!("{}:{}: {}", file.path, n + 1, line.trim()));
            }
        }
    }
    none("allow(...) for more than an item, or without a reason", wrong);
}

#[test]
fn each_counted_call_stands_in_one_function_which_counts_it() {
    let gpu: Vec<File> = files("src/device/gpu", ".rs").into_iter().filter(|f| !f.path.ends_with("/tests.rs")).collect();
    // create_buffer_from_hal, for buffers that are images, too, is called by the function of create_buffer.
    for call in ["device.create_buffer(", "queue.submit", "queue.write_buffer", "device.create_compute_pipeline"] {
        let mut places = Vec::new();
        for file in &gpu {
            let code: Vec<(usize, &str)> = file.code().collect();
            for (at, (n, _)) in code.iter().enumerate().filter(|(_, (_, line))| line.contains(call)) {
                let is_head = |line: &str| line.trim_start().starts_with("fn ") || line.contains(" fn ");
                let from = code[..at].iter().rposition(|(_, l)| is_head(l)).unwrap_or(0);
                let to = code[at..].iter().position(|(_, l)| is_head(l)).map_or(code.len(), |i| at + i);
                let counts = code[from..to].iter().any(|(_, l)| l.contains("Counters::add("));
                places.push((format!("{}:{n}", file.path), code[from].0, counts));
            }
        }
        let functions: std::collections::BTreeSet<_> = places.iter().map(|(place, head, _)| (place.split(':').next(), *head)).collect();
        assert!(functions.len() == 1, "{call} belongs into exactly one function of src/device/gpu/: {places:?}");
        assert!(places.iter().all(|(_, _, counts)| *counts), "{call} is not counted where it stands: {places:?}");
    }
}

#[test]
fn every_flag_is_in_the_table_and_used() {
    let mut used = std::collections::BTreeMap::new();
    let mut text: Vec<File> = ["src", "tests", "examples"].into_iter().flat_map(|folder| files(folder, ".rs")).collect();
    text.extend(files("scripts", ".sh"));
    text.push(File { path: "Makefile".into(), text: read("Makefile") });
    for file in &text {
        for (n, line) in file.code() {
            for (at, _) in line.match_indices("WGRAD_").chain(line.match_indices("BENCH_")) {
                let name: String = line[at..].chars().take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_').collect();
                // A name that goes on in lower case, or ends in `_`, is a prefix or a pattern.
                if !(name.ends_with('_') || file.path == "src/env.rs" && line.trim_start().starts_with(['r', '"'])) {
                    used.entry(name).or_insert(format!("{}:{n}", file.path));
                }
            }
        }
    }
    let known: Vec<&str> = wgrad::env::FLAGS.iter().map(|f| f.name).collect();
    none(
        "flags that env::FLAGS lacks",
        used.iter().filter(|(name, _)| !known.contains(&name.as_str())).map(|(name, place)| format!("{place}: {name}")).collect(),
    );
    none("flags that nothing reads", known.iter().filter(|name| !used.contains_key(**name)).map(|name| name.to_string()).collect());
}

#[test]
fn the_code_map_names_every_module() {
    let map = read("ARCHITECTURE.md");
    none("modules that ARCHITECTURE.md does not name", modules().into_iter().filter(|m| !map.contains(&format!("`{m}`"))).collect());
}
