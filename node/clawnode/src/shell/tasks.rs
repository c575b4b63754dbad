//! Tasks: short requests about one attempt, passed on to its runtime.

use claw_proto::ids::{Attempt, WorkloadId};
use claw_proto::message::{GatewayMessage, NodeWorkloadState, TaskErrorCode, TaskId};
use claw_proto::spec::RuntimeKind;

use super::Agent;
use crate::clock;
use crate::node::{AttemptEntry, ExecOrder, Input, ReadOrder, RuntimeEvent, TaskFault};
use crate::runtime::Key;

/// Tasks that may be under way at once.
const TASKS_MAX: usize = 64;

impl Agent {
    /// A task or a certificate.
    pub(super) fn shell_message(&mut self, message: GatewayMessage) {
        match message {
            GatewayMessage::Exec { task, workload_id, attempt, command, timeout_ms, output_bytes_max } => {
                let order = ExecOrder { command, timeout_ms, output_bytes_max };
                self.exec(task, (workload_id, attempt), order);
            }
            GatewayMessage::ReadOutput { task, workload_id, attempt, path, offset, bytes_max } => {
                self.read_output(task, (workload_id, attempt), ReadOrder { path, offset, bytes_max });
            }
            GatewayMessage::CancelTask { task } => self.cancel_task(task),
            other => self.certificate_message(other),
        }
    }

    fn exec(&mut self, task: TaskId, key: Key, order: ExecOrder) {
        let result = self.runtime_of(key, true).and_then(|kind| {
            self.may_begin(task)?;
            let runtime = self.runtimes.get_mut(&kind).ok_or_else(no_runtime)?;
            runtime.exec(key, task, order).map(|()| kind)
        });
        self.begun(task, result);
    }

    fn read_output(&mut self, task: TaskId, key: Key, order: ReadOrder) {
        let result = self.runtime_of(key, false).and_then(|kind| {
            self.may_begin(task)?;
            let runtime = self.runtimes.get_mut(&kind).ok_or_else(no_runtime)?;
            runtime.read_output(key, task, order).map(|()| kind)
        });
        self.begun(task, result);
    }

    fn begun(&mut self, task: TaskId, result: Result<RuntimeKind, TaskFault>) {
        match result {
            Ok(kind) => {
                self.tasks.insert(task, kind);
            }
            Err(fault) => {
                let event = RuntimeEvent::TaskDone { task, result: Err(fault) };
                self.feed(Input::Runtime { now: clock::now(), event });
            }
        }
    }

    fn may_begin(&self, task: TaskId) -> Result<(), TaskFault> {
        if self.tasks.len() >= TASKS_MAX || self.tasks.contains_key(&task) {
            let message = format!("the node has {} tasks under way", self.tasks.len());
            return Err(TaskFault::new(TaskErrorCode::Refused, message));
        }
        Ok(())
    }

    /// The runtime that has an attempt. What is over is looked for in the
    /// container runtime: no other one collects outputs.
    fn runtime_of(&self, key: Key, must_run: bool) -> Result<RuntimeKind, TaskFault> {
        let (id, attempt): (WorkloadId, Attempt) = key;
        let durable = self.node.durable();
        let live = durable.entry(id, attempt);
        let runs = matches!(
            live.map(AttemptEntry::shown_state),
            Some(NodeWorkloadState::Running | NodeWorkloadState::Stopping)
        );
        let is_over = durable.ended_record(id, attempt).is_some();
        match live {
            Some(entry) if runs => Ok(entry.workload.runtime),
            _ if is_over && !must_run => Ok(RuntimeKind::Docker),
            Some(_) => Err(TaskFault::new(TaskErrorCode::NotRunning, "the attempt does not run yet")),
            None if is_over => Err(TaskFault::new(TaskErrorCode::NotRunning, "the attempt is over")),
            None => Err(TaskFault::new(TaskErrorCode::NotFound, "the node has no such attempt")),
        }
    }

    fn cancel_task(&mut self, task: TaskId) {
        if let Some(runtime) = self.tasks.remove(&task).and_then(|kind| self.runtimes.get_mut(&kind)) {
            runtime.cancel_task(task);
        }
    }

    /// The connection is gone, and with it everybody who waits.
    pub(super) fn cancel_tasks(&mut self) {
        let tasks: Vec<TaskId> = self.tasks.keys().copied().collect();
        for task in tasks {
            self.cancel_task(task);
        }
    }

    /// A runtime answers; an answer that nobody waits for is dropped.
    pub(super) fn task_done(&mut self, task: TaskId, event: RuntimeEvent) {
        if self.tasks.remove(&task).is_some() {
            self.feed(Input::Runtime { now: clock::now(), event });
        }
    }
}

fn no_runtime() -> TaskFault {
    TaskFault::new(TaskErrorCode::NotFound, "the runtime of this attempt is not on this node any more")
}
