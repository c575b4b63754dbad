//! A control plane on a temporary folder with its faces, and who uses them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use claw_gateway::policy::Policy;
use claw_gateway::{Caller, Command, Report};
use claw_proto::ids::{GpuUuid, KeyId, NodeId};
use claw_proto::message::{NodeWorkloadState, StatusCause, StatusRecord};
use claw_proto::spec::{GpuVendor, RuntimeKind};
use claw_proto::time::Timestamp;
use claw_proto::topology::{GpuDriver, GpuInfo, NodeCapabilities};
use claw_security::auth::ApiKey;
use claw_security::pki::{Authorities, JoinToken};
use claw_security::secrets::{SecretKey, SecretStore};
use claw_storage::LogLimits;
use claw_tools::access::Role;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::control::{ControlOptions, ControlTask, CrashPlan, SystemClock, keep_changes, start};
use crate::face::{Answered, Direct, FaceConfig, faces};
use crate::node_link::NodeLinks;
use crate::ops::OpsContext;

pub(super) struct Desk {
    pub(super) direct: Direct,
    pub(super) router: Router,
    pub(super) ops: OpsContext,
    pub(super) admin: String,
    pub(super) task: ControlTask,
    _dir: tempfile::TempDir,
}

pub(super) async fn desk() -> Desk {
    desk_with(|_| {}).await
}

pub(super) async fn desk_with(change: impl FnOnce(&mut FaceConfig)) -> Desk {
    let dir = tempfile::tempdir().unwrap();
    let options = ControlOptions {
        data_dir: dir.path().to_path_buf(),
        policy: Policy::default(),
        clock: Arc::new(SystemClock::default()),
        log_limits: LogLimits::default(),
        reserve_bytes: 0,
        snapshot_every: 1_000,
        keep_events: 1_000,
        epoch_above: 0,
        crash: Arc::new(CrashPlan::none()),
    };
    let (control, mut effects, task) = start(options).await.unwrap();
    tokio::spawn(async move { while effects.recv().await.is_some() {} });
    tokio::spawn(keep_changes(control.clone()));
    let key_id = KeyId::from_bits(7);
    let key = ApiKey::generate(&key_id.to_string()).unwrap();
    let command = Command::Bootstrap { key_id, secret_hash: key.hash().to_string(), principal: "root".into() };
    control.submit(command, Caller::system(control.now())).await.unwrap();
    let mut config = FaceConfig {
        allowed_hosts: Vec::new(),
        allowed_origins: Vec::new(),
        requests_per_s: 10_000,
        requests_burst: 10_000,
        body_bytes_max: 1 << 20,
    };
    change(&mut config);
    let hour = std::time::Duration::from_hours(1);
    let authorities = Authorities::load_or_create(&dir.path().join("pki"), "test", control.now(), hour).unwrap();
    let seal = SecretKey::load_or_create(&dir.path().join("secrets.key")).unwrap();
    let store = Arc::new(SecretStore::new(&seal));
    let links = Arc::new(NodeLinks::new(control.now()));
    let ops = OpsContext::new(control, Arc::new(authorities), links, store);
    let (direct, router) = faces(ops.clone(), &config);
    Desk { direct, router, ops, admin: key.to_text().to_string(), task, _dir: dir }
}

