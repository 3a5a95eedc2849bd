//! What random graphs and reviews have found, each as small as it could be made.

use wgrad::autograd::{checkpoint, grad, vmap};
use wgrad::{Device, Generator, Tensor};

fn devices() -> [Device; 3] {
    [Device::cpu_with(2, false).unwrap(), Device::cpu_with(1, true).unwrap(), Device::open("gpu").unwrap().0]
}

fn near(got: &Tensor, want: &[f32]) {
    let device = got.device().description();
    let got = got.to_vec::<f32>().unwrap();
    assert!(got.len() == want.len() && got.iter().zip(want).all(|(g, w)| (g - w).abs() <= 1e-6), "{device}: {got:?}, expected {want:?}");
}

#[test]
fn tanh_of_erf_of_tanh_in_one_kernel() {
    let (x, want) = ([-0.5778f32, 0.1535, 0.7981], [-0.492_090_27_f32, 0.168_904_58, 0.572_707_55]);
    for d in devices() {
        let x = Tensor::new(x, [3], &d).unwrap();
        near(&x.tanh().erf().tanh(), &want);
    }
}

/// A gradient taken inside a vmapped function without create_graph is a constant outside, as it is for one model alone.
#[test]
fn a_gradient_inside_vmap_has_no_history() {
    for d in devices() {
        let w = Tensor::new([1.0f32, 2.0, 3.0, 4.0], [2, 2], &d).unwrap().requires_grad().unwrap();
        let slopes = vmap(|p| Ok(vec![grad(&[&p[0].square().sum_all()], &[&p[0]])?.remove(0).unwrap()]), &[&w]).unwrap().remove(0);
        assert!(!slopes.is_grad_required(), "{}", d.description());
        near(&slopes, &[2.0, 4.0, 6.0, 8.0]);
    }
}

/// A value without history inside a checkpoint, run before backward, is there when backward records the scope again.
#[test]
fn a_checkpoint_keeps_what_in_it_has_no_history() {
    for d in devices() {
        let x = Tensor::new([1.0f32, 2.0], [2], &d).unwrap();
        let w = Tensor::new([0.5f32, 0.25], [2], &d).unwrap().requires_grad().unwrap();
        let y = checkpoint(|| {
            let twice = &x * 2.0;
            let once = (&w * &twice).square();
            &once * &w.square().detach()
        });
        let loss = y.sum_all();
        assert_eq!(loss.item().unwrap(), 0.25 + 0.0625);
        loss.backward().unwrap();
        near(&w.grad().unwrap(), &[1.0, 0.5]);
    }
}

/// Two windows of a tensor, each repeated to the tensor's own size: where they begin is data, so what reads one is not what reads the other.
#[test]
fn windows_repeated_to_the_size_of_their_base_are_not_the_same() {
    for d in devices() {
        let x = Tensor::new([1.0f32, 2.0, 3.0, 4.0], [4], &d).unwrap();
        let window = |start| x.narrow(0, start, 2).expand([2, 2]).square();
        near(&(window(2) - window(0)), &[8.0, 12.0, 8.0, 12.0]);
    }
}

/// A random value that a kernel draws on the spot, and sees reversed as well: the second is not the first.
#[test]
fn a_source_and_its_reverse_in_one_kernel() {
    for d in devices() {
        let u = Tensor::rand([4], &Generator::new(3), &d).unwrap();
        let x = Tensor::new([1.0f32, 2.0, 3.0, 4.0], [4], &d).unwrap();
        let v = u.to_vec::<f32>().unwrap();
        let u = Tensor::rand([4], &Generator::new(3), &d).unwrap();
        let want: Vec<f32> = (0..4).map(|i| v[i] * (i + 1) as f32 * v[3 - i]).collect();
        near(&(&u * &x * u.flip(&[0])), &want);
    }
}
