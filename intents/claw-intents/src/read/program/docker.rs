//! A `docker run` command line as fields of a workload.

use std::ops::Range;

use serde_json::json;

use crate::answer::RefusalCode;
use crate::draft::Draft;
use crate::items::Kind;
use crate::shell;

/// Options without a value.
const SWITCHES: &[&str] =
    &["-d", "--detach", "--rm", "-i", "-t", "-it", "-ti", "--init", "--interactive", "--tty", "-dit", "-itd", "-P"];

pub(super) fn read(draft: &mut Draft<'_, '_, '_>, line: &str, items: Range<usize>) {
    let joined = line.replace("\\\n", " ");
    let first = joined.lines().find(|l| l.contains(" run ")).unwrap_or(&joined);
    let Ok(argv) = shell::split(first) else {
        let path = draft.path("command");
        draft.ask(&path, "The command line needs a shell; which program and arguments are meant?", Vec::new());
        draft.mark(&items);
        return;
    };
    let mut args = argv.into_iter().skip(2).peekable();
    while let Some(arg) = args.next() {
        if !arg.starts_with('-') {
            draft.set("image", arg, items.clone());
            let command: Vec<String> = args.collect();
            if !command.is_empty() {
                draft.set("command", json!(command), items.clone());
            }
            break;
        }
        if SWITCHES.contains(&arg.as_str()) {
            continue;
        }
        let (flag, value) = match arg.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), value.to_owned()),
            None => (arg.clone(), args.next_if(|next| arg != "--privileged" && !next.is_empty()).unwrap_or_default()),
        };
        option(draft, &flag, &value, &items);
    }
    draft.mark(&items);
}

fn option(draft: &mut Draft<'_, '_, '_>, flag: &str, value: &str, at: &Range<usize>) {
    let at = at.clone();
    match flag {
        "--gpus" => gpus(draft, value, at),
        "-e" | "--env" => {
            if let Some((key, value)) = value.split_once('=') {
                draft.entry("env", key, value, at);
            }
        }
        "-p" | "--publish" | "--expose" => {
            let port = value.rsplit(':').next().and_then(|p| p.split('/').next()).and_then(|p| p.parse::<u16>().ok());
            if let Some(port) = port {
                draft.add("ports", json!(port), at);
            }
        }
        "-v" | "--volume" => {
            if let Some(volume) = super::mapping(value) {
                draft.add("volumes", volume, at);
            }
        }
        "--name" => draft.set("name", value, at),
        "--shm-size" => size(draft, "shm_gib", value, at),
        "-m" | "--memory" => size(draft, "memory_gib", value, at),
        "--cpus" => {
            if let Ok(cores) = value.parse::<f64>() {
                draft.set("cpu_cores", json!(cores), at);
            }
        }
        "-w" | "--workdir" => draft.set("working_dir", value, at),
        "-u" | "--user" => draft.set("user", value, at),
        "--restart" => restart(draft, value, at),
        "--privileged" | "--pid" | "--ipc" | "--cap-add" | "--security-opt" | "--device"
            if flag != "--ipc" && flag != "--device" =>
        {
            draft.refuse(RefusalCode::Unsafe, format!("{flag} asks to get round the isolation of containers"));
        }
        _ => {}
    }
}

fn gpus(draft: &mut Draft<'_, '_, '_>, value: &str, at: Range<usize>) {
    let count = value.trim_matches('"').trim_start_matches("count=");
    if let Some(devices) = count.strip_prefix("device=") {
        let n = devices.split(',').count();
        draft.set("gpu.count", json!(n), at);
    } else if let Ok(n) = count.parse::<u32>() {
        draft.set("gpu.count", json!(n), at);
    } else if count == "all" {
        // "all" of which node is not said.
        let said = draft.items.list.iter().any(|item| matches!(item.kind, Kind::Gpu { .. }));
        if !said {
            let path = draft.path("gpu.count");
            draft.ask(&path, "How many GPUs does \"all\" mean here?", Vec::new());
        }
    }
}

/// `16g`, `512m`.
fn size(draft: &mut Draft<'_, '_, '_>, field: &str, value: &str, at: Range<usize>) {
    let digits = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let Ok(amount) = value[..digits].parse::<f64>() else {
        return;
    };
    let gib = match value[digits..].to_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "t" => amount * 1024.0,
        "g" => amount,
        "m" => amount / 1024.0,
        "k" => amount / 1024.0 / 1024.0,
        _ => amount / 1024.0 / 1024.0 / 1024.0,
    };
    draft.set(field, json!(gib), at);
}

fn restart(draft: &mut Draft<'_, '_, '_>, value: &str, at: Range<usize>) {
    let (policy, most) = value.split_once(':').unwrap_or((value, ""));
    let policy = match policy {
        "no" => "never",
        "on-failure" => "on_failure",
        "always" | "unless-stopped" => "always",
        _ => return,
    };
    draft.set("restart", policy, at.clone());
    if let Ok(most) = most.parse::<u32>() {
        draft.set("max_restarts", json!(most), at);
    }
}
