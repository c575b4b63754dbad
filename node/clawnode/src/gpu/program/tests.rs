use std::time::Instant;

use super::*;

const LIMITS: Limits = Limits { deadline_ms: 20_000, bytes_max: 1024 * 1024 };
const SHELL: &str = "/bin/sh";

fn shell(runner: &mut Runner, script: &str, limits: Limits) -> Result<Said, ProgramError> {
    runner.run(Path::new(SHELL), &["-c", script], limits)
}

#[test]
fn a_program_that_ends_is_heard() {
    let mut runner = Runner::default();
    let said = shell(&mut runner, "printf 'a\\377b'; printf 'oh\\n\\tno' >&2; exit 3", LIMITS).unwrap();
    assert_eq!(said, Said { output: "a\u{fffd}b".to_owned(), complaint: "oh no".to_owned(), code: Some(3) });
    let said = shell(&mut runner, "kill -9 $$", LIMITS).unwrap();
    assert_eq!(said, Said::default());
    // A long complaint blocks nothing.
    let said = shell(&mut runner, "yes x | head -c 300000 >&2; echo done", LIMITS).unwrap();
    assert_eq!((said.output.as_str(), said.complaint.chars().count()), ("done\n", COMPLAINT_CHARS_MAX));
    let absent = runner.run(Path::new("/nowhere/amd-smi"), &[], LIMITS);
    assert!(matches!(absent, Err(ProgramError::Start(_))), "{absent:?}");
}

/// Whether a process is there, a zombie included.
fn exists(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

#[test]
fn what_hangs_or_floods_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    let mut runner = Runner::default();
    let hangs = format!("sleep 1000 & echo $$ $! > {}; wait", pids.display());
    let hung = shell(&mut runner, &hangs, Limits { deadline_ms: 300, ..LIMITS });
    assert!(matches!(hung, Err(ProgramError::Hung { deadline_ms: 300 })), "{hung:?}");
    let pids = std::fs::read_to_string(pids).unwrap();
    let mut pids = pids.split_whitespace();
    assert!(!exists(pids.next().unwrap()), "it was reaped");
    // Its child belongs to init, which may take a moment to reap it.
    let child = pids.next().unwrap();
    let began = Instant::now();
    while exists(child) && !std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default().contains(") Z ")
    {
        assert!(began.elapsed() < Duration::from_secs(20), "the child lives");
        std::thread::yield_now();
    }
    let began = Instant::now();
    let flooded = shell(&mut runner, "exec yes", LIMITS);
    assert!(matches!(flooded, Err(ProgramError::TooMuch { .. })), "{flooded:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // Its output is closed and it goes on: that is no end either.
    let silent = shell(&mut runner, "exec >&- 2>&-; sleep 1000", Limits { deadline_ms: 300, ..LIMITS });
    assert!(matches!(silent, Err(ProgramError::Hung { .. })), "{silent:?}");
    assert_eq!(shell(&mut runner, "echo on", LIMITS).unwrap().output, "on\n");
}

#[test]
fn programs_are_found_by_absolute_path_only() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("amd-smi"), "").unwrap();
    let folders = [Path::new("."), Path::new("/nowhere"), folder.path()];
    assert_eq!(find(folders, "amd-smi"), Some(folder.path().join("amd-smi")));
    assert_eq!(find(folders, "rocm-smi"), None);
}
