//! What a GPU device promises below the graph: runs, words, temporaries, readback, caches, the cap, checks, loss, threads.

use std::sync::Arc;
use wgrad::device::gpu::{AdapterInfo, Gpu, GpuOptions, KernelCall, adapters, wgpu};
use wgrad::device::{Access, Binding, Buffer, Caps, Check, Device, GpuProgram, Kind, Launch, Slot, Storage, Word};
use wgrad::error::ErrorKind;

/// y = x * a + b over n elements; n, a, b are words.
const AXPB: &str = "
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    let i = gid.x;
    if i < u[0].x { y[i] = x[i] * bitcast<f32>(u[0].y) + bitcast<f32>(u[0].z); }
}";

/// y = x, with a check that x stays below 10.
const CHECKED: &str = "
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(3) var<storage, read_write> errors: array<atomic<u32>>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    let i = gid.x;
    if i < u[0].x {
        if x[i] >= 10u { atomicOr(&errors[u[0].y], 1u); }
        y[i] = min(x[i], 9u);
    }
}";

fn options() -> GpuOptions {
    GpuOptions::from_env().unwrap()
}

fn open_with(options: &GpuOptions) -> Arc<Gpu> {
    match Device::gpu(0, options).expect("the tests need an adapter") {
        Device::Gpu(gpu) => gpu,
        other => panic!("{other:?} is no GPU"),
    }
}

fn open() -> Arc<Gpu> {
    open_with(&options())
}

fn storage(gpu: &Arc<Gpu>, bytes: usize) -> Storage {
    Storage { buffer: Buffer::Gpu(gpu.alloc(bytes).unwrap()), offset: 0, bytes }
}

fn upload<T: bytemuck::NoUninit>(gpu: &Arc<Gpu>, values: &[T]) -> Storage {
    let bytes: &[u8] = bytemuck::cast_slice(values);
    let s = storage(gpu, bytes.len());
    let Buffer::Gpu(buffer) = &s.buffer else { unreachable!() };
    gpu.upload(buffer, 0, bytes).unwrap();
    s
}

fn floats(gpu: &Arc<Gpu>, s: &Storage) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(&gpu.read(std::slice::from_ref(s)).unwrap().wait().unwrap()[0])
}

fn axpb(from: Slot, to: Slot, n: usize, a: usize) -> Launch {
    Launch {
        label: "axpb".into(),
        text: AXPB.into(),
        trusted: true,
        bindings: vec![Binding { slot: from, access: Access::Read }, Binding { slot: to, access: Access::ReadWrite }],
        words: vec![Word::Const(n as u32), Word::F32(a), Word::F32(a + 1)],
        grid: [n.div_ceil(64) as u32, 1, 1],
        flops: 2 * n as u64,
    }
}

/// leaf 0 -> temp 0 -> temp 1 -> output 0, each y = x * data[0] + data[1].
fn chain(n: usize) -> GpuProgram {
    GpuProgram {
        launches: vec![axpb(Slot::Leaf(0), Slot::Temp(0), n, 0), axpb(Slot::Temp(0), Slot::Temp(1), n, 0), axpb(Slot::Temp(1), Slot::Output(0), n, 0)],
        temporaries: vec![n * 4, n * 4],
        ..GpuProgram::default()
    }
}

fn checked(n: usize) -> GpuProgram {
    let bindings = [(Slot::Leaf(0), Access::Read), (Slot::Output(0), Access::ReadWrite), (Slot::Errors, Access::ReadWrite)];
    GpuProgram {
        launches: vec![Launch {
            label: "gather".into(),
            text: CHECKED.into(),
            trusted: true,
            bindings: bindings.map(|(slot, access)| Binding { slot, access }).to_vec(),
            words: vec![Word::Const(n as u32), Word::Const(1)],
            grid: [n.div_ceil(64) as u32, 1, 1],
            flops: 0,
        }],
        checks: vec![Check { message: "first: never".into() }, Check { message: "gather: index out of range: must be in 0..10".into() }],
        ..GpuProgram::default()
    }
}

fn data(a: f64, b: f64) -> [u64; 2] {
    [a.to_bits(), b.to_bits()]
}

