//! What the kernel of a node says reaches a diagnosis: a real pipe in place of `/dev/kmsg`, in its form.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use claw_e2e_tests::fleet::{Fleet, H100_NODE};
use claw_e2e_tests::wait::poll_until;
use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Value, json};

use crate::support::{PATIENCE, on_fleet, text};

/// Lines of a flood.
const FLOOD: u64 = 12_000;

/// Writes records as the kernel does; both ends are open, so that nobody waits for the other.
async fn say(path: &Path, records: String) -> Result<()> {
    let path: PathBuf = path.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        let mut pipe = OpenOptions::new().read(true).write(true).open(path)?;
        pipe.write_all(records.as_bytes())
    });
    Ok(written.await??)
}

async fn diagnosed(fleet: &Fleet, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    poll_until("the kernel's words are in the diagnosis", PATIENCE, || async {
        let told = fleet.admin.call("diagnose", json!({ "node": "sim-1" })).await?;
        Ok(wanted(&told["targets"][0]).then(|| told["targets"][0].clone()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_kernel_says_of_a_gpu_is_diagnosed_and_floods_are_bounded() -> Result<()> {
    on_fleet(120, &[], async |fleet| {
        let kmsg = fleet.root().join("kmsg");
        rustix::fs::mknodat(CWD, &kmsg, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        // Somebody holds the pipe open: what is written waits for its reader.
        let _held = OpenOptions::new().read(true).write(true).open(&kmsg)?;
        let setting = format!("kernel_log.path={}", kmsg.display());
        let settings: Vec<&str> = H100_NODE.iter().copied().chain([setting.as_str()]).collect();
        fleet.add_node("sim-1", &settings).await?;
        let mut records = String::from("6,100,1000000,-;usb 1-1: new high-speed USB device number 2\n SUBSYSTEM=usb\n");
        records += "garbage\n;;;\n4,101;NVRM: Xid (PCI:0000:11:00): 79\n";
        records += "12,102,1000000,-;NVRM: Xid (PCI:0000:12:00): 79, somebody in user space\n";
        records += "4,103,1000000,-;NVRM: Xid (PCI:0000:13:00): 79, pid=1, \u{1b}[31mGPU has fallen off the bus.\n";
        say(&kmsg, records).await?;
        let told = diagnosed(fleet, |target| target["diagnosis"]["root"] == "xid_79").await?;
        let diagnosis = &told["diagnosis"];
        let gpus = fleet.admin.call("gpu_list", json!({ "node": "sim-1" })).await?;
        let third = gpus["gpus"].as_array().and_then(|gpus| gpus.iter().find(|gpu| gpu["index"] == 3));
        let uuid = &third.context("no GPU 3")?["uuid"];
        ensure!(diagnosis["units"] == json!([uuid]), "the address is not our GPU's, or others are named: {told}");
        let evidence = &diagnosis["evidence"][0];
        ensure!(text(evidence, "/source") == "kernel log" && evidence["line"] == 1, "{told}");
        let excerpt = text(evidence, "/excerpt");
        ensure!(excerpt.contains("kernel: NVRM: Xid (PCI:0000:13:00): 79"), "{told}");
        ensure!(!excerpt.contains(char::is_control), "{told}");
        ensure!(told["kernel_log"]["lines"] == 1 && told["simulated"] == true, "{told}");

        let flood = |n| {
            format!("4,{n},2000000,-;pcieport 0000:00:01.0: AER: Corrected error received: 0000:00:{:02x}.0\n", n % 32)
        };
        say(&kmsg, (200..200 + FLOOD).map(flood).collect::<Vec<_>>().concat()).await?;
        let admin = &fleet.admin;
        let heard = poll_until("the flood is over", PATIENCE, || async {
            let node = admin.call("node_get", json!({ "node": "sim-1" })).await?;
            let heard = node["kernel_log"].clone();
            // Each line is lost once, there or here, and the rest is held.
            let all = heard["dropped"].as_u64().zip(heard["held"].as_u64()).map(|(dropped, held)| dropped + held);
            ensure!(heard["dropped"].as_u64() <= heard["kept"].as_u64(), "{heard}");
            Ok((heard["kept"] == FLOOD + 1 && all == heard["kept"].as_u64()).then_some(heard))
        })
        .await?;
        ensure!(heard["held"].as_u64().is_some_and(|held| held <= 256), "{heard}");
        ensure!(heard["dropped"].as_u64().is_some_and(|n| n >= FLOOD - 512), "{heard}");
        // 101 and 104 to 199 never came.
        ensure!(heard["missed"] == 97, "{heard}");
        let told =
            diagnosed(fleet, |target| target["kernel_log"]["lost"].as_u64().is_some_and(|lost| lost > 0)).await?;
        let diagnosis = &told["diagnosis"];
        ensure!(diagnosis["root"] == "xid_79" && diagnosis["units"] == json!([uuid]), "the flood hides it: {told}");
        ensure!(diagnosis["why"].to_string().contains("are lost"), "{told}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_log_that_cannot_be_read_is_a_finding() -> Result<()> {
    on_fleet(60, &[], async |fleet| {
        let settings: Vec<&str> = H100_NODE.iter().copied().chain(["kernel_log.path=/nonexistent/kmsg"]).collect();
        fleet.add_node("sim-1", &settings).await?;
        let admin = &fleet.admin;
        poll_until("the finding is there", PATIENCE, || async {
            let node = admin.call("node_get", json!({ "node": "sim-1" })).await?;
            let findings = node["findings"].as_array().cloned().unwrap_or_default();
            Ok(findings.iter().any(|finding| finding["code"] == "kernel_log_unreadable").then_some(()))
        })
        .await
    })
    .await
}
