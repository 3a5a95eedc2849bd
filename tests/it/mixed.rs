//! Mixed precision: what autocast casts, what comes back, and training with a scaled loss.

use crate::common;
use crate::ops::adapter;
use wgrad::nn::{BatchNorm2d, Conv2d, Linear, Module, Sequential};
use wgrad::tensor::DType;
use wgrad::{Device, Generator, Result, Tensor, autocast};

fn devices() -> Vec<Device> {
    [Some(common::definition()), Some(common::fast()), adapter(common::gpu(), 1), adapter(common::floor(), 1)].into_iter().flatten().collect()
}

/// Seeded numbers.
fn numbers(name: &str, shape: &[usize], device: &Device) -> Result<Tensor> {
    let mut d = common::Draw::new(name, 0);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| d.float(-1.0, 1.0) as f32).collect();
    Tensor::new(values, shape, device)
}

#[test]
fn products_take_halves_and_what_is_steep_takes_floats() -> Result<()> {
    for device in devices() {
        let x = numbers("x", &[4, 8], &device)?;
        let w = numbers("w", &[6, 8], &device)?.requires_grad()?;
        let b = numbers("b", &[6], &device)?.requires_grad()?;
        autocast(DType::F16, || {
            let y = x.linear(&w, Some(&b));
            assert_eq!((y.dtype(), y.relu().dtype(), (&y + &x.narrow(1, 0, 6)).dtype()), (DType::F16, DType::F16, DType::F32));
            assert_eq!((y.exp().dtype(), y.softmax(1).dtype(), y.sum_all().dtype(), y.reshape([24]).dtype()), (DType::F32, DType::F32, DType::F32, DType::F16));
            autocast(DType::F32, || assert_eq!(x.matmul(&w.t()).dtype(), DType::F32));
            // Double precision is somebody's intention.
            if !device.is_gpu() {
                assert_eq!(x.to_dtype(DType::F64).matmul(&w.t().to_dtype(DType::F64)).dtype(), DType::F64);
            }
        });
        assert_eq!(x.matmul(&w.t()).dtype(), DType::F32);
    }
    Ok(())
}

/// Loss and gradients of a small network.
fn network(device: &Device, mixed: bool) -> Result<(f64, Vec<Vec<f32>>)> {
    let g = Generator::new(3);
    let mut net = Sequential::new();
    net.push(Box::new(Conv2d::new(2, 6, 3, &g, device)?));
    net.push(Box::new(BatchNorm2d::new(6, device)?));
    net.push(Box::new(wgrad::nn::ReLU));
    net.push(Box::new(wgrad::nn::Flatten::default()));
    net.push(Box::new(Linear::new(6 * 4 * 5, 7, &g, device)?));
    let x = numbers("image", &[5, 2, 6, 7], device)?;
    let labels = Tensor::new([0, 3, 6, 2, 1], [5], device)?;
    let loss = autocast(if mixed { DType::F16 } else { DType::F32 }, || net.try_forward(&x)?.cross_entropy_with(&labels, &Default::default()))?;
    assert_eq!(loss.dtype(), DType::F32);
    loss.backward()?;
    let grads = net.parameters().iter().map(|p| p.grad().unwrap().to_vec::<f32>()).collect::<Result<_>>()?;
    Ok((loss.item()?, grads))
}

#[test]
fn gradients_come_back_in_f32_and_near_those_of_f32() -> Result<()> {
    let (loss, want) = network(&common::fast(), false)?;
    for device in devices() {
        let (mixed, got) = network(&device, true)?;
        assert!((loss - mixed).abs() < 4e-3 * loss, "{device:?}: loss {mixed}, in f32 {loss}");
        assert_ne!(loss, mixed, "{device:?}: nothing was cast");
        for (n, (g, w)) in got.iter().zip(&want).enumerate() {
            let scale = w.iter().fold(0f32, |m, v| m.max(v.abs()));
            let worst = g.iter().zip(w).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            // The bias before batch norm has no gradient but rounding.
            assert!(worst <= 0.02 * scale.max(0.01), "{device:?}: gradient {n} is off by {worst} of {scale}");
        }
    }
    Ok(())
}

#[test]
fn a_weight_is_cast_once_however_often_it_is_used() -> Result<()> {
    let device = common::fast();
    let w = numbers("w", &[8, 8], &device)?.requires_grad()?;
    let x = numbers("x", &[3, 8], &device)?;
    let nodes = || device.counters().nodes;
    autocast(DType::F16, || -> Result<()> {
        let h = x.to_dtype(DType::F16).matmul(&w.t());
        let before = nodes();
        let y = h.matmul(&w.t());
        // The view of the parameter, that of its halves, the product.
        assert_eq!(nodes() - before, 3);
        y.sum_all().backward()?;
        // Backward has consumed the history of the cast: the next use makes one of its own, and the gradient flows again.
        let first = w.grad().unwrap().to_vec::<f32>()?;
        w.set_grad(None);
        x.matmul(&w.t()).matmul(&w.t()).sum_all().backward()?;
        assert_eq!(w.grad().unwrap().to_vec::<f32>()?, first);
        // Nor does one without history serve where there is to be some.
        w.set_grad(None);
        wgrad::no_grad(|| x.matmul(&w.t()).to_data())?;
        x.matmul(&w.t()).sum_all().backward()?;
        assert!(w.grad().is_some());
        Ok(())
    })
}

#[test]
fn models_at_once_and_recomputed_ones_have_the_bits_of_plain_ones() -> Result<()> {
    let device = common::fast();
    let (w, x) = (numbers("w", &[3, 5, 4], &device)?, numbers("x", &[2, 4], &device)?);
    let f = |w: &Tensor| autocast(DType::F16, || x.matmul(&w.t()).tanh().exp().sum_all());
    let alone = (0..3).map(|m| f(&w.narrow(0, m, 1).reshape([5, 4])).to_vec::<f32>()).collect::<Result<Vec<_>>>()?.concat();
    assert_eq!(wgrad::autograd::vmap(|p| Ok(vec![f(&p[0])]), &[&w])?[0].to_vec::<f32>()?, alone);
    assert_eq!(autocast(DType::F16, || wgrad::autograd::vmap(|p| Ok(vec![f(&p[0])]), &[&w]))?[0].to_vec::<f32>()?, alone);
    let grad = |again: bool| -> Result<Vec<f32>> {
        let w = w.narrow(0, 0, 1).reshape([5, 4]).requires_grad()?;
        let y = if again { wgrad::autograd::checkpoint(|| f(&w)) } else { f(&w) };
        y.backward()?;
        w.grad().unwrap().to_vec()
    };
    assert_eq!(grad(true)?, grad(false)?);
    Ok(())
}
