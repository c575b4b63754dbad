//! What does not change on a node as long as it has what it has.

use claw_proto::spec::RuntimeKind;
use claw_proto::validation::{Demand, ValidSpec};
use claw_tools::workloads::PlacementReason as R;

use super::{Ask, View, could, kinds};

/// What a specification finds on a node as long as the node has what it has and is called as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scheduler) struct Fixed {
    kinds: u64,
    /// Which of the models that it names is that of the node, or tells best why none is.
    model: u8,
    /// The runtime, or what keeps it out for good.
    pub(in crate::scheduler) answer: Result<RuntimeKind, R>,
}

impl Fixed {
    /// Something is fixed unless the specification names several models and the node has several kinds of GPUs.
    pub(super) fn is_of(view: &View, demand: &Demand) -> bool {
        demand.gpu_models.len() <= 1 || view.kinds.len() <= 1
    }

    /// Of a node and a specification for which something is fixed, see [`Self::is_of`].
    pub(in crate::scheduler) fn of(view: &View, spec: &ValidSpec) -> Self {
        let demand = spec.node_demand();
        let with = |model: u8| {
            let ask = Ask { demand, model: model_at(demand, model), kinds: 0 };
            let kinds = kinds(view, ask);
            Self { kinds, model, answer: could(view, spec, Ask { kinds, ..ask }).map_err(|miss| miss.reason) }
        };
        let mut best = with(0);
        for (_, model) in demand.gpu_models.iter().zip(0..).skip(1) {
            let Err(reason) = best.answer else { break };
            let next = with(model);
            // As with all of them in turn: the one that is nearest to fitting tells why.
            if next.answer.err().is_none_or(|its| its as u8 > reason as u8) {
                best = next;
            }
        }
        best
    }

    /// What is asked of the node's GPUs by the specification that this was found for.
    pub(super) fn ask<'a>(&self, demand: &'a Demand) -> Ask<'a> {
        Ask { demand, model: model_at(demand, self.model), kinds: self.kinds }
    }

    /// How many models the specification would rather have; it has an order of them or not.
    pub(in crate::scheduler) const fn fallback(&self, is_ranked: bool) -> u8 {
        if is_ranked { self.model } else { 0 }
    }
}

/// The model of this number, of those that are named; any without one.
fn model_at(demand: &Demand, at: u8) -> Option<&str> {
    demand.gpu_models.get(usize::from(at)).map(String::as_str)
}

/// What one specification has found on nodes: once for all of a make, where they are asked for nothing else.
#[derive(Debug, Default)]
pub(in crate::scheduler) struct Found {
    /// By the number of a make.
    of_makes: Vec<Option<Fixed>>,
    /// By the place of a node, as it was in a generation.
    of_places: Vec<(u32, Option<Fixed>)>,
}

impl Found {
    /// What was found on the node at this place, in this generation; with a make, on any node of that make.
    #[inline]
    pub(in crate::scheduler) fn on(&mut self, make: Option<u32>, (at, generation): (usize, u32)) -> &mut Option<Fixed> {
        if let Some(make) = make.map(|make| make as usize) {
            if self.of_makes.len() <= make {
                self.of_makes.resize(make + 1, None);
            }
            return &mut self.of_makes[make];
        }
        if self.of_places.len() <= at {
            self.of_places.resize(at + 1, (0, None));
        }
        let (of, fixed) = &mut self.of_places[at];
        if *of != generation {
            (*of, *fixed) = (generation, None);
        }
        fixed
    }

    /// The same, if anything was found.
    pub(in crate::scheduler) fn known(&self, make: Option<u32>, (at, generation): (usize, u32)) -> Option<&Fixed> {
        match make {
            Some(make) => self.of_makes.get(make as usize)?.as_ref(),
            None => self.of_places.get(at).filter(|(of, _)| *of == generation)?.1.as_ref(),
        }
    }
}
