use std::sync::Arc;

use proptest::prelude::*;

use super::machine::GPU_MILLI;
use super::replay::{Draws, Protocol, Trace, arrivals, replay, replay_scanning};
use super::score::{measure, score};
use super::*;

fn requests() -> impl Strategy<Value = Request> {
    let whole = prop_oneof![Just(1_u8), Just(2), Just(4), Just(8)].prop_map(|gpus| (gpus, GPU_MILLI));
    let shared = prop_oneof![Just(320_u16), Just(470), Just(650), Just(810)].prop_map(|milli| (1, milli));
    let gpus = prop_oneof![2 => whole, 3 => shared, 1 => Just((0, 0))];
    (gpus, 0_u32..4, prop_oneof![3 => Just(0_u64), 1 => Just(2)]).prop_map(|((gpus, gpu_milli), cpu, models)| Request {
        cpu_milli: cpu * 4_000,
        memory_mib: cpu * 1_000,
        gpus,
        gpu_milli,
        models: ModelSet(models),
    })
}

fn machines() -> impl Strategy<Value = Vec<Machine>> {
    let machine = (1_u32..5, prop_oneof![Just(2_u8), Just(4), Just(8)], 0_u8..2)
        .prop_map(|(cpu, gpus, model)| Machine::new(cpu * 16_000, 64_000, gpus, model));
    prop::collection::vec(machine, 1..12)
}

/// The first of the best machines, by looking at all of them.
fn brute_force(policy: Policy, machines: &[Machine], request: &Request, typical: &Typical) -> Option<Place> {
    let mut best: Option<(i32, Place)> = None;
    for (at, machine) in machines.iter().enumerate() {
        let by = |machine: &Machine| measure(policy, machine, typical);
        let Some(scored) = score(policy, machine, request, typical, by) else { continue };
        if best.is_none_or(|(score, _)| scored.score > score) {
            best = Some((scored.score, Place { machine: at, gpu: scored.gpu }));
        }
    }
    best.map(|(_, place)| place)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, .. ProptestConfig::default() })]

    /// What is kept up to date a change at a time is what looking at everything
    /// finds, whatever came and went before; and nothing that fits is refused.
    #[test]
    fn the_index_finds_what_brute_force_finds(
        machines in machines(),
        asked in prop::collection::vec((requests(), any::<bool>()), 1..60),
    ) {
        let sample: Vec<Request> = asked.iter().map(|(request, _)| *request).collect();
        let typical = Arc::new(Typical::new(&sample, &machines));
        for policy in Policy::ALL.iter().copied().filter(|policy| *policy != Policy::Random) {
            let mut packer = Packer::new(policy, machines.clone(), Arc::clone(&typical));
            for (request, ends) in &asked {
                let expected = brute_force(policy, packer.machines(), request, &typical);
                let got = packer.decide(request, |_| 0);
                prop_assert_eq!(got, expected, "{}", policy);
                let Some(place) = got else {
                    prop_assert!(packer.machines().iter().all(|machine| !machine.fits(request)));
                    continue;
                };
                let before = packer.machines()[place.machine];
                prop_assert!(packer.take(request, place));
                if *ends {
                    packer.set(place.machine, before);
                }
            }
        }
    }

    /// A machine's fragmentation, counted by groups, is what the paper defines class by class.
    #[test]
    fn fragmentation_is_the_mean_of_what_each_class_cannot_use(
        machine in machines(), free in prop::collection::vec(0_u16..=GPU_MILLI, 8), cpu_milli in 0_u32..20_000,
        history in prop::collection::vec(requests(), 1..40),
    ) {
        let mut machine = machine[0];
        machine.cpu_milli = cpu_milli;
        for (left, free) in machine.free_milli.iter_mut().zip(free).take(usize::from(machine.gpus)) {
            // Some have exactly what a request wants.
            *left = history.iter().map(|request| request.gpu_milli).find(|milli| free % 2 == 0 && *milli > free).unwrap_or(free);
        }
        let typical = Typical::new(&history, &[machine]);
        let unusable = |request: &Request| -> u32 {
            let is_of_no_use = |free: &u16| request.gpus == 0 || !machine.fits_without_memory(request) || *free < request.gpu_milli;
            machine.free().iter().filter(|free| is_of_no_use(free)).map(|free| u32::from(*free)).sum()
        };
        let total = typical.n_requests() as f64;
        let of_class = |(request, share): &(Request, f64)| (share * total).round() * f64::from(unusable(request));
        let sum: f64 = typical.classes().iter().map(of_class).sum();
        prop_assert_eq!(measure(Policy::Fgd, &machine, &typical).to_bits(), (sum / total).to_bits());
    }

    /// What is taken is what was asked for, from what was free.
    #[test]
    fn a_placement_takes_exactly_its_request(machine in machines(), request in requests()) {
        let machine = machine[0];
        for gpu in machine.choices(&request) {
            let left = machine.after(&request, gpu);
            prop_assert_eq!(left.is_some(), machine.fits(&request));
            if let Some(left) = left {
                prop_assert_eq!(machine.free_gpu_milli() - left.free_gpu_milli(), request.demand_milli());
                prop_assert_eq!(machine.cpu_milli - left.cpu_milli, request.cpu_milli);
            }
        }
        prop_assert!(machine.after(&request, machine.gpus).is_none() || !request.is_shared());
    }
}

