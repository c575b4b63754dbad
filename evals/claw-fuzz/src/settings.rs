//! Settings: a TOML text, then a line `---`, then `NAME=VALUE` lines above it.

use claw_gateway_server::config::Sources;
use clawnode::NodeConfig;

/// The file's text, and the pairs that stand above it.
fn split(bytes: &[u8]) -> Option<(&str, Vec<&str>)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (file, above) = text.split_once("\n---\n").unwrap_or((text, ""));
    Some((file, above.lines().collect()))
}

/// Settings that are taken can be written as a file, which says the same.
pub(crate) fn gateway_config(bytes: &[u8]) {
    let Some((file, above)) = split(bytes) else { return };
    let is_env = |line: &&&str| line.starts_with("CLAW_GATEWAY__");
    let pairs = above.iter().filter(is_env).filter_map(|line| line.split_once('='));
    let sources = Sources {
        env: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        set: above.iter().filter(|line| !is_env(line)).map(|line| (*line).to_owned()).collect(),
        ..Sources::default()
    };
    match sources.load_over(file) {
        Ok(config) => {
            let written = toml::to_string(&config).expect("settings can be written");
            let read = Sources::default().load_over(&written).expect("what was written is read");
            assert_eq!(read, config);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// As [`gateway_config`], for a node.
pub(crate) fn node_config(bytes: &[u8]) {
    let Some((file, above)) = split(bytes) else { return };
    let pairs = above.iter().filter_map(|line| line.split_once('='));
    let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    match NodeConfig::from_toml(file, environment) {
        Ok(config) => {
            let written = config.to_toml().expect("settings can be written");
            let read = NodeConfig::from_toml(&written, []).expect("what was written is read");
            assert_eq!(read, config);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(config) = NodeConfig::from_settings(above) {
        assert_eq!(NodeConfig::from_toml(&config.to_toml().expect("it can be written"), []).ok(), Some(config));
    }
}
