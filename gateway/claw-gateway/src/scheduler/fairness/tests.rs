//! The axioms of fair sharing, on random groups, and the quotas at every tick.

use proptest::prelude::*;

use super::*;

const NORMAL: u32 = 500;
const HOUR_S: f64 = 3_600.0;

/// A group right below the root, and what its tasks need.
#[derive(Debug, Clone)]
struct Tenant {
    group: Group,
    task: Amounts,
    tasks: u64,
}

fn root(whole: Amounts) -> Group {
    Group { parent: None, guaranteed: whole, most: None, lends: true, weight: 1 }
}

fn tenant(guaranteed: u64, weight: u32, task: [u64; 3], tasks: u64) -> Tenant {
    let guaranteed = Amounts([guaranteed, 0, 0]);
    let group = Group { parent: Some(0), guaranteed, most: None, lends: true, weight };
    Tenant { group, task: Amounts(task), tasks }
}

/// Gives tasks out, one after another, until nobody can have one more; how many each got.
fn fill(whole: Amounts, tenants: &[Tenant]) -> Vec<u64> {
    let groups = std::iter::once(root(whole)).chain(tenants.iter().map(|tenant| tenant.group)).collect();
    let mut shares = Shares::new(groups, whole, HOUR_S).unwrap();
    let mut got = vec![0; tenants.len()];
    loop {
        let left = (0..tenants.len()).filter(|at| got[*at] < tenants[*at].tasks);
        let ask = |at: usize| Ask { group: at + 1, priority: NORMAL, turn: at as u64, amounts: tenants[at].task };
        let asks: Vec<Ask> = left.map(ask).collect();
        let Some(next) = shares.next(&asks, 0.0) else { return got };
        shares.take(asks[next].group, asks[next].amounts, 0.0).unwrap();
        got[asks[next].group - 1] += 1;
    }
}

fn times(task: Amounts, n: u64) -> Amounts {
    Amounts(task.0.map(|amount| amount * n))
}

fn total(tenants: &[Tenant], got: &[u64]) -> Amounts {
    let each = tenants.iter().zip(got).map(|(tenant, n)| times(tenant.task, *n));
    each.fold(Amounts::default(), Amounts::plus)
}

fn tenants() -> impl Strategy<Value = (Amounts, Vec<Tenant>)> {
    let one = (1_u32..4, 1_u64..9, 0_u64..9, 0_u64..9, 0_u64..60);
    (prop::collection::vec(one, 2..6), 40_u64..200, 40_u64..200, 40_u64..200).prop_map(|(rows, gpu, cpu, memory)| {
        let of = |(weight, gpu, cpu, memory, n)| tenant(0, weight, [gpu, cpu, memory], n);
        (Amounts([gpu, cpu, memory]), rows.into_iter().map(of).collect())
    })
}

