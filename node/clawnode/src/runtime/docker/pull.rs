//! Fetching one image: what the engine tells on the way, counted, and why it failed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use claw_proto::message::RegistryAuth;
use futures_util::StreamExt as _;

use super::image_ref::ImageRef;

/// Most of a registry's own words that is told, characters.
const SAID_CHARS_MAX: usize = 400;
const MIB: f64 = 1024.0 * 1024.0;

/// How far a pull is. Never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PullProgress {
    /// Layers that are known so far.
    pub n_layers: u32,
    /// Layers that the engine has.
    pub n_layers_done: u32,
    /// Bytes that came, of layers whose size is known.
    pub bytes_done: u64,
    /// Size of those layers, bytes.
    pub bytes_total: u64,
}

impl fmt::Display for PullProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} layers", self.n_layers_done, self.n_layers)?;
        if self.bytes_total > 0 {
            write!(f, ", {:.1} of {:.1} MiB", self.bytes_done as f64 / MIB, self.bytes_total as f64 / MIB)?;
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Layer {
    bytes_done: u64,
    bytes_total: u64,
    is_done: bool,
}

/// Counts what an engine tells about layers.
#[derive(Debug, Default)]
pub struct LayerCount {
    layers: BTreeMap<String, Layer>,
}

impl LayerCount {
    /// Takes one line of the engine; `None` if it is not about a layer.
    pub fn take(&mut self, info: &CreateImageInfo) -> Option<PullProgress> {
        let (id, status) = (info.id.as_deref()?, info.status.as_deref()?);
        let is_known = self.layers.contains_key(id);
        let counts = |status: &str| {
            matches!(status, "Pulling fs layer" | "Waiting" | "Downloading" | "Already exists" | "Extracting")
        };
        // The first line names the tag as if it were a layer.
        if !is_known && !counts(status) {
            return None;
        }
        let layer = self.layers.entry(id.to_owned()).or_default();
        match status {
            "Downloading" => {
                let detail = info.progress_detail.as_ref();
                let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
                layer.bytes_total = layer.bytes_total.max(number(detail.and_then(|detail| detail.total)));
                let done = number(detail.and_then(|detail| detail.current)).min(layer.bytes_total);
                layer.bytes_done = layer.bytes_done.max(done);
            }
            "Download complete" | "Verifying Checksum" | "Extracting" => layer.bytes_done = layer.bytes_total,
            "Pull complete" | "Already exists" => {
                layer.bytes_done = layer.bytes_total;
                layer.is_done = true;
            }
            _ => {}
        }
        Some(self.progress())
    }

    /// Everything came: Podman does not say so of each layer.
    pub fn finish(&mut self) -> PullProgress {
        for layer in self.layers.values_mut() {
            layer.bytes_done = layer.bytes_total;
            layer.is_done = true;
        }
        self.progress()
    }

    fn progress(&self) -> PullProgress {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        PullProgress {
            n_layers: count(self.layers.len()),
            n_layers_done: count(self.layers.values().filter(|layer| layer.is_done).count()),
            bytes_done: self.layers.values().map(|layer| layer.bytes_done).sum(),
            bytes_total: self.layers.values().map(|layer| layer.bytes_total).sum(),
        }
    }
}

/// What kind of failure a pull's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullReason {
    /// The registry has no such image, or does not say that it has.
    NotFound,
    /// The registry wants credentials, or other ones.
    Unauthorized,
    /// The registry does not answer.
    Unreachable,
    /// The engine's disk is full.
    NoSpace,
    /// It took too long.
    Timeout,
    /// Something else.
    Other,
}

impl fmt::Display for PullReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "the registry has no such image",
            Self::Unauthorized => "the registry refuses access",
            Self::Unreachable => "the registry does not answer",
            Self::NoSpace => "no space is left on the engine's disk",
            Self::Timeout => "it took too long",
            Self::Other => "the engine could not fetch it",
        })
    }
}

/// Why an image could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image {image}: {reason}{}", if .said.is_empty() { String::new() } else { format!(": {}", .said) })]
pub struct PullError {
    /// Which image.
    pub image: ImageRef,
    /// What kind of failure.
    pub reason: PullReason,
    /// The words of engine or registry.
    pub said: String,
}

/// Tells the kinds of failures apart by what Docker and Podman say.
pub fn reason_of(said: &str) -> PullReason {
    let said = said.to_ascii_lowercase();
    let says = |any: &[&str]| any.iter().any(|words| said.contains(words));
    if says(&["no space left on device"]) {
        PullReason::NoSpace
    } else if says(&["manifest unknown", "name unknown", "not found: does not exist", "manifest for"]) {
        PullReason::NotFound
    } else if says(&[
        "unauthorized",
        "authentication required",
        "denied",
        "no basic auth credentials",
        "403 (forbidden)",
    ]) {
        PullReason::Unauthorized
    } else if says(&[
        "connection refused",
        "no such host",
        "no route to host",
        "network is unreachable",
        "i/o timeout",
        "connection reset",
        "tls handshake",
        "server misbehaving",
        "name resolution",
        "deadline exceeded",
        "request canceled while waiting",
    ]) {
        PullReason::Unreachable
    } else {
        PullReason::Other
    }
}