impl Desk {
    pub(super) async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = match self.direct.answer(request).await {
            Answered::Here(response) => response,
            Answered::Elsewhere(request) => self.router.clone().oneshot(request).await.unwrap(),
        };
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 22).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub(super) async fn op(&self, key: Option<&str>, tool: &str, args: &Value) -> (StatusCode, Value) {
        let mut request = Request::post(format!("/api/ops/{tool}")).header(header::HOST, "127.0.0.1");
        if let Some(key) = key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        self.send(request.body(Body::from(args.to_string())).unwrap()).await
    }

    /// Makes a key as a person does: plan, approve, apply.
    pub(super) async fn key(&self, principal: &str, role: Role) -> String {
        let args = json!({ "principal": principal, "role": role, "mode": "plan" });
        let (_, planned) = self.op(Some(&self.admin), "api_key_create", &args).await;
        let approval = json!({ "approval_id": planned["plan"]["approval_id"], "decision": "approve", "diff_hash": planned["plan"]["diff_hash"] });
        let (status, _) = self.op(Some(&self.admin), "approval_decide", &approval).await;
        assert_eq!(status, StatusCode::OK);
        let (status, applied) =
            self.op(Some(&self.admin), "plan_apply", &json!({ "plan_id": planned["plan"]["plan_id"] })).await;
        assert_eq!(status, StatusCode::OK, "{applied}");
        applied["credential"]["secret"].as_str().unwrap().to_owned()
    }

    /// A call that must succeed.
    pub(super) async fn ok(&self, tool: &str, args: &Value) -> Value {
        let (status, body) = self.op(Some(&self.admin), tool, args).await;
        assert_eq!(status, StatusCode::OK, "{tool} {args}: {body}");
        body
    }

    fn read(&self, path: &str) -> Request<Body> {
        let request = Request::get(path).header(header::HOST, "127.0.0.1");
        request.header(header::AUTHORIZATION, format!("Bearer {}", self.admin)).body(Body::empty()).unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(self.read(path)).await
    }

    /// The whole body as text.
    pub(super) async fn text(&self, path: &str) -> String {
        let response = self.router.clone().oneshot(self.read(path)).await.unwrap();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 22).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// Enrolls a node with eight simulated GPUs, with the very token that was shown, and connects it.
    pub(super) async fn join(&self, name: &str) -> NodeId {
        self.join_as(name, h100x8(name)).await
    }

    /// The same with containers, and has it say that its first one runs.
    pub(super) async fn join_with_container(&self, name: &str, workload: &str) {
        let has = NodeCapabilities { runtimes: vec![RuntimeKind::Docker], ..h100x8(name) };
        let node_id = self.join_as(name, has).await;
        self.runs(node_id, workload).await;
    }

    /// A node says that a workload runs.
    pub(super) async fn runs(&self, node_id: NodeId, workload: &str) {
        self.runs_since(node_id, workload, self.ops.control.now()).await;
    }

    /// The same, since a time.
    pub(super) async fn runs_since(&self, node_id: NodeId, workload: &str, at: Timestamp) {
        let control = &self.ops.control;
        let (workload_id, attempt) = {
            let state = control.snapshot();
            let entry = state.workloads.by_name(workload).unwrap();
            (entry.workload_id, entry.attempt())
        };
        let record = StatusRecord {
            record: 1,
            workload_id,
            attempt,
            state: NodeWorkloadState::Running,
            cause: StatusCause::Progress,
            detail: String::new(),
            exit_code: None,
            signal: None,
            at,
            simulated: false,
            checkpoint: None,
        };
        let command = Command::NodeStatus { node_id, records: vec![record] };
        control.submit(command, Caller::node(node_id, control.now())).await.unwrap();
    }

    pub(super) async fn join_as(&self, name: &str, capabilities: NodeCapabilities) -> NodeId {
        let made = self.ok("node_token_create", &json!({ "name": name })).await;
        let token = JoinToken::parse(made["credential"]["secret"].as_str().unwrap()).unwrap();
        let control = &self.ops.control;
        let enroll = Command::NodeEnroll {
            token_id: token.token_id().parse().unwrap(),
            secret_hash: token.hash_secret().to_string(),
            name: name.into(),
        };
        let Report::Enrolled { node_id } = control.submit(enroll, Caller::system(control.now())).await.unwrap() else {
            panic!("not enrolled")
        };
        self.register(node_id, capabilities).await;
        node_id
    }

    /// A node connects and says what it has.
    pub(super) async fn register(&self, node_id: NodeId, capabilities: NodeCapabilities) {
        let control = &self.ops.control;
        let register = Command::NodeRegister {
            node_id,
            capabilities: Box::new(capabilities),
            running: Vec::new(),
            store_id: 7,
            epoch_seen: 0,
        };
        control.submit(register, Caller::node(node_id, control.now())).await.unwrap();
    }
}

pub(super) fn h100x8(name: &str) -> NodeCapabilities {
    let gpu = |i: u32| GpuInfo {
        nvlink_island: Some(i / 4),
        numa_node: Some(i / 4),
        ..GpuInfo::new(GpuUuid(format!("GPU-{name}-{i}")), i, GpuVendor::Nvidia, "H100", 81_559)
    };
    NodeCapabilities {
        hostname: name.into(),
        os: "Debian 12".into(),
        arch: "x86_64".into(),
        agent_version: "0.1.0".into(),
        cpu_millis: 64_000,
        memory_mib: 512 * 1024,
        disk_mib: 1024 * 1024,
        gpu_driver: GpuDriver::Sim,
        gpus: (0..8).map(gpu).collect(),
        runtimes: vec![RuntimeKind::Sim],
        simulated: true,
        labels: BTreeMap::new(),
        findings: Vec::new(),
        engine: None,
        nics: Vec::new(),
        boot_id: None,
    }
}
