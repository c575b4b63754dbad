//! People and programs that use the fleet over an unreliable wire: they ask,
//! wait, ask again with the same key, and remember every answer.

mod truth;

use std::collections::BTreeMap;

use claw_gateway::{Caller, Command, Operation};
use claw_proto::ids::{ApprovalId, PlanId};
use claw_tools::access::{PrincipalKind, Role};
use claw_tools::approvals::ApprovalDecision;
use claw_tools::outcome::{EffectKind, Mode, Mutation, Outcome};
use claw_tools::refusal::{ErrorCode, Refusal};

use crate::agenda::{Ctx, Happening};
use crate::gateway::SimGateway;
use crate::net::Net;
use crate::scenario::{Plan, Wish};

/// A caller asks again after this without an answer, milliseconds.
const PATIENCE_MS: u64 = 6_000;
/// So often at most.
const TRIES_MAX: u32 = 30;

/// Who asks.
const CALLERS: [(&str, PrincipalKind, Role); 3] = [
    ("alice", PrincipalKind::Person, Role::Admin),
    ("bob", PrincipalKind::Agent, Role::Operator),
    ("carol", PrincipalKind::Person, Role::Admin),
];
/// Who approves what `bob` and the others plan.
const APPROVERS: [usize; 3] = [2, 0, 0];

/// What one request asks for.
#[derive(Debug, Clone)]
enum What {
    Operate { operation: Operation, mode: Mode },
    Apply(PlanId),
    Approve { approval_id: ApprovalId, diff_hash: String, then: PlanId },
}

impl What {
    fn tool(&self) -> &'static str {
        match self {
            Self::Operate { operation, .. } => operation.tool(),
            Self::Apply(_) => "plan_apply",
            Self::Approve { .. } => "approval_decide",
        }
    }
}

/// One request, with all its repetitions.
#[derive(Debug)]
pub(crate) struct Request {
    plan: usize,
    caller: usize,
    what: What,
    key: String,
    tries: u32,
    /// The answer that counts, once there is one.
    pub(crate) outcome: Option<Outcome>,
    /// Refused for good, or given up.
    closed: bool,
    repeated: bool,
}

/// Everybody who asks.
#[derive(Debug)]
pub(crate) struct Callers {
    plans: Vec<Plan>,
    pub(crate) requests: Vec<Request>,
}

