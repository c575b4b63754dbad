//! Which places changed last: [`Recent`].

/// What stands where no place is.
const NONE: u32 = u32::MAX;

/// Places in order of their last change, each once: whoever looked a while ago goes through those that changed since,
/// however often each did.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// For each place the next newer and the next older one.
    beside: Vec<(u32, u32)>,
    newest: Option<u32>,
}

impl Recent {
    /// The place has changed.
    pub(super) fn touch(&mut self, at: usize) {
        let Ok(place) = u32::try_from(at) else { return };
        if self.beside.len() <= at {
            self.beside.resize(at + 1, (NONE, NONE));
        }
        if self.newest == Some(place) {
            return;
        }
        // What has a newer one stands in the list; its neighbours close up.
        let (newer, older) = self.beside[at];
        if newer != NONE {
            self.beside[newer as usize].1 = older;
            if older != NONE {
                self.beside[older as usize].0 = newer;
            }
        }
        let before = self.newest.replace(place);
        self.beside[at] = (NONE, before.unwrap_or(NONE));
        if let Some(before) = before {
            self.beside[before as usize].0 = place;
        }
    }

    /// All that ever changed, the last first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = usize> + '_ {
        let older = |at: &u32| self.beside.get(*at as usize).map(|(_, older)| *older).filter(|older| *older != NONE);
        std::iter::successors(self.newest, older).map(|at| at as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Each place stands there once, by its last change, as a list of all changes tells.
        #[test]
        fn places_stand_in_order_of_their_last_change(changes in prop::collection::vec(0_usize..9, 0..60)) {
            let mut recent = Recent::default();
            for (n, at) in changes.iter().enumerate() {
                recent.touch(*at);
                let mut order: Vec<usize> = Vec::new();
                for at in changes[..=n].iter().rev() {
                    if !order.contains(at) {
                        order.push(*at);
                    }
                }
                prop_assert_eq!(recent.newest_first().collect::<Vec<_>>(), order);
            }
        }
    }
}
