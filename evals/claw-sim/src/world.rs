//! One round: everything that a seed draws, played out in virtual time.

use claw_gateway::policy::Policy;
use claw_gateway::preemption::PreemptionPolicy;
use claw_gateway::{Event, EventRecord, invariants};
use claw_proto::ids::{NodeId, TokenId};
use claw_proto::topology::GpuHealth;

use crate::agenda::{Ctx, Happening};
use crate::callers::Callers;
use crate::execution::ExecutionLog;
use crate::finale;
use crate::gateway::{CrashPoint, SimGateway, difference};
use crate::machine::Machine;
use crate::net::Net;
use crate::rng::Rng;
use crate::scenario::{Fault, Scenario};
use crate::{Broken, Counts, Options};

/// After the faults everything has so long to come right, milliseconds.
const HEAL_MS: u64 = 60_000;
/// Then it is looked at this often, milliseconds.
const LOOK_MS: u64 = 250;
/// And must be right within this, milliseconds.
const PATIENCE_MS: u64 = 240_000;

/// What a round came to.
pub(crate) struct Played {
    pub(crate) broken: Option<Broken>,
    pub(crate) counts: Counts,
    pub(crate) trace: Vec<String>,
}

struct World {
    ctx: Ctx,
    net: Net,
    gateway: SimGateway,
    machines: Vec<Machine>,
    callers: Callers,
    log: ExecutionLog,
    faults: Vec<(u64, Fault)>,
    /// Counts faults per machine, so that an older one does not end a newer one.
    fault_numbers: Vec<u32>,
    chaos_ms: u64,
}

/// Plays the round of this seed.
pub(crate) fn play(seed: u64, options: Options) -> Played {
    let mut rng = Rng::new(seed);
    let scenario = Scenario::draw(&mut rng);
    let n_machines = scenario.shapes.len();
    let mut ctx = Ctx::new(rng, n_machines, options.sabotage, options.trace);
    ctx.thorough = seed.is_multiple_of(16);
    ctx.unordered = seed % 8 == 5;
    let mut world = World::new(ctx, scenario);
    world.run();
    let (broken, counts, trace) = world.ctx.into_verdict();
    Played { broken, counts, trace }
}

fn node_id(machine: usize) -> NodeId {
    NodeId::from_bits(u128::try_from(machine).unwrap_or(0) + 1)
}

/// The fleet has its nodes already: how they enroll is tested elsewhere.
fn enrolled(ctx: &Ctx, machine: usize) -> EventRecord {
    EventRecord {
        at: ctx.wall(),
        principal: "system".to_owned(),
        reason: String::new(),
        operation_id: None,
        event: Event::NodeEnrolled {
            node_id: node_id(machine),
            name: format!("m{machine}"),
            labels: std::collections::BTreeMap::new(),
            token_id: TokenId::from_bits(u128::try_from(machine).unwrap_or(0) + 1),
        },
    }
}

impl World {
    fn new(mut ctx: Ctx, scenario: Scenario) -> Self {
        let Scenario { shapes, ways, plans, faults, chaos_ms } = scenario;
        let records = (0..shapes.len()).map(|machine| enrolled(&ctx, machine)).collect();
        // Rounds are short: who has run for a minute would hardly ever be there to be stopped.
        let preemption = PreemptionPolicy { min_run_ms: 4_000, ..PreemptionPolicy::default() };
        let gateway = SimGateway::new(records, Policy { preemption, ..Policy::default() }, &mut ctx);
        let machines: Vec<Machine> = shapes
            .iter()
            .enumerate()
            .map(|(ix, shape)| Machine::new(ix, node_id(ix), format!("m{ix}"), shape))
            .collect();
        let callers = Callers::new(plans);
        ctx.after(0, Happening::GatewayStart);
        for machine in 0..machines.len() {
            let delay_ms = ctx.rng.between(10, 2_000);
            ctx.after(delay_ms, Happening::MachineStart { machine });
        }
        for (number, (at_ms, _)) in faults.iter().enumerate() {
            ctx.at(*at_ms, Happening::Fault(number));
        }
        callers.schedule(&mut ctx);
        ctx.disturb_all(8_000);
        let fault_numbers = vec![0; machines.len()];
        Self {
            ctx,
            net: Net::new(ways),
            gateway,
            machines,
            callers,
            log: ExecutionLog::default(),
            faults,
            fault_numbers,
            chaos_ms,
        }
    }

