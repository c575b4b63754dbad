//! The probe as a process: on lavapipe, without drivers, and with drivers that misbehave.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use claw_compute::report::{CheckReport, DeviceKind, DeviceReport, Document, ErrorCode, Outcome};

/// The probe with these drivers and nothing else in its environment.
fn probe(drivers: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claw-gpu-probe"));
    command.env_clear().env("VK_DRIVER_FILES", drivers).env("VK_ICD_FILENAMES", drivers);
    command
}

fn run(command: &mut Command) -> (Output, Option<Outcome>) {
    let output = command.output().unwrap();
    let document = Document::parse(&output.stdout).ok();
    (output, document.map(|document| document.outcome))
}

/// Lavapipe's manifest; nothing (loudly) without it, a failure in CI.
#[expect(clippy::print_stderr, reason = "a skipped test says so loudly")]
fn lavapipe() -> Option<PathBuf> {
    let manifests = std::fs::read_dir("/usr/share/vulkan/icd.d").into_iter().flatten().filter_map(Result::ok);
    let found = manifests.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("lvp_icd"));
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "lavapipe (mesa-vulkan-drivers) is not there in CI");
        eprintln!("SKIP: lavapipe (mesa-vulkan-drivers) is not installed; Vulkan is NOT tested");
    }
    found
}

fn devices(drivers: &Path) -> Vec<DeviceReport> {
    match run(probe(drivers).arg("list")) {
        (output, Some(Outcome::List(list))) if output.status.success() => list.devices,
        other => panic!("{other:?}"),
    }
}

fn error(outcome: Option<Outcome>) -> (ErrorCode, String) {
    match outcome {
        Some(Outcome::Error(error)) => (error.code, error.message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn lavapipe_is_listed_as_what_it_is_and_computes_rightly() {
    let Some(manifest) = lavapipe() else { return };
    let devices = devices(&manifest);
    assert_eq!(devices.len(), 1, "{devices:?}");
    let device = &devices[0];
    assert!(device.name.starts_with("llvmpipe"), "{device:?}");
    assert_eq!((device.kind, device.software, device.driver_id), (DeviceKind::Cpu, true, 13), "{device:?}");
    assert!(device.heaps.iter().any(|heap| heap.device_local && heap.size_bytes > 0), "{device:?}");
    let uuid = device.uuid.clone().unwrap();

    let (output, outcome) = run(probe(&manifest).args(["check", "--device", &uuid.to_uppercase()]));
    let Some(Outcome::Check(check)) = outcome else { panic!("{output:?}") };
    assert_eq!(output.status.code(), Some(0));
    let CheckReport { passed, mismatches, software, runtime, kernels, .. } = check;
    assert_eq!((passed, mismatches, software, runtime.as_str()), (true, 0, true, "vulkan"));
    let ran: Vec<_> = kernels.iter().map(|kernel| (kernel.name.as_str(), kernel.n_compared)).collect();
    assert_eq!(ran, [("vector_add", 1 << 20), ("checksum", 4_096), ("matmul", 128 * 128)]);

    let (output, outcome) = run(probe(&manifest).args(["check", "--device", "0000:c1:00.0"]));
    let (code, message) = error(outcome);
    assert_eq!((code, output.status.code()), (ErrorCode::NoDevice, Some(4)));
    assert!(message.contains(&uuid), "it says which there are: {message}");
}

#[test]
fn without_drivers_loader_or_runtime_it_says_so() {
    let nowhere = Path::new("/nowhere.json");
    if lavapipe().is_none() {
        return;
    }
    assert_eq!(devices(nowhere), []);
    let (output, outcome) = run(probe(nowhere).args(["check", "--device", &"00".repeat(16)]));
    assert_eq!((error(outcome).0, output.status.code()), (ErrorCode::NoDevice, Some(4)));

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("libvulkan.so.1"), "no library").unwrap();
    for arguments in [&["list"][..], &["check", "--device", "0000:c1:00.0"]] {
        let (output, outcome) = run(probe(nowhere).env("LD_LIBRARY_PATH", folder.path()).args(arguments));
        let (code, message) = error(outcome);
        assert_eq!((code, output.status.code()), (ErrorCode::NoLoader, Some(3)));
        assert!(message.contains("libvulkan.so.1"), "{message}");
    }
    for (runtime, built) in [("cuda", cfg!(feature = "cuda")), ("hip", cfg!(feature = "hip"))] {
        let (output, outcome) = run(probe(nowhere).args(["check", "--runtime", runtime, "--device", "0"]));
        let got = (outcome.map(|outcome| error(Some(outcome)).0), output.status.code());
        let missing = (Some(ErrorCode::NoRuntime), Some(3));
        let expected = if built { missing } else { (Some(ErrorCode::NotBuilt), Some(8)) };
        // On a machine with the vendor's library the runtime itself answers.
        let has_library = built && got != missing;
        assert!(has_library || got == expected, "{runtime}: {got:?}");
    }
}

/// A driver of our own in a folder of its own.
struct Stub(tempfile::TempDir);

impl Stub {
    #[expect(clippy::print_stderr, reason = "a skipped test says so loudly")]
    fn build() -> Option<Self> {
        lavapipe()?;
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libicd_stub.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/icd_stub.c");
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
        match compiled {
            Ok(status) => assert!(status.success(), "the stub does not compile"),
            Err(error) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "no C compiler in CI: {error}");
                eprintln!("SKIP: there is no C compiler (cc), so drivers that misbehave are NOT tested: {error}");
                return None;
            }
        }
        let manifest = serde_json::json!({
            "file_format_version": "1.0.0", "ICD": { "library_path": library, "api_version": "1.3.0" },
        });
        std::fs::write(folder.path().join("icd.json"), manifest.to_string()).unwrap();
        Some(Self(folder))
    }

    fn probe(&self, word: &str) -> Command {
        let mut command = probe(&self.0.path().join("icd.json"));
        command.env("ICD_STUB", word);
        command
    }
}

#[test]
fn a_driver_that_misbehaves_harms_the_probe_alone() {
    let Some(stub) = Stub::build() else { return };
    let (output, outcome) = run(stub.probe("print").arg("list"));
    assert!(matches!(outcome, Some(Outcome::List(list)) if list.devices.is_empty()), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("hello, I am a driver"), "what a driver prints is no part of the document: {said}");

    for (word, signal) in [("abort", 6), ("fault", 11)] {
        let (output, outcome) = run(stub.probe(word).arg("list"));
        assert_eq!((output.status.signal(), outcome), (Some(signal), None), "{word}");
        assert!(!output.status.core_dumped(), "{word}");
    }
    let (output, outcome) = run(stub.probe("hang").args(["list", "--timeout-ms", "300"]));
    let (code, message) = error(outcome);
    assert_eq!((code, output.status.code()), (ErrorCode::Timeout, Some(6)));
    assert_eq!(message, "a driver did not come back within 300 ms");
}

#[test]
fn the_help_names_what_there_is() {
    let help = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_claw-gpu-probe")).args(arguments).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let whole = help(&["--help"]);
    for word in ["list", "check", "NO_LOADER", "DEVICE_LOST", "schema_version"] {
        assert!(whole.contains(word), "{word}: {whole}");
    }
    for word in ["--device", "--runtime", "untested on hardware", "--timeout-ms"] {
        let check = help(&["check", "--help"]);
        assert!(check.contains(word), "{word}: {check}");
    }
    let wrong = Command::new(env!("CARGO_BIN_EXE_claw-gpu-probe")).arg("dance").output().unwrap();
    assert_eq!((wrong.status.code(), wrong.stdout.len()), (Some(2), 0));
}