#[test]
fn a_program_runs_with_its_words_and_temporaries() {
    let gpu = open();
    let n = 1000;
    let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let (leaf, out) = (upload(&gpu, &x), storage(&gpu, n * 4));
    let p = gpu.prepare(chain(n)).unwrap();
    let mut before = gpu.counters();
    for (a, b) in [(1.0, 0.0), (2.0, 1.0), (0.5, 0.0)] {
        let read = gpu.run(&p, &data(a, b), std::slice::from_ref(&leaf), std::slice::from_ref(&out), &[], std::slice::from_ref(&out)).unwrap();
        let y: Vec<f32> = bytemuck::pod_collect_to_vec(&read.unwrap().wait().unwrap()[0]);
        let (a, b) = (a as f32, b as f32);
        let want: Vec<f32> = x.iter().map(|v| ((v * a + b) * a + b) * a + b).collect();
        assert_eq!(y, want);
        let did = gpu.counters().since(&before);
        assert_eq!((did.param_writes, did.submits, did.dispatches, did.readbacks, did.pipelines), (1, 1, 3, 1, 0));
        assert!(did.create_buffer == 0 || (a, b) == (1.0, 0.0), "later readbacks use the staging buffer of the first");
        before = gpu.counters();
    }
}

#[test]
fn a_steady_loop_makes_nothing_new() {
    let gpu = open();
    let (leaf, p) = (upload(&gpu, &[1.0f32; 64]), gpu.prepare(chain(64)).unwrap());
    let step = || {
        let out = storage(&gpu, 256);
        gpu.run(&p, &data(1.0, 1.0), std::slice::from_ref(&leaf), std::slice::from_ref(&out), &[], std::slice::from_ref(&out)).unwrap().unwrap().wait().unwrap()
    };
    step();
    let before = gpu.counters();
    for _ in 0..10 {
        assert_eq!(step()[0], bytemuck::cast_slice::<f32, u8>(&[4.0; 64]));
    }
    let did = gpu.counters().since(&before);
    assert_eq!((did.create_buffer, did.pipelines, did.bytes_reserved, did.bytes_in_use), (0, 0, 0, 0));
}

#[test]
fn pipelines_are_found_again_by_text() {
    let gpu = open();
    let p = gpu.prepare(chain(64)).unwrap();
    assert_eq!(gpu.counters().pipelines, 1);
    let q = gpu.prepare(chain(128)).unwrap();
    assert_eq!(gpu.counters().pipelines, 1);
    // The second program's temporaries (the same size class) lie in the first one's.
    let reserved = gpu.counters().bytes_reserved;
    let r = gpu.prepare(chain(128)).unwrap();
    assert!(gpu.counters().bytes_reserved <= reserved + 1024, "only its uniforms are new");
    drop((p, q, r));
}

#[test]
fn freed_buffers_are_used_again_and_the_gauges_follow() {
    let gpu = open();
    let a = gpu.alloc(10_000).unwrap();
    let c = gpu.counters();
    assert!(c.bytes_in_use >= 10_000 && c.bytes_in_use == c.bytes_reserved);
    drop(a);
    assert_eq!(gpu.counters().bytes_in_use, 0);
    assert_eq!(gpu.counters().bytes_peak, c.bytes_in_use);
    let _b = gpu.alloc(9_900).unwrap();
    assert_eq!(gpu.counters().create_buffer, 1);
    drop(_b);
    assert!(gpu.trim() >= 10_000);
    assert_eq!(gpu.counters().bytes_reserved, 0);
}

#[test]
fn the_cap_is_an_error_and_the_device_goes_on() {
    let gpu = open();
    gpu.set_cap(1 << 20);
    let keep = gpu.alloc(600 << 10).unwrap();
    let e = gpu.alloc(600 << 10).unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::OutOfMemory(_)));
    assert!(e.message().contains("the memory cap is reached: 600.0 KiB asked for") && e.message().contains("in use"), "{e}");
    // What is free counts as reserved until someone needs the room.
    drop(keep);
    gpu.alloc(900 << 10).unwrap();
    let limit = gpu.caps().max_binding_bytes.min(gpu.caps().max_buffer_bytes) as usize;
    let e = gpu.alloc(limit + 4).unwrap_err();
    assert!(e.message().contains(&format!("the device's limit is {limit}")), "{e}");
}