    fn run(&mut self) {
        self.play_until(self.chaos_ms);
        self.heal();
        self.play_until(self.chaos_ms + HEAL_MS);
        let deadline_ms = self.ctx.now_ms + PATIENCE_MS;
        let mut unsettled = self.look();
        while unsettled.is_err() && self.ctx.now_ms < deadline_ms && !self.ctx.is_broken() {
            let until_ms = self.ctx.now_ms + LOOK_MS;
            self.play_until(until_ms);
            self.ctx.now_ms = until_ms;
            unsettled = self.look();
        }
        if let Err((oracle, detail)) = unsettled {
            self.ctx.fail(oracle, detail);
        }
        if !self.ctx.is_broken() {
            self.judge();
        }
        self.ctx.counts.events = self.gateway.journal.len() as u64;
        if self.ctx.is_broken() {
            for machine in &self.machines {
                self.ctx.note(|| machine.describe());
            }
        }
    }

    fn play_until(&mut self, until_ms: u64) {
        while let Some(what) = self.ctx.next(until_ms) {
            self.dispatch(what);
        }
    }

    fn look(&self) -> Result<(), finale::Unsettled> {
        let Some(cluster) = self.gateway.durable().filter(|_| self.gateway.is_up()) else {
            return Err(("F0_the_gateway_comes_back", "it is down".to_owned()));
        };
        if !self.callers.is_quiet() {
            return Err(("R4_every_request_is_answered", "a request is open".to_owned()));
        }
        finale::settled(&self.ctx, cluster, &self.machines, &self.log)
    }

    fn judge(&mut self) {
        let folded = self.gateway.folded(&mut self.ctx);
        if let Some(what) = self.gateway.durable().and_then(|durable| difference(durable, &folded)) {
            self.ctx.fail("J2_a_restart_finds_the_durable_state", what);
        }
        if let Err(broken) = invariants::check_indexes(&folded) {
            self.ctx.fail(broken.name, broken.detail);
        }
        finale::judge_attempts(&mut self.ctx, &folded, &self.log);
        self.callers.judge_end(&mut self.ctx, &folded, self.gateway.journal.records());
    }

    /// No more faults; everything that is down comes back.
    fn heal(&mut self) {
        self.ctx.note(|| "---- the faults are over ----".to_owned());
        self.ctx.calm = true;
        self.gateway.fails_until_ms = 0;
        self.gateway.reserve_until_ms = 0;
        self.gateway.crash_at = None;
        for machine in 0..self.machines.len() {
            self.fault_numbers[machine] += 1;
            self.end_fault(machine);
            self.ctx.after(100, Happening::MachineStart { machine });
            self.ctx.after(200, Happening::AgentStart { machine });
        }
        if !self.gateway.is_up() {
            self.ctx.after(0, Happening::GatewayStart);
        }
        self.ctx.disturb_all(self.ctx.now_ms + 15_000);
    }

    /// What a lasting fault did to a machine is over.
    fn end_fault(&mut self, machine: usize) {
        let was_blocked = self.net.ways[machine].is_blocked();
        self.net.ways[machine].slow_ms = 0;
        self.machines[machine].disk_full = false;
        for index in 0..self.machines[machine].capabilities.gpus.len() {
            self.machines[machine].gpu_health(&mut self.ctx, &mut self.net, index, GpuHealth::Healthy);
        }
        let held = self.net.unblock(machine);
        if was_blocked {
            self.ctx.note(|| format!("m{machine} partition ends"));
        }
        for (conn, payload) in held.up {
            self.dispatch(Happening::ToGateway { conn, payload });
        }
        for (conn, payload) in held.down {
            self.dispatch(Happening::ToNode { conn, payload });
        }
    }

    fn dispatch(&mut self, what: Happening) {
        let Self { ctx, net, gateway, machines, callers, log, .. } = self;
        match what {
            Happening::GatewayStart => gateway.start(ctx, net),
            Happening::GatewayCrash => gateway.crash(ctx, net),
            Happening::GatewaySecond { run } => gateway.second(ctx, net, run),
            Happening::Synced { run } => gateway.synced(ctx, net, run),
            Happening::Orders { conn } => gateway.work_orders(ctx, net, conn),
            Happening::SetAgain { conn } => gateway.set_again(ctx, net, conn),
            Happening::LaneRetry { conn } => gateway.lane_retry(ctx, net, conn),
            Happening::Beat { conn } => gateway.beat(ctx, net, conn),
            Happening::ToGateway { conn, payload } => {
                let node_id = machines[net.conn(conn).machine].node_id;
                if let Some(payload) = net.arrive_up(ctx, conn, payload) {
                    gateway.arrive(ctx, net, conn, node_id, payload);
                }
            }
            Happening::ToNode { conn, payload } => {
                let machine = net.conn(conn).machine;
                if let Some(payload) = net.arrive_down(ctx, conn, payload) {
                    machines[machine].arrive(ctx, net, conn, payload);
                }
            }
            Happening::GatewayNotices { conn } => gateway.notices(ctx, net, conn),
            Happening::NodeNotices { conn } => machines[net.conn(conn).machine].disconnected(ctx, net, conn),
            Happening::Connect { machine, run } => machines[machine].connect(ctx, net, run, gateway.is_up()),
            Happening::Wake { machine, run } => machines[machine].wake(ctx, net, run),
            Happening::Written { machine, run } => machines[machine].written(ctx, net, run),
            Happening::DiskRetry { machine, run } => machines[machine].disk_retry(ctx, run),
            Happening::Prepare { machine, run, key } => machines[machine].prepare(ctx, run, key),
            Happening::Begin { machine, boot, key } => machines[machine].begin(ctx, log, boot, key),
            Happening::Due { machine, boot, key } => machines[machine].due(ctx, log, boot, key),
            Happening::Checkpoint { machine, boot, key, answers_notice } => {
                machines[machine].checkpoint(ctx, boot, key, answers_notice);
            }
            Happening::Told { machine, run, event } => machines[machine].told(ctx, net, run, event),
            Happening::AgentStart { machine } => machines[machine].start_agent(ctx, net),
            Happening::MachineStart { machine } => machines[machine].start_machine(ctx, net),
            Happening::Fault(number) => self.fault(number),
            Happening::Heal { machine, number, reset } => self.heal_one(machine, number, reset),
            Happening::Wish(ix) => callers.wish(ctx, gateway, ix),
            Happening::Ask { request } => callers.ask(ctx, net, gateway, request),
            Happening::Patience { request, tries } => callers.patience(ctx, request, tries),
            Happening::Answer { request, answer } => callers.answer(ctx, gateway, request, *answer),
        }
    }

