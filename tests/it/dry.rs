//! Dry launches: every WGSL that the table can emit, forward and backward, without a GPU. It is valid, it translates to all targets, and it stays in the
//! limits that every device has. And coverage: no operation without samples, no shader without an operation.

use crate::common::{self, caught};
use crate::op_table::{Case, Lay, answer, draw, lays, op_cases, row_cases};
use crate::ops::none;
use naga::back::{glsl, hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, StorageAccess};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use wgrad::device::{Access, Caps, Coop, Kind, Launch};
use wgrad::graph::{Watched, watch};
use wgrad::kernel::{KERNELS, joined};
use wgrad::nn::Param;
use wgrad::ops::{self, Arg, rows};
use wgrad::optim::{Adam, AdamOptions, AdamW, GradScaler, Optimizer, Sgd, SgdOptions};
use wgrad::tensor::{DType, Shape};
use wgrad::{MatmulPrecision, Result, Tensor, with_matmul_precision};

/// All that the samples emit.
#[derive(Default)]
struct Emitted {
    /// One launch of each text.
    texts: BTreeMap<Arc<str>, Launch>,
    /// Faults of single launches.
    faults: Vec<String>,
    kernels: BTreeSet<&'static str>,
    /// The nodes that each operation's samples record.
    nodes: BTreeMap<&'static str, BTreeSet<&'static str>>,
}

impl Emitted {
    fn take(&mut self, op: &'static str, name: &str, caps: &Caps, seen: Watched) {
        self.kernels.extend(seen.kernels);
        self.nodes.entry(op).or_default().extend(seen.nodes);
        for launch in seen.runs.into_iter().flat_map(|r| r.program.launches) {
            let n = launch.bindings.len();
            if n > caps.max_storage_bindings as usize {
                self.faults.push(format!("{name}: {}: {n} storage bindings", launch.label));
            }
            if launch.grid.iter().any(|g| *g == 0 || *g > caps.max_groups) {
                self.faults.push(format!("{name}: {}: grid {:?}", launch.label, launch.grid));
            }
            self.texts.entry(launch.text.clone()).or_insert(launch);
        }
    }
}

/// A device that every device is at least, as software and as hardware: some kernels are cut otherwise there. One whose lanes share what they read, and one
/// that has a type for halves. And the floats with which the samples are emitted for it.
fn targets() -> [(Caps, &'static [DType]); 4] {
    let hardware = Caps { kind: Kind::Discrete, ..Caps::floor() };
    [
        (Caps::floor(), &[DType::F32, DType::F16]),
        (hardware.clone(), &[DType::F32]),
        (Caps { subgroups: Some((8, 8)), images: 16, ..Caps::floor() }, &[DType::F32]),
        (Caps { f16: true, ..hardware }, &[DType::F16]),
    ]
}

/// A step of every optimizer, each with all of its forms.
fn optimizers() -> Result<()> {
    let device = common::fast();
    let params = || -> Result<Vec<Param>> {
        let one = |n: usize| Param::new(&Tensor::new(vec![0.5f32; n], [n], &device)?);
        let params = vec![one(3)?, one(70)?];
        params.iter().for_each(|p| p.set_grad(Some(p.tensor().detach().square())));
        Ok(params)
    };
    let steps: Vec<Box<dyn Optimizer>> = vec![
        Box::new(Sgd::new(params()?, SgdOptions::default())?),
        Box::new(Sgd::new(params()?, SgdOptions { momentum: 0.9, nesterov: true, ..Default::default() })?),
        Box::new(Adam::new(params()?, AdamOptions::default())?),
        Box::new(AdamW::new(params()?, AdamOptions { amsgrad: true, ..Default::default() })?),
    ];
    steps.into_iter().try_for_each(|mut o| o.step())?;
    let scaled: Vec<Box<dyn Optimizer>> = vec![
        Box::new(Sgd::new(params()?, SgdOptions { momentum: 0.9, ..Default::default() })?),
        Box::new(AdamW::new(params()?, AdamOptions { amsgrad: true, ..Default::default() })?),
    ];
    scaled.into_iter().try_for_each(|mut o| GradScaler::new(Default::default(), &device)?.step(&mut *o))
}

/// Products by units for small matrices, of floats and of halves. See coop.rs for those that need more memory than every device has.
fn small_matrices(all: &mut Emitted) {
    let coop = Some(Coop { edge: 16, lanes: 32, adds: true, emulated: false });
    let caps = Caps { kind: Kind::Discrete, subgroups: Some((32, 32)), f16: true, coop, ..Caps::floor() };
    let device = common::fast();
    for dtype in [DType::F32, DType::F16] {
        let (result, seen) = watch(&caps, || {
            let [a, b] = [[70, 40], [40, 36]].map(|shape| Tensor::ones(shape, &device).to_dtype(dtype));
            with_matmul_precision(MatmulPrecision::Medium, || a.try_matmul(&b))?.neg().to_data()
        });
        if let Err(e) = result {
            all.faults.push(format!("small matrices: {e}"));
        }
        all.take("", "small matrices", &caps, seen);
    }
}

fn emitted() -> &'static Emitted {
    static CELL: OnceLock<Emitted> = OnceLock::new();
    CELL.get_or_init(|| {
        let mut all = Emitted::default();
        let device = common::fast();
        let cases: Vec<Case> = row_cases().into_iter().chain(op_cases()).filter(|c| !c.host_only).collect();
        for (caps, floats) in targets() {
            for (case, &floats) in cases.iter().flat_map(|c| floats.iter().map(move |f| (c, f))) {
                // How halves lie tells no more than how floats do.
                for lay in lays(case).into_iter().filter(|l| floats == DType::F32 || *l == Lay::Contiguous) {
                    let (result, seen) = watch(&caps, || {
                        caught(|| {
                            // The result alone, then with its gradients: where both are wanted, other things are joined.
                            let values = draw(case, 0);
                            let inputs = values.iter().enumerate().map(|(n, v)| v.tensor(n, lay, floats, &device)).collect::<Result<Vec<_>>>()?;
                            wgrad::no_grad(|| (case.run)(&inputs))?.iter().try_for_each(|t| t.to_data().map(drop))?;
                            answer(case, &values, lay, floats, &device).map(drop)
                        })
                    });
                    if let Err(e) = result {
                        all.faults.push(format!("{}: {e}", case.name));
                    }
                    all.take(case.op, &case.name, &caps, seen);
                }
            }
            let (result, seen) = watch(&caps, || caught(optimizers));
            if let Err(e) = result {
                all.faults.push(format!("optimizers: {e}"));
            }
            all.take("", "optimizers", &caps, seen);
        }
        small_matrices(&mut all);
        all
    })
}

