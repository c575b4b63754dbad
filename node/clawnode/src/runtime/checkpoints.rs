//! How a program and its node talk of checkpoints: two small files in a folder of the attempt.
//!
//! | variable | what it names |
//! |---|---|
//! | `CLAW_CHECKPOINT_FILE` | the file that the program replaces after each checkpoint; its first line is what it calls it, and a second line `took_s=12.5` says how long it was written |
//! | `CLAW_CHECKPOINT_NOTICE` | the file that appears when one is wanted now; it holds the seconds that are left |
//! | `CLAW_CHECKPOINT_LAST` | what the program called the last one, in an earlier attempt |
//!
//! Files, for every program can look at a file: a signal that it does not know would end it.
//! The folder is the program's, so whatever stands there is not trusted: nothing is followed
//! out of it, nothing but a small regular file is read, and nothing is overwritten. Work that
//! is neither preemptible nor says how often it writes a checkpoint has no such folder.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bollard::models::{Mount, MountType};
use claw_proto::limits::CHECKPOINT_LABEL_CHARS_MAX;
use claw_proto::message::{CheckpointWritten, DesiredWorkload};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::files::create_folder;

/// Where a container sees the folder.
const CONTAINER_TARGET: &str = "/run/claw/checkpoint";
/// The program's file.
const WRITTEN: &str = "written";
/// The node's file.
const NOTICE: &str = "notice";
/// Before the seconds that a checkpoint was written, in a line of their own.
const TOOK: &str = "took_s=";
/// So much of the program's file is read, bytes.
const READ_BYTES_MAX: u64 = 4 * 1024;

/// The program may have something to say of checkpoints.
pub(crate) fn speaks(workload: &DesiredWorkload) -> bool {
    workload.spec.preemptible == Some(true) || workload.spec.checkpoint_interval_s.is_some()
}

/// Makes the folder. A container's user is not known on this side: whoever it is may write.
pub(crate) fn make(folder: &Path, anybody: bool) -> io::Result<()> {
    create_folder(folder, 0o700)?;
    if anybody {
        std::fs::set_permissions(folder, Permissions::from_mode(0o1777))?;
    }
    Ok(())
}

/// What the program is told, where it sees the folder at this path.
pub(crate) fn environment(workload: &DesiredWorkload, folder: &str) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([
        ("CLAW_CHECKPOINT_FILE".to_owned(), format!("{folder}/{WRITTEN}")),
        ("CLAW_CHECKPOINT_NOTICE".to_owned(), format!("{folder}/{NOTICE}")),
    ]);
    env.extend(workload.checkpoint_last.clone().map(|label| ("CLAW_CHECKPOINT_LAST".to_owned(), label)));
    env
}

/// What a container is told, and the folder in it.
pub(crate) fn for_container(workload: &DesiredWorkload, folder: &Path) -> (BTreeMap<String, String>, Mount) {
    let mount = Mount {
        typ: Some(MountType::BIND),
        source: Some(folder.to_string_lossy().into_owned()),
        target: Some(CONTAINER_TARGET.to_owned()),
        read_only: Some(false),
        ..Mount::default()
    };
    (environment(workload, CONTAINER_TARGET), mount)
}

/// What a program wrote, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) written: CheckpointWritten,
    pub(crate) at: SystemTime,
}

fn open_folder(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, folder, flags, Mode::empty())?)
}

/// A regular file of the folder; whatever else has its name is none.
fn open_file(folder: &OwnedFd, name: &str) -> io::Result<Option<(File, SystemTime)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ACCESS) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let known = file.metadata()?;
    Ok(if known.is_file() { Some((file, known.modified()?)) } else { None })
}

/// What a line says of how long a checkpoint was written, milliseconds; nothing if that is no time.
fn took_ms(line: &str) -> Option<u32> {
    let took_s: f64 = line.trim().strip_prefix(TOOK)?.trim().parse().ok()?;
    let took_ms = Duration::try_from_secs_f64(took_s).ok()?.as_millis();
    Some(u32::try_from(took_ms).unwrap_or(u32::MAX))
}

/// What the program says of its last checkpoint, if it does.
///
/// # Errors
/// What the file system says.
pub(crate) fn read(folder: &Path) -> io::Result<Option<Found>> {
    let folder = match open_folder(folder) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some((file, at)) = open_file(&folder, WRITTEN)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().next().unwrap_or_default().trim();
    let label: String = line.chars().filter(|c| !c.is_control()).take(CHECKPOINT_LABEL_CHARS_MAX).collect();
    if label.is_empty() {
        return Ok(None);
    }
    let took_ms = text.lines().skip(1).find_map(took_ms);
    // Both times are of the same file system's clock.
    let answers_notice = open_file(&folder, NOTICE)?.is_some_and(|(_, noticed)| at >= noticed);
    Ok(Some(Found { written: CheckpointWritten { label, answers_notice, took_ms }, at }))
}