#[test]
fn a_failed_check_is_the_next_reads_error_once() {
    let gpu = open();
    let p = gpu.prepare(checked(4)).unwrap();
    let out = storage(&gpu, 16);
    let run = |x: [u32; 4], reads: &[Storage]| {
        let leaf = upload(&gpu, &x);
        gpu.run(&p, &[], &[leaf], std::slice::from_ref(&out), &[], reads).unwrap()
    };
    let reads = [out.clone()];
    assert_eq!(run([0, 1, 2, 9], &reads).unwrap().wait().unwrap()[0], bytemuck::cast_slice::<u32, u8>(&[0, 1, 2, 9]));
    // In the run's own readback.
    let e = run([0, 1, 2, 10], &reads).unwrap().wait().unwrap_err();
    assert_eq!(e.message(), "gather: index out of range: must be in 0..10");
    assert!(matches!(e.kind(), ErrorKind::Data(_)));
    assert!(run([0, 1, 2, 3], &reads).unwrap().wait().is_ok(), "the word was cleared");
    // At the next read of anything, even where a readback before it was never looked at.
    assert!(run([99, 1, 2, 3], &[]).is_none());
    drop(gpu.read(&reads).unwrap());
    assert!(matches!(gpu.read(&reads).unwrap().wait().unwrap_err().kind(), ErrorKind::Data(_)));
    assert!(gpu.read(&reads).unwrap().wait().is_ok());
}

#[test]
fn a_failed_check_reaches_the_thread_that_ran_it() {
    let gpu = open();
    let p = gpu.prepare(checked(4)).unwrap();
    let (leaf, out) = (upload(&gpu, &[11u32; 4]), storage(&gpu, 16));
    gpu.run(&p, &[], &[leaf], std::slice::from_ref(&out), &[], &[]).unwrap();
    let other = std::thread::scope(|s| s.spawn(|| gpu.read(std::slice::from_ref(&out)).unwrap().wait()).join().unwrap());
    assert!(other.is_err(), "a value may have come from there");
    assert!(gpu.read(std::slice::from_ref(&out)).unwrap().wait().is_err(), "and the runner must know, too");
    assert!(gpu.read(std::slice::from_ref(&out)).unwrap().wait().is_ok());
}

#[test]
fn a_destroyed_device_says_so_everywhere() {
    let gpu = open();
    let (leaf, out) = (upload(&gpu, &[1.0f32; 64]), storage(&gpu, 256));
    let p = gpu.prepare(chain(64)).unwrap();
    let early = gpu.read(std::slice::from_ref(&leaf)).unwrap();
    gpu.wgpu_device().destroy();
    let lost = |e: wgrad::error::Error| assert!(matches!(e.kind(), ErrorKind::DeviceLost(_)), "{e}");
    lost(gpu.run(&p, &data(1.0, 1.0), std::slice::from_ref(&leaf), std::slice::from_ref(&out), &[], &[]).unwrap_err());
    lost(gpu.read(std::slice::from_ref(&out)).unwrap_err());
    lost(gpu.alloc(1 << 20).unwrap_err());
    lost(gpu.prepare(chain(64)).unwrap_err());
    lost(gpu.wait_idle().unwrap_err());
    lost(early.wait().unwrap_err());
}

#[test]
fn a_kernel_that_does_not_compile_names_itself_and_yields_nothing() {
    let gpu = open();
    let mut program = chain(64);
    program.launches[1].text = AXPB.replace("x[i] *", "x[i] % true *").into();
    let e = gpu.prepare(program).unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Kernel(_)));
    assert!(e.message().starts_with("axpb: ") && e.message().contains('^'), "{e}");
    // Valid WGSL, but not with these bindings.
    let mut program = chain(64);
    program.launches[0].bindings[1].access = Access::Read;
    assert!(matches!(gpu.prepare(program).unwrap_err().kind(), ErrorKind::Kernel(_)));
    assert!(gpu.prepare(chain(64)).is_ok(), "the device goes on");
}

