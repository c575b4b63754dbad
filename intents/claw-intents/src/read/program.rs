//! What runs: image, command, environment, ports, volumes, name.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::json;

use crate::draft::Draft;
use crate::items::{Items, Kind};
use crate::shell;
use crate::text::Quote;

use super::refs;

mod docker;
mod env;

pub(crate) fn read(draft: &mut Draft<'_, '_, '_>) {
    read_commands(draft);
    read_own_names(draft);
    read_name(draft);
    read_proposed_name(draft);
    read_noun_name(draft);
    read_images(draft);
    read_env(draft);
    read_ports(draft);
    read_volumes(draft);
}

fn read_commands(draft: &mut Draft<'_, '_, '_>) {
    for i in 0..draft.items.len() {
        if draft.items.list[i].masked || draft.is_used(i) {
            continue;
        }
        let items = draft.items;
        match &items.list[i].kind {
            Kind::Quote(Quote::Code) => {
                let text = items.list[i].text.clone();
                read_code(draft, i, &text);
            }
            Kind::Quote(Quote::Marks) if behind_command_word(items, i) => {
                let text = items.list[i].text.clone();
                set_command(draft, &text, i, i + 1);
            }
            Kind::Word if items.is(i, "noun.command") && !items.is(i, "act.run") || items.list[i].text == "cmd" => {
                read_plain(draft, i);
            }
            Kind::Word
                if (items.list[i].text == "docker" || items.list[i].text == "podman")
                    && items.raw(i + 1).eq_ignore_ascii_case("run") =>
            {
                let from = items.list[i].span.start;
                let line = items.source[from..].split('\n').next().unwrap_or_default();
                // "docker run … go <- make that a batch job": what a person says of the line.
                let said = [" <- ", " <-- ", " ← ", " — ", " – "].iter().filter_map(|sign| line.find(sign)).min();
                let line = &line[..said.unwrap_or(line.len())];
                let end =
                    (i..items.len()).find(|k| items.list[*k].span.start >= from + line.len()).unwrap_or(items.len());
                docker::read(draft, line, i..end);
            }
            _ => {}
        }
    }
}

fn behind_command_word(items: &Items<'_, '_>, i: usize) -> bool {
    (i.saturating_sub(2)..i).any(|k| items.is(k, "noun.command"))
        || i > 0 && (items.any(i - 1, &["act.run"]) || items.punct(i - 1, ':') && i > 1 && items.is(i - 2, "act.run"))
}

/// Code in a fence or backquotes: a docker command line, a command, a name, or an image.
fn read_code(draft: &mut Draft<'_, '_, '_>, i: usize, text: &str) {
    let items = draft.items;
    let text = text.trim().trim_start_matches("$ ");
    if text.starts_with("docker run ") || text.starts_with("podman run ") {
        docker::read(draft, text, i..i + 1);
        return;
    }
    if i > 0 && items.any(i - 1, &["noun.image"]) {
        draft.set("image", text, i..i + 1);
        return;
    }
    // `train-42` in backquotes is a name where a name is expected.
    let names = i > 0
        && items.any(i - 1, &["noun.node", "noun.workload", "noun.deployment", "as", "on"])
        && !items.is(i - 1, "act.run")
        && !text.contains(' ');
    if names || text.is_empty() {
        return;
    }
    if let Some((key, value)) = text.split_once('=').filter(|(key, _)| {
        !key.contains(' ') && key.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
    }) {
        draft.entry("env", key, value, i..i + 1);
        return;
    }
    set_command(draft, text, i, i + 1);
}

fn set_command(draft: &mut Draft<'_, '_, '_>, text: &str, from: usize, to: usize) {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let argv = match lines.as_slice() {
        [line] => shell::split(line).ok(),
        _ => None,
    };
    // What only a shell can do is given to one.
    let argv = argv.unwrap_or_else(|| vec!["sh".into(), "-c".into(), text.trim().to_owned()]);
    draft.set("command", json!(argv), from..to);
}

/// "cmd: ./embed --in s3://corpus, 2 cores": up to the end of the clause.
fn read_plain(draft: &mut Draft<'_, '_, '_>, i: usize) {
    let items = draft.items;
    let mut k = i + 1;
    while items.punct(k, ':')
        || items.any(k, &["to", "x", "noun.command"]) && !matches!(items.at(k).map(|n| &n.kind), Some(Kind::Path))
    {
        k += 1;
    }
    if items.punct(k, '[') {
        read_json(draft, i, k);
        return;
    }
    if k >= items.len() || items.ends_clause(k) || matches!(items.list[k].kind, Kind::Quote(_)) {
        return;
    }
    let mut end = k + 1;
    while end < items.len() {
        let stops = items.punct(end, '\n')
            || items.punct(end, ';')
            || items.punct(end, '(')
            || items.punct(end, ')')
            || (items.punct(end, ',') || items.punct(end, '.')) && !items.list.get(end + 1).is_some_and(|n| n.glued)
            || items.any(end, &["on", "with", "and", "gpu.none", "no", "for", "as"])
                && !quoted_flag(items, end)
                && ends_command(items, end + 1, end);
        if stops {
            break;
        }
        end += 1;
    }
    let text = items.span(&(k..end)).text;
    set_command(draft, &text, i, end);
}

