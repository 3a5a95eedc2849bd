//! Temporaries by lifetime: values that never live at the same time share a buffer. The buffers of a plan's outputs count, too: until an output is written, its
//! buffer holds temporaries.

use super::plan::Fault;
use crate::device::Slot;
use std::collections::HashMap;

/// Where temporaries were placed.
#[derive(Debug)]
pub(crate) struct Placed {
    /// Bytes of each buffer of the program's own.
    pub bytes: Vec<usize>,
    /// For each temporary: one of these buffers, or an output's.
    places: Vec<Option<Slot>>,
}

impl Placed {
    /// The slot after placing: temporaries get their buffer's, others stay.
    pub fn slot(&self, slot: Slot) -> Slot {
        match slot {
            Slot::Temp(t) => self.places[t].expect("a temporary that a launch binds has a buffer"),
            other => other,
        }
    }
}

/// Place temporaries of `temps` bytes each, where launch `l` uses the slots `uses[l]`. A temporary lives from the first launch that uses it to the last, an
/// output from the first launch on. `outputs` are the bytes of those that get a buffer of their own; what lies in an arena holds another value before.
///
/// The launches are walked from the last to the first, so that an output is met as a temporary is: a buffer that is in use up to here, and free before. In a
/// chain of equal layers the output's buffer is then every second layer's, whatever their number.
pub(crate) fn place(uses: &[Vec<Slot>], temps: &[usize], outputs: &[Option<usize>], fault: Option<Fault>) -> Placed {
    let mut lives: HashMap<Slot, (usize, usize)> = HashMap::new();
    let mut begins: Vec<Vec<Slot>> = vec![Vec::new(); uses.len()];
    for (l, slots) in uses.iter().enumerate() {
        for &slot in slots {
            lives.entry(slot).and_modify(|(_, last)| *last = l).or_insert_with(|| {
                begins[l].push(slot);
                (l, l)
            });
        }
    }
    let mut ends: Vec<Vec<usize>> = vec![Vec::new(); uses.len()];
    for t in 0..temps.len() {
        if let Some(&(first, last)) = lives.get(&Slot::Temp(t)) {
            let early = usize::from(fault == Some(Fault::ShortLifetime) && last > first);
            ends[last - early].push(t);
        }
    }
    let mut placed = Placed { bytes: Vec::new(), places: vec![None; temps.len()] };
    let mut free: Vec<Slot> = Vec::new();
    for l in (0..uses.len()).rev() {
        for &t in &ends[l] {
            let need = temps[t].max(4);
            let size = |buffer: &Slot| match *buffer {
                Slot::Temp(b) => placed.bytes[b],
                Slot::Output(k) => outputs[k].unwrap_or(0).max(4),
                Slot::Leaf(_) | Slot::Errors => 0,
            };
            // The smallest free buffer that fits; else the program's own largest, grown; else a new one.
            let fits = free.iter().copied().filter(|b| size(b) >= need).min_by_key(size);
            let own = free.iter().copied().filter(|b| matches!(b, Slot::Temp(_))).max_by_key(size);
            let buffer = fits.or(own).unwrap_or(Slot::Temp(placed.bytes.len()));
            free.retain(|&b| b != buffer);
            if let Slot::Temp(b) = buffer {
                placed.bytes.resize(placed.bytes.len().max(b + 1), 0);
                placed.bytes[b] = placed.bytes[b].max(need);
            }
            placed.places[t] = Some(buffer);
        }
        free.extend(begins[l].iter().filter_map(|&slot| match slot {
            Slot::Temp(t) => placed.places[t],
            Slot::Output(k) => outputs[k].map(|_| slot),
            Slot::Leaf(_) | Slot::Errors => None,
        }));
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_needs_two_buffers() {
        let uses: Vec<Vec<Slot>> = (0..10).map(|i| vec![Slot::Temp(i), Slot::Temp(i + 1)]).collect();
        assert_eq!(place(&uses, &[256; 11], &[], None).bytes, [256, 256]);
    }

    #[test]
    fn values_that_live_together_lie_apart() {
        let uses = vec![vec![Slot::Temp(0)], vec![Slot::Temp(1)], vec![Slot::Temp(0), Slot::Temp(1), Slot::Temp(2)]];
        assert_eq!(place(&uses, &[8, 16, 4], &[], None).bytes.len(), 3);
    }

    /// The slots of a chain from a leaf to output 0.
    fn chain(launches: usize) -> Vec<Vec<Slot>> {
        let value = |i: usize| if i == 0 { Slot::Leaf(0) } else { Slot::Temp(i - 1) };
        (0..launches).map(|i| vec![value(i), if i + 1 == launches { Slot::Output(0) } else { value(i + 1) }]).collect()
    }

    #[test]
    fn a_chain_that_ends_in_an_output_needs_one_buffer_besides() {
        for launches in 2..12 {
            let temps = vec![256; launches - 1];
            let placed = place(&chain(launches), &temps, &[Some(256)], None);
            assert_eq!(placed.bytes, [256], "{launches} launches");
            // The launch that writes the output reads the other buffer.
            assert_eq!(placed.slot(Slot::Temp(launches - 2)), Slot::Temp(0));
            // An output that is too small, or lies in an arena, holds nothing else.
            for other in [Some(252), None] {
                let placed = place(&chain(launches), &temps, &[other], None);
                assert!((0..launches - 1).all(|t| placed.slot(Slot::Temp(t)) != Slot::Output(0)), "{launches} launches, {other:?}");
            }
        }
    }

    #[test]
    fn an_output_holds_nothing_else_once_it_is_written() {
        // Written first and read last: what is made in between lies elsewhere.
        let uses = vec![vec![Slot::Output(0)], vec![Slot::Temp(0)], vec![Slot::Temp(0), Slot::Output(0), Slot::Output(1)]];
        let placed = place(&uses, &[8], &[Some(8), Some(8)], None);
        assert_eq!((placed.slot(Slot::Temp(0)), &placed.bytes[..]), (Slot::Temp(0), &[8][..]));
    }

    #[test]
    fn in_random_programs_every_value_has_room_and_no_other_beside_it() {
        let draw = |seed: u64, i: usize, n: usize| crate::rng::word(seed, 0, i) as usize % n;
        for seed in 0..300 {
            let (launches, temps, outputs) = (1 + draw(seed, 0, 20), 1 + draw(seed, 1, 12), draw(seed, 2, 4));
            let temps: Vec<usize> = (0..temps).map(|t| 4 * draw(seed, 10 + t, 6)).collect();
            let outputs: Vec<Option<usize>> = (0..outputs).map(|k| Some(4 * draw(seed, 30 + k, 6)).filter(|_| draw(seed, 40 + k, 4) > 0)).collect();
            let slot = |i: usize| match draw(seed, 100 + i, temps.len() + outputs.len() + 1) {
                n if n < temps.len() => Slot::Temp(n),
                n if n < temps.len() + outputs.len() => Slot::Output(n - temps.len()),
                _ => Slot::Leaf(0),
            };
            let uses: Vec<Vec<Slot>> = (0..launches).map(|l| (0..3).map(|i| slot(3 * l + i)).collect()).collect();
            let placed = place(&uses, &temps, &outputs, None);
            let life = |s: Slot| {
                let first = uses.iter().position(|u| u.contains(&s))?;
                let last = if matches!(s, Slot::Output(_)) { launches } else { uses.iter().rposition(|u| u.contains(&s))? };
                Some((s, placed.slot(s), first..=last))
            };
            let values = (0..temps.len()).map(Slot::Temp).chain((0..outputs.len()).map(Slot::Output));
            let lives: Vec<_> = values.filter_map(life).collect();
            for (n, (a, at, life)) in lives.iter().enumerate() {
                if let Slot::Temp(t) = *a {
                    let room = match *at {
                        Slot::Temp(b) => placed.bytes[b],
                        Slot::Output(k) => outputs[k].unwrap().max(4),
                        other => panic!("seed {seed}: {a:?} at {other:?}"),
                    };
                    assert!(room >= temps[t], "seed {seed}: {a:?} of {} bytes in {room}", temps[t]);
                }
                for (b, other, when) in &lives[..n] {
                    let together = life.start() <= when.end() && when.start() <= life.end();
                    assert!(at != other || !together, "seed {seed}: {a:?} and {b:?} in {at:?}");
                }
            }
        }
    }
}