#[test]
fn one_buffer_read_and_written_in_one_launch_is_an_error_that_names_it() {
    let gpu = open();
    let mut second = axpb(Slot::Leaf(0), Slot::Output(0), 64, 0);
    second.label = "add".into();
    let launches = vec![axpb(Slot::Leaf(0), Slot::Temp(0), 64, 0), second];
    let p = gpu.prepare(GpuProgram { launches, temporaries: vec![256], ..GpuProgram::default() }).unwrap();
    let both = storage(&gpu, 512);
    let (leaf, out) = (Storage { bytes: 256, ..both.clone() }, Storage { offset: 256, bytes: 256, ..both });
    let e = gpu.run(&p, &data(1.0, 0.0), &[leaf], std::slice::from_ref(&out), &[], std::slice::from_ref(&out)).unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Kernel(_)), "{e}");
    assert!(e.message().starts_with("add: ") && e.message().contains("conflicting usages"), "{e}");
}

#[test]
fn copies_come_before_the_launches() {
    let gpu = open();
    let p = gpu.prepare(GpuProgram { launches: vec![axpb(Slot::Leaf(0), Slot::Output(0), 64, 0)], ..GpuProgram::default() }).unwrap();
    let (leaf, out, old) = (upload(&gpu, &[3.0f32; 64]), upload(&gpu, &[7.0f32; 64]), storage(&gpu, 256));
    let copies = [(out.clone(), old.clone())];
    gpu.run(&p, &data(2.0, 0.0), &[leaf], std::slice::from_ref(&out), &copies, &[]).unwrap();
    assert_eq!((floats(&gpu, &out)[0], floats(&gpu, &old)[63]), (6.0, 7.0));
}

#[test]
fn poison_fills_what_has_no_value() {
    let gpu = open_with(&GpuOptions { poison: true, ..options() });
    let mut program = chain(64);
    // Writes half of the output only.
    program.launches[2].words[0] = Word::Const(32);
    let p = gpu.prepare(program).unwrap();
    let (leaf, out) = (upload(&gpu, &[1.0f32; 64]), upload(&gpu, &[5.0f32; 64]));
    gpu.run(&p, &data(1.0, 0.0), std::slice::from_ref(&leaf), std::slice::from_ref(&out), &[], &[]).unwrap();
    let y = floats(&gpu, &out);
    assert!(y[..32].iter().all(|v| *v == 1.0) && y[32..].iter().all(|v| v.is_nan()));
    assert_eq!(floats(&gpu, &leaf), [1.0; 64]);
}

#[test]
fn long_programs_are_split_on_hardware_only() {
    let n = 100_000;
    let submits = |declared_kind| {
        let gpu = open_with(&GpuOptions { declared_kind, submit_ms: 1, ..options() });
        let mut program = chain(n);
        program.launches.iter_mut().for_each(|l| l.flops = 400_000_000);
        let p = gpu.prepare(program).unwrap();
        let (leaf, out) = (upload(&gpu, &vec![1.0f32; n]), storage(&gpu, n * 4));
        let before = gpu.counters();
        let reads = [out.clone()];
        let read = gpu.run(&p, &data(3.0, 1.0), &[leaf], &[out], &[], &reads).unwrap().unwrap();
        let bytes = read.wait().unwrap();
        let did = gpu.counters().since(&before);
        (did.submits, did.param_writes, bytes)
    };
    let (hard, soft) = (submits(Some(Kind::Discrete)), submits(Some(Kind::Software)));
    assert_eq!((hard.0, hard.1), (3, 1));
    assert_eq!((soft.0, soft.1), (1, 1));
    assert!(hard.2 == soft.2);
}

#[test]
fn long_programs_are_split_by_what_was_measured() {
    let n = 200_000;
    let gpu = open_with(&GpuOptions { declared_kind: Some(Kind::Discrete), submit_ms: 1, ..options() });
    // 50 launches that claim to compute nothing: an estimate of half a millisecond.
    let mut program = chain(n);
    let middle = [axpb(Slot::Temp(1), Slot::Temp(0), n, 0), program.launches[1].clone()];
    program.launches.splice(2..2, (0..47).map(|i| middle[i % 2].clone()));
    program.launches.iter_mut().for_each(|l| l.flops = 0);
    let p = gpu.prepare(program).unwrap();
    let (leaf, out) = (upload(&gpu, &vec![1.0f32; n]), storage(&gpu, n * 4));
    let mut submits = Vec::new();
    for _ in 0..2 {
        let before = gpu.counters();
        let read = gpu.run(&p, &data(1.0, 1.0), std::slice::from_ref(&leaf), std::slice::from_ref(&out), &[], std::slice::from_ref(&out)).unwrap();
        read.unwrap().wait().unwrap();
        submits.push(gpu.counters().since(&before).submits);
    }
    assert!(submits[0] == 1 && submits[1] > 1, "{submits:?}");
}

