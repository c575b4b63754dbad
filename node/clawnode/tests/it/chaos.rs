//! Starts, stops, cut connections and `kill -9` of the agent in random order;
//! at the end every record agrees with what the execution log says really ran.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use claw_proto::ids::{Generation, WorkloadId};
use claw_proto::message::{
    DesiredWorkload, GatewayMessage, NodeMessage, NodeWorkloadState, StatusCause, StatusRecord, StopOrder,
};
use clawnode::runtime::execution_log::ExecutionEvent;

use crate::agent::{Agent, enrolled};
use crate::peer::{Peer, Session};
use crate::support::{DEADLINE, executions, kill_9, script};

const ROUNDS: u32 = 40;

/// A gateway's memory: what it wants, what it was told.
struct Ledger {
    random: u64,
    generation: u64,
    wanted: BTreeMap<WorkloadId, DesiredWorkload>,
    stopping: BTreeMap<WorkloadId, StopOrder>,
    records: BTreeMap<u64, StatusRecord>,
}

impl Ledger {
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn next_generation(&mut self) -> Generation {
        self.generation += 1;
        Generation { epoch: 1, n: self.generation }
    }

    /// The set that a gateway sends after each registration.
    fn desired_set(&mut self) -> GatewayMessage {
        let generation = self.next_generation();
        let open = |id: &WorkloadId| !self.is_over(*id);
        let workloads =
            self.wanted.values().filter(|w| open(&w.workload_id) && !self.stopping.contains_key(&w.workload_id));
        let workloads = workloads.cloned().collect();
        let stop = self.stopping.values().filter(|order| open(&order.workload_id)).cloned().collect();
        GatewayMessage::DesiredSet { generation, workloads, stop }
    }

    fn is_over(&self, id: WorkloadId) -> bool {
        self.records.values().any(|record| record.workload_id == id && record.state.is_final())
    }

    fn take(&mut self, message: NodeMessage) {
        if let NodeMessage::WorkloadStatus { records } = message {
            for record in records {
                let expected = self.records.last_key_value().map_or(1, |(n, _)| n + 1);
                assert!(record.record <= expected, "record {} skips {expected}", record.record);
                let known = self.records.entry(record.record).or_insert_with(|| record.clone());
                assert_eq!(*known, record, "a record changed");
            }
        }
    }

    /// Listens for a while and acknowledges what came.
    async fn listen(&mut self, session: &mut Session, for_ms: u64) {
        let until = Instant::now() + Duration::from_millis(for_ms);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match tokio::time::timeout(left, session.receive()).await {
                Ok(message) => self.take(message),
                Err(_) => break,
            }
        }
        session.ack = self.records.last_key_value().map_or(0, |(n, _)| *n);
        session.send(GatewayMessage::Ack).await;
    }

    async fn register(&mut self, peer: &Peer) -> Session {
        let ack = self.records.last_key_value().map_or(0, |(n, _)| *n);
        let (mut session, _) = peer.register(ack, BTreeMap::new()).await;
        session.send(self.desired_set()).await;
        session
    }

    async fn start_one(&mut self, session: &mut Session, n: u8) {
        let text = match self.random(4) {
            0 => "exit 0".to_owned(),
            1 => format!("sleep 0.{}; exit 3", self.random(9)),
            2 => "trap 'exit 7' TERM; while :; do sleep 0.02; done".to_owned(),
            _ => "exec sleep 1000".to_owned(),
        };
        let workload = script(n, &text);
        self.wanted.insert(workload.workload_id, workload.clone());
        let generation = self.next_generation();
        session.send(GatewayMessage::StartWorkload { generation, workload }).await;
    }

    async fn stop_one(&mut self, session: &mut Session) {
        let n_open = self.wanted.keys().filter(|id| !self.is_over(**id)).count() as u64;
        if n_open == 0 {
            return;
        }
        let nth = usize::try_from(self.random(n_open)).unwrap();
        let workload = self.wanted.values().filter(|w| !self.is_over(w.workload_id)).nth(nth).unwrap().clone();
        let order = StopOrder {
            workload_id: workload.workload_id,
            attempt: workload.attempt,
            grace_s: 2,
            cause: StatusCause::StopRequested,
        };
        self.stopping.insert(workload.workload_id, order.clone());
        let generation = self.next_generation();
        session.send(GatewayMessage::StopWorkload { generation, order }).await;
    }

    /// What was told is what happened, and happened once.
    fn judge(&self, execution_log: &Path) {
        let entries = executions(execution_log);
        for id in self.wanted.keys() {
            let finals = self.records.values().filter(|record| record.workload_id == *id && record.state.is_final());
            let told: Vec<_> = finals.map(|record| (record.state, record.exit_code, record.signal)).collect();
            assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{id} was told twice: {told:?}");
            let of = |event| entries.iter().filter(move |entry| entry.workload_id == *id && entry.event == event);
            let ends: Vec<_> = of(ExecutionEvent::Ended).map(|e| (e.state.unwrap(), e.exit_code, e.signal)).collect();
            let n_starts = of(ExecutionEvent::Started).count();
            assert!(n_starts <= 1 && ends.len() == n_starts, "{id} started {n_starts} times, ended {ends:?}");
            match ends.first() {
                Some(end) => assert_eq!(told.first(), Some(end), "{id} ended otherwise than told"),
                None => assert_eq!(told.first().map(|told| told.0), Some(NodeWorkloadState::Stopped), "{id}"),
            }
        }
    }
}

#[tokio::test]
async fn whatever_dies_when_the_truth_arrives() {
    let peer = Peer::new().await;
    let folder = enrolled(&peer).await;
    let mut agent = Agent::start(folder.path());
    let mut ledger = Ledger {
        random: 0x9e37_79b9_7f4a_7c15,
        generation: 0,
        wanted: BTreeMap::new(),
        stopping: BTreeMap::new(),
        records: BTreeMap::new(),
    };
    let mut session = ledger.register(&peer).await;
    for round in 1..=ROUNDS {
        match ledger.random(6) {
            0..=2 => ledger.start_one(&mut session, u8::try_from(round).unwrap()).await,
            3 => ledger.stop_one(&mut session).await,
            4 => {
                kill_9(agent.pid());
                agent.child.wait().await.unwrap();
                agent = Agent::start(folder.path());
                session = ledger.register(&peer).await;
            }
            _ => {
                drop(session);
                session = ledger.register(&peer).await;
            }
        }
        let for_ms = ledger.random(60);
        ledger.listen(&mut session, for_ms).await;
    }
    let began = Instant::now();
    while !ledger.wanted.keys().all(|id| ledger.is_over(*id)) {
        assert!(began.elapsed() < DEADLINE, "not everything ended");
        ledger.stop_one(&mut session).await;
        ledger.listen(&mut session, 50).await;
    }
    ledger.judge(&folder.path().join("execution.log"));
}
