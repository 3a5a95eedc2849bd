//! Threads: what each records is its own, and what it computes does not depend on the others or on their number.

use super::{bits, cpu, devices, gpu, tensor, train, values};
use wgrad::{Device, Generator, Tensor};

#[test]
fn a_cpu_and_a_gpu_in_two_threads_give_what_each_gives_alone() {
    let (cpu, Some(gpu)) = (cpu(), gpu()) else { return };
    let alone = (train(1, 30, &cpu), train(2, 30, &gpu));
    let together = std::thread::scope(|s| {
        let a = s.spawn(|| train(1, 30, &cpu));
        let b = s.spawn(|| train(2, 30, &gpu));
        (a.join().unwrap(), b.join().unwrap())
    });
    assert_eq!(alone, together);
}

#[test]
fn two_threads_training_two_models_on_one_device_give_what_each_gives_alone() {
    for device in devices() {
        let alone = [1, 2].map(|seed| train(seed, 60, &device));
        for _ in 0..3 {
            let together = std::thread::scope(|s| {
                [1, 2]
                    .map(|seed| {
                        s.spawn({
                            let d = &device;
                            move || train(seed, 60, d)
                        })
                    })
                    .map(|t| t.join().unwrap())
            });
            assert_eq!(alone, together, "{device:?}");
        }
    }
}

#[test]
fn another_threads_pending_tensor_can_be_used() {
    for device in devices() {
        let x = tensor(1, &[32], &device);
        let pending = std::thread::spawn({
            let x = x.clone();
            move || (&x * 2.0).exp()
        })
        .join()
        .unwrap();
        let here = &pending + 1.0;
        let want: Vec<f32> = x.to_vec::<f32>().unwrap().iter().map(|v| (v * 2.0).exp() + 1.0).collect();
        let got = here.to_vec::<f32>().unwrap();
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-4), "{device:?}: {got:?}");
    }
}

#[test]
fn flush_runs_the_callers_nodes_only() {
    for device in devices() {
        let x = tensor(1, &[32], &device);
        let theirs = std::thread::spawn({
            let x = x.clone();
            move || &x * 2.0
        })
        .join()
        .unwrap();
        let (_, did) = super::counted(&device, || wgrad::graph::flush(&device).unwrap());
        assert_eq!(did.dispatches, 0, "{device:?}");
        assert_eq!(theirs.to_vec::<f32>().unwrap().len(), 32);
    }
}

#[test]
fn one_thread_and_two_give_the_same_bits() {
    let run = |threads: usize| {
        let device = Device::cpu_with(threads, false).unwrap();
        let mut all = train(3, 20, &device);
        let (a, b) = (tensor(1, &[300, 700], &device), tensor(2, &[700, 130], &device));
        let (images, kernels) = (tensor(3, &[9, 5, 33, 31], &device), tensor(4, &[12, 5, 3, 3], &device));
        for t in [
            a.matmul(&b),
            a.sum(&[0], false),
            a.sum(&[1], false),
            a.sum_all(),
            a.mean(&[0, 1], false),
            a.var(&[0], 1, false),
            a.logsumexp(&[0], false),
            a.amax(&[1], false),
            a.softmax(1),
            a.log_softmax(0),
            images.conv2d(&kernels, None, Default::default()),
            (&a * &a).exp().sin(),
            Tensor::randn([100_003], &Generator::new(5), &device).unwrap(),
        ] {
            all.extend(bits(&t));
        }
        let (x, w) = (images.requires_grad().unwrap(), kernels.requires_grad().unwrap());
        x.conv2d(&w, None, Default::default()).square().sum_all().backward().unwrap();
        all.extend(bits(&x.grad().unwrap()));
        all.extend(bits(&w.grad().unwrap()));
        let x = Tensor::new(values(9, 1 << 20), [1 << 20], &device).unwrap().requires_grad().unwrap();
        x.tanh().square().sum_all().backward().unwrap();
        all.extend(bits(&x.grad().unwrap()));
        all
    };
    assert_eq!(run(1), run(2));
}

#[test]
fn threads_that_share_values_and_pending_work_agree() {
    for device in devices() {
        let x = tensor(1, &[500], &device);
        let want: Vec<f32> = x.to_vec::<f32>().unwrap().iter().map(|v| v * 2.0 + 1.0).collect();
        for _ in 0..20 {
            let pending = &x * 2.0;
            std::thread::scope(|s| {
                let threads: Vec<_> = (0..4).map(|_| s.spawn(|| (&pending + 1.0).to_vec::<f32>().unwrap())).collect();
                threads.into_iter().for_each(|t| assert_eq!(t.join().unwrap(), want, "{device:?}"));
            });
        }
    }
}
