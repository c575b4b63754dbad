//! What a CDI specification on this host says about a device: the device nodes
//! that a container gets with it.
//!
//! Specifications are YAML as tools write it or JSON. Only two things are read from
//! them, the device's name and the paths of its device nodes, so lines are enough;
//! what is not understood is not expected, and the engine reads them properly.

use std::fs;
use std::path::PathBuf;

/// Largest specification that is read, bytes.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Device nodes of `kind=name`, by their paths inside; `None` if no
/// specification in `folders` has it.
pub fn device_nodes(folders: &[PathBuf], device: &str) -> Option<Vec<String>> {
    let (kind, name) = device.split_once('=')?;
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().filter_map(Result::ok);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let is_small = fs::metadata(&path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= BYTES_MAX);
        let Some(text) = Some(path).filter(|_| is_small).and_then(|path| fs::read_to_string(path).ok()) else {
            continue;
        };
        if let Some(nodes) = nodes_in(&text, kind, name) {
            return Some(nodes);
        }
    }
    None
}

fn nodes_in(text: &str, kind: &str, name: &str) -> Option<Vec<String>> {
    if text.trim_start().starts_with('{') { nodes_in_json(text, kind, name) } else { nodes_in_yaml(text, kind, name) }
}

fn nodes_in_json(text: &str, kind: &str, name: &str) -> Option<Vec<String>> {
    let spec: serde_json::Value = serde_json::from_str(text).ok()?;
    if spec.get("kind")?.as_str()? != kind {
        return None;
    }
    let device = spec.get("devices")?.as_array()?.iter().find(|device| device["name"] == name)?;
    let nodes = device["containerEdits"]["deviceNodes"].as_array().cloned().unwrap_or_default();
    Some(nodes.iter().filter_map(|node| node["path"].as_str()).map(ToOwned::to_owned).collect())
}

/// `devices:` is a list whose items begin with a dash at one depth; the name may
/// come before or after what it is the name of.
fn nodes_in_yaml(text: &str, kind: &str, name: &str) -> Option<Vec<String>> {
    let value_of = |line: &str, key: &str| -> Option<String> {
        let value = line.trim_start_matches(['-', ' ']).strip_prefix(key)?.strip_prefix(':')?;
        Some(value.trim().trim_matches(['"', '\'']).to_owned())
    };
    text.lines().find_map(|line| value_of(line, "kind").filter(|found| found == kind))?;
    let mut depth = None;
    let mut items: Vec<Vec<&str>> = Vec::new();
    for line in text.lines().skip_while(|line| line.trim_end() != "devices:").skip(1) {
        let indent = line.len() - line.trim_start().len();
        let is_item = line.trim_start().starts_with("- ");
        let items_depth = *depth.get_or_insert(indent);
        if !line.trim().is_empty() && (indent < items_depth || (indent == items_depth && !is_item)) {
            break;
        }
        if indent == items_depth && is_item {
            items.push(Vec::new());
        }
        items.last_mut()?.push(line);
    }
    let named = |item: &&Vec<&str>| {
        let key_indent = depth.unwrap_or(0) + 2;
        let at_top = |line: &&&str| line.len() - line.trim_start_matches(['-', ' ']).len() == key_indent;
        item.iter().filter(at_top).any(|line| value_of(line, "name").as_deref() == Some(name))
    };
    Some(items.iter().find(named)?.iter().flat_map(|line| paths_in(line)).collect())
}

/// Values of the key `path`, but not of `hostPath`; several stand in one line in flow style.
fn paths_in(line: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, _) in line.match_indices("path:") {
        let is_key = line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
        let value = line[at + "path:".len()..].trim_start().trim_start_matches(['"', '\'']);
        let path: String = value.chars().take_while(|c| !c.is_whitespace() && !",}]\"'".contains(*c)).collect();
        if is_key && path.starts_with("/dev/") {
            paths.push(path);
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_as_tools_write_them_are_read() {
        let nvidia = "---\ncdiVersion: 0.5.0\ncontainerEdits:\n  deviceNodes:\n  - path: /dev/nvidiactl\ndevices:\n- containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\n    - path: /dev/dri/card1\n    hooks:\n    - hookName: createContainer\n      path: /usr/bin/nvidia-ctk\n  name: \"0\"\n- containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia1\n  name: \"1\"\nkind: nvidia.com/gpu\n";
        let flow = "cdiVersion: \"0.5.0\"\nkind: vendor.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits:\n    env: [\"A=b\"]\n    deviceNodes: [{path: /dev/vgpu0, hostPath: /dev/null}, {hostPath: /dev/zero, path: \"/dev/vgpu0b\"}]\n";
        let json = r#"{"kind":"amd.com/gpu","devices":[{"name":"all","containerEdits":{"deviceNodes":[{"path":"/dev/kfd"}]}}]}"#;
        let nodes = |text, kind, name| nodes_in(text, kind, name).map(|nodes| nodes.join(" "));
        assert_eq!(nodes(nvidia, "nvidia.com/gpu", "0").as_deref(), Some("/dev/nvidia0 /dev/dri/card1"));
        assert_eq!(nodes(nvidia, "nvidia.com/gpu", "1").as_deref(), Some("/dev/nvidia1"));
        assert_eq!(nodes(nvidia, "nvidia.com/gpu", "2"), None);
        assert_eq!(nodes(nvidia, "vendor.com/gpu", "0"), None);
        assert_eq!(nodes(flow, "vendor.com/gpu", "0").as_deref(), Some("/dev/vgpu0 /dev/vgpu0b"));
        assert_eq!(nodes(json, "amd.com/gpu", "all").as_deref(), Some("/dev/kfd"));
    }
}