/// Fetches an image, and tells how far it is. Dropped, the engine stops fetching.
///
/// # Errors
/// [`PullError`] with the registry's own reason.
pub async fn pull(
    docker: &Docker,
    image: &ImageRef,
    auth: Option<&RegistryAuth>,
    timeout: Duration,
    mut progress: impl FnMut(PullProgress),
) -> Result<(), PullError> {
    let failed = |reason, said| PullError { image: image.clone(), reason, said };
    let fetching = async {
        let (name, what) = image.pull_arguments();
        let options = CreateImageOptionsBuilder::default().from_image(&name).tag(&what).build();
        let mut steps = Box::pin(docker.create_image(Some(options), None, auth.map(|auth| credentials(image, auth))));
        let mut count = LayerCount::default();
        while let Some(step) = steps.next().await {
            if let Some(now) = count.take(&step?) {
                progress(now);
            }
        }
        progress(count.finish());
        Ok(())
    };
    match tokio::time::timeout(timeout, fetching).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let said = said_by(&error, auth);
            Err(failed(reason_of(&said), said))
        }
        Err(_) => Err(failed(PullReason::Timeout, format!("over {} s", timeout.as_secs()))),
    }
}

fn credentials(image: &ImageRef, auth: &RegistryAuth) -> DockerCredentials {
    DockerCredentials {
        username: Some(auth.username.clone()),
        password: Some(String::from_utf8_lossy(auth.password.expose()).into_owned()),
        serveraddress: Some(image.registry().to_owned()),
        ..DockerCredentials::default()
    }
}

/// The words of an engine: one line, bounded, and never with the password in it.
fn said_by(error: &Error, auth: Option<&RegistryAuth>) -> String {
    let said = match error {
        Error::DockerStreamError { error } => error.clone(),
        Error::DockerResponseServerError { message, .. } => message.clone(),
        other => other.to_string(),
    };
    let secret = auth.and_then(|auth| std::str::from_utf8(auth.password.expose()).ok()).filter(|text| !text.is_empty());
    let said = secret.map_or_else(|| said.clone(), |secret| said.replace(secret, "[secret]"));
    let line: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SAID_CHARS_MAX).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;
    use claw_proto::message::SecretBytes;
    use proptest::prelude::*;

    use super::*;

    fn line(id: &str, status: &str, current: i64, total: i64) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..CreateImageInfo::default()
        }
    }

    #[test]
    fn a_pull_is_told_as_layers_and_bytes() {
        let mut count = LayerCount::default();
        let lines = [
            line("1", "Pulling from claw/layers", 0, 0),
            line("a", "Already exists", 0, 0),
            line("b", "Pulling fs layer", 0, 0),
            line("b", "Downloading", 1_048_576, 8_388_608),
            line("b", "Extracting", 65_536, 8_388_608),
            line("b", "Pull complete", 0, 0),
        ];
        let told: Vec<String> = lines.iter().filter_map(|line| count.take(line)).map(|now| now.to_string()).collect();
        expect_test::expect![[r"
            1 of 1 layers
            1 of 2 layers
            1 of 2 layers, 1.0 of 8.0 MiB
            1 of 2 layers, 8.0 of 8.0 MiB
            2 of 2 layers, 8.0 of 8.0 MiB"]]
        .assert_eq(&told.join("\n"));
    }

    #[test]
    fn failures_are_told_apart_and_passwords_are_not_told() {
        let cases = [
            (
                "manifest for 127.0.0.1:5000/claw/none:1 not found: manifest unknown: manifest unknown",
                PullReason::NotFound,
            ),
            (
                "initializing source docker://x: reading manifest 1 in x: manifest unknown: manifest unknown",
                PullReason::NotFound,
            ),
            (
                "Get \"http://127.0.0.1:5001/v2/claw/busybox/manifests/1\": no basic auth credentials",
                PullReason::Unauthorized,
            ),
            ("reading manifest 1 in x: unauthorized: authentication required", PullReason::Unauthorized),
            (
                "Get \"http://127.0.0.1:5999/v2/\": dial tcp 127.0.0.1:5999: connect: connection refused",
                PullReason::Unreachable,
            ),
            ("dial tcp: lookup registry.example: no such host", PullReason::Unreachable),
            ("write /blob: no space left on device", PullReason::NoSpace),
            ("something new", PullReason::Other),
        ];
        for (said, reason) in cases {
            assert_eq!(reason_of(said), reason, "{said}");
        }
        let auth = RegistryAuth { username: "u".into(), password: SecretBytes::new(b"hunter2".to_vec()) };
        let error = Error::DockerStreamError { error: "bad\nlogin u:hunter2".into() };
        assert_eq!(said_by(&error, Some(&auth)), "bad login u:[secret]");
    }

    proptest! {
        /// L1: no number ever goes back; L2: done is never more than all.
        #[test]
        fn progress_never_goes_back(lines in prop::collection::vec((0_u8..4, 0_usize..8, -10_i64..100, -10_i64..100), 0..40)) {
            let statuses = ["Pulling fs layer", "Waiting", "Downloading", "Verifying Checksum", "Download complete", "Extracting", "Pull complete", "?"];
            let mut count = LayerCount::default();
            let mut before = PullProgress::default();
            for (id, status, current, total) in lines {
                let Some(now) = count.take(&line(&id.to_string(), statuses[status], current, total)) else { continue };
                let pairs = [
                    (before.n_layers.into(), now.n_layers.into()),
                    (before.n_layers_done.into(), now.n_layers_done.into()),
                    (before.bytes_done, now.bytes_done),
                    (before.bytes_total, now.bytes_total),
                ];
                prop_assert!(pairs.into_iter().all(|(before, now): (u64, u64)| before <= now), "L1 {before:?} {now:?}");
                prop_assert!(now.n_layers_done <= now.n_layers && now.bytes_done <= now.bytes_total, "L2");
                before = now;
            }
        }
    }
}