/// One resource, tasks of one, guarantees that the whole can keep.
fn quotas() -> impl Strategy<Value = (Amounts, Vec<Tenant>)> {
    prop::collection::vec((0_u64..20, 1_u32..4, 0_u64..60, any::<bool>()), 2..6).prop_flat_map(|rows| {
        let promised: u64 = rows.iter().map(|row| row.0).sum();
        (promised..promised + 40).prop_map(move |whole| {
            let of = |(guaranteed, weight, tasks, lends): &(u64, u32, u64, bool)| {
                let mut tenant = tenant(*guaranteed, *weight, [1, 0, 0], *tasks);
                tenant.group.lends = *lends;
                tenant
            };
            (Amounts([whole.max(1), 0, 0]), rows.iter().map(of).collect())
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Nobody is worse off than with its part of the whole for itself, but for tasks that are not divisible.
    #[test]
    fn sharing_pays((whole, tenants) in tenants()) {
        let got = fill(whole, &tenants);
        let weights: u32 = tenants.iter().map(|tenant| tenant.group.weight).sum();
        let size = |tenant: &Tenant| tenant.task.dominant_share(whole);
        // Each is at most one task beyond the level of the least served.
        let uneven: f64 = tenants.iter().map(size).sum();
        for (tenant, n) in tenants.iter().zip(&got) {
            let part = f64::from(tenant.group.weight) / f64::from(weights);
            let wanted = times(tenant.task, tenant.tasks).dominant_share(whole);
            let has = times(tenant.task, *n).dominant_share(whole);
            prop_assert!(has + size(tenant) + part * uneven + 1e-9 >= wanted.min(part), "{got:?}");
        }
    }

    /// Nothing that somebody wants is left over.
    #[test]
    fn nothing_useful_is_left((whole, tenants) in tenants()) {
        let got = fill(whole, &tenants);
        let used = total(&tenants, &got);
        prop_assert_eq!(used.beyond(whole), None);
        for (tenant, n) in tenants.iter().zip(&got) {
            let one_more = used.plus(tenant.task).beyond(whole).is_none();
            prop_assert!(*n == tenant.tasks || !one_more);
        }
    }

    /// With what another has, for the weight, nobody could do more than two tasks more.
    #[test]
    fn envy_is_bounded((whole, tenants) in tenants()) {
        let got = fill(whole, &tenants);
        for (mine, n) in tenants.iter().zip(&got) {
            for (theirs, m) in tenants.iter().zip(&got) {
                let theirs_has = times(theirs.task, *m);
                let ratio = f64::from(mine.group.weight) / f64::from(theirs.group.weight);
                let could = (0..RESOURCES).filter(|at| mine.task.0[*at] > 0);
                let could = could.map(|at| theirs_has.0[at] as f64 * ratio / mine.task.0[at] as f64);
                let could = could.fold(mine.tasks as f64, f64::min);
                let slack = ratio * (1.0 + theirs.task.dominant_share(whole) / mine.task.dominant_share(whole));
                prop_assert!(*n as f64 + 1.0 + slack + 1e-9 >= could, "{got:?}: {n} of {could}");
            }
        }
    }

    /// A larger guarantee, or a larger bound, never brings less.
    #[test]
    fn a_larger_quota_never_brings_less((whole, tenants) in quotas(), more in 1_u64..20, bound in 0_u64..30) {
        let free = whole.minus(tenants.iter().fold(Amounts::default(), |sum, t| sum.plus(t.group.guaranteed)));
        let before = fill(whole, &tenants);
        let mut larger = tenants.clone();
        larger[0].group.guaranteed.0[0] += more.min(free.0[0]);
        prop_assert!(fill(whole, &larger)[0] >= before[0]);
        let bounded = |most: u64| {
            let mut bounded = tenants.clone();
            bounded[0].group.most = Some(Amounts([most, 0, 0]));
            fill(whole, &bounded)[0]
        };
        prop_assert!(bounded(bound) <= bound);
        prop_assert!(bounded(bound + more) >= bounded(bound));
    }

    /// Who is guaranteed something has it, lent or not; who does not lend keeps it free.
    #[test]
    fn guarantees_hold((whole, tenants) in quotas()) {
        let got = fill(whole, &tenants);
        let mut free = whole.0[0];
        for (tenant, n) in tenants.iter().zip(&got) {
            prop_assert!(*n >= tenant.tasks.min(tenant.group.guaranteed.0[0]));
            free -= n;
            if !tenant.group.lends {
                free = free.checked_sub(tenant.group.guaranteed.0[0].saturating_sub(*n)).unwrap();
            }
        }
    }

    /// In any order of asks, starts and ends, at every tick: no bound is exceeded on any
    /// level, and nobody of lower priority goes before somebody of the same group, or of
    /// the same standing, who could have gone.
    #[test]
    fn quotas_hold_and_priority_is_never_inverted(
        asks in prop::collection::vec((3_usize..7, 0_u32..4, 1_u64..6, 1_u64..9), 1..80),
        bounds in prop::collection::vec(prop::option::of(4_u64..30), 7),
    ) {
        let whole = Amounts([40, 0, 0]);
        let parents = [None, Some(0), Some(0), Some(1), Some(1), Some(2), Some(2)];
        let guaranteed = [40, 16, 12, 6, 4, 3, 9];
        let groups = (0..7).map(|at| Group {
            parent: parents[at],
            guaranteed: Amounts([guaranteed[at], 0, 0]),
            most: bounds[at].map(|most| Amounts([most, 0, 0])),
            lends: at != 4,
            weight: 1,
        });
        let groups: Vec<Group> = groups.collect();
        let mut shares = Shares::new(groups.clone(), whole, HOUR_S).unwrap();
        let of = |(turn, (group, priority, gpus, _)): (u64, &(usize, u32, u64, u64))| {
            Ask { group: *group, priority: *priority, turn, amounts: Amounts([*gpus, 0, 0]) }
        };
        let mut waiting: Vec<Ask> = (0_u64..).zip(&asks).map(of).collect();
        let mut running: Vec<(u64, Ask)> = Vec::new();
        for tick in 0..400_u64 {
            let now_s = tick as f64;
            let (ended, on): (Vec<_>, Vec<_>) = running.into_iter().partition(|(until, _)| *until <= tick);
            running = on;
            for (_, ask) in ended {
                shares.give(ask.group, ask.amounts, now_s);
            }
            while let Some(next) = shares.next(&waiting, now_s) {
                let ask = waiting[next];
                let within = |ask: &Ask| shares.within_guarantee(ask.group, ask.amounts);
                for other in waiting.iter().filter(|other| other.priority > ask.priority) {
                    let could = shares.admits(other.group, other.amounts).is_ok();
                    let before = other.group == ask.group || within(other) || !within(&ask);
                    // Another group's higher priority waits only behind its own, or behind a guarantee.
                    let behind_own = waiting.iter().any(|own| own.group == other.group
                        && (own.priority, other.turn) > (other.priority, own.turn) && shares.admits(own.group, own.amounts).is_ok());
                    prop_assert!(!(could && before && !behind_own), "{ask:?} before {other:?}");
                }
                shares.take(ask.group, ask.amounts, now_s).unwrap();
                waiting.remove(next);
                running.push((tick + asks[usize::try_from(ask.turn).unwrap()].3, ask));
            }
            for (at, bound) in bounds.iter().enumerate() {
                let below = |mut group: usize| { while group != at && group != 0 { group = parents[group].unwrap(); } group == at };
                let held: u64 = running.iter().filter(|(_, ask)| below(ask.group)).map(|(_, ask)| ask.amounts.0[0]).sum();
                prop_assert_eq!(held, shares.held(at).0[0]);
                prop_assert!(held <= bound.unwrap_or(40).min(40));
            }
        }
    }

    /// In however many steps time passes, the mean is that of the closed form.
    #[test]
    fn decay_is_its_closed_form(steps in prop::collection::vec((0.0_f64..5_000.0, 0_u64..1_000), 1..40)) {
        let half_life_s = 1_800.0;
        let mut had = Decayed::new(half_life_s);
        let mut now_s = 0.0;
        let mut pieces: Vec<(f64, f64, f64)> = Vec::new();
        for (step_s, gpus) in &steps {
            had.set(Amounts([*gpus, 0, 0]), now_s);
            pieces.push((now_s, now_s + step_s, *gpus as f64 / 1_000.0));
            now_s += step_s;
        }
        // The integral of share(t) * ln2/h * 2^-((now-t)/h), piece by piece.
        let kept = |at_s: f64| (-(now_s - at_s) / half_life_s).exp2();
        let closed: f64 = pieces.iter().map(|(from, to, share)| share * (kept(*to) - kept(*from))).sum();
        let share = had.dominant_share(Amounts([1_000, 0, 0]), now_s);
        prop_assert!((share - closed).abs() < 1e-6, "{share} {closed}");
        let written = serde_json::to_string(&had).unwrap();
        prop_assert_eq!(serde_json::from_str::<Decayed>(&written).unwrap(), had);
    }
}

#[test]
fn who_has_had_less_lately_goes_first() {
    let whole = Amounts([8, 0, 0]);
    let groups = vec![root(whole), tenant(0, 1, [1, 0, 0], 9).group, tenant(0, 1, [1, 0, 0], 9).group];
    let mut shares = Shares::new(groups, whole, HOUR_S).unwrap();
    shares.take(1, Amounts([8, 0, 0]), 0.0).unwrap();
    shares.give(1, Amounts([8, 0, 0]), HOUR_S);
    assert!((shares.score(1, HOUR_S) - 0.5).abs() < 1e-9);
    assert!((shares.score(1, 2.0 * HOUR_S) - 0.25).abs() < 1e-9);
    let ask = |group, turn| Ask { group, priority: NORMAL, turn, amounts: Amounts([8, 0, 0]) };
    assert_eq!(shares.next(&[ask(1, 0), ask(2, 1)], HOUR_S), Some(1));
    // long after it no longer matters, and who came first goes first
    assert_eq!(shares.next(&[ask(1, 0), ask(2, 1)], 1e9), Some(0));
}

#[test]
fn what_is_lent_is_named_when_it_is_asked_back() {
    let whole = Amounts([8, 0, 0]);
    let groups = vec![root(whole), tenant(6, 1, [1, 0, 0], 9).group, tenant(2, 1, [1, 0, 0], 9).group];
    let mut shares = Shares::new(groups.clone(), whole, HOUR_S).unwrap();
    shares.take(2, Amounts([7, 0, 0]), 0.0).unwrap();
    assert_eq!(shares.admits(1, Amounts([2, 0, 0])), Err(Shortage::Capacity { resource: 0 }));
    assert_eq!(shares.borrowers(), [2]);
    let mut keeps = groups;
    keeps[1].lends = false;
    let mut shares = Shares::new(keeps, whole, HOUR_S).unwrap();
    assert_eq!(shares.take(2, Amounts([7, 0, 0]), 0.0), Err(Shortage::Capacity { resource: 0 }));
    assert_eq!(shares.take(2, Amounts([2, 0, 0]), 0.0), Ok(()));
}

#[test]
fn a_tree_that_promises_more_than_there_is_is_none() {
    let whole = Amounts([8, 0, 0]);
    let check = |groups: Vec<Group>, error| assert_eq!(Shares::new(groups, whole, HOUR_S).err(), Some(error));
    check(
        vec![root(whole), tenant(6, 1, [1, 0, 0], 1).group, tenant(3, 1, [1, 0, 0], 1).group],
        TreeError::Guarantee(0),
    );
    check(vec![root(whole), Group { parent: Some(1), ..root(whole) }], TreeError::Order(1));
    check(vec![root(whole), tenant(1, 0, [1, 0, 0], 1).group], TreeError::Weight(1));
}
