use claw_proto::ids::{Attempt, GpuUuid, WorkloadId};
use claw_proto::message::RankAssignment;
use claw_proto::spec::{RuntimeKind, WorkloadSpec};
use expect_test::{Expect, expect};
use serde_json::Value;

use super::*;
use crate::runtime::samples;

const KEY: Key = (WorkloadId::from_bits(7), Attempt(2));

/// A workload that says all that a request can say.
fn full() -> DesiredWorkload {
    let spec = WorkloadSpec {
        image: Some("registry.example/serve:1".into()),
        command: Some(vec!["serve".into()]),
        args: vec!["--port".into(), "8000".into()],
        env: BTreeMap::from([("MODEL".into(), "llama".into()), ("NCCL_SOCKET_IFNAME".into(), "eth1".into())]),
        user: Some("1000:1000".into()),
        working_dir: Some("/srv".into()),
        ports: vec![8000],
        cpu_cores: Some(2.5),
        memory_gib: Some(1.5),
        shm_gib: Some(0.25),
        read_only_root: Some(true),
        ..WorkloadSpec::default()
    };
    DesiredWorkload {
        gpus: vec![GpuUuid("GPU-a".into()), GpuUuid("GPU-b".into())],
        ..samples::desired(KEY, RuntimeKind::Docker, spec)
    }
}

fn request(workload: &DesiredWorkload, engine: EngineKind, config: &DockerConfig, secrets: Option<&str>) -> Value {
    let env = BTreeMap::from([("NCCL_SOCKET_IFNAME".to_owned(), "eth0".to_owned()), ("RANK".into(), "0".into())]);
    let device = DeviceMapping {
        path_on_host: Some("/dev/nvidia0".into()),
        path_in_container: Some("/dev/nvidia0".into()),
        cgroup_permissions: Some("rw".into()),
    };
    let attachments = Attachments { devices: vec![device], groups: vec!["44".into()], ..Attachments::default() };
    let attachments = if workload.gpus.is_empty() { Attachments::default() } else { attachments };
    let image = "sha256:abc";
    let plan = Plan { node_id: "node_1", workload, image, engine, config, secrets, env: &env, attachments };
    serde_json::to_value(plan.create_body()).expect("a request is JSON")
}

/// A request as dotted paths and values.
fn flat(request: &Value) -> BTreeMap<String, String> {
    let Some(fields) = request.as_object().filter(|fields| !fields.is_empty()) else {
        return BTreeMap::from([(String::new(), request.to_string())]);
    };
    let inner = |(name, value): (&String, &Value)| {
        let rest = flat(value).into_iter();
        rest.map(|(path, value)| (if path.is_empty() { name.clone() } else { format!("{name}.{path}") }, value))
            .collect::<Vec<_>>()
    };
    fields.iter().flat_map(inner).collect()
}

fn check(request: &Value, expected: &Expect) {
    let lines: Vec<String> = flat(request).into_iter().map(|(path, value)| format!("{path}: {value}\n")).collect();
    expected.assert_eq(&lines.concat());
}

