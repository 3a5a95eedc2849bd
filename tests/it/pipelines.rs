//! Pipelines: made side by side, kept on disk, and whatever happens to a file of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wgrad::device::gpu::{Gpu, GpuOptions, wgpu};
use wgrad::device::{Access, Binding, Buffer, Device, GpuProgram, Launch, Slot, Storage, Word};

/// y[i] = i * FACTOR.
const TIMES: &str = "
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    if gid.x < u[0].x { y[gid.x] = gid.x * FACTOR; }
}";

/// A launch of kernel number `n`; each has a text of its own.
fn launch(n: usize) -> Launch {
    Launch {
        label: format!("times {n}").into(),
        text: TIMES.replace("FACTOR", &format!("{n}u")).into(),
        trusted: false,
        bindings: vec![Binding { slot: Slot::Output(n), access: Access::ReadWrite }],
        words: vec![Word::Const(8)],
        grid: [1, 1, 1],
        flops: 0,
    }
}

fn open(folder: Option<&Path>) -> Arc<Gpu> {
    let options = GpuOptions { pipeline_folder: folder.map(PathBuf::from), ..GpuOptions::from_env().unwrap() };
    match Device::gpu(0, &options).expect("the tests need an adapter") {
        Device::Gpu(gpu) => gpu,
        other => panic!("{other:?} is no GPU"),
    }
}

/// Run `count` kernels in one program, and check what each gives.
fn run(gpu: &Arc<Gpu>, count: usize) {
    let program = gpu.prepare(GpuProgram { launches: (0..count).map(launch).collect(), ..GpuProgram::default() }).unwrap();
    let outputs: Vec<Storage> = (0..count).map(|_| Storage { buffer: Buffer::Gpu(gpu.alloc(32).unwrap()), offset: 0, bytes: 32 }).collect();
    let read = gpu.run(&program, &[], &[], &outputs, &[], &outputs).unwrap().unwrap().wait().unwrap();
    for (n, bytes) in read.iter().enumerate() {
        let want: Vec<u32> = (0..8).map(|i| i * n as u32).collect();
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, u32>(bytes), want, "kernel {n}");
    }
}

/// An empty folder of a test's own.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pipelines {name} {}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    folder
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map(|list| list.map(|f| f.unwrap().path()).collect()).unwrap_or_default()
}

/// Whether the first adapter gives its pipelines out.
fn keeps() -> bool {
    open(None).wgpu_device().features().contains(wgpu::Features::PIPELINE_CACHE)
}

#[test]
fn pipelines_made_side_by_side_are_counted_once_each() {
    let gpu = open(None);
    run(&gpu, 12);
    assert_eq!(gpu.counters().pipelines, 12);
    run(&gpu, 12);
    assert_eq!(gpu.counters().pipelines, 12, "found again");
    let submits = gpu.counters().submits;
    run(&gpu, 16);
    assert_eq!((gpu.counters().pipelines, gpu.counters().submits), (16, submits + 1), "what compiles is no run");
}

#[test]
fn of_several_kernels_that_fail_the_first_is_named() {
    let gpu = open(None);
    let mut launches: Vec<Launch> = (0..6).map(launch).collect();
    for n in [2, 4] {
        launches[n].text = "fn main( {".into();
    }
    for _ in 0..3 {
        let e = gpu.prepare(GpuProgram { launches: launches.clone(), ..GpuProgram::default() }).unwrap_err().to_string();
        assert!(e.starts_with("times 2: "), "{e}");
    }
    run(&gpu, 6);
}

#[test]
fn nothing_is_written_unless_it_is_asked_for() {
    let folder = folder("unasked");
    run(&open(None), 2);
    assert_eq!(files(&folder), Vec::<PathBuf>::new());
}

#[test]
fn a_file_of_pipelines_is_made_found_and_replaced() {
    if !keeps() {
        println!("not run: the adapter's backend does not give its pipelines out");
        return;
    }
    let folder = folder("kept");
    run(&open(Some(&folder)), 5);
    let [file] = &files(&folder)[..] else { panic!("{:?}", files(&folder)) };
    let whole = fs::read(file).unwrap();
    assert!(whole.starts_with(b"wgradpc1"));
    run(&open(Some(&folder)), 5);

    let mut foreign = whole.clone();
    foreign[8] ^= 1;
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for (what, bytes) in [("empty", &b""[..]), ("cut off", &whole[..whole.len() - 1]), ("other", b"no pipelines"), ("foreign", &foreign), ("damaged", &damaged)]
    {
        fs::write(file, bytes).unwrap();
        run(&open(Some(&folder)), 5);
        let now = fs::read(file).unwrap();
        assert!(now != bytes && now.starts_with(b"wgradpc1"), "{what}: not replaced");
    }
    assert_eq!(files(&folder).len(), 1, "nothing is left beside it: {:?}", files(&folder));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_folder_that_cannot_be_written_is_no_error() {
    let place = folder("blocked");
    fs::create_dir_all(&place).unwrap();
    let blocked = place.join("a file");
    fs::write(&blocked, "").unwrap();
    run(&open(Some(&blocked)), 3);
    run(&open(Some(&blocked.join("below it"))), 3);
    assert_eq!(fs::read(&blocked).unwrap(), b"");
    fs::remove_dir_all(&place).unwrap();
}
