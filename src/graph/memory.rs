//! Temporaries by lifetime: values that never live at the same time share a buffer.

use super::plan::Fault;
use crate::device::Slot;

/// The buffers that temporaries were placed in.
#[derive(Debug)]
pub(crate) struct Placed {
    /// Bytes of each buffer.
    pub bytes: Vec<usize>,
    buffer_of: Vec<Option<usize>>,
}

impl Placed {
    /// The slot after placing: temporaries get their buffer's number, others stay.
    pub fn slot(&self, slot: Slot) -> Slot {
        match slot {
            Slot::Temp(t) => Slot::Temp(self.buffer_of[t].expect("a temporary that a launch binds has a buffer")),
            other => other,
        }
    }
}

/// Place temporaries of `bytes` each, where launch `l` uses the slots `uses[l]`. A temporary lives from the first launch that uses it to the last.
pub(crate) fn place(uses: &[Vec<Slot>], bytes: &[usize], fault: Option<Fault>) -> Placed {
    let mut first = vec![usize::MAX; bytes.len()];
    let mut last = vec![0usize; bytes.len()];
    for (l, slots) in uses.iter().enumerate() {
        for slot in slots {
            if let Slot::Temp(t) = *slot {
                first[t] = first[t].min(l);
                last[t] = last[t].max(l);
            }
        }
    }
    if fault == Some(Fault::ShortLifetime) {
        last.iter_mut().zip(&first).for_each(|(l, &f)| *l = (*l).saturating_sub(1).max(f.min(*l)));
    }
    let mut starts: Vec<Vec<usize>> = vec![Vec::new(); uses.len()];
    let mut ends: Vec<Vec<usize>> = vec![Vec::new(); uses.len()];
    for t in (0..bytes.len()).filter(|&t| first[t] != usize::MAX) {
        starts[first[t]].push(t);
        ends[last[t]].push(t);
    }
    let mut placed = Placed { bytes: Vec::new(), buffer_of: vec![None; bytes.len()] };
    let mut free: Vec<usize> = Vec::new();
    for l in 0..uses.len() {
        for &t in &starts[l] {
            let size = bytes[t].max(4);
            // The smallest free buffer that fits; else the largest, grown; else a new one.
            let fits = free.iter().copied().filter(|&b| placed.bytes[b] >= size).min_by_key(|&b| placed.bytes[b]);
            let buffer = fits.or_else(|| free.iter().copied().max_by_key(|&b| placed.bytes[b])).unwrap_or_else(|| {
                placed.bytes.push(size);
                placed.bytes.len() - 1
            });
            free.retain(|&b| b != buffer);
            placed.bytes[buffer] = placed.bytes[buffer].max(size);
            placed.buffer_of[t] = Some(buffer);
        }
        free.extend(ends[l].iter().filter_map(|&t| placed.buffer_of[t]));
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_needs_two_buffers() {
        let uses: Vec<Vec<Slot>> = (0..10).map(|i| vec![Slot::Temp(i), Slot::Temp(i + 1)]).collect();
        let placed = place(&uses, &[256; 11], None);
        assert_eq!(placed.bytes, [256, 256]);
    }

    #[test]
    fn values_that_live_together_lie_apart() {
        let uses = vec![vec![Slot::Temp(0)], vec![Slot::Temp(1)], vec![Slot::Temp(0), Slot::Temp(1), Slot::Temp(2)]];
        let placed = place(&uses, &[8, 16, 4], None);
        assert_eq!(placed.bytes.len(), 3);
    }
}