#[test]
fn an_engine_is_asked_for_exactly_this() {
    let config = DockerConfig { open_files_max: Some(4_096), ..DockerConfig::default() };
    let request = request(&full(), EngineKind::Docker, &config, Some("/dev/shm/claw/x"));
    check(
        &request,
        &expect![[r#"
            Cmd: ["--port","8000"]
            Entrypoint: ["serve"]
            Env: ["CLAW_ATTEMPT=2","CLAW_GPU_UUIDS=GPU-a,GPU-b","CLAW_WORKLOAD_ID=wl_00000000000000000000000007","MODEL=llama","NCCL_SOCKET_IFNAME=eth1","RANK=0"]
            ExposedPorts.8000/tcp: {}
            HostConfig.CapDrop: ["ALL"]
            HostConfig.CpuPeriod: 100000
            HostConfig.CpuQuota: 250000
            HostConfig.Devices: [{"CgroupPermissions":"rw","PathInContainer":"/dev/nvidia0","PathOnHost":"/dev/nvidia0"}]
            HostConfig.GroupAdd: ["44"]
            HostConfig.LogConfig.Config.max-file: "2"
            HostConfig.LogConfig.Config.max-size: "16m"
            HostConfig.LogConfig.Type: "json-file"
            HostConfig.Memory: 1610612736
            HostConfig.MemorySwap: 1610612736
            HostConfig.Mounts: [{"ReadOnly":true,"Source":"/dev/shm/claw/x","Target":"/run/secrets","Type":"bind"}]
            HostConfig.NetworkMode: "bridge"
            HostConfig.PidsLimit: 32768
            HostConfig.PortBindings.8000/tcp: [{"HostIp":"127.0.0.1","HostPort":""}]
            HostConfig.Privileged: false
            HostConfig.ReadonlyRootfs: true
            HostConfig.RestartPolicy.Name: "no"
            HostConfig.SecurityOpt: ["no-new-privileges"]
            HostConfig.ShmSize: 268435456
            HostConfig.Tmpfs./tmp: "rw,nosuid,nodev,mode=1777,size=256m"
            HostConfig.Ulimits: [{"Hard":4096,"Name":"nofile","Soft":4096}]
            Image: "sha256:abc"
            Labels.claw.attempt: "2"
            Labels.claw.gpus: "GPU-a,GPU-b"
            Labels.claw.node: "node_1"
            Labels.claw.workload: "wl_00000000000000000000000007"
            OpenStdin: false
            StopSignal: "SIGTERM"
            Tty: false
            User: "1000:1000"
            WorkingDir: "/srv"
        "#]],
    );
}

#[test]
fn podman_is_asked_for_the_same_but_this() {
    let config = DockerConfig { open_files_max: Some(4_096), ..DockerConfig::default() };
    let of = |engine| flat(&request(&full(), engine, &config, None));
    let (docker, podman) = (of(EngineKind::Docker), of(EngineKind::Podman));
    let value = |of: &BTreeMap<String, String>, path: &str| of.get(path).map_or("nothing", String::as_str).to_owned();
    let paths = docker.keys().chain(podman.keys()).collect::<std::collections::BTreeSet<_>>();
    let found = paths.into_iter().filter(|path| docker.get(*path) != podman.get(*path));
    let told = found.map(|path| format!("{path}: {} | {}\n", value(&docker, path), value(&podman, path)));
    expect![[r#"
        HostConfig.LogConfig.Config.max-file: "2" | nothing
        HostConfig.LogConfig.Config.max-size: "16m" | "32m"
        HostConfig.LogConfig.Type: "json-file" | "k8s-file"
        HostConfig.Ulimits: [{"Hard":4096,"Name":"nofile","Soft":4096}] | [{"Hard":4096,"Name":"nofile","Soft":4096},{"Hard":16384,"Name":"nproc","Soft":16384}]
    "#]].assert_eq(&told.collect::<String>());
}

#[test]
fn what_asks_for_nothing_is_shut_in_all_the_same() {
    let spec = WorkloadSpec { image: Some("busybox".into()), ports: vec![80], ..WorkloadSpec::default() };
    let workload = samples::desired(KEY, RuntimeKind::Docker, spec);
    let config = DockerConfig { network: "none".into(), ..DockerConfig::default() };
    check(
        &request(&workload, EngineKind::Docker, &config, None),
        &expect![[r#"
        Env: ["CLAW_ATTEMPT=2","CLAW_WORKLOAD_ID=wl_00000000000000000000000007","NCCL_SOCKET_IFNAME=eth0","RANK=0"]
        HostConfig.CapDrop: ["ALL"]
        HostConfig.LogConfig.Config.max-file: "2"
        HostConfig.LogConfig.Config.max-size: "16m"
        HostConfig.LogConfig.Type: "json-file"
        HostConfig.NetworkMode: "none"
        HostConfig.PidsLimit: 32768
        HostConfig.Privileged: false
        HostConfig.ReadonlyRootfs: false
        HostConfig.RestartPolicy.Name: "no"
        HostConfig.SecurityOpt: ["no-new-privileges"]
        Image: "sha256:abc"
        Labels.claw.attempt: "2"
        Labels.claw.gpus: ""
        Labels.claw.node: "node_1"
        Labels.claw.workload: "wl_00000000000000000000000007"
        OpenStdin: false
        StopSignal: "SIGTERM"
        Tty: false
    "#]],
    );
}

#[test]
fn a_part_that_no_other_node_reaches_is_told_so() {
    let spec = WorkloadSpec { image: Some("busybox".into()), ..WorkloadSpec::default() };
    let alone = samples::desired(KEY, RuntimeKind::Docker, spec);
    let ranks = |n_nodes| RankAssignment {
        node_rank: 1,
        n_nodes,
        first_rank: 8,
        world_size: 8 * n_nodes,
        master_address: "node-1".into(),
        master_port: 20_000,
    };
    let of = |n_nodes| DesiredWorkload { ranks: Some(ranks(n_nodes)), ..alone.clone() };
    for network in ["bridge", "none", "host", "fabric"] {
        assert_eq!(cut_off(&alone, network), None);
        assert_eq!(cut_off(&of(1), network), None);
        assert_eq!(cut_off(&of(4), network).is_some(), matches!(network, "bridge" | "none"), "{network}");
    }
    expect![[r#"other nodes do not reach this part (2 of 4) but at ports that it publishes: its network is "bridge"; ranks meet where every node has docker.network = "host""#]]
        .assert_eq(&cut_off(&of(4), "bridge").unwrap_or_default());
}
