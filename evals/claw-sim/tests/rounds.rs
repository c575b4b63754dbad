//! Seeded rounds in virtual time: 10,000 in CI, ten times as many with `CLAW_SOAK`.

#![expect(clippy::print_stdout, reason = "what the rounds contained is read by whoever looks at them")]

use claw_sim::{Counts, Options, Sabotage, run_round};

/// Rounds of one test; four of them run side by side.
const ROUNDS: u64 = 2_500;
/// Within so many seeds every sabotage has to be noticed.
const SABOTAGE_ROUNDS: u64 = 300;

/// Plays the seeds of one lane; the first that breaks a rule is printed with how to replay it.
fn lane(number: u64) {
    let rounds = if std::env::var_os("CLAW_SOAK").is_some() { ROUNDS * 10 } else { ROUNDS };
    let mut total = Counts::default();
    for seed in number * rounds..(number + 1) * rounds {
        match run_round(seed, Options::default()) {
            Ok((counts, _)) => total.add(&counts),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{rounds} rounds: {total:#?}");
    // Rounds in which nothing goes wrong would prove nothing.
    assert!(
        total.gateway_crashes > rounds / 4 && total.machine_crashes > rounds / 8 && total.agent_crashes > rounds / 8
    );
    assert!(total.lease_ends > rounds / 4 && total.replays > rounds && total.journal_failures > rounds / 8);
    assert!(total.checkpoints > rounds && total.notices > rounds / 50 && total.notices_answered > rounds / 100);
}

#[test]
fn rounds_lane_0_hold_every_rule() {
    lane(0);
}

#[test]
fn rounds_lane_1_hold_every_rule() {
    lane(1);
}

#[test]
fn rounds_lane_2_hold_every_rule() {
    lane(2);
}

#[test]
fn rounds_lane_3_hold_every_rule() {
    lane(3);
}

#[test]
fn every_sabotage_is_noticed() {
    for sabotage in Sabotage::ALL {
        let options = Options { sabotage: Some(*sabotage), trace: false };
        let noticed = (0..SABOTAGE_ROUNDS).find_map(|seed| run_round(seed, options).err());
        match noticed {
            Some(failure) => println!("{sabotage:?}: seed {} breaks {}", failure.seed, failure.broken.oracle),
            None => panic!("{sabotage:?} goes unnoticed over {SABOTAGE_ROUNDS} rounds"),
        }
    }
}

#[test]
fn the_same_seed_is_the_same_round() {
    let trace = |seed| run_round(seed, Options { trace: true, sabotage: None }).map(|(_, trace)| trace);
    for seed in 0..20 {
        assert_eq!(trace(seed), trace(seed));
    }
}

/// `CLAW_SIM_SEED=17 cargo nextest run -p claw-sim replay --no-capture`
#[test]
fn replay() {
    let Some(seed) = std::env::var("CLAW_SIM_SEED").ok().and_then(|text| text.parse().ok()) else {
        return;
    };
    match run_round(seed, Options { trace: true, sabotage: None }) {
        Ok((counts, trace)) => println!("{}\n{counts:#?}", trace.join("\n")),
        Err(failure) => panic!("{}\n{failure}", failure.trace.join("\n")),
    }
}