fn whole(gpus: u8, models: u64) -> Request {
    Request { cpu_milli: 1_000, memory_mib: 1, gpus, gpu_milli: GPU_MILLI, models: ModelSet(models) }
}

#[test]
fn those_who_may_take_anything_leave_what_others_need() {
    let machines = vec![Machine::new(64_000, 64_000, 4, 0), Machine::new(64_000, 64_000, 4, 1)];
    let trace: Vec<Request> = (0..4).map(|_| whole(1, 1)).chain((0..4).map(|_| whole(1, 0))).collect();
    let typical = Arc::new(Typical::new(&trace, &machines));
    assert!(typical.wanted(0) > 0.9 && typical.wanted(1) < 0.01);
    let mut packer = Packer::new(Policy::Ours, machines, typical);
    for _ in 0..4 {
        let place = packer.decide(&whole(1, 0), |_| 0).unwrap();
        assert_eq!(place.machine, 1, "the model that nobody needs");
        packer.take(&whole(1, 0), place);
    }
    assert_eq!(packer.decide(&whole(1, 1), |_| 0).map(|place| place.machine), Some(0));
}

#[test]
fn gpus_are_not_left_without_cpu() {
    // Both machines have the GPU; on the second one it takes the last CPU of seven others.
    let mut poor = Machine::new(9_000, 64_000, 8, 0);
    poor.free_milli[0] = 500;
    let mut rich = Machine::new(64_000, 64_000, 8, 0);
    rich.free_milli[0] = 500;
    let hungry = Request { cpu_milli: 8_000, memory_mib: 1, gpus: 1, gpu_milli: 500, models: ModelSet(0) };
    let typical = Arc::new(Typical::new(&[hungry, whole(1, 0)], &[poor, rich]));
    let mut packer = Packer::new(Policy::Ours, vec![poor, rich], typical);
    assert_eq!(packer.decide(&hungry, |_| 0).map(|place| place.machine), Some(1));
}

fn small_trace() -> Trace {
    let machines = (0..12).map(|n| Machine::new(64_000, 256_000, 8, n % 2)).collect();
    let sizes = [(1_u8, 810_u16), (1, 470), (1, GPU_MILLI), (1, 320), (2, GPU_MILLI), (8, GPU_MILLI), (0, 0)];
    let request = |(n, (gpus, gpu_milli)): (u32, (u8, u16))| {
        let cpu_milli = 2_000 + 500 * (n % 5);
        Request { cpu_milli, memory_mib: 1_000, gpus, gpu_milli, models: ModelSet(0) }
    };
    Trace { machines, requests: (0..80).zip(sizes.into_iter().cycle()).map(request).collect() }
}

