//! Records as the kernel writes them, in a file and a pipe; garbage and floods.

use std::fs::File;
use std::io::Write as _;

use claw_proto::limits::{KERNEL_LINE_BYTES_MAX, KERNEL_TAIL_LINES_MAX};
use claw_proto::time::Timestamp;
use rustix::fs::{CWD, FileType, Mode};

use super::*;

const XID: &str = "NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.";

fn now() -> Now {
    Now { mono_ms: 100_000, wall: Timestamp::from_unix_ms(1_800_000_100_000) }
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_ref()).unwrap();
}

/// Texts and counts (kept, dropped, missed) of everything that is new.
fn told(log: &mut KernelLog) -> (Vec<String>, (u64, u64, u64)) {
    let mut texts = Vec::new();
    let mut counts = (0, 0, 0);
    loop {
        log.poll(now());
        let Some(told) = log.news() else { return (texts, counts) };
        assert!(told.lines.len() <= KERNEL_LINES_AT_A_TIME && told.boot_id == "boot");
        texts.extend(told.lines.into_iter().map(|line| line.text));
        counts = (told.n_kept, told.n_dropped, told.n_missed);
    }
}

#[test]
fn records_are_read_as_the_kernel_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kmsg");
    write(&path, "6,10,1000000,-;usb 1-1: new high-speed USB device number 2\n SUBSYSTEM=usb\n DEVICE=+usb:1-1\n");
    write(&path, format!("4,11,60000000,-,caller=T1;{XID}\n"));
    // Somebody in user space says the same.
    write(&path, format!("12,12,60000001,-;{XID}\n"));
    let mut log = KernelLog::new(&path, "boot".into());
    log.poll(now());
    let first = log.news().unwrap();
    let at = Timestamp::from_unix_ms(1_800_000_060_000);
    assert_eq!(first.lines, [KernelLine { sequence: 11, at, priority: 4, text: XID.into() }]);
    assert_eq!((first.n_kept, first.n_dropped, first.n_missed), (1, 0, 0));
    assert_eq!(log.news(), None, "each line goes once");
    // Half a record waits for its rest; numbers 13 to 19 were overwritten.
    write(&path, "4,20,61000000,-;nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 120");
    log.poll(now());
    assert_eq!(log.news(), None);
    write(&path, "28, Non-fatal, Link 35\n");
    let (texts, counts) = told(&mut log);
    assert_eq!(texts, ["nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 35"]);
    assert_eq!(counts, (2, 0, 7));
    log.reconnected();
    assert_eq!(told(&mut log).0.len(), 2, "a new connection gets all that is held");
}

#[test]
fn a_pipe_does_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kmsg");
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut log = KernelLog::new(&path, "boot".into());
    log.poll(now());
    assert_eq!((log.news(), log.finding()), (None, None), "nobody writes yet");
    let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
    log.poll(now());
    writer.write_all(format!("4,1,60000000,-;{XID}\n").as_bytes()).unwrap();
    assert_eq!(told(&mut log).0, [XID]);
    drop(writer);
    log.poll(now());
    let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
    writer.write_all(format!("4,2,60000000,-;{XID}\n").as_bytes()).unwrap();
    assert_eq!(told(&mut log).0, [XID]);
}

#[test]
fn a_log_that_cannot_be_read_is_a_finding_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kmsg");
    let mut log = KernelLog::new(&path, "boot".into());
    log.poll(now());
    let finding = log.finding().unwrap();
    assert_eq!((finding.code, finding.subject), (FindingCode::KernelLogUnreadable, path.display().to_string()));
    assert!(finding.detail.contains("No such file"), "{}", finding.detail);
    File::create(&path).unwrap();
    log.poll(now());
    assert_eq!(log.finding(), None);
    assert_eq!(log.news(), None, "nothing was said");
}

#[test]
fn garbage_is_passed_over_and_floods_push_out_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kmsg");
    write(
        &path,
        [&[0xff, 0, b';', b'\n'][..], b"nvidia;\n,,,;NVRM: Xid\n4,1,2;NVRM: Xid\n", b"NVRM: Xid\n\n"].concat(),
    );
    // A line without an end.
    write(&path, format!("4,1,2,-;nvidia {}\n", "x".repeat(3 << 20)));
    write(&path, format!("4,2,60000000,-;{XID}\n"));
    let flood = (3..60_003).map(|n| format!("4,{n},70000000,-;amdgpu: page fault {n}\n"));
    write(&path, flood.collect::<Vec<_>>().concat());
    // Numbers that are not new.
    write(&path, format!("4,2,60000000,-;{XID}\n4,7,1,-;{XID}\n"));
    let mut log = KernelLog::new(&path, "boot".into());
    let mut n_polls = 0;
    while log.last_sequence != Some(60_002) {
        log.poll(now());
        n_polls += 1;
        assert!(log.partial.capacity() <= 2 * RECORD_BYTES_MAX && log.tail.len() <= KERNEL_TAIL_LINES_MAX);
    }
    assert!(n_polls >= 60_000 / (RECORDS_PER_POLL_MAX + 400), "one poll does not take all: {n_polls}");
    let (texts, counts) = told(&mut log);
    assert_eq!(texts.len(), KERNEL_TAIL_LINES_MAX);
    assert_eq!(counts, (60_002, 60_002 - KERNEL_TAIL_LINES_MAX as u64, 0));
    assert_eq!((texts[0].len(), texts[1].as_str()), (KERNEL_LINE_BYTES_MAX, XID), "what came before the flood is held");
}

#[test]
fn the_unit_of_the_agent_hides_no_device() {
    let unit = include_str!("../../packaging/clawnode.service");
    // Some say so themselves, some imply a list of devices that closes all others.
    let hiding = ["ProtectKernelLogs=", "PrivateDevices=", "DevicePolicy=", "DeviceAllow=", "ProtectClock="];
    let hides = |line: &&str| hiding.iter().any(|setting| line.starts_with(setting));
    assert_eq!(unit.lines().find(hides), None);
}
