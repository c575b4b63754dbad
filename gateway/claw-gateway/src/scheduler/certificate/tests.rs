//! The checker accepts what is right and finds every planted fault.

use std::collections::BTreeMap;

use super::faults::{Kind, World, is_found, plant};
use super::*;
use crate::scheduler::jobs::sample_history;

fn world() -> World {
    let subject = |gpus, owner| Subject { gpus, owner, submit_s: 10 };
    World {
        n_nodes: 2,
        per_node: 8,
        subjects: vec![subject(8, 0), subject(16, 1), subject(2, 0), subject(2, 2)],
        quotas: vec![
            Quota { parent: Some(3), most: None },
            Quota { parent: None, most: None },
            Quota { parent: Some(3), most: Some(8) },
            Quota { parent: None, most: Some(10) },
        ],
    }
}

fn start(at_s: u64, job: u32, gang: &[(u32, u64)], until_s: u64) -> Claim {
    let gang = gang.iter().map(|(node, gpus)| Part { node: *node, gpus: *gpus }).collect();
    Claim::Start { at_s, job, gang, until_s }
}

fn promise(at_s: u64, job: u32, start_s: u64, shares: &[(u32, u32)]) -> Claim {
    let shares = shares.iter().map(|(node, gpus)| Share { node: *node, gpus: *gpus }).collect();
    Claim::Promise { at_s, job, start_s, until_s: start_s + 100, shares }
}

/// All but the last are right; the last is answered so.
fn check(claims: &[Claim], answer: Result<(), Fault>) {
    let mut checker = world().checker();
    let (last, good) = claims.split_last().unwrap();
    for claim in good {
        assert_eq!(checker.check(claim), Ok(()), "{claim:?}");
    }
    assert_eq!(checker.check(last), answer, "{last:?}");
}

#[test]
fn promises_are_kept_by_those_who_go_ahead() {
    let begun = [start(10, 0, &[(0, 0xff)], 100), promise(10, 1, 100, &[(0, 8), (1, 8)])];
    let then = |claim: Claim| [begun.to_vec(), vec![claim]].concat();
    check(&then(start(20, 2, &[(1, 0b11)], 100)), Ok(()));
    check(&then(start(20, 2, &[(1, 0b11)], 101)), Err(Fault::PromiseDelayed));
    check(&then(promise(20, 1, 101, &[(0, 8), (1, 8)])), Err(Fault::PromiseMoved));
    check(&then(promise(20, 1, 99, &[(0, 8), (1, 8)])), Err(Fault::PromiseDelayed));
    check(&then(start(101, 2, &[(1, 0b11)], 102)), Err(Fault::PromiseBroken));
    check(&then(Claim::Halt { at_s: 9, job: 0, why: Stop::Ended }), Err(Fault::TimeBackwards));
}

#[test]
fn a_quota_counts_all_the_way_up() {
    // Owners 0 and 2 share ten GPUs.
    let full = start(10, 0, &[(0, 0xff)], 100);
    check(&[full.clone(), start(10, 3, &[(1, 0b11)], 100)], Ok(()));
    let both = [full.clone(), start(10, 3, &[(1, 0b11)], 100), start(10, 2, &[(1, 0b1100)], 100)];
    check(&both, Err(Fault::QuotaExceeded));
    // A promise needs its quota as much as its GPUs.
    let promised = [full, start(10, 3, &[(1, 0b11)], 100), promise(10, 2, 99, &[(1, 2)])];
    check(&promised, Err(Fault::PromiseDelayed));
}

#[test]
fn a_refused_claim_leaves_the_books_as_they_were() {
    let mut checker = world().checker();
    let bad = start(10, 0, &[(0, 0x7f)], 100);
    let good = start(10, 0, &[(0, 0xff)], 100);
    assert_eq!(checker.check(&bad), Err(Fault::GangIncomplete));
    assert_eq!((checker.in_use(), checker.check(&good), checker.in_use()), (0, Ok(()), 8));
}

#[test]
fn twenty_kinds_of_planted_faults_are_all_rejected() {
    assert_eq!(Kind::ALL.len(), 20);
    let mut planted: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..12 {
        let (world, claims) = sample_history(seed);
        let mut good = world.checker();
        for claim in &claims {
            assert_eq!(good.check(claim), Ok(()), "{claim:?}");
        }
        for kind in Kind::ALL {
            for draw in 0..4 {
                let Some((bad, at)) = plant(*kind, &claims, &world, seed * 1_000 + draw) else { continue };
                let is_found = is_found(*kind, &bad, at, &mut world.checker());
                assert!(is_found, "{kind:?} seed {seed} draw {draw} at {at}: {:?}", bad[at]);
                *planted.entry(kind.as_str()).or_default() += 1;
            }
        }
    }
    for kind in Kind::ALL {
        assert!(planted.get(kind.as_str()).is_some_and(|n| *n >= 20), "{kind:?}: {planted:?}");
    }
}
