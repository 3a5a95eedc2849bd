//! A user's own operation: it is differentiated, stacked, recomputed and refused like any other, and its mistakes are told by name.

use super::{bits, counted, cpu, devices, gpu, sgd, tensor, values};
use wgrad::autograd::{GradCheck, checkpoint, grad, gradcheck, vmap};
use wgrad::nn::Param;
use wgrad::ops::CustomOp;
use wgrad::optim::Optimizer;
use wgrad::{Device, ErrorKind, Tensor};

/// y = a x^3, elementwise, of up to one workgroup's elements a time.
const CUBE: &str = "
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    if gid.x < u[0].x { y[gid.x] = bitcast<f32>(u[0].y) * x[gid.x] * x[gid.x] * x[gid.x]; }
}";

fn without_kernel() -> CustomOp {
    CustomOp::new(
        "cube",
        |x| Ok(vec![x[0]]),
        |p, x, y| {
            y[0].set_f64(&x[0].to_f64().iter().map(|v| p[0] * v * v * v).collect::<Vec<_>>());
            Ok(())
        },
    )
    .gradient(|ctx, g| Ok(vec![g[0].as_ref().map(|g| g * ctx.input(0).square() * (3.0 * ctx.slots().floats[0]))]))
}

fn cube() -> CustomOp {
    without_kernel().wgsl("cube.wgsl", CUBE).unwrap()
}

#[test]
fn a_custom_op_computes_and_is_differentiated() {
    let op = cube();
    for device in devices() {
        let host = values(1, 100);
        let x = Tensor::new(host.clone(), [10, 10], &device).unwrap().requires_grad().unwrap();
        // Views are brought to it whole.
        let y = op.apply(&[&x.t().narrow(0, 1, 4)], &[0.5]).unwrap();
        let got = y.to_vec::<f32>().unwrap();
        for (n, y) in got.iter().enumerate() {
            let v = host[n % 10 * 10 + n / 10 + 1];
            assert!((y - 0.5 * v * v * v).abs() < 1e-6, "{device:?}: {n}");
        }
        y.sum_all().backward().unwrap();
        let g = x.grad().unwrap().to_vec::<f32>().unwrap();
        for (n, g) in g.iter().enumerate() {
            let want = if (1..5).contains(&(n % 10)) { 1.5 * host[n] * host[n] } else { 0.0 };
            assert!((g - want).abs() < 1e-6, "{device:?}: {n}");
        }
        // The float is data: other values, no other plan.
        let flat = tensor(3, &[64], &device);
        let (_, did) = counted(&device, || (1..20).for_each(|n| drop(op.apply(&[&flat], &[n.into()]).unwrap().to_vec::<f32>().unwrap())));
        assert_eq!(did.plans_built, 1, "{device:?}");
        assert_eq!(device.counters().host_fallbacks, 0, "{device:?}");
    }
    let x = Tensor::new([0.3f64, -0.8], [2], &cpu()).unwrap();
    gradcheck(move |x| Ok(vec![op.apply(&[&x[0]], &[2.0])?]), &[x], &GradCheck { second: true, ..Default::default() }).unwrap();
}

#[test]
fn a_custom_op_is_stacked_checkpointed_and_trained() {
    let op = cube();
    for device in devices() {
        let x = tensor(1, &[3, 32], &device);
        let stacked = vmap(|p| Ok(vec![op.apply(&[&p[0]], &[2.0])?]), &[&x]).unwrap().remove(0);
        assert_eq!(bits(&stacked), bits(&op.apply(&[&x], &[2.0]).unwrap()), "{device:?}: stacked");

        let leaf = x.requires_grad().unwrap();
        let run = |again: bool| {
            let f = || op.apply(&[&(&leaf * 2.0)], &[0.5]).unwrap().tanh();
            let loss = if again { checkpoint(f) } else { f() }.sum_all();
            bits(&grad(&[&loss], &[&leaf]).unwrap().remove(0).unwrap())
        };
        assert_eq!(run(false), run(true), "{device:?}: checkpointed");

        // What it makes is a parameter's gradient, so that its output would lie among the gradients, next to its input.
        let train = |cube: &dyn Fn(&Tensor, f64) -> Tensor| {
            let (w, v) = (Param::new(&tensor(2, &[32], &device)).unwrap(), Param::new(&tensor(3, &[32], &device)).unwrap());
            let mut optimizer = sgd(vec![w.clone(), v.clone()], 0.001);
            for _ in 0..20 {
                let loss = (cube(&w.tensor(), 1.0) - cube(&v.tensor(), 2.0) - 0.5).square().sum_all();
                loss.backward().unwrap();
                v.set_grad(Some(cube(&w.grad().unwrap(), 0.001)));
                optimizer.step().unwrap();
                optimizer.zero_grad();
            }
            [w, v].map(|p| p.tensor().to_vec::<f32>().unwrap()).concat()
        };
        let mine = train(&|x, a| op.apply(&[x], &[a]).unwrap());
        let plain = train(&|x, a| x * x * x * a);
        assert!(mine.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-4 * b.abs().max(1.0)), "{device:?}: {mine:?} and {plain:?}");
    }
}