/// `["dock", "--all"]`: a list of arguments as JSON.
fn read_json(draft: &mut Draft<'_, '_, '_>, from: usize, k: usize) {
    if let Some((argv, end)) = json_at::<Vec<String>>(draft.items, k) {
        draft.set("command", json!(argv), from..end);
    }
}

/// The JSON value that begins at an item, and the item behind it.
pub(super) fn json_at<T: DeserializeOwned>(items: &Items<'_, '_>, k: usize) -> Option<(T, usize)> {
    let start = items.at(k)?.span.start;
    let mut parsed = serde_json::Deserializer::from_str(&items.source[start..]).into_iter::<T>();
    let value = parsed.next()?.ok()?;
    let end_byte = start + parsed.byte_offset();
    let end = (k..items.len()).find(|m| items.list[*m].span.start >= end_byte).unwrap_or(items.len());
    Some((value, end))
}

fn quoted_flag(items: &Items<'_, '_>, k: usize) -> bool {
    k > 0 && matches!(items.list[k - 1].kind, Kind::Path) && items.raw(k - 1).starts_with("--")
}

/// Whether words behind "on", "with", "and" speak of resources and no longer of the command.
fn ends_command(items: &Items<'_, '_>, k: usize, at: usize) -> bool {
    items.is(at, "gpu.none")
        || items.num(k).is_some()
        || items.gib(k).is_some()
        || items.seconds(k).is_some()
        || matches!(items.at(k).map(|n| &n.kind), Some(Kind::Gpu { .. } | Kind::Pair(..) | Kind::Share(_)))
        || items.any(
            k,
            &[
                "det.a",
                "det.the",
                "noun.node",
                "noun.gpu",
                "noun.image",
                "noun.env",
                "noun.port",
                "gpu.none",
                "no",
                "prio.high",
                "prio.low",
                "restart.never",
            ],
        )
}

/// `workload name "bob"`: the workload's own, beside a deployment's; `working directory "/src"`.
fn read_own_names(draft: &mut Draft<'_, '_, '_>) {
    const QUOTED: &[(&str, &str)] = &[("noun.workdir", "working_dir"), ("noun.user", "user")];
    for i in 0..draft.items.len() {
        let quote = draft.items.at(i + 1).filter(|n| n.kind == Kind::Quote(Quote::Marks)).map(|n| n.text.clone());
        if let Some((_, field)) = QUOTED.iter().find(|(sense, _)| draft.items.is(i, sense))
            && let Some(text) = quote
        {
            draft.set(field, text, i..i + 2);
            continue;
        }
        let named = draft.items.is(i, "noun.name") && !draft.is_used(i);
        if named && refs::can_name(draft.items, i + 1) {
            draft.set("name", refs::name_of(draft.items, i + 1), i..i + 2);
        }
    }
}

/// "call it bob", "named bob", "as bob".
fn read_name(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        // "call the workload bob"
        let naming = items.is(i, "naming")
            && items.any(i + 1, &["det.the", "det.that"])
            && (items.any(i + 2, &["noun.workload", "noun.deployment"])
                || items.at(i + 2).is_some_and(|n| n.text == "thing"))
            && refs::can_name(items, i + 3);
        if naming && !draft.is_used(i) && !draft.has("name") {
            let name = refs::name_of(items, i + 3);
            if is_deploy(draft) {
                draft.set_at("deployment", json!(name), i..i + 4);
            } else if draft.root == "workload" {
                draft.set("name", name, i..i + 4);
            }
            continue;
        }
        if !items.is(i, "as") || draft.is_used(i) {
            continue;
        }
        let plain_as = matches!(items.list[i].text.as_str(), "as" | "als" | "como" | "comme" | "under");
        if plain_as && draft.root == "workload" && !is_deploy(draft) {
            // "as a batch job" names nothing; "run X as Y" names only where Y looks like a name.
            if !items
                .at(i + 1)
                .is_some_and(|n| n.kind == Kind::Word && n.senses.is_empty() && refs::is_name_like(&n.text))
            {
                continue;
            }
        }
        let mut k = i + 1;
        while items.punct(k, ':')
            || items.at(k).is_some_and(|n| n.text == "=")
            || items.any(k, &["noun.deployment", "as", "det.the", "det.that", "pron.one"])
                && items.at(k + 1).is_some()
                && !items.ends_clause(k + 1)
                && k < i + 4
        {
            k += 1;
        }
        // "named playground": whatever the word means elsewhere.
        let word = items.at(k).is_some_and(|n| n.kind == Kind::Word && n.text.chars().all(char::is_alphanumeric));
        let naming = ["name", "named", "called", "call it"].iter().any(|w| items.list[i].text.contains(w));
        if !(names_after_as(items, k) || naming && word && (items.ends_clause(k + 1) || items.punct(k + 1, ')'))) {
            continue;
        }
        let name = refs::name_of(items, k);
        if is_deploy(draft) {
            draft.set_at("deployment", json!(name), i..k + 1);
        } else if draft.root == "workload" {
            draft.set("name", name, i..k + 1);
        }
    }
}

