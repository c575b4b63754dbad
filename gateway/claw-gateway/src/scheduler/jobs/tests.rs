//! Hand-counted examples, and every policy on random traces under the eyes of the checker.

use proptest::prelude::*;

use super::*;
use crate::scheduler::certificate::{Checker, Quota, Subject};

fn job(submit_s: u64, run_s: u64, gpus: u32) -> Job {
    Job { submit_s, run_s, limit_s: run_s, gpus, owner: 0 }
}

fn fleet(gpus: u32, restart_s: u64) -> Fleet {
    Fleet { nodes: Nodes::new(gpus, 8), restart_s, quotas: Vec::new() }
}

/// Replays, with every decision checked.
fn checked(jobs: &[Job], fleet: &Fleet, policy: Policy) -> Outcome {
    let subjects = jobs.iter().map(|job| Subject { gpus: job.gpus, owner: job.owner, submit_s: job.submit_s });
    let quotas = fleet.quotas.iter().map(|most| Quota { parent: None, most: *most });
    let nodes = fleet.nodes.counts().len();
    let mut checker = Checker::new(nodes, fleet.nodes.per_node(), subjects.collect(), quotas.collect());
    let mut n = 0;
    let mut see = |claim: Claim| {
        n += 1;
        checker.check(&claim).unwrap_or_else(|fault| panic!("{policy:?}, decision {n}: {fault}: {claim:?}"));
    };
    let outcome = replay(jobs, fleet, policy, Some(&mut see));
    assert_eq!(checker.in_use(), 0);
    outcome
}

fn ends(jobs: &[Job], gpus: u32, restart_s: u64, policy: Policy) -> Vec<u64> {
    checked(jobs, &fleet(gpus, restart_s), policy).end_s
}

#[test]
fn fifo_waits_its_turn_and_easy_goes_ahead_without_delay() {
    // 6 of 8 GPUs until 100; 8 wanted from 100 on; 2 for 50 fit before, 2 for 200 do not.
    let jobs = [job(0, 100, 6), job(1, 100, 8), job(2, 200, 2), job(3, 50, 2)];
    assert_eq!(ends(&jobs, 8, 0, Policy::Fifo), [100, 200, 400, 250]);
    assert_eq!(ends(&jobs, 8, 0, Policy::Easy), [100, 200, 400, 53]);
    assert_eq!(ends(&jobs, 8, 0, Policy::Greedy), [100, 302, 202, 150]);
    assert_eq!(ends(&jobs, 8, 0, Policy::Reserve), [100, 200, 400, 53]);
}

#[test]
fn an_end_before_the_limit_brings_promises_forward() {
    let jobs = [Job { limit_s: 1_000, ..job(0, 10, 8) }, job(1, 100, 8), Job { limit_s: 500, ..job(2, 20, 1) }];
    let outcome = checked(&jobs, &fleet(8, 0), Policy::Reserve);
    assert_eq!(outcome.promised_s, [None, Some(1_000), Some(1_100)]);
    assert_eq!(outcome.end_s, [10, 110, 130]);
}

#[test]
fn who_knows_stops_the_longer_job_and_the_stop_is_paid() {
    let jobs = [job(0, 1_000, 8), job(100, 10, 8)];
    // stopped at 100 with 900 to go, back at 110, 60 for the restart
    assert_eq!(ends(&jobs, 8, 60, Policy::Srpt), [1_070, 110]);
    assert_eq!(ends(&jobs, 8, 60, Policy::Fifo), [1_000, 1_010]);
}

#[test]
fn least_attained_service_stops_who_has_had_most() {
    // two queues: the first job has had its 16 GPU-hours after 7,200 s
    let jobs = [job(0, 10_000, 8), job(8_000, 100, 8), job(8_001, 100, 8)];
    assert_eq!(ends(&jobs, 8, 60, Policy::LasTwoQueues), [10_260, 8_100, 8_200]);
    // before that nobody is stopped
    let jobs = [job(0, 7_000, 8), job(100, 100, 8)];
    assert_eq!(ends(&jobs, 8, 60, Policy::LasTwoQueues), [7_000, 7_100]);
}