#[test]
fn every_adapter_of_the_list_runs_the_same() {
    for (index, info) in adapters().iter().enumerate() {
        let Device::Gpu(gpu) = Device::gpu(index, &options()).unwrap() else { unreachable!() };
        // What an adapter has that must first be tried is known of an opened device only.
        let caps = Caps { coop: None, images: 0, ..gpu.caps().clone() };
        assert_eq!(&AdapterInfo { caps, features: info.features.clone(), ..gpu.info().clone() }, info);
        let p = gpu.prepare(chain(64)).unwrap();
        let (leaf, out) = (upload(&gpu, &[2.0f32; 64]), storage(&gpu, 256));
        gpu.run(&p, &data(2.0, 1.0), &[leaf], std::slice::from_ref(&out), &[], &[]).unwrap();
        assert_eq!(floats(&gpu, &out), [23.0; 64], "{}", info.description());
    }
}

/// The variable that tells the test below that it is the child.
#[cfg(unix)]
const CHILD: &str = "GPU_DEVICE_CHILD";

#[cfg(unix)]
#[test]
#[ignore = "run by memory_that_the_driver_refuses_is_an_error, in a process with little memory"]
fn child_that_takes_all_memory() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let gpu = open();
    let p = gpu.prepare(chain(64)).unwrap();
    let (leaf, out) = (upload(&gpu, &[2.0f32; 64]), storage(&gpu, 256));
    let mut held = Vec::new();
    let refused = (0..64).find_map(|_| gpu.alloc(100 << 20).map(|b| held.push(b)).err()).expect("no allocation was refused");
    assert!(matches!(refused.kind(), ErrorKind::OutOfMemory(_)));
    assert!(refused.message().contains("100.0 MiB asked for") && refused.message().contains("reserved"), "{refused}");
    gpu.run(&p, &data(2.0, 0.0), &[leaf], std::slice::from_ref(&out), &[], &[]).unwrap();
    assert_eq!(floats(&gpu, &out), [16.0; 64], "the device goes on");
    let count = held.len();
    drop(held);
    assert!(gpu.alloc(120 << 20).is_ok(), "what was freed is given back, {count} buffers of it");
}