/// "demo-tiny would be a good name": what a clause of its own says to be one.
fn read_proposed_name(draft: &mut Draft<'_, '_, '_>) {
    const WOULD: &[&str] = &["would", "could", "might", "is", "sounds", "seems", "will", "shall", "should"];
    let items = draft.items;
    if draft.root != "workload" || draft.has("name") || is_deploy(draft) {
        return;
    }
    for i in 2..items.len() {
        let Some(start) = (0..i).rev().find(|k| *k == 0 || items.ends_clause(k - 1)) else { continue };
        let plain = items
            .at(start)
            .is_some_and(|n| n.kind == Kind::Word && n.senses.is_empty() && !n.known && refs::is_name_like(&n.text));
        let would = items.at(start + 1).is_some_and(|n| WOULD.contains(&n.text.split(' ').next().unwrap_or_default()));
        let name = items.list[i].text.rsplit(' ').next() == Some("name") && items.ends_clause(i + 1) && start + 1 < i;
        if plain && would && name && !draft.is_used(start) {
            draft.set("name", refs::name_of(items, start), start..i + 1);
            return;
        }
    }
}

/// Whether the item behind "as" is a name: words of the language too, if they are no setting.
fn names_after_as(items: &Items<'_, '_>, k: usize) -> bool {
    if refs::can_name(items, k) {
        return !items.list[k]
            .senses
            .iter()
            .any(|s| s.starts_with("kind.") || s.starts_with("strategy.") || s.starts_with("prio."));
    }
    false
}

/// "batch job 'nightly-eval'", "workload bench (…)": a name right behind the noun.
fn read_noun_name(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    if draft.root != "workload" || is_deploy(draft) || draft.has("name") {
        return;
    }
    for i in 0..items.len() {
        let noun = items.is(i, "noun.workload") || items.at(i).is_some_and(|n| n.senses.after("kind.").is_some());
        if !noun || draft.is_used(i + 1) {
            continue;
        }
        let Some(next) = items.at(i + 1) else {
            continue;
        };
        let quoted = matches!(next.kind, Kind::Quote(Quote::Marks)) && !next.text.trim().contains(char::is_whitespace);
        let ends = items.ends_clause(i + 2)
            || items.punct(i + 2, '(')
            || items.any(i + 2, &["with", "on", "noun.image", "of"]);
        let plain = next.kind == Kind::Word
            && (refs::is_name_like(&next.text) || next.senses.is_empty())
            && !next.corrected
            && ends
            && !next.text.contains('.');
        let before_article = i > 0 && items.any(i - 1, &["det.the"]);
        if quoted || plain && !before_article {
            draft.set("name", refs::name_of(items, i + 1), i + 1..i + 2);
            return;
        }
    }
}

fn is_deploy(draft: &Draft<'_, '_, '_>) -> bool {
    draft.get("action").and_then(serde_json::Value::as_str) == Some("deploy")
}

fn read_images(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        let Some(item) = items.at(i) else {
            continue;
        };
        if draft.is_used(i) {
            continue;
        }
        if item.kind == Kind::Image {
            draft.set("image", items.raw(i), i..i + 1);
        } else if items.is(i, "noun.image") && item.text != "container" {
            let mut k = i + 1;
            while items.punct(k, ':')
                || items.punct(k, '=')
                || items.any(k, &["to", "x", "of", "on", "noun.deployment", "as"])
                || items.at(k).is_some_and(|n| n.known)
            {
                k += 1;
            }
            let Some(next) = items.at(k).filter(|_| !draft.is_used(k)) else {
                continue;
            };
            match &next.kind {
                Kind::Quote(_) => draft.set("image", next.text.trim(), i..k + 1),
                Kind::Image => draft.set("image", items.raw(k), i..k + 1),
                Kind::Word if next.senses.is_empty() && k <= i + 2 => draft.set("image", items.raw(k), i..k + 1),
                _ => {}
            }
        }
    }
}

