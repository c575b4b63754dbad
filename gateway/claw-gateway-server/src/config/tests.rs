use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use expect_test::{expect, expect_file};
use serde_json::Value as Json;

use super::*;

fn sources(set: &[&str]) -> Sources {
    Sources { set: set.iter().map(|text| (*text).to_owned()).collect(), ..Sources::default() }
}

fn complaint(sources: &Sources) -> String {
    sources.load().unwrap_err().to_string()
}

#[test]
fn schema_and_example_are_goldens() {
    expect_file!["../../golden/config.schema.json"].assert_eq(&schema());
    expect_file!["../../golden/config.example.toml"].assert_eq(&example());
}

#[test]
fn the_example_is_the_default() {
    let active: String = example()
        .lines()
        .filter_map(|line| {
            let line = line.strip_prefix("# ").unwrap_or(line);
            let is_key = line.split_once(" = ").is_some_and(|(name, value)| !name.contains(' ') && value != "\"\"");
            let is_section = line.starts_with('[') && line != "[http.tls]";
            (is_key || is_section).then(|| format!("{line}\n"))
        })
        .collect();
    let read: GatewayConfig = toml::from_str(&active).unwrap();
    assert_eq!(read, GatewayConfig::default());
}

/// Every leaf of the schema, by path.
fn leaves(root: &Json, at: &Json, path: &str, found: &mut BTreeSet<String>) {
    let target = at["$ref"].as_str().or_else(|| at["anyOf"][0]["$ref"].as_str());
    let at = match target.and_then(|t| t.strip_prefix('#')) {
        Some(pointer) => root.pointer(pointer).unwrap(),
        None => at,
    };
    match at["properties"].as_object() {
        Some(properties) => {
            for (name, property) in properties {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(root, property, &path, found);
            }
        }
        None => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn every_key_of_the_schema_is_in_the_table() {
    let schema: Json = serde_json::from_str(&schema()).unwrap();
    let mut found = BTreeSet::new();
    leaves(&schema, &schema, "", &mut found);
    let table: BTreeSet<String> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(table, found);
}

#[test]
fn stronger_sources_win_and_lists_and_numbers_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, "cluster_name = \"file\"\n[node]\nheartbeat_interval_ms = 400\nadvertise = [\"a\"]\n")
        .unwrap();
    let config = Sources {
        file: Some(file),
        env: vec![
            ("CLAW_GATEWAY__CLUSTER_NAME".into(), "environment".into()),
            ("CLAW_GATEWAY__NODE__ADVERTISE".into(), "gw.example:7701, 192.0.2.7".into()),
            ("CLAW_GATEWAY_OTHER".into(), "not ours".into()),
        ],
        set: vec!["cluster_name=set".into(), "approval.tier3_self_confirm=true".into()],
        flags: vec![("http.listen", "127.0.0.1:0".into())],
    }
    .load()
    .unwrap();
    assert_eq!(config.cluster_name, "set");
    assert_eq!(config.node.heartbeat_interval_ms, 400);
    assert_eq!(config.node.advertise, ["gw.example:7701", "192.0.2.7"]);
    assert!(config.policy().tier3_self_confirm);
    assert_eq!(config.http.listen.port(), 0);
}

#[test]
fn what_is_wrong_is_named() {
    let mut said: Vec<String> = [
        "http.listne=127.0.0.1:1",
        "http.listen=localhost",
        "limits.body_bytes=many",
        "approval.tier2_self_confirm",
        "node.heartbeat_timeout_ms=1000",
        "http.listen=0.0.0.0:7700",
        "http.tls.cert=/etc/claw/http.pem",
    ]
    .iter()
    .map(|set| complaint(&sources(&[set])))
    .collect();
    said.push(complaint(&Sources {
        env: vec![("CLAW_GATEWAY__HTTP_LISTEN".into(), "127.0.0.1:1".into())],
        ..Sources::default()
    }));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, "[node]\nlisten_on = 1\n").unwrap();
    let in_file = complaint(&Sources { file: Some(file.clone()), ..Sources::default() });
    said.push(in_file.replace(&file.display().to_string(), "gateway.toml"));
    expect![[r#"
        --set sets "http.listne", which is no setting; did you mean http.listen?
        http.listen cannot be used: invalid socket address syntax
        limits.body_bytes is "many", expected is a whole number
        --set "approval.tier2_self_confirm" has no =; write --set KEY=VALUE
        node.heartbeat_timeout_ms is under three times node.heartbeat_interval_ms
        http.listen is not a loopback address, and http.tls gives no certificate: keys would go over the network in the clear
        http.tls cannot be used: missing field `key`
        the environment sets "CLAW_GATEWAY__HTTP_LISTEN", which is no setting; did you mean CLAW_GATEWAY__HTTP__LISTEN?
        gateway.toml is not a configuration: TOML parse error at line 2, column 1
          |
        2 | listen_on = 1
          | ^^^^^^^^^
        unknown field `listen_on`, expected one of `listen`, `advertise`, `heartbeat_interval_ms`, `heartbeat_timeout_ms`, `certificate_ttl_s`, `ca_rollover_grace_s`, `enrollments_per_minute`"#]].assert_eq(&said.join("\n"));
}

#[test]
fn the_data_folder_is_found_as_the_desktop_says() {
    let look = |xdg: Option<&str>, home: Option<&str>| {
        let (xdg, home) = (xdg.map(OsString::from), home.map(OsString::from));
        default_data_dir(|name| match name {
            "XDG_DATA_HOME" => xdg.clone(),
            "HOME" => home.clone(),
            _ => None,
        })
        .ok()
    };
    assert_eq!(look(Some("/x"), Some("/h")), Some(PathBuf::from("/x/clawbernetes")));
    assert_eq!(look(Some("relative"), Some("/h")), Some(PathBuf::from("/h/.local/share/clawbernetes")));
    assert_eq!(look(None, None), None);
}