#[cfg(unix)]
#[test]
fn memory_that_the_driver_refuses_is_an_error() {
    let list = adapters();
    // The limit counts what the process maps, so it says something only where the driver takes its memory from there.
    if list.first().is_some_and(|a| a.kind != Kind::Software) {
        return;
    }
    let child = std::process::Command::new("sh")
        .args(["-c", "ulimit -v 3000000 && exec \"$0\" --exact gpu_device::child_that_takes_all_memory --ignored --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn a_floor_device_runs_the_same() {
    let gpu = open_with(&GpuOptions { floor: true, ..options() });
    assert_eq!(gpu.wgpu_device().limits(), wgpu::Limits::default());
    assert!(gpu.wgpu_device().features().is_empty());
    let caps = gpu.caps();
    assert_eq!((caps.max_storage_bindings, caps.subgroups, caps.f16, caps.timestamps), (8, None, false, false));
    assert!(gpu.info().features.is_empty());
    let p = gpu.prepare(chain(64)).unwrap();
    let (leaf, out) = (upload(&gpu, &[2.0f32; 64]), storage(&gpu, 256));
    gpu.run(&p, &data(2.0, 0.0), &[leaf], std::slice::from_ref(&out), &[], &[]).unwrap();
    assert_eq!(floats(&gpu, &out), [16.0; 64]);
}

#[test]
fn two_threads_on_one_device_do_not_mix() {
    let gpu = open();
    // One program for both: its words, its uniform buffer and the workspace are shared.
    let p = gpu.prepare(chain(4096)).unwrap();
    std::thread::scope(|s| {
        for t in 0..2 {
            let (gpu, p) = (&gpu, &p);
            s.spawn(move || {
                let leaf = upload(gpu, &vec![1.0f32; 4096]);
                for i in 0..50 {
                    let b = f64::from(t * 1000 + i);
                    let out = storage(gpu, 4096 * 4);
                    let read = gpu.run(p, &data(1.0, b), std::slice::from_ref(&leaf), std::slice::from_ref(&out), &[], std::slice::from_ref(&out));
                    let y: Vec<f32> = bytemuck::pod_collect_to_vec(&read.unwrap().unwrap().wait().unwrap()[0]);
                    assert!(y.iter().all(|v| *v == 1.0 + 3.0 * b as f32), "thread {t}, step {i}: {}", y[0]);
                }
            });
        }
    });
}

#[test]
fn readbacks_are_asynchronous_and_may_be_dropped() {
    let gpu = open();
    let s = upload(&gpu, &[1.0f32, 2.0]);
    drop(gpu.read(std::slice::from_ref(&s)).unwrap());
    let two = [s.clone(), Storage { offset: 0, bytes: 4, ..s }];
    // The future can be awaited on any thread.
    fn sendable<T: Send>(future: T) -> T {
        future
    }
    let bytes = pollster::block_on(sendable(gpu.read(&two).unwrap().read())).unwrap();
    assert_eq!((bytes[0].len(), bytes[1].as_slice()), (8, bytemuck::bytes_of(&1.0f32)));
}

/// A caller's own device: no limits or features of ours, no handlers of ours.
fn callers_device() -> (wgpu::Device, wgpu::Queue) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap()
}

#[test]
fn a_callers_device_and_buffer_are_used_as_they_are() {
    let (device, queue) = callers_device();
    let Device::Gpu(gpu) = Device::from_wgpu(device.clone(), queue.clone()).unwrap() else { unreachable!() };
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let theirs = device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 256, usage, mapped_at_creation: false });
    queue.write_buffer(&theirs, 0, bytemuck::cast_slice(&[4.0f32; 64]));
    let x = Storage { buffer: Buffer::Gpu(gpu.import(theirs.clone())), offset: 0, bytes: 256 };
    let y = storage(&gpu, 256);
    let words = [64, 2.0f32.to_bits(), 1.0f32.to_bits()];
    let call = KernelCall { label: "mine", text: AXPB, bindings: &[(&x, Access::Read), (&y, Access::ReadWrite)], words: &words, grid: [1, 1, 1] };
    let before = gpu.counters();
    gpu.run_kernel(&call).unwrap();
    gpu.run_kernel(&call).unwrap();
    let did = gpu.counters().since(&before);
    assert_eq!((did.pipelines, did.dispatches, did.submits, did.param_writes), (1, 2, 2, 2));
    assert_eq!(floats(&gpu, &y), [9.0; 64]);
    // A mistake is an error of the call, and never reaches the device's own handler, which would panic.
    assert!(matches!(gpu.run_kernel(&KernelCall { text: "nonsense", ..call }).unwrap_err().kind(), ErrorKind::Kernel(_)));
    let unusable = device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 256, usage: wgpu::BufferUsages::COPY_DST, mapped_at_creation: false });
    let z = Storage { buffer: Buffer::Gpu(gpu.import(unusable)), offset: 0, bytes: 256 };
    assert!(gpu.read(std::slice::from_ref(&z)).is_err());
    device.destroy();
    assert!(matches!(gpu.run_kernel(&call).unwrap_err().kind(), ErrorKind::DeviceLost(_)));
    let e = gpu.read(std::slice::from_ref(&y)).and_then(|r| r.wait()).unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::DeviceLost(_)), "{e}");
}

#[test]
fn a_buffer_of_another_device_is_refused() {
    let (a, b) = (open(), open());
    let s = storage(&a, 256);
    assert!(matches!(b.read(std::slice::from_ref(&s)).unwrap_err().kind(), ErrorKind::Device(_)));
}