fn read_env(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        if let Some(Kind::Pair(key, value)) = items.at(i).map(|item| item.kind.clone()) {
            let label = behind_label(items, i);
            if !draft.is_used(i) && !label {
                let mut value = value;
                let mut end = i + 1;
                if value.is_empty()
                    && let Some(next) = items.at(i + 1).filter(|n| matches!(n.kind, Kind::Quote(_)) && n.glued)
                {
                    value = next.text.clone();
                    end += 1;
                }
                draft.entry("env", &key, &value, i..end);
            }
        } else if items.punct(i + 1, '=')
            && items.at(i).is_some_and(|n| {
                n.kind == Kind::Word
                    && items.raw(i).chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
            })
            && !draft.is_used(i)
            && i + 2 < items.len()
        {
            let quoted = matches!(items.list[i + 2].kind, Kind::Quote(_));
            let value = if quoted { items.list[i + 2].text.clone() } else { items.raw(i + 2).to_owned() };
            draft.entry("env", items.raw(i), &value, i..i + 3);
        } else if draft.root == "changes" && env::is_variable(items, i) && items.is(i + 1, "to") && !draft.is_used(i) {
            // "set LOG_LEVEL to debug for deployment chat"
            let Some(value) = items.at(i + 2).filter(|n| !matches!(n.kind, Kind::Punct(_))) else {
                continue;
            };
            let quoted = matches!(value.kind, Kind::Quote(_));
            let value = if quoted { value.text.clone() } else { items.raw(i + 2).to_owned() };
            draft.entry("env", items.raw(i), &value, i..i + 3);
        } else if items.is(i, "noun.env") && items.punct(i + 1, '{') {
            let Some((map, end)) = json_at::<BTreeMap<String, String>>(items, i + 1) else {
                continue;
            };
            for (key, value) in map {
                draft.entry("env", &key, &value, i..end);
            }
        } else if items.is(i, "noun.env") {
            env::read_worded(draft, i);
        }
    }
}

fn behind_label(items: &Items<'_, '_>, i: usize) -> bool {
    let mut k = i;
    while k > 0 {
        k -= 1;
        if items.is(k, "noun.label") {
            return true;
        }
        if !(matches!(items.list[k].kind, Kind::Pair(..))
            || items.any(k, &["and", "with"])
            || items.punct(k, ',')
            || items.punct(k, ':'))
        {
            break;
        }
    }
    let key = items.raw(i).split('=').next().unwrap_or_default();
    let lower = key.chars().all(|c| !c.is_uppercase());
    // "rack=r12": where it is to run, by the name of the key.
    place_key(items, i, key)
        || lower
            && i > 0
            && (items.is(i - 1, "noun.node")
                || i > 1 && items.is(i - 2, "noun.node") && items.any(i - 1, &["with", "on"]))
}

/// Keys of labels that say where a node stands, in a request that speaks of no variables.
pub(crate) fn place_key(items: &Items<'_, '_>, i: usize, key: &str) -> bool {
    const PLACES: &[&str] =
        &["rack", "row", "room", "pool", "datacenter", "dc", "building", "hall", "cage", "pod", "rail", "nodepool"];
    PLACES.contains(&key) && !(0..i).any(|k| items.is(k, "noun.env"))
}

fn read_ports(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        if !items.is(i, "noun.port") {
            continue;
        }
        let mut k = i + 1;
        let mut first = true;
        while k < items.len() {
            if let Some(port) =
                items.num(k).and_then(crate::items::whole).filter(|p| (1..=65_535).contains(p) && !draft.is_used(k))
            {
                // "port 8080 and 2 GPUs": the second number counts something.
                let worded = !items.list[k].text.starts_with(|c: char| c.is_ascii_digit());
                if worded
                    || (!first || port < 20)
                        && (items.any(k + 1, &["noun.gpu", "noun.replica", "noun.core", "times", "noun.node"])
                            || matches!(items.at(k + 1).map(|n| &n.kind), Some(Kind::Gpu { .. })))
                {
                    break;
                }
                draft.add("ports", json!(port), k..k + 1);
                first = false;
            } else if let Some(ports) = several(items.raw(k)) {
                for port in ports {
                    draft.add("ports", json!(port), k..k + 1);
                }
                first = false;
            } else if !(items.any(k, &["and", "to", "noun.port"])
                || items.punct(k, ',')
                || items.punct(k, ':')
                || items.punct(k, '=')
                || items.punct(k, '+')
                || items.at(k).is_some_and(|n| matches!(n.text.as_str(), "+" | "&"))
                || items.punct(k, '/'))
            {
                break;
            }
            k += 1;
        }
    }
}