/// Whether the text is for devices whose lanes share what they read.
fn shares(text: &str) -> bool {
    text.contains("subgroup")
}

/// Whether the text is for devices that show buffers as images.
fn images(text: &str) -> bool {
    text.contains("texture_2d<f32>")
}

/// Whether the text is for devices that have a type for halves.
fn halves(text: &str) -> bool {
    text.lines().any(|l| l == "enable f16;")
}

/// Whether the text is for devices that have units for small matrices.
fn units(text: &str) -> bool {
    text.lines().any(|l| l == "enable wgpu_cooperative_matrix;")
}

/// Parse and validate, with nothing that only some devices can do, unless the text is only for them.
fn module(text: &str) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let only = |on: bool, c: Capabilities| if on { c } else { Capabilities::empty() };
    let capabilities = only(shares(text), Capabilities::SUBGROUP) | only(halves(text), Capabilities::SHADER_FLOAT16);
    let capabilities = capabilities | only(units(text), Capabilities::COOPERATIVE_MATRIX);
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module).map_err(|e| e.emit_to_string(text))?;
    Ok((module, info))
}

type Target = (&'static str, fn(&Module, &ModuleInfo) -> Result<(), String>);

/// What naga translates to.
const TARGETS: [Target; 4] = [
    ("spirv", |m, i| spv::write_vec(m, i, &spv::Options::default(), None).map(drop).map_err(|e| e.to_string())),
    ("msl", |m, i| {
        let options = msl::Options { lang_version: (2, 0), ..msl::Options::default() };
        msl::write_string(m, i, &options, &msl::PipelineOptions::default()).map(drop).map_err(|e| e.to_string())
    }),
    ("hlsl", |m, i| {
        let (options, pipeline) = (hlsl::Options::default(), hlsl::PipelineOptions::default());
        let mut out = String::new();
        hlsl::Writer::new(&mut out, &options, &pipeline).write(m, i, None).map(drop).map_err(|e| e.to_string())
    }),
    ("glsl", |m, i| {
        let options = glsl::Options::default();
        let pipeline = glsl::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: "main".into(), multiview: None };
        let mut out = String::new();
        let writer = glsl::Writer::new(&mut out, m, i, &options, &pipeline, naga::proc::BoundsCheckPolicies::default()).map_err(|e| e.to_string())?;
        writer_done(writer)
    }),
];

fn writer_done(mut writer: glsl::Writer<'_, &mut String>) -> Result<(), String> {
    writer.write().map(drop).map_err(|e| e.to_string())
}

