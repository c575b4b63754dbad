//! Images against real engines and real registries on loopback (`evals/scripts/engines`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, StartContainerOptions,
};
use claw_proto::ids::GpuUuid;
use claw_proto::message::{RegistryAuth, SecretBytes, StatusCause};
use claw_proto::spec::{GpuVendor, PullPolicy};
use claw_proto::topology::GpuInfo;
use clawnode::runtime::docker::engine::{Engine, EngineKind, connect};
use clawnode::runtime::docker::gpu::{self, HostFolders};
use clawnode::runtime::docker::images::{ImageError, ImageRequest, Images};
use clawnode::runtime::docker::policy::ImagesConfig;
use clawnode::runtime::docker::pull::{PullError, PullProgress, PullReason};

/// The engine behind a variable. Without it the test is skipped, loudly; in CI it must be there.
async fn engine(variable: &str) -> Option<(Docker, Engine)> {
    let Ok(socket) = std::env::var(variable) else {
        assert!(std::env::var("CI").is_err() || variable.contains("CDI"), "{variable} must be set in CI");
        crate::support::say(&format!("SKIP: {variable} is not set; images are NOT tested (evals/scripts/engines up)"));
        return None;
    };
    Some(connect(Path::new(&socket)).await.unwrap())
}

const BOTH: [&str; 2] = ["CLAW_DOCKER_SOCKET", "CLAW_PODMAN_SOCKET"];

fn registry() -> String {
    std::env::var("CLAW_REGISTRY").unwrap()
}

fn request(image: &str) -> ImageRequest<'_> {
    ImageRequest { image, pull: None, auth: None }
}

fn images(folder: &Path, config: ImagesConfig) -> Images {
    Images::open(folder.join("images.json"), config)
}

async fn forget(docker: &Docker, image: &str) {
    let options = RemoveImageOptionsBuilder::default().force(true).build();
    // It may not be there.
    docker.remove_image(image, Some(options), None).await.unwrap_or_default();
}

#[tokio::test]
async fn an_image_is_fetched_with_progress_and_pinned() {
    for variable in BOTH {
        let Some((docker, engine)) = engine(variable).await else { continue };
        let folder = tempfile::tempdir().unwrap();
        let images = images(folder.path(), ImagesConfig::default());
        let name = format!("{}/claw/layers:1", registry());
        forget(&docker, &name).await;
        // Two at once: one pull, and both learn how far it is.
        let told = Arc::new(Mutex::new([Vec::new(), Vec::new()]));
        let fetch = |n: usize| {
            let (images, docker, name, told) = (images.clone(), docker.clone(), name.clone(), Arc::clone(&told));
            async move {
                let tell = |now: PullProgress| told.lock().unwrap()[n].push(now);
                images.fetch(&docker, &request(&name), tell).await.unwrap()
            }
        };
        let (first, second) = tokio::join!(fetch(0), fetch(1));
        assert_eq!((&first.id, &first.digest), (&second.id, &second.digest));
        assert!(first.is_pulled, "{variable}");
        for told in told.lock().unwrap().iter() {
            let last = told.last().unwrap();
            assert!(last.n_layers >= 3 && last.n_layers_done == last.n_layers, "{variable}: {last:?}");
            if engine.kind == EngineKind::Docker {
                assert!(last.bytes_total > 20_000_000 && last.bytes_done == last.bytes_total, "{last:?}");
            }
        }
        let digest = first.digest.clone().unwrap();
        assert_eq!(first.detail(), format!("image {}/claw/layers@{digest}", registry()));
        let again = images.fetch(&docker, &request(&name), |_| panic!("it is there")).await.unwrap();
        assert!(!again.is_pulled);

        forget(&docker, &name).await;
        let never = ImageRequest { pull: Some(PullPolicy::Never), ..request(&name) };
        let error = images.fetch(&docker, &never, |_| {}).await.unwrap_err();
        assert!(matches!(error, ImageError::Absent { .. }) && error.cause() == StatusCause::PullFailed, "{error}");
        let pinned = format!("{}/claw/layers@{digest}", registry());
        let by_digest = images.fetch(&docker, &request(&pinned), |_| {}).await.unwrap();
        assert_eq!((by_digest.id, by_digest.digest), (first.id, Some(digest)), "{variable}");
        forget(&docker, &pinned).await;
    }
}

#[tokio::test]
async fn a_failed_pull_says_why() {
    for variable in BOTH {
        let Some((docker, _)) = engine(variable).await else { continue };
        let folder = tempfile::tempdir().unwrap();
        let images = images(folder.path(), ImagesConfig { deny: vec!["**/secret".into()], ..ImagesConfig::default() });
        let private = std::env::var("CLAW_PRIVATE_REGISTRY").unwrap();
        let reason = async |image: String, auth: Option<&RegistryAuth>| {
            let asked = ImageRequest { image: &image, pull: Some(PullPolicy::Always), auth };
            match images.fetch(&docker, &asked, |_| {}).await {
                Ok(fetched) => Ok(fetched),
                Err(ImageError::Pull(PullError { reason, said, .. })) => {
                    assert!(!said.contains("claw-test") && !said.contains("wrong-password"), "{said}");
                    Err((reason, said))
                }
                Err(other) => panic!("{other}"),
            }
        };
        let auth = |password: &str| RegistryAuth {
            username: "claw".into(),
            password: SecretBytes::new(password.as_bytes().to_vec()),
        };
        let cases = [
            (format!("{}/claw/none:1", registry()), None, PullReason::NotFound),
            (format!("{}/claw/busybox:9", registry()), None, PullReason::NotFound),
            (format!("{private}/claw/busybox:1"), None, PullReason::Unauthorized),
            (format!("{private}/claw/busybox:1"), Some(auth("wrong-password")), PullReason::Unauthorized),
            ("127.0.0.1:5999/claw/busybox:1".to_owned(), None, PullReason::Unreachable),
        ];
        for (image, auth, expected) in cases {
            let (found, said) = reason(image.clone(), auth.as_ref()).await.unwrap_err();
            assert_eq!(found, expected, "{variable} {image}: {said}");
        }
        let right = auth("claw-test");
        let fetched = reason(format!("{private}/claw/busybox:1"), Some(&right)).await.unwrap();
        assert!(fetched.digest.is_some());
        let kept = std::fs::read_to_string(folder.path().join("images.json")).unwrap();
        assert!(!kept.contains("claw-test"), "credentials are not kept");
        forget(&docker, &format!("{private}/claw/busybox:1")).await;
        let refused = images.fetch(&docker, &request("ghcr.io/acme/secret:1"), |_| {}).await.unwrap_err();
        assert_eq!(refused.cause(), StatusCause::ImageRefused);
    }
}

