#![expect(clippy::needless_raw_string_hashes, reason = "the golden texts are rewritten by a tool")]

use expect_test::{Expect, expect, expect_file};

use super::*;

#[test]
fn settings_and_environment_reach_every_key() {
    let config = NodeConfig::from_settings([
        "gpu=sim:h100x8",
        "runtime.process.enabled=true",
        "runtime.process.user=1000:1000",
        "labels.topology.claw/zone=a",
        "link.reconnect_max_ms=500",
    ])
    .unwrap();
    expect![[r#"
        gpu = "sim:h100x8"

        [labels]
        "topology.claw/zone" = "a"

        [runtime.process]
        enabled = true
        user = "1000:1000"
        cgroups = true
        pids_max = 32768

        [runtime.sim]
        pull_ms = 400
        start_ms = 200
        stop_ms = 100

        [runtime.docker]
        network = "bridge"
        publish_address = "127.0.0.1"
        cap_add = []
        read_only_root = false
        pids_max = 32768
        tmp_mib = 256
        secrets_dir = "/run/clawnode/secrets"
        engine_log_mib_max = 32
        outputs_mib_max = 1024
        outputs_keep_s = 86400

        [runtime.docker.images]
        allow = []
        deny = []
        require_digest = false
        default_registry = "docker.io"
        disk_free_mib_min = 2048
        keep = []
        unused_s_min = 600
        pull_timeout_s = 7200

        [runtime.docker.cache]
        disk_free_mib_min = 0
        keep = []

        [runtime.docker.volumes]
        roots = []

        [kernel_log]

        [link]
        reconnect_min_ms = 200
        reconnect_max_ms = 500
        connect_timeout_ms = 10000
    "#]]
    .assert_eq(&config.to_toml().unwrap());
    assert!(config.simulates());
}

#[test]
fn a_file_gives_way_to_the_environment() {
    let config = NodeConfig::from_settings(["gpu=sim:h100x8", "runtime.process.enabled=true"]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, config.to_toml().unwrap()).unwrap();
    let environment = ENVIRONMENT.iter().map(|(name, _)| {
        let value = match *name {
            "CLAWNODE_NAME" => "from-env",
            "CLAWNODE_GATEWAY_URL" => "wss://gw:1/node",
            "CLAWNODE_GPU" => "none",
            "CLAWNODE_GPU_NVML_LIBRARY" => "/opt/libnvidia-ml.so.1",
            "CLAWNODE_GPU_ROCM_TOOLS" => "/opt/rocm/bin",
            "CLAWNODE_GPU_VULKAN_PROBE" => "/opt/claw-gpu-probe",
            "CLAWNODE_RUNTIME_PROCESS_USER" => "app",
            "CLAWNODE_RUNTIME_DOCKER_SOCKET" => "/run/engine.sock",
            "CLAWNODE_KERNEL_LOG_PATH" => "/run/kmsg",
            "CLAWNODE_LINK_RECONNECT_MAX_MS" => "900",
            _ => "false",
        };
        ((*name).to_owned(), value.to_owned())
    });
    let other = ("CLAWNODE_UNKNOWN".to_owned(), "ignored".to_owned());
    let config = NodeConfig::load(&path, environment.chain([other])).unwrap();
    assert_eq!((config.name.as_deref(), config.gpu()), (Some("from-env"), "none"));
    assert_eq!(config.runtime.process.user.as_deref(), Some("app"));
    assert!(!config.runtime.process.enabled && !config.runtime.process.cgroups && !config.simulates());
    assert_eq!(config.link.reconnect_max_ms, 900);
}

#[test]
fn what_is_wrong_is_named() {
    let check = |settings: &[&str], expected: Expect| {
        let error = NodeConfig::from_settings(settings.iter().copied()).unwrap_err();
        expected.assert_eq(error.to_string().trim());
    };
    check(
        &["runtime.process.enabeld=true"],
        expect![[r#"
        config: unknown field `enabeld`, expected one of `enabled`, `user`, `cgroups`, `pids_max`
        in `runtime.process`"#]],
    );
    check(&["gpu"], expect![[r#""gpu" is not key=value with a dotted key, such as runtime.process.enabled=true"#]]);
    check(
        &["name=node_7"],
        expect![
            "config: invalid value: name: does not have the right form (got node_7); allowed: 1-63 of A-Z a-z 0-9 - _ ., with a letter or digit at both ends, not beginning with node_"
        ],
    );
    check(
        &["link.reconnect_min_ms=0"],
        expect!["config: link.reconnect_min_ms 0 is over link.reconnect_max_ms 10000, or zero"],
    );
}

#[test]
fn ports_are_published_on_one_address_or_the_config_is_refused() {
    let told = |address: &str| {
        let setting = format!("runtime.docker.publish_address={address}");
        NodeConfig::from_settings([setting.as_str()]).map(|config| config.runtime.docker.publish_address)
    };
    for right in ["127.0.0.1", "::1", "10.7.0.3", "fd00::3"] {
        assert_eq!(told(right).unwrap(), right);
    }
    for wrong in ["", "0.0.0.0", "::", "::ffff:0.0.0.0", "localhost", "127.0.0.1:80", "10.0.0.0/8", "[::1]"] {
        assert!(matches!(told(wrong), Err(ConfigError::PublishAddress { got }) if got == wrong), "{wrong:?}");
    }
    expect![[r#"config: runtime.docker.publish_address "0.0.0.0" is not one address; allowed: an IP address of this host, such as 127.0.0.1 (loopback) or the mesh's, not one that means all of them (0.0.0.0, ::)"#]]
        .assert_eq(&told("0.0.0.0").unwrap_err().to_string());
}

#[test]
fn the_example_shows_every_default() {
    let example = include_str!("../../config.example.toml");
    let parsed = NodeConfig::from_table(example.parse().unwrap()).unwrap();
    assert_eq!(parsed, NodeConfig { gpu: Some("auto".to_owned()), ..NodeConfig::default() });
}

#[test]
fn the_schema_is_as_published() {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(NodeConfig)).unwrap();
    expect_file!["../../config.schema.json"].assert_eq(&format!("{schema}\n"));
}