fn hash_of(text: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

impl Request {
    fn command(&self) -> Command {
        let mode = match &self.what {
            What::Operate { mode, .. } => *mode,
            What::Apply(_) | What::Approve { .. } => Mode::Apply,
        };
        let mutation = Mutation { mode, request_id: Some(self.key.clone()), reason: None, wait_s: 0 };
        let args_hash = hash_of(&format!("{:?}", self.what));
        match &self.what {
            What::Operate { operation, .. } => {
                Command::Operate { operation: operation.clone(), mutation, args_hash, secret_hash: None }
            }
            What::Apply(plan_id) => Command::PlanApply { plan_id: *plan_id, mutation, args_hash, secret_hash: None },
            What::Approve { approval_id, diff_hash, .. } => Command::ApprovalDecide {
                approval_id: *approval_id,
                decision: ApprovalDecision::Approve,
                diff_hash: diff_hash.clone(),
                mutation,
                args_hash,
            },
        }
    }
}

impl Callers {
    pub(crate) fn new(plans: Vec<Plan>) -> Self {
        Self { plans, requests: Vec::new() }
    }

    /// Every plan at its time.
    pub(crate) fn schedule(&self, ctx: &mut Ctx) {
        for (ix, plan) in self.plans.iter().enumerate() {
            ctx.at(plan.at_ms, Happening::Wish(ix));
        }
    }

    /// A wish comes up. What it is about is looked up where readers look: in the durable state.
    pub(crate) fn wish(&mut self, ctx: &mut Ctx, gateway: &SimGateway, ix: usize) {
        let plan = self.plans[ix].clone();
        let Some(operation) = operation_of(ctx, gateway, &plan.wish) else {
            return;
        };
        let mode = if plan.planned { Mode::Plan } else { Mode::Apply };
        let request = self.open(ctx, ix, plan.caller, What::Operate { operation, mode });
        if plan.doubled {
            ctx.after(1, Happening::Ask { request });
        }
    }

    fn open(&mut self, ctx: &mut Ctx, plan: usize, caller: usize, what: What) -> usize {
        let number = self.requests.len();
        ctx.note(|| format!("{} asks #{number}: {what:?}", CALLERS[caller].0));
        self.requests.push(Request {
            plan,
            caller,
            what,
            key: format!("req-{number}"),
            tries: 0,
            outcome: None,
            closed: false,
            repeated: false,
        });
        let delay_ms = ctx.rng.between(1, 30);
        ctx.after(delay_ms, Happening::Ask { request: number });
        number
    }

    /// A request reaches the gateway, if there is one.
    pub(crate) fn ask(&mut self, ctx: &mut Ctx, net: &mut Net, gateway: &mut SimGateway, number: usize) {
        let request = &mut self.requests[number];
        if request.closed {
            return;
        }
        request.tries += 1;
        if request.tries > TRIES_MAX {
            request.closed = true;
            return;
        }
        let tries = request.tries;
        let patience_ms = PATIENCE_MS + ctx.rng.below(2_000);
        ctx.after(patience_ms, Happening::Patience { request: number, tries });
        if gateway.is_up() {
            let (principal, kind, role) = CALLERS[request.caller];
            let caller = Caller {
                principal: principal.to_owned(),
                kind,
                role,
                key_id: None,
                now: ctx.wall(),
                reason: "sim".to_owned(),
            };
            gateway.request(ctx, net, request.command(), caller, number);
        }
    }

    /// No answer came in time: ask again.
    pub(crate) fn patience(&mut self, ctx: &mut Ctx, number: usize, tries: u32) {
        let request = &self.requests[number];
        if request.outcome.is_none() && !request.closed && request.tries == tries {
            ctx.after(0, Happening::Ask { request: number });
        }
    }

    /// An answer has arrived.
    pub(crate) fn answer(
        &mut self,
        ctx: &mut Ctx,
        gateway: &mut SimGateway,
        number: usize,
        answer: Result<Outcome, Refusal>,
    ) {
        match answer {
            Ok(outcome) => self.told(ctx, gateway, number, outcome),
            Err(refusal) => self.refused(ctx, number, &refusal),
        }
    }

    fn told(&mut self, ctx: &mut Ctx, gateway: &mut SimGateway, number: usize, outcome: Outcome) {
        ctx.counts.answers += 1;
        self.judge_answer(ctx, gateway, number, &outcome);
        let request = &mut self.requests[number];
        if let Some(first) = &request.outcome {
            if *first != outcome {
                let detail = format!("#{number}: first {first:?}, then {outcome:?}");
                ctx.fail("R1_one_request_one_receipt", detail);
            }
            return;
        }
        ctx.note(|| format!("answer #{number}: {} {}", outcome.effect, outcome.summary));
        request.outcome = Some(outcome.clone());
        let (plan, caller) = (request.plan, request.caller);
        if self.plans[plan].repeated && !request.repeated {
            request.repeated = true;
            let delay_ms = ctx.rng.between(10, 20_000);
            ctx.after(delay_ms, Happening::Ask { request: number });
        }
        match (request.what.clone(), outcome.plan) {
            (What::Operate { mode: Mode::Plan, .. }, Some(view)) if outcome.effect == EffectKind::Planned => {
                let next = match view.approval_id {
                    Some(approval_id) => What::Approve { approval_id, diff_hash: view.diff_hash, then: view.plan_id },
                    None => What::Apply(view.plan_id),
                };
                let who = if matches!(next, What::Approve { .. }) { APPROVERS[caller] } else { caller };
                self.open(ctx, plan, who, next);
            }
            (What::Approve { then, .. }, _) => {
                let owner = self.plans[plan].caller;
                self.open(ctx, plan, owner, What::Apply(then));
            }
            (What::Operate { .. } | What::Apply(_), _) => {}
        }
    }

    fn refused(&mut self, ctx: &mut Ctx, number: usize, refusal: &Refusal) {
        ctx.counts.refusals += 1;
        ctx.note(|| format!("refused #{number}: {} {}", refusal.code, refusal.message));
        let request = &mut self.requests[number];
        if request.outcome.is_some() {
            // Refusals are not stored; the request itself was answered before.
            if refusal.code != ErrorCode::JournalUnavailable {
                let detail = format!("#{number} was answered, then refused: {refusal:?}");
                ctx.fail("R1_one_request_one_receipt", detail);
            }
            return;
        }
        if refusal.retryable {
            let tries = request.tries;
            ctx.after(1_500, Happening::Patience { request: number, tries });
            return;
        }
        request.closed = true;
        if let (ErrorCode::PlanRequired, What::Operate { operation, mode: Mode::Apply }) =
            (refusal.code, request.what.clone())
        {
            let (plan, caller) = (request.plan, request.caller);
            self.open(ctx, plan, caller, What::Operate { operation, mode: Mode::Plan });
        }
    }

    /// Every request has its answer, or was given up.
    pub(crate) fn is_quiet(&self) -> bool {
        self.requests.iter().all(|request| request.closed || request.outcome.is_some())
    }
}

/// The operation of a wish, on what is there at this moment.
fn operation_of(ctx: &mut Ctx, gateway: &SimGateway, wish: &Wish) -> Option<Operation> {
    let node = |machine: &usize| format!("m{machine}");
    Some(match wish {
        Wish::Run { spec } => Operation::WorkloadRun { spec: spec.clone(), env_handle: None, assumptions: Vec::new() },
        Wish::Stop { pick, grace_s } => {
            let ids: Vec<String> = gateway.durable()?.workloads.iter().map(|w| w.workload_id.to_string()).collect();
            let workload = pick_from(&ids, *pick)?;
            Operation::WorkloadStop { workload, grace_s: *grace_s }
        }
        Wish::Drain { machine } => Operation::NodeDrain { node: node(machine), grace_s: None },
        Wish::Undrain { machine } => Operation::NodeUndrain { node: node(machine) },
        Wish::Cordon { machine } => Operation::NodeCordon { node: node(machine) },
        Wish::Uncordon { machine } => Operation::NodeUncordon { node: node(machine) },
        Wish::Label { machine, value } => Operation::NodeLabel {
            node: node(machine),
            set: BTreeMap::from([("zone".to_owned(), format!("z{value}"))]),
            remove: Vec::new(),
        },
        Wish::Configure { machine, interval_ms } => Operation::NodeConfigSet {
            node: node(machine),
            metrics_interval_ms: Some(*interval_ms),
            log_buffer_bytes: None,
        },
        Wish::Remove { machine } => Operation::NodeRemove { node: node(machine) },
        Wish::Undo { pick } | Wish::Cancel { pick } => {
            let ids: Vec<_> = gateway.durable()?.operations.keys().copied().collect();
            let operation_id = pick_from(&ids, *pick)?;
            ctx.note(|| format!("somebody has second thoughts about {operation_id}"));
            if matches!(wish, Wish::Undo { .. }) {
                Operation::Undo { operation_id }
            } else {
                Operation::OperationCancel { operation_id }
            }
        }
    })
}

fn pick_from<T: Clone>(list: &[T], pick: u64) -> Option<T> {
    let len = u64::try_from(list.len()).ok().filter(|len| *len > 0)?;
    list.get(usize::try_from(pick % len).ok()?).cloned()
}