#[tokio::test]
async fn the_least_recently_used_image_goes_and_one_in_use_stays() {
    for variable in BOTH {
        let Some((docker, _)) = engine(variable).await else { continue };
        let folder = tempfile::tempdir().unwrap();
        let name = |n: u8| format!("{}/claw/collect-{n}:1", registry());
        let config = |mib| ImagesConfig {
            images_mib_max: mib,
            unused_s_min: 0,
            disk_free_mib_min: 0,
            ..ImagesConfig::default()
        };
        let free = images(folder.path(), config(None));
        for n in [4, 5, 6] {
            forget(&docker, &name(n)).await;
            free.fetch(&docker, &request(&name(n)), |_| {}).await.unwrap();
        }
        // The oldest is in use, so the next one goes. Each is about 10 MiB.
        let options = CreateContainerOptionsBuilder::default().name("claw-test-collect").build();
        let body = ContainerCreateBody { image: Some(name(4)), ..ContainerCreateBody::default() };
        let container = docker.create_container(Some(options), body).await.unwrap().id;
        let tight = images(folder.path(), config(Some(25)));
        let removed = tight.collect(&docker).await.unwrap();
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        docker.remove_container(&container, Some(options)).await.unwrap();
        assert_eq!(removed.len(), 1, "{variable}: {removed:?}");
        let mut left = Vec::new();
        for n in [4, 5, 6] {
            if docker.inspect_image(&name(n)).await.is_ok() {
                left.push(n);
            }
        }
        assert_eq!(left, [4, 6], "{variable}");
        // Images that this node did not fetch are not its to remove.
        let none = images(folder.path(), config(Some(0)));
        none.collect(&docker).await.unwrap();
        assert!(docker.inspect_image(&std::env::var("CLAW_TEST_IMAGE").unwrap()).await.is_ok(), "{variable}");
        assert!(docker.inspect_image(&name(6)).await.is_err(), "{variable}");
    }
}

fn vendor_gpu(cdi_device: &str) -> GpuInfo {
    GpuInfo {
        cdi_device: Some(cdi_device.into()),
        ..GpuInfo::new(GpuUuid("GPU-cdi".into()), 0, GpuVendor::Other, "Test", 1)
    }
}

/// Newer engines (`evals/scripts/engines cdi-up`): the device is there, and a
/// container that did not get it is noticed.
#[tokio::test]
async fn a_cdi_device_is_seen_inside() {
    for variable in ["CLAW_CDI_DOCKER_SOCKET", "CLAW_CDI_PODMAN_SOCKET"] {
        let Some((docker, engine)) = engine(variable).await else { continue };
        assert!(engine.cdi, "{engine:?}");
        let gpus = [vendor_gpu("vendor.com/gpu=0")];
        let specs = tempfile::tempdir().unwrap();
        let spec = "kind: vendor.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits:\n    deviceNodes: [{path: /dev/vgpu0, hostPath: /dev/null}]\n";
        std::fs::write(specs.path().join("vendor.yaml"), spec).unwrap();
        let host = HostFolders { cdi: vec![PathBuf::from(specs.path())], ..HostFolders::default() };
        let plan = gpu::plan(&gpus, &engine, &host).unwrap();
        assert_eq!(plan.expected.nodes, ["/dev/vgpu0"]);
        for requests in [plan.requests.clone(), Vec::new()] {
            let is_asked = !requests.is_empty();
            let body = ContainerCreateBody {
                image: Some(std::env::var("CLAW_TEST_IMAGE").unwrap()),
                cmd: Some(vec!["/bin/sleep".into(), "100".into()]),
                host_config: Some(HostConfig {
                    device_requests: Some(requests),
                    network_mode: Some("none".into()),
                    ..HostConfig::default()
                }),
                ..ContainerCreateBody::default()
            };
            let id = docker.create_container(None::<bollard::query_parameters::CreateContainerOptions>, body).await;
            let id = id.unwrap().id;
            docker.start_container(&id, None::<StartContainerOptions>).await.unwrap();
            let state = docker.inspect_container(&id, None).await.unwrap().state.unwrap();
            let seen = gpu::check(i32::try_from(state.pid.unwrap()).unwrap(), &plan.expected);
            let options = RemoveContainerOptionsBuilder::default().force(true).build();
            docker.remove_container(&id, Some(options)).await.unwrap();
            let expected = if is_asked { Ok(()) } else { Err("the container does not have /dev/vgpu0".to_owned()) };
            assert_eq!(seen, expected, "{variable}");
        }
    }
}
