//! FGD as it is published: at each decision every machine is asked. What an index is measured against.

use std::sync::Arc;

use super::machine::{Machine, Request};
use super::packer::{Measured, Place};
use super::policy::Policy;
use super::score::{Scored, fgd};
use super::typical::Typical;

/// A fleet whose machines are all asked, each time; how fragmented a state of a machine is, is counted once.
#[derive(Debug, Clone)]
pub struct Scan {
    machines: Vec<Machine>,
    typical: Arc<Typical>,
    measured: Measured,
}

impl Scan {
    /// For these machines.
    pub fn new(machines: Vec<Machine>, typical: Arc<Typical>) -> Self {
        Self { machines, typical, measured: Measured::default() }
    }

    /// The first of the best places by FGD; nothing if no machine has room.
    pub fn decide(&mut self, request: &Request) -> Option<Place> {
        self.best(request).map(|(scored, machine)| Place { machine, gpu: scored.gpu })
    }

    /// What that place is worth, see [`Packer::worth`](super::Packer::worth).
    pub fn worth(&mut self, request: &Request) -> Option<i32> {
        self.best(request).map(|(scored, _)| scored.score)
    }

    fn best(&mut self, request: &Request) -> Option<(Scored, usize)> {
        let Self { machines, typical, measured } = self;
        let mut measure = |machine: &Machine| measured.of(Policy::Fgd, machine, typical);
        let mut best: Option<(Scored, usize)> = None;
        for (at, machine) in machines.iter().enumerate().filter(|(_, machine)| machine.fits(request)) {
            let Some(scored) = fgd(machine, request, &mut measure) else { continue };
            if best.is_none_or(|(best, _)| scored.score > best.score) {
                best = Some((scored, at));
            }
        }
        best
    }

    /// Takes the place. Nothing happens and `false` comes back if it is not free.
    pub fn take(&mut self, request: &Request, place: Place) -> bool {
        let left = self.machines.get(place.machine).and_then(|machine| machine.after(request, place.gpu));
        let (Some(left), Some(slot)) = (left, self.machines.get_mut(place.machine)) else { return false };
        *slot = left;
        true
    }
}