/// What does not translate: a part of the text, the target, and why. One that no longer fails fails the test.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// The faults of one text: invalid, untranslatable, above a limit. `failing` collects the exceptions that were needed.
fn faults(name: &str, text: &str, launch: Option<&Launch>, failing: &mut BTreeSet<usize>) -> Vec<String> {
    let (module, info) = match module(text) {
        Ok(pair) => pair,
        Err(e) => return vec![format!("{name}: {e}\n{text}")],
    };
    let mut found = Vec::new();
    for (target, translate) in TARGETS {
        // Software adapters are reached through Vulkan, and OpenGL has no halves. See coop.rs for small matrices on Metal.
        if (shares(text) || images(text)) && target != "spirv" || halves(text) && target == "glsl" {
            continue;
        }
        if let Err(e) = translate(&module, &info) {
            match EXCEPTIONS.iter().position(|(part, t, _)| *t == target && text.contains(part)) {
                Some(n) => drop(failing.insert(n)),
                None => found.push(format!("{name}: not {target}: {e}\n{text}")),
            }
        }
    }
    let mut layouter = naga::proc::Layouter::default();
    if let Err(e) = layouter.update(module.to_ctx()) {
        found.push(format!("{name}: no layout: {e}"));
        return found;
    }
    let caps = Caps::floor();
    let (mut workgroup, mut storage, mut images) = (0, 0, 0);
    // Images come behind all storage, in its order; a buffer that is only read through one is not declared.
    let imaged: Vec<Access> = launch.iter().flat_map(|l| &l.bindings).map(|b| b.access).filter(|a| a.images()).collect();
    let hidden = imaged.iter().filter(|a| !a.writes()).count();
    for (_, global) in module.global_variables.iter() {
        let layout = layouter[global.ty];
        match global.space {
            AddressSpace::WorkGroup => workgroup += layout.alignment.round_up(layout.size),
            AddressSpace::Uniform if layout.size > 65_536 => found.push(format!("{name}: {} bytes of uniforms", layout.size)),
            AddressSpace::Uniform => {
                if let Some(l) = launch.filter(|l| l.words.len() * 4 > layout.size as usize) {
                    found.push(format!("{name}: {} words in {} bytes of uniforms", l.words.len(), layout.size));
                }
            }
            AddressSpace::Storage { access } => {
                storage += 1;
                // The binding's number is its place in the launch.
                let at = global.binding.map_or(0, |b| b.binding as usize);
                let bound = launch.map(|l| l.bindings.get(at.wrapping_sub(1)).map(|b| b.access.writes()));
                if bound.is_some_and(|b| b != Some(access.contains(StorageAccess::STORE))) {
                    found.push(format!("{name}: binding {at} is declared {access:?} and bound otherwise"));
                }
            }
            AddressSpace::Handle => {
                let at = global.binding.map_or(0, |b| b.binding as usize);
                if launch.is_none_or(|l| at != l.bindings.len() + 1 + images) {
                    found.push(format!("{name}: an image at binding {at}"));
                }
                images += 1;
            }
            _ => {}
        }
    }
    if images != imaged.len() {
        found.push(format!("{name}: {images} images are declared, {} bound", imaged.len()));
    }
    if workgroup > caps.max_workgroup_bytes {
        found.push(format!("{name}: {workgroup} bytes of workgroup memory"));
    }
    if storage > caps.max_storage_bindings || launch.is_some_and(|l| l.bindings.len() - hidden != storage as usize) {
        found.push(format!("{name}: {storage} storage bindings are declared, {:?} bound", launch.map(|l| l.bindings.len() - hidden)));
    }
    let [entry] = &module.entry_points[..] else {
        found.push(format!("{name}: {} entry points", module.entry_points.len()));
        return found;
    };
    let [x, y, z] = entry.workgroup_size;
    if entry.name != "main" || x * y * z > caps.max_invocations || x % 8 > 0 {
        found.push(format!("{name}: entry point {} of {x} by {y} by {z} invocations", entry.name));
    }
    found
}

#[test]
fn every_text_is_valid_translates_and_stays_in_the_limits() {
    let all = emitted();
    none("launches", &all.faults);
    let mut failing = BTreeSet::new();
    let mut found = Vec::new();
    for (text, launch) in &all.texts {
        found.extend(faults(&launch.label, text, Some(launch), &mut failing));
    }
    println!("{} texts were translated to {} targets", all.texts.len(), TARGETS.len());
    assert!(all.texts.len() > 300, "only {} texts", all.texts.len());
    let healed = EXCEPTIONS.iter().enumerate().filter(|(n, _)| !failing.contains(n)).map(|(_, (part, target, _))| format!("{part} translates to {target} now"));
    found.extend(healed);
    none("texts", &found);
}