#[test]
fn small_jobs_are_moved_together_for_a_large_one() {
    // one GPU busy on each of two nodes, for long; who knows that 8 GPUs for a minute come first may move one
    let fill = [job(0, 90, 7), job(0, 50_000, 1), job(0, 90, 7), job(0, 50_000, 1)];
    let jobs = [fill[0], fill[1], fill[2], fill[3], job(100, 60_000, 8)];
    let plain = checked(&jobs, &fleet(16, 60), Policy::Srsf);
    let moving = checked(&jobs, &fleet(16, 60), Policy::SrsfMoving);
    assert_eq!((plain.start_s[4], plain.moves), (50_000, 0));
    assert_eq!((moving.start_s[4], moving.moves), (100, 1));
    assert_eq!(moving.end_s.iter().filter(|end| **end == 50_060).count(), 1);
}

#[test]
fn nobody_stands_still_much_longer_than_a_week() {
    // Short jobs without end on one node, and a long one that always ranks behind them.
    let mut jobs = vec![job(0, 40 * 86_400, 8), job(0, 40 * 86_400, 8)];
    jobs.extend((0..12_000).map(|n| job(1 + n * 300, 310, 8)));
    let worst = |policy| checked(&jobs, &fleet(8, 60), policy).stretch_s.into_iter().max().unwrap();
    let (ours, las) = (worst(Policy::Ours), worst(Policy::Las));
    assert!(ours <= 7 * 86_400 + 3 * 7_200, "{ours}");
    assert!(las > 30 * 86_400, "{las}");
}

#[test]
fn a_promise_lets_the_large_job_land_where_it_would_starve() {
    // Half of the node is always taken by somebody new before it is free.
    let mut jobs = vec![job(0, 100, 4), job(10, 100, 8)];
    jobs.extend((0..1_000).map(|n| job(50 + n * 50, 100, 4)));
    jobs.sort_by_key(|job| job.submit_s);
    let waits = |policy| checked(&jobs, &fleet(8, 0), policy).stretch_s[1];
    assert!(waits(Policy::Greedy) > 40_000);
    assert_eq!((waits(Policy::Easy), waits(Policy::Reserve)), (90, 90));
}

fn traces() -> impl Strategy<Value = Vec<Job>> {
    let sizes = prop_oneof![6 => Just(1_u32), 2 => Just(2), 2 => Just(4), 3 => Just(8), 1 => Just(12), 1 => Just(16)];
    let one = (0_u64..20_000, 1_u64..30_000, 0_u64..5_000, sizes, 0_u32..3);
    prop::collection::vec(one, 1..120).prop_map(|rows| {
        let of =
            |(submit_s, run_s, spare_s, gpus, owner)| Job { submit_s, run_s, limit_s: run_s + spare_s, gpus, owner };
        let mut jobs: Vec<Job> = rows.into_iter().map(of).collect();
        jobs.sort_by_key(|job| job.submit_s);
        jobs
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_decision_of_every_policy_has_a_good_certificate(jobs in traces(), nodes in 2_u32..5) {
        let mut fleet = fleet(8 * nodes, 30);
        for policy in Policy::ALL {
            let outcome = checked(&jobs, &fleet, *policy);
            prop_assert_eq!(&outcome, &replay(&jobs, &fleet, *policy, None));
            for (job, end_s) in jobs.iter().zip(&outcome.end_s) {
                prop_assert!(*end_s >= job.submit_s + job.run_s);
            }
        }
        // with quotas that bind
        fleet.quotas = vec![Some(16), Some(16), None];
        for policy in [Policy::Fifo, Policy::Greedy, Policy::Easy, Policy::Reserve] {
            let outcome = checked(&jobs, &fleet, policy);
            for (promised, start) in outcome.promised_s.iter().zip(&outcome.start_s) {
                prop_assert!(promised.is_none_or(|promised| *start <= promised));
            }
        }
    }

    #[test]
    fn a_gang_fits_where_the_count_says_so_and_comes_back_whole(sizes in prop::collection::vec(1_u32..30, 1..20)) {
        let mut nodes = Nodes::new(64, 8);
        let mut gangs = Vec::new();
        for gpus in sizes {
            let (fits, free) = (nodes.fits(gpus), nodes.free());
            prop_assert_eq!(fits, nodes.fits_on(nodes.counts(), gpus));
            match nodes.take(gpus) {
                Some(gang) => {
                    prop_assert!(fits);
                    prop_assert_eq!(gang.iter().map(|part| part.gpus.count_ones()).sum::<u32>(), gpus);
                    prop_assert_eq!(nodes.free(), free - gpus);
                    gangs.push(gang);
                }
                None => prop_assert!(!fits && nodes.free() == free),
            }
        }
        for gang in &gangs {
            nodes.give(gang);
        }
        prop_assert_eq!(nodes.counts(), &[8; 8][..]);
    }
}