    /// A lasting fault of one machine is over.
    fn heal_one(&mut self, machine: usize, number: u32, reset: bool) {
        if self.fault_numbers[machine] != number {
            return;
        }
        if reset {
            self.net.cut_all_of(&mut self.ctx, machine);
        }
        self.end_fault(machine);
    }

    /// Notes that a fault of this machine lasts so long; returns its number.
    fn lasts(&mut self, machine: usize, ms: u64, reset: bool) {
        self.fault_numbers[machine] += 1;
        let number = self.fault_numbers[machine];
        // Until the link is whole again, which takes both sides a while.
        self.ctx.disturb(machine, self.ctx.now_ms + ms + 15_000);
        self.ctx.after(ms, Happening::Heal { machine, number, reset });
    }

    fn fault(&mut self, number: usize) {
        let (_, fault) = self.faults[number];
        self.ctx.note(|| format!("FAULT {fault:?}"));
        match fault {
            Fault::Cut { machine } => {
                self.ctx.disturb(machine, self.ctx.now_ms + 25_000);
                self.net.cut_all_of(&mut self.ctx, machine);
            }
            Fault::Partition { machine, ms, up, down, reset } => {
                self.net.ways[machine].up_blocked |= up;
                self.net.ways[machine].down_blocked |= down;
                self.lasts(machine, ms, reset);
            }
            Fault::Slow { machine, extra_ms, ms } => {
                self.net.ways[machine].slow_ms = extra_ms;
                self.lasts(machine, ms, false);
            }
            Fault::NodeDisk { machine, ms } => {
                self.machines[machine].disk_full = true;
                self.lasts(machine, ms, false);
            }
            Fault::Gpu { machine, index, failed, ms } => {
                let health = if failed { GpuHealth::Failed } else { GpuHealth::Degraded };
                self.machines[machine].gpu_health(&mut self.ctx, &mut self.net, index, health);
                self.lasts(machine, ms, false);
            }
            Fault::Supervisor { machine } => {
                self.machines[machine].kill_a_supervisor(&mut self.ctx, &mut self.log);
            }
            Fault::Agent { machine, down_ms, lose_store } => {
                self.ctx.disturb(machine, self.ctx.now_ms + down_ms + 25_000);
                let it = &mut self.machines[machine];
                it.crash_agent(&mut self.ctx, &mut self.net, &mut self.log);
                if lose_store && it.agent.is_none() {
                    it.lose_store(&mut self.ctx, false);
                }
                self.ctx.after(down_ms, Happening::AgentStart { machine });
            }
            Fault::Machine { machine, down_ms, lose_store } => {
                self.ctx.disturb(machine, self.ctx.now_ms + down_ms + 25_000);
                let it = &mut self.machines[machine];
                it.crash_machine(&mut self.ctx, &mut self.net, &mut self.log);
                if lose_store {
                    it.lose_store(&mut self.ctx, true);
                    self.log.forget(machine);
                }
                self.ctx.after(down_ms, Happening::MachineStart { machine });
            }
            Fault::Gateway => self.dispatch(Happening::GatewayCrash),
            Fault::GatewayAt { point } => self.gateway.crash_at = Some(CrashPoint::ALL[point]),
            Fault::Journal { ms } => {
                self.gateway.fails_until_ms = self.ctx.now_ms + ms;
                self.ctx.disturb_all(self.ctx.now_ms + ms + 15_000);
            }
            Fault::Reserve { ms } => self.gateway.reserve_until_ms = self.ctx.now_ms + ms,
        }
    }
}
