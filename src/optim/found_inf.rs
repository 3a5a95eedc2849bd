//! Whether a step's gradients are all finite, and what follows from that, as an operation of the graph: nothing of it comes to the host.

use super::update::Update;
use crate::device::Slot;
use crate::device::cpu::{CpuView, CpuViewMut};
use crate::error::{Error, Result};
use crate::graph::{Arenas, Autocast, Key, LaunchCtx, Op, Slots};
use crate::tensor::{DType, Meta};

/// Inputs: the gradients of one arena; then the arena, its table, the scaler's state `[4]` and how often the optimizer skipped a step `[1]`; and, but for the
/// first arena, the control of the one before. Outputs: control `[4]` (what to multiply gradients with, whether to skip the step, how many were skipped
/// before), the scaler's next state, and how often steps were skipped now. Slots: growth, backoff, interval, and 1 where gradients are unscaled already.
#[derive(Debug)]
pub(super) struct FoundInf {
    /// The slice of each gradient that takes part.
    pub slices: Vec<u32>,
    /// Where each slice begins, in elements.
    pub offsets: Vec<usize>,
    /// Elements of the whole arena.
    pub len: usize,
}

/// The least and the largest scale: it and its inverse are finite.
const RANGE: (f32, f32) = (7.888_609e-31, 1.701_411_8e38);

impl FoundInf {
    fn grads(&self) -> usize {
        self.slices.len()
    }
}

impl Op for FoundInf {
    fn name(&self) -> &'static str {
        "found_inf"
    }

    fn key(&self, key: &mut Key) {
        key.int(self.len as i64).ints(&self.offsets);
        self.slices.iter().for_each(|&s| {
            key.int(s);
        });
    }

    fn autocast(&self) -> Autocast {
        Autocast::Keep
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let n = self.grads();
        if inputs[n + 2] != Meta::new(DType::F32, [4]) || inputs[n + 3] != Meta::new(DType::F32, [1]) {
            return Err(Error::internal(format!("found_inf: state {} and count {}", inputs[n + 2], inputs[n + 3])));
        }
        Ok(vec![Meta::new(DType::F32, [4]), Meta::new(DType::F32, [4]), Meta::new(DType::F32, [1])])
    }

    fn arenas(&self) -> Option<Arenas> {
        Some(Arenas { outputs: Vec::new(), grads: self.slices.iter().map(|&s| (self.grads(), s)).collect() })
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn cpu(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let n = self.grads();
        let finite = |x: &CpuView<'_>| match x.dtype {
            DType::F32 => x.elements::<f32>().iter().fold(true, |all, v| all & v.is_finite()),
            _ => x.to_f64().iter().all(|v| v.is_finite()),
        };
        let earlier = inputs.get(n + 4).is_some_and(|c| c.elements::<f32>()[1] > 0.0);
        let found = earlier || !inputs[..n].iter().all(finite);
        let (state, skipped) = (inputs[n + 2].elements::<f32>(), inputs[n + 3].elements::<f32>()[0]);
        let [growth, backoff, interval, unscaled] = slots.floats[..] else { return Err(Error::internal("found_inf: four floats")) };
        let (scale, since, count) = (state[0], state[1] + 1.0, f32::from(u8::from(found)));
        let grows = since >= interval as f32;
        let factor = match (found, grows) {
            (true, _) => backoff as f32,
            (false, true) => growth as f32,
            (false, false) => 1.0,
        };
        let inverse = if unscaled > 0.0 { 1.0 } else { 1.0 / scale };
        outputs[0].elements::<f32>().copy_from_slice(&[inverse, count, skipped, 0.0]);
        let next = (scale * factor).clamp(RANGE.0, RANGE.1);
        outputs[1].elements::<f32>().copy_from_slice(&[next, if found || grows { 0.0 } else { since }, state[2] + count, 0.0]);
        outputs[2].elements::<f32>()[0] = skipped + count;
        Ok(())
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        /// Workgroups: enough to fill any GPU; each invocation leaves one word.
        const GROUPS: usize = 256;
        let n = self.grads();
        Update::place_gradients(ctx, n, n, &self.slices, &self.offsets)?;
        let (grads, quads) = (ctx.inputs[n].slot, self.len / 4);
        let groups = quads.div_ceil(64).clamp(1, GROUPS);
        let parts = ctx.scratch(groups * 64 * 4);
        let call = ctx.call("found_inf")?.read("grads", grads, "vec4<f32>").input("table", n + 1).write("part", parts, "u32");
        call.u32s(&[quads, groups * 64]).grid(groups, 1, 1)?;
        let floats: Vec<_> = (0..4).map(|f| ctx.float(f)).collect();
        let wanted = |ctx: &mut LaunchCtx<'_>, o: usize| -> Slot { ctx.outputs[o].0.unwrap_or_else(|| ctx.scratch(16)) };
        let out = [wanted(ctx, 0), wanted(ctx, 1), wanted(ctx, 2)];
        let earlier = ctx.inputs.len() > n + 4;
        let mut call = ctx.call("scaling")?.read("part", parts, "vec4<u32>").input("state", n + 2).input("skipped", n + 3);
        if earlier {
            call = call.hook("earlier_found", "    return earlier[u[0].w + 1u];").input("earlier", n + 4);
        }
        call = call.write("control", out[0], "f32").write("next", out[1], "f32").write("skipped_next", out[2], "f32");
        call = call.u32(groups * 16).offset(n + 2).offset(n + 3);
        call = if earlier { call.offset(n + 4) } else { call.u32(0) };
        floats.into_iter().fold(call, |c, f| c.word(f)).grid(1, 1, 1)
    }
}