#[test]
fn every_shader_is_valid_as_it_lies() {
    let mut failing = BTreeSet::new();
    none("shaders", &KERNELS.iter().flat_map(|k| faults(k.name, &joined(k), None, &mut failing)).collect::<Vec<_>>());
}

#[test]
fn faults_are_found() {
    let mut failing = BTreeSet::new();
    let mut of = |text: &str| faults("faulty", text, None, &mut failing).join("; ");
    assert!(of("fn f( {").contains("faulty: "));
    assert!(of("@compute @workgroup_size(60) fn main() {}").contains("60 by 1 by 1"));
    assert!(of("@compute @workgroup_size(512) fn main() {}").contains("512 by 1 by 1"));
    let big = "var<workgroup> a: array<f32, 4000>; var<workgroup> b: array<f32, 97>;\n@compute @workgroup_size(64) fn main() { a[0] = b[0]; }";
    assert!(of(big).contains("16388 bytes of workgroup memory"), "{}", of(big));
}

#[test]
fn every_shader_is_used_and_every_node_has_an_entry() {
    let all = emitted();
    // A kernel without an operation is one that an example shows how to use, or that measures what a device can do.
    let folders = [concat!(env!("CARGO_MANIFEST_DIR"), "/examples"), concat!(env!("CARGO_MANIFEST_DIR"), "/src/bench")];
    let examples = folders.iter().flat_map(|f| std::fs::read_dir(f).unwrap()).map(|e| e.unwrap().path());
    let shown: String = examples.filter(|p| p.extension().is_some_and(|x| x == "rs")).map(|p| std::fs::read_to_string(p).unwrap()).collect();
    let used = |k: &str| all.kernels.contains(k) || shown.contains(&format!("find(\"{k}\")"));
    let unused: Vec<String> = KERNELS.iter().map(|k| k.name).filter(|k| !used(k)).map(str::to_string).collect();
    none("shaders that no sample uses", &unused);
    let entries = ops::all();
    let mut found: Vec<String> = Vec::new();
    let known: BTreeSet<&str> = entries.iter().flat_map(|e| e.nodes.iter().copied()).chain(rows::all().map(|r| r.name)).collect();
    for (op, nodes) in all.nodes.iter().filter(|(op, _)| !op.is_empty()) {
        found.extend(nodes.iter().filter(|n| !known.contains(*n)).map(|n| format!("{op} records {n}, which no entry names")));
    }
    let mut names = BTreeSet::new();
    for entry in &entries {
        let Some(recorded) = all.nodes.get(entry.name) else {
            found.push(format!("{} has no samples", entry.name));
            continue;
        };
        found.extend(entry.nodes.iter().filter(|n| !recorded.contains(*n)).map(|n| format!("no sample of {} records {n}", entry.name)));
        if (entry.misuse)().is_empty() && entry.name != "detach" {
            found.push(format!("{} has no misuse", entry.name));
        }
        // Where there are kernels, their ends are sampled: nothing (but what has no mean), one element, sizes that nothing divides.
        let inputs: Vec<Arg> = (entry.samples)().into_iter().flat_map(|s| s.inputs).collect();
        let has = |what: &dyn Fn(&Shape) -> bool| inputs.iter().any(|a| what(shape_of(a)));
        if !entry.nodes.is_empty() && entry.name != "detach" {
            let ends = [
                ("an empty input", has(&|s| s.numel() == 0) || entry.name == "batch_norm"),
                ("a single element", has(&|s| s.numel() == 1)),
                ("a prime size", has(&prime)),
            ];
            found.extend(ends.iter().filter(|(_, there)| !there).map(|(what, _)| format!("no sample of {} has {what}", entry.name)));
        }
        if !names.insert(entry.name) || entry.doc.is_empty() {
            found.push(format!("{}: a second entry, or one without a word", entry.name));
        }
    }
    found.extend(rows::all().filter(|r| !all.nodes.contains_key(r.name) && r.name != "to_f64").map(|r| format!("the row {} has no samples", r.name)));
    none("coverage", &found);
}

fn shape_of(arg: &Arg) -> &Shape {
    match arg {
        Arg::Float { shape, .. } | Arg::Int { shape, .. } | Arg::Bool { shape } => shape,
    }
}

/// Whether a dimension is 5, 7, 11 ...
fn prime(shape: &Shape) -> bool {
    shape.iter().any(|&n| n > 4 && (2..n).take_while(|d| d * d <= n).all(|d| n % d > 0))
}