/// Asks the program to write one now. Asking again changes nothing.
///
/// # Errors
/// What the file system says.
pub(crate) fn notice(folder: &Path, grace_s: u32) -> io::Result<()> {
    let folder = open_folder(folder)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&folder, NOTICE, flags, Mode::from_raw_mode(0o644)) {
        Ok(file) => File::from(file).write_all(format!("{grace_s}\n").as_bytes()),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn label(folder: &Path) -> Option<String> {
        read(folder).unwrap().map(|found| found.written.label)
    }

    #[test]
    fn the_first_line_is_the_label_and_nothing_else_is_read() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("checkpoint");
        assert_eq!(read(&folder).unwrap(), None, "no folder");
        make(&folder, false).unwrap();
        assert_eq!(read(&folder).unwrap(), None, "no file");
        let check = |bytes: &[u8], expected: Option<&str>| {
            std::fs::write(folder.join(WRITTEN), bytes).unwrap();
            assert_eq!(label(&folder).as_deref(), expected, "{bytes:?}");
        };
        check(b"", None);
        check(b" \t\n more", None);
        check(b"step 1200 /data/1200.pt\nand more\n", Some("step 1200 /data/1200.pt"));
        check(b"a\x1b[31mb\xff", Some("a[31mb\u{fffd}"));
        check(&vec![b'x'; 100_000], Some(&"x".repeat(CHECKPOINT_LABEL_CHARS_MAX)));
    }

    #[test]
    fn a_later_line_says_how_long_it_was_written() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("checkpoint");
        make(&folder, false).unwrap();
        let check = |text: &str, expected: Option<u32>| {
            std::fs::write(folder.join(WRITTEN), text).unwrap();
            let found = read(&folder).unwrap().unwrap().written;
            assert_eq!((found.label.lines().count(), found.took_ms), (1, expected), "{text:?}");
        };
        check("step 1200", None);
        check("step 1200\ntook_s=12.5\n", Some(12_500));
        check("step 1200\r\n and more\r\n took_s= 0 \r\n", Some(0));
        check("took_s=3\n", None);
        for no_time in ["-1", "NaN", "inf", "1e300", "12,5", "", "12 s"] {
            check(&format!("step 1200\ntook_s={no_time}\n"), None);
        }
        check("step 1200\ntook_s=99999999\n", Some(u32::MAX));
    }

    #[test]
    fn nothing_is_followed_out_of_the_folder_and_nothing_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let secret = root.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        let folder = root.path().join("checkpoint");
        make(&folder, true).unwrap();
        symlink(&secret, folder.join(WRITTEN)).unwrap();
        symlink(&secret, folder.join(NOTICE)).unwrap();
        assert_eq!(label(&folder), None);
        notice(&folder, 5).unwrap();
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
        std::fs::remove_file(folder.join(WRITTEN)).unwrap();
        std::fs::create_dir(folder.join(WRITTEN)).unwrap();
        assert_eq!(label(&folder), None, "a folder is no word");
        let elsewhere = root.path().join("elsewhere");
        std::fs::rename(&folder, &elsewhere).unwrap();
        symlink(&elsewhere, &folder).unwrap();
        assert!(read(&folder).is_err() && notice(&folder, 5).is_err(), "the folder itself is not a link");
    }

    #[test]
    fn what_is_written_after_the_notice_answers_it() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("checkpoint");
        make(&folder, false).unwrap();
        let write = |text: &str, at: SystemTime| {
            std::fs::write(folder.join(WRITTEN), text).unwrap();
            File::options().write(true).open(folder.join(WRITTEN)).unwrap().set_modified(at).unwrap();
            read(&folder).unwrap().unwrap().written.answers_notice
        };
        let now = SystemTime::now();
        assert!(!write("1", now));
        notice(&folder, 30).unwrap();
        notice(&folder, 20).unwrap();
        assert_eq!(std::fs::read_to_string(folder.join(NOTICE)).unwrap(), "30\n");
        let noticed = std::fs::metadata(folder.join(NOTICE)).unwrap().modified().unwrap();
        assert!(!write("1", noticed - std::time::Duration::from_millis(1)));
        assert!(write("2", noticed));
    }
}
