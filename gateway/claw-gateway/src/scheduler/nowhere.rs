//! Shapes that fit nowhere just now. What was answered to one is the answer to the next of
//! the same shape, until something changes that the answer was made of: a submission into a
//! full fleet need not look at every node again.

use std::sync::Arc;

use claw_proto::validation::ValidSpec;
use claw_tools::workloads::PlacementReport;

use super::same_shape;
use crate::event::Event;

/// Most shapes that are remembered; the oldest goes.
const SHAPES_MAX: usize = 64;

/// The shapes, with the answer to each. Follows from the rest of the state, and is no part
/// of a snapshot: without it every decision is the same.
#[derive(Debug, Clone, Default)]
pub struct Nowhere {
    shapes: Arc<Vec<(Arc<ValidSpec>, Arc<PlacementReport>)>>,
}

impl Nowhere {
    /// Why this specification fits nowhere, if that is known.
    pub fn report(&self, spec: &ValidSpec) -> Option<Arc<PlacementReport>> {
        self.iter().find(|(known, _)| same_shape(known, spec)).map(|(_, report)| Arc::clone(report))
    }

    /// Everything that is remembered.
    pub fn iter(&self) -> impl Iterator<Item = &(Arc<ValidSpec>, Arc<PlacementReport>)> {
        self.shapes.iter()
    }

    /// Remembers a fresh answer.
    pub(crate) fn note(&mut self, spec: &Arc<ValidSpec>, report: &Arc<PlacementReport>) {
        let shapes = Arc::make_mut(&mut self.shapes);
        if shapes.len() >= SHAPES_MAX {
            shapes.remove(0);
        }
        shapes.push((Arc::clone(spec), Arc::clone(report)));
    }

    /// Forgets all if `event` may change what answers are made of: nodes, and who holds
    /// their GPUs. Only what is known to change neither is let pass.
    pub(crate) fn heed(&mut self, event: &Event) {
        let changes_no_room = matches!(
            event,
            Event::WorkloadSubmitted { .. }
                | Event::WorkloadWaits { .. }
                | Event::OperationAccepted { .. }
                | Event::OperationResolved { .. }
                | Event::PlanStored { .. }
                | Event::ReceiptStored { .. }
        );
        if !changes_no_room && !self.shapes.is_empty() {
            *self = Self::default();
        }
    }
}
