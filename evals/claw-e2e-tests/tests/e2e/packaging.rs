//! What is installed works: units that systemd accepts, programs that link little
//! and say when they are ready, and a gateway image that runs in real engines.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use claw_e2e_tests::process::{Running, program};
use claw_e2e_tests::wait::poll_until;
use tokio::process::Command;

use crate::support::{PATIENCE, is_ci, output, say, words};

/// Libraries that every Linux of glibc has.
const LINKED: [&str; 4] = ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"];
/// Newest glibc that may be needed: RHEL 9, Debian 12, Ubuntu 22.04 and newer have it.
const GLIBC_MAX: (u32, u32) = (2, 34);
/// The scale of `systemd-analyze security` goes from 0 (confined) to 100 (open).
const GATEWAY_EXPOSURE_MAX: &str = "--threshold=20";

/// A file of the checkout.
fn repository(path: &str) -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("cargo runs the tests")?;
    Ok(Path::new(&manifest).join("../..").join(path))
}

/// The program is there; in CI it has to be.
fn has(tool: &str) -> Result<bool> {
    let is_there =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|p| p.join(tool).is_file()));
    ensure!(is_there || !is_ci(), "{tool} is not installed: CI has to have it");
    if !is_there {
        say(&format!("SKIP: {tool} is not installed; what needs it is NOT tested"));
    }
    Ok(is_there)
}

async fn succeed(command: &mut Command) -> Result<String> {
    let output = output(command).await?;
    ensure!(output.status.success(), "{command:?}: {}", words(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn the_units_are_accepted_and_the_gateways_is_confined() -> Result<()> {
    if !has("systemd-analyze")? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    for (unit, name) in [
        ("gateway/claw-gateway-server/packaging/claw-gateway.service", "claw-gateway"),
        ("node/clawnode/packaging/clawnode.service", "clawnode"),
    ] {
        let text = std::fs::read_to_string(repository(unit)?)?;
        // The program stands where this build put it, not in /usr/bin.
        let text = text.replace(&format!("/usr/bin/{name}"), &program(name)?.display().to_string());
        let file = folder.path().join(format!("{name}.service"));
        std::fs::write(&file, text)?;
        let checked = output(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file)).await?;
        ensure!(checked.status.success() && checked.stderr.is_empty(), "{unit}: {}", words(&checked));
        if name == "claw-gateway" {
            let mut security = Command::new("systemd-analyze");
            security.args(["security", "--no-pager", "--offline=true", GATEWAY_EXPOSURE_MAX]).arg(&file);
            succeed(&mut security).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_programs_link_what_every_machine_has() -> Result<()> {
    if !has("readelf")? || !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    for name in ["claw-gateway", "clawnode", "claw"] {
        let dynamic = succeed(Command::new("readelf").arg("-dW").arg(program(name)?)).await?;
        let needed = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
        let needed: Vec<&str> = needed.filter_map(|line| line.split(['[', ']']).nth(1)).collect();
        ensure!(!needed.is_empty() && needed.iter().all(|library| LINKED.contains(library)), "{name} links {needed:?}");
        let versions = succeed(Command::new("readelf").arg("-VW").arg(program(name)?)).await?;
        let newest = versions.split_whitespace().filter_map(|word| {
            let (major, minor) = word.strip_prefix("GLIBC_")?.split_once('.')?;
            Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
        });
        let newest: Option<(u32, u32)> = newest.max();
        ensure!(newest.is_some_and(|version| version <= GLIBC_MAX), "{name} needs glibc {newest:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_service_manager_hears_when_the_gateway_is_ready_and_when_it_stops() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket)?;
    manager.set_read_timeout(Some(PATIENCE))?;
    let mut command = Command::new(program("claw-gateway")?);
    command.arg("run").arg("--data-dir").arg(folder.path().join("data"));
    command.args(["--http", "127.0.0.1:0", "--node", "127.0.0.1:0"]).env("NOTIFY_SOCKET", &socket);
    let gateway = Running::start(command, "claw-gateway ready", &folder.path().join("log")).await?;
    let heard = |manager: &UnixDatagram| -> Result<String> {
        let mut bytes = [0; 256];
        let n = manager.recv(&mut bytes).context("the service manager hears nothing")?;
        Ok(String::from_utf8_lossy(&bytes[..n]).into_owned())
    };
    ensure!(heard(&manager)?.trim() == "READY=1");
    ensure!(gateway.terminate().await?.code() == Some(0));
    ensure!(heard(&manager)?.trim() == "STOPPING=1");
    Ok(())
}

#[tokio::test]
async fn the_image_runs_in_docker() -> Result<()> {
    the_image_runs("CLAW_DOCKER_SOCKET").await
}

#[tokio::test]
async fn the_image_runs_in_podman() -> Result<()> {
    the_image_runs("CLAW_PODMAN_SOCKET").await
}

/// Built from local content; healthy without a network; keeps its data; stops in order.
async fn the_image_runs(variable: &str) -> Result<()> {
    let Some(socket) = std::env::var_os(variable) else {
        ensure!(!is_ci(), "{variable} is not set: CI has to have the engine");
        say(&format!(
            "SKIP: {variable} is not set; the gateway's image is NOT tested there (./dev test starts engines)"
        ));
        return Ok(());
    };
    let host = format!("unix://{}", socket.to_string_lossy());
    let engine = || {
        let mut command = Command::new("docker");
        command.arg("--host").arg(&host);
        command
    };
    let (tag, name) = ("local/claw-gateway:test", "claw-packaging-test");
    let mut build = Command::new(repository("gateway/claw-gateway-server/packaging/build-image")?);
    build.arg(program("claw-gateway")?).args([tag, "docker", "--host", &host]);
    succeed(&mut build).await?;
    // Left over from a run that was killed, if at all.
    output(engine().args(["rm", "--force", "--volumes", name])).await?;
    let story = async {
        succeed(engine().args(["run", "--detach", "--name", name, "--network", "none", tag])).await?;
        healthy(&engine, name).await?;
        succeed(engine().args(["restart", name])).await?;
        healthy(&engine, name).await?;
        let log = output(engine().args(["logs", name])).await?;
        ensure!(words(&log).matches("claw-gateway ready").count() == 2, "{}", words(&log));
        ensure!(words(&log).matches("admin key written").count() == 1, "the data did not stay: {}", words(&log));
        succeed(engine().args(["stop", "--time", "20", name])).await?;
        let code = succeed(engine().args(["inspect", "--format", "{{.State.ExitCode}}", name])).await?;
        ensure!(code.trim() == "0", "it ended with {code}");
        Ok(())
    };
    let told = story.await;
    output(engine().args(["rm", "--force", "--volumes", name])).await?;
    output(engine().args(["rmi", tag])).await?;
    told
}

async fn healthy(engine: &impl Fn() -> Command, name: &str) -> Result<()> {
    let ask = || async {
        let asked = output(engine().args(["exec", name, "/usr/bin/claw-gateway", "health"])).await?;
        if asked.status.success() { Ok(Some(())) } else { bail!("{}", words(&asked)) }
    };
    poll_until("the gateway in the container is healthy", PATIENCE, ask).await
}
