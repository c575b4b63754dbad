//! What commands inside workloads wrote, and what stands in their outputs.

use claw_tools::inside::{ExecView, WorkloadCopy};

use super::page::Page;
use super::style::{Style, Tone};
use super::{safe, table};

/// How a command ended, and what it wrote: marked like the lines of logs.
pub(super) fn exec(exec: &ExecView, page: &mut Page, style: Style) {
    page.section(&format!("Command in attempt {} of {}", exec.attempt.0, exec.workload_id));
    let command: Vec<String> = exec.command.iter().map(|word| safe(word)).collect();
    page.line(&format!("  {}", command.join(" ")));
    let end = match (&exec.fault, exec.exit_code) {
        (Some(fault), _) => style.toned(Tone::Bad, &format!("{}: {}", fault.code, safe(&fault.message))),
        (None, Some(0)) => style.toned(Tone::Good, "exit code 0"),
        (None, Some(code)) => style.toned(Tone::Bad, &format!("exit code {code}")),
        (None, None) if exec.timed_out => style.toned(Tone::Bad, "killed for its time"),
        (None, None) if exec.ended => "ended".to_owned(),
        (None, None) => style.dim("has not ended"),
    };
    page.line(&format!("  {end}"));
    let streams = [(&exec.stdout, " ".to_owned()), (&exec.stderr, style.toned(Tone::Bad, "!"))];
    for (text, mark) in streams {
        for line in text.iter().flat_map(|text| text.lines()) {
            page.line(&format!("{mark} {}", safe(line)));
        }
    }
    if exec.truncated {
        page.line(&style.dim("(it wrote more than is shown)"));
    }
}

/// Declared outputs, a folder, or a piece of a file.
pub(super) fn copy(copy: &WorkloadCopy, style: Style) -> String {
    let mut page = Page::new(style);
    for declared in &copy.declared {
        page.line(&safe(declared));
    }
    if let Some(entries) = &copy.entries {
        let row = |name: String, bytes: u64, is_folder: bool| {
            if is_folder { vec![format!("{name}/"), String::new()] } else { vec![name, bytes.to_string()] }
        };
        let rows = entries.iter().map(|e| row(safe(&e.name), e.bytes, e.is_folder)).collect();
        page.block(&table::grid(&["name", "bytes"], rows, style), 0);
    }
    for line in copy.text.iter().flat_map(|text| text.lines()) {
        page.line(&safe(line));
    }
    if let Some(text) = &copy.base64 {
        page.line(text);
    }
    let mut rest = Vec::new();
    if let (Some(offset), Some(total)) = (copy.offset, copy.total_bytes) {
        rest.push(format!("{} of {total} bytes from {offset}", copy.n_bytes.unwrap_or(0)));
    }
    rest.extend(copy.next_offset.map(|next| format!("more: --offset {next}, or all of it: --to FILE")));
    rest.extend(copy.sha256.as_ref().map(|digest| format!("SHA-256 {}", safe(digest))));
    if copy.truncated && copy.entries.is_some() {
        rest.push("there are more entries".to_owned());
    }
    rest.extend(copy.note.as_deref().map(safe));
    if copy.simulated {
        rest.push("simulated".to_owned());
    }
    if !rest.is_empty() {
        page.line(&style.dim(&rest.join(" · ")));
    }
    page.finish()
}