/// "80,443" written as one.
fn several(raw: &str) -> Option<Vec<u16>> {
    raw.contains([',', '/'])
        .then(|| raw.split([',', '/']).map(|p| p.parse().ok()).collect::<Option<Vec<u16>>>())
        .flatten()
}

/// "mount datasets at /data read-only", `corpus:/data:ro`.
fn read_volumes(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        let raw = items.raw(i);
        let bare = items.at(i).is_some_and(|n| !matches!(n.kind, Kind::Quote(_)));
        if bare && raw.contains(":/") && !raw.contains("://") && !draft.is_used(i) {
            if let Some(volume) = mapping(raw) {
                draft.add("volumes", volume, i..i + 1);
            }
            continue;
        }
        let quoted_path = items.at(i).is_some_and(|n| n.kind == Kind::Quote(Quote::Marks) && n.text.starts_with('/'));
        let path = quoted_path || items.at(i).is_some_and(|n| n.kind == Kind::Path && raw.starts_with('/'));
        if !path || draft.is_used(i) || i == 0 || mounted_elsewhere(items, i) {
            continue;
        }
        let placed = items.any(i - 1, &["on", "to", "as", "maps"]) && items.list[i - 1].text != "from"
            || !quoted_path && items.is(i - 1, "noun.volume")
            || items.punct(i - 1, '→');
        let raw = if quoted_path { items.list[i].text.as_str() } else { raw };
        let about =
            (i.saturating_sub(8)..(i + 4).min(items.len())).any(|k| items.any(k, &["noun.volume", "ro", "maps"]));
        if !placed || !about {
            continue;
        }
        let Some(source) = (i.saturating_sub(7)..i - 1).rev().find(|k| is_source(items, *k) && !draft.is_used(*k))
        else {
            continue;
        };
        let read_only = (source..(i + 5).min(items.len()))
            .take_while(|k| *k <= i || !items.ends_sentence(*k))
            .any(|k| items.is(k, "ro"));
        let quoted = matches!(items.list[source].kind, Kind::Quote(_));
        let name = if quoted { items.list[source].text.clone() } else { items.raw(source).to_owned() };
        draft.add("volumes", json!({ "source": name, "target": raw, "read_only": read_only }), source..i + 1);
    }
}

/// "data at /mnt/scans mounted to /scans": a path that is mounted to the next one is where it comes from.
fn mounted_elsewhere(items: &Items<'_, '_>, i: usize) -> bool {
    let next =
        (i + 1..i + 5).find(|k| items.at(*k).is_some_and(|n| n.kind == Kind::Path) && items.raw(*k).starts_with('/'));
    next.is_some_and(|k| {
        items.any(k - 1, &["on", "to", "as", "maps"])
            && (i + 1..k).all(|m| items.any(m, &["on", "to", "as", "noun.volume", "ro", "x", "maps"]))
    })
}

fn is_source(items: &Items<'_, '_>, k: usize) -> bool {
    items.at(k).is_some_and(|n| match n.kind {
        Kind::Path | Kind::Quote(Quote::Marks | Quote::Code) => true,
        Kind::Word if n.senses.has("ro") || n.senses.has("rw") => false,
        Kind::Word => {
            n.known
                || n.senses.is_empty()
                // "volume flights": a word that a dictionary has is a name there.
                || k > 0 && items.is(k - 1, "noun.volume") && n.senses.iter().all(|s| s == "n")
                || refs::is_name_like(&n.text)
                || matches!(
                    n.text.as_str(),
                    "data"
                        | "dataset"
                        | "datasets"
                        | "ckpts"
                        | "ckpt"
                        | "checkpoints"
                        | "logs"
                        | "cache"
                        | "output"
                        | "outputs"
                        | "models"
                        | "weights"
                        | "code"
                        | "results"
                        | "scratch"
                        | "files"
                )
        }
        _ => false,
    })
}

fn mapping(raw: &str) -> Option<serde_json::Value> {
    let (source, rest) = raw.split_once(":/")?;
    let (target, mode) = rest.split_once(':').unwrap_or((rest, ""));
    (!source.is_empty()).then(
        || json!({ "source": source, "target": format!("/{target}"), "read_only": mode.split(',').any(|m| m == "ro") }),
    )
}