#[test]
fn a_replay_repeats_itself_and_breaks_no_rule() {
    let trace = small_trace();
    let typical = Arc::new(Typical::new(&trace.requests, &trace.machines));
    for policy in Policy::ALL {
        let of = |serve: &Serve| Shed::ALL.iter().map(|shed| (16, Manner { serve: *serve, shed: *shed })).collect();
        for (window, manner) in Serve::ALL.iter().flat_map(|serve| -> Vec<_> { of(serve) }).chain([(0, Manner::PLAIN)])
        {
            let protocol = Protocol { policy: *policy, arrival: 1.3, window, offered: 1.3, manner };
            let first = replay(&trace, &typical, protocol, 3);
            assert_eq!(first, replay(&trace, &typical, protocol, 3), "{policy}");
            if *policy == Policy::Fgd {
                assert_eq!(first, replay_scanning(&trace, &typical, protocol, 3), "asked one by one");
            }
            assert_eq!(first.violations, 0, "{policy}");
            assert!(first.allocation_percent > 60.0 && first.allocation_percent <= 100.0, "{policy}: {first:?}");
        }
    }
}

#[test]
fn all_policies_get_the_same_arrivals_and_these_come_to_the_demand() {
    let trace = small_trace();
    let of = |seed| arrivals(&trace, 1.3, &mut Draws::new(seed));
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
    let capacity: u32 = trace.machines.iter().map(Machine::free_gpu_milli).sum();
    let demand: u32 = of(1).iter().map(Request::demand_milli).sum();
    let share = f64::from(demand) / f64::from(capacity);
    assert!((1.2..=1.42).contains(&share), "{share}");
}

/// Where half of what comes finds no room, it is better the half that leaves GPUs without cores; and no order is
/// taken up where nothing has to go.
#[test]
fn who_costs_the_others_most_is_turned_away_where_somebody_has_to_be() {
    let machines: Vec<Machine> = (0..6).map(|_| Machine::new(16_000, 256_000, 8, 0)).collect();
    let request = |n: u32| Request {
        cpu_milli: if n.is_multiple_of(2) { 1_000 } else { 6_000 },
        memory_mib: 1,
        gpus: 1,
        gpu_milli: GPU_MILLI,
        models: ModelSet(0),
    };
    let trace = Trace { machines, requests: (0..96).map(request).collect() };
    let typical = Arc::new(Typical::new(&trace.requests, &trace.machines));
    let protocol = Protocol { policy: Policy::Ours, arrival: 2.0, window: 16, offered: 2.0, manner: Manner::PLAIN };
    let plain = replay(&trace, &typical, protocol, 1);
    let manner = rehearsed(&trace.machines, &typical, protocol);
    let chosen = replay(&trace, &typical, Protocol { manner, ..protocol }, 1);
    assert_ne!(manner.shed, Shed::Nobody);
    assert!(chosen.allocation_percent > plain.allocation_percent + 5.0, "{manner:?}: {plain:?} {chosen:?}");
    assert!(chosen.dropped_gpus < plain.dropped_gpus, "{plain:?} {chosen:?}");
    assert_eq!((chosen.violations, chosen.dropped_gpus + 0.48 * chosen.allocation_percent), (0, 96.0));
    let fits = Protocol { offered: 1.0, ..protocol };
    assert_eq!(rehearsed(&trace.machines, &typical, fits).shed, Shed::Nobody);
    let manner = Manner { shed: Shed::MostCores, ..Manner::PLAIN };
    assert_eq!(replay(&trace, &typical, Protocol { manner, ..fits }, 1), plain, "nothing has to go");
}
