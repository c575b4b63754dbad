//! Which nodes changed last: [`Trail`].

use std::sync::Arc;

use claw_proto::ids::NodeId;

/// Changes that are remembered at most. The next one forgets them all: then everybody compares the nodes, once.
const LENGTH_MAX: u32 = 64;

/// The last changes of a registry, newest first. Each change is a step of its own that no other history has, so
/// whoever knows the step at which he looked last finds what changed since, or that this registry does not come
/// from the one that he saw. Two registries are equal whatever their trails are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trail(Option<Arc<Step>>);

#[derive(Debug)]
struct Step {
    changed: NodeId,
    before: Trail,
    /// Steps from here to the first that is remembered.
    length: u32,
}

impl PartialEq for Trail {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Trail {
    /// A node changed.
    pub(crate) fn add(&mut self, changed: NodeId) {
        let length = self.0.as_ref().map_or(0, |step| step.length) + 1;
        let (before, length) = if length > LENGTH_MAX { (Self::default(), 1) } else { (std::mem::take(self), length) };
        self.0 = Some(Arc::new(Step { changed, before, length }));
    }

    /// Nodes that changed since a registry had this trail, the last first; nothing if that cannot be told.
    pub(crate) fn since(&self, seen: &Self) -> Option<Vec<NodeId>> {
        let seen = seen.0.as_ref()?;
        let (mut at, mut changed) = (self, Vec::new());
        loop {
            let step = at.0.as_ref()?;
            if Arc::ptr_eq(step, seen) {
                return Some(changed);
            }
            changed.push(step.changed);
            at = &step.before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u128) -> NodeId {
        NodeId::from_bits(n)
    }

    #[test]
    fn a_trail_tells_what_changed_since_and_nothing_of_other_histories() {
        let mut trail = Trail::default();
        let nobody = trail.clone();
        trail.add(node(1));
        let seen = trail.clone();
        assert_eq!(trail.since(&seen), Some(Vec::new()));
        assert_eq!(trail.since(&nobody), None, "who saw nothing has to look at all");
        let mut other = trail.clone();
        trail.add(node(2));
        trail.add(node(3));
        other.add(node(2));
        assert_eq!(trail.since(&seen), Some(vec![node(3), node(2)]));
        assert_eq!(trail.since(&other), None, "the same change of another history is another one");
        assert_eq!(seen.since(&trail), None, "nor is one told what lies ahead");
    }

    #[test]
    fn what_is_too_long_ago_is_forgotten() {
        let mut trail = Trail::default();
        trail.add(node(0));
        let seen = trail.clone();
        let lengths = (1..=3 * u128::from(LENGTH_MAX)).map(|n| {
            trail.add(node(n));
            (n, trail.since(&seen).map(|changed| changed.len() as u128))
        });
        let (told, forgotten): (Vec<_>, Vec<_>) = lengths.partition(|(_, told)| told.is_some());
        assert!(told.iter().all(|(n, told)| *told == Some(*n)));
        assert_eq!(u32::try_from(told.len()), Ok(LENGTH_MAX - 1));
        assert_eq!(u32::try_from(forgotten.len()), Ok(2 * LENGTH_MAX + 1));
    }
}
