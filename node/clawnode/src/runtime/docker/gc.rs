//! What is removed to stay under a limit: pure, used for images and for caches.

/// Something that takes space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What it is called.
    pub id: String,
    /// Space that it takes, bytes.
    pub bytes: u64,
    /// When it was used last, milliseconds of any clock that goes on over restarts.
    pub last_used_ms: i64,
    /// Somebody uses it now.
    pub in_use: bool,
    /// It is never removed.
    pub pinned: bool,
}

/// What must hold afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Most that all may take together, bytes.
    pub bytes_max: Option<u64>,
    /// Bytes that must become free, whatever they take together.
    pub bytes_short: u64,
    /// Only what is unused for so long goes, milliseconds.
    pub unused_ms_min: i64,
}

/// One removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// What.
    pub id: String,
    /// Bytes that it frees, at most: parts may be shared.
    pub bytes: u64,
}

/// What is to be removed, the least recently used first, and no more than needed.
/// Nothing in use, pinned or used a moment ago goes, even if the limits then do not hold.
pub fn plan_gc(stored: &[Stored], now_ms: i64, limits: &Limits) -> Vec<Removal> {
    let total = stored.iter().fold(0_u64, |sum, one| sum.saturating_add(one.bytes));
    let over = limits.bytes_max.map_or(0, |most| total.saturating_sub(most));
    let wanted = over.max(limits.bytes_short);
    let mut candidates: Vec<&Stored> = stored
        .iter()
        .filter(|one| !one.in_use && !one.pinned)
        .filter(|one| now_ms.saturating_sub(one.last_used_ms) >= limits.unused_ms_min)
        .collect();
    candidates.sort_by(|a, b| (a.last_used_ms, &a.id).cmp(&(b.last_used_ms, &b.id)));
    let mut freed = 0_u64;
    let mut removals = Vec::new();
    for one in candidates {
        if freed >= wanted {
            break;
        }
        freed = freed.saturating_add(one.bytes);
        removals.push(Removal { id: one.id.clone(), bytes: one.bytes });
    }
    removals
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored() -> impl Strategy<Value = Vec<Stored>> {
        let one = (0_u64..100, 0_i64..1_000, any::<bool>(), prop::bool::weighted(0.2));
        prop::collection::vec(one, 0..12).prop_map(|all| {
            let named = |(n, (bytes, last_used_ms, in_use, pinned)): (usize, _)| Stored {
                id: format!("image-{n}"),
                bytes,
                last_used_ms,
                in_use,
                pinned,
            };
            all.into_iter().enumerate().map(named).collect()
        })
    }

    proptest! {
        /// G1 what is used, pinned or fresh stays; G2 the oldest go first; G3 no more than
        /// needed; G4 the limits hold or nothing is left to remove; G5 order does not matter.
        #[test]
        fn only_the_oldest_unused_go(
            all in stored(),
            bytes_max in prop::option::of(0_u64..400),
            bytes_short in 0_u64..200,
            unused_ms_min in 0_i64..500,
        ) {
            let limits = Limits { bytes_max, bytes_short, unused_ms_min };
            let now_ms = 1_000;
            let plan = plan_gc(&all, now_ms, &limits);
            let goes = |one: &Stored| plan.iter().any(|removal| removal.id == one.id);
            let may_go = |one: &&Stored| !one.in_use && !one.pinned && now_ms - one.last_used_ms >= unused_ms_min;
            prop_assert!(all.iter().filter(|one| goes(one)).all(|one| may_go(&one)), "G1");
            let newest_gone = all.iter().filter(|one| goes(one)).map(|one| one.last_used_ms).max();
            let oldest_left = all.iter().filter(may_go).filter(|one| !goes(one)).map(|one| one.last_used_ms).min();
            prop_assert!(newest_gone.zip(oldest_left).is_none_or(|(gone, left)| gone <= left), "G2");
            let total: u64 = all.iter().map(|one| one.bytes).sum();
            let holds = |freed: u64| freed >= bytes_short && bytes_max.is_none_or(|most| total - freed <= most);
            let freed: u64 = plan.iter().map(|removal| removal.bytes).sum();
            if let Some(last) = plan.last() {
                prop_assert!(!holds(freed - last.bytes), "G3");
            }
            prop_assert!(holds(freed) || oldest_left.is_none(), "G4");
            let mut turned = all.clone();
            turned.reverse();
            prop_assert_eq!(plan_gc(&turned, now_ms, &limits), plan, "G5");
        }
    }
}