#[test]
fn two_outputs_of_which_one_is_wanted() {
    let text = "
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> z: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    if gid.x < u[0].x { y[gid.x] = -x[gid.x]; z[gid.x] = gid.x + u[0].y; }
}";
    let op = CustomOp::new(
        "both",
        |x| Ok(vec![x[0], wgrad::tensor::Meta::new(wgrad::DType::U32, x[0].shape)]),
        |_, x, y| {
            y[0].set_f64(&x[0].to_f64().iter().map(|v| -v).collect::<Vec<_>>());
            let n = y[1].meta.numel();
            y[1].set_f64(&(0..n).map(|i| (i + 7) as f64).collect::<Vec<_>>());
            Ok(())
        },
    )
    .wgsl("both.wgsl", text)
    .unwrap()
    .words(|_, _| vec![7]);
    for device in devices() {
        let x = tensor(1, &[40], &device);
        let mut outs = op.apply_all(&[&x], &[]).unwrap();
        let z = outs.pop().unwrap();
        drop(outs);
        assert_eq!(z.to_vec::<u32>().unwrap(), (7..47).collect::<Vec<u32>>(), "{device:?}");
        let outs = op.apply_all(&[&x], &[]).unwrap();
        assert_eq!(bits(&outs[0]), bits(&-&x), "{device:?}");
        assert!(op.apply(&[&x], &[]).unwrap_err().message().contains("has 2 outputs"));
    }
}

#[test]
fn a_kernel_that_does_not_validate_is_refused_with_file_line_and_caret() {
    let e = without_kernel().wgsl("cube.wgsl", &CUBE.replace("* x[gid.x];", "* x[gid];")).unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Kernel(_)), "{e}");
    assert!(e.message().starts_with("cube: ") && e.message().contains("cube.wgsl:7:") && e.message().contains('^'), "{e}");
    let e = without_kernel().wgsl("cube.wgsl", "fn main( {").unwrap_err();
    assert!(e.message().contains("cube.wgsl:1:") && e.message().contains('^'), "{e}");
}

#[test]
fn a_kernel_whose_pipeline_fails_is_an_error_of_the_read_and_yields_nothing() {
    let Some(device) = gpu() else { return };
    let x = tensor(1, &[64], &device);
    // Numbers of the right size lie in the pool.
    for _ in 0..4 {
        (&x * 5.0).to_vec::<f32>().unwrap();
    }
    let broken = [
        ("more invocations than any device has", CUBE.replace("workgroup_size(64)", "workgroup_size(8192)")),
        ("a binding that the op does not have", CUBE.replace("@binding(2)", "@binding(5)")),
        ("an input that is written", CUBE.replace("storage, read>", "storage, read_write>")),
    ];
    for (what, text) in broken {
        let op = without_kernel().wgsl("cube.wgsl", &text).unwrap();
        let pending = op.apply(&[&x], &[1.0]).unwrap();
        let after = &pending + 1.0;
        for _ in 0..2 {
            for t in [&pending, &after] {
                let e = t.to_vec::<f32>().unwrap_err();
                assert!(matches!(e.kind(), ErrorKind::Kernel(_)) && e.message().contains("cube"), "{what}: {e}");
            }
        }
        drop((pending, after));
        // The device goes on.
        assert_eq!((&x + 0.0).to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap(), "{what}");
    }
}

#[test]
fn work_on_the_host_is_asked_for_and_counted() {
    let Some(device) = gpu() else { return };
    let x = tensor(1, &[8, 8], &device).requires_grad().unwrap();
    let e = without_kernel().apply(&[&x], &[1.0]).unwrap_err();
    assert!(e.message().contains("cube: has no kernel for") && e.message().contains("on_host"), "{e}");

    let op = without_kernel().on_host();
    let (y, did) = counted(&device, || op.apply(&[&(&x * 2.0)], &[0.5]).unwrap());
    assert_eq!(did.host_fallbacks, 1);
    let want = cube().apply(&[&(&x * 2.0)], &[0.5]).unwrap();
    let close =
        |a: &Tensor, b: &Tensor| a.to_vec::<f32>().unwrap().iter().zip(b.to_vec::<f32>().unwrap()).all(|(a, b)| (a - b).abs() < 1e-5 * b.abs().max(1.0));
    assert!(close(&y, &want));
    let loss = |y: &Tensor| grad(&[&y.square().sum_all()], &[&x]).unwrap().remove(0).unwrap();
    assert!(close(&loss(&y), &loss(&want)), "gradients pass through it");
    // On the CPU it is no fallback.
    let cpu: Device = cpu();
    op.apply(&[&tensor(1, &[4], &cpu)], &[1.0]).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(cpu.counters().host_fallbacks, 0);
}

#[test]
fn what_a_custom_op_refuses_names_it() {
    let device = cpu();
    let op = CustomOp::new(
        "pick",
        |x| if x[0].shape.rank() == 1 { Ok(vec![x[0]]) } else { Err(wgrad::Error::shape("takes a vector")) },
        |_, _, _| Err(wgrad::Error::data("the data are bad")),
    );
    assert_eq!(op.apply(&[&tensor(1, &[2, 2], &device)], &[]).unwrap_err().message(), "pick: takes a vector");
    let x = tensor(1, &[2], &device).requires_grad().unwrap();
    let y = op.apply(&[&x], &[]).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap_err().message(), "pick: the data are bad");
    let e = y.sum_all().backward().unwrap_err();
    assert!(e.message().starts_with("pick: has no gradient"), "{e}");
}
