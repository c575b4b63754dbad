//! The images of a node: admitted by rules, fetched once for all who wait, pinned
//! to what their names meant, and removed when space runs short.
//!
//! Only what this node fetched is ever removed: other images on the engine are
//! somebody else's. Credentials live as long as the pull that they are for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ImageInspect;
use bollard::query_parameters::{ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder};
use claw_proto::message::{RegistryAuth, StatusCause};
use claw_proto::spec::PullPolicy;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::cache::free_bytes;
use super::gc::{Limits, Removal, Stored, plan_gc};
use super::image_ref::{DOCKER_HUB, ImageRef};
use super::policy::{ImageRefusal, ImagesConfig, pull_policy};
use super::pull::{PullError, PullProgress, pull};
use crate::clock;
use crate::files::{Durability, read_json, replace_json};

/// How far a pull is, is told so often at most, milliseconds.
const PROGRESS_INTERVAL_MS: u64 = 1_000;
const MIB: u64 = 1024 * 1024;

/// Why an image is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The node's rules forbid it.
    #[error(transparent)]
    Refused(#[from] ImageRefusal),
    /// It could not be fetched.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// It is not here and must not be fetched.
    #[error("image {image} is not on this node, and the workload says pull = never")]
    Absent {
        /// Which image.
        image: ImageRef,
    },
    /// The engine failed.
    #[error("image {image}: the engine says {said}")]
    Engine {
        /// Which image.
        image: ImageRef,
        /// What it says.
        said: String,
    },
}

impl ImageError {
    /// How a workload's status names it.
    pub fn cause(&self) -> StatusCause {
        match self {
            Self::Refused(_) => StatusCause::ImageRefused,
            Self::Pull(_) | Self::Absent { .. } => StatusCause::PullFailed,
            Self::Engine { .. } => StatusCause::EngineFailed,
        }
    }
}

/// What is to be there.
#[derive(Debug, Clone, Copy)]
pub struct ImageRequest<'a> {
    /// The image as the workload names it.
    pub image: &'a str,
    /// When the registry is asked; as usual if absent.
    pub pull: Option<PullPolicy>,
    /// Credentials for the registry.
    pub auth: Option<&'a RegistryAuth>,
}

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedImage {
    /// What it was asked for.
    pub image: ImageRef,
    /// The engine's id: what to create a container from, for it cannot move.
    pub id: String,
    /// What its name meant in the registry, if it came from there.
    pub digest: Option<String>,
    /// User that it names; empty for root.
    pub user: String,
    /// It was fetched for this.
    pub is_pulled: bool,
}

impl FetchedImage {
    /// For people: `image repository@sha256:…`.
    pub fn detail(&self) -> String {
        match &self.digest {
            Some(digest) => format!("image {}@{digest}", self.image.name()),
            None => format!("image {} ({}, never in a registry)", self.image, self.id),
        }
    }
}

/// What this node remembers of an image that it fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Names that it was fetched by.
    names: BTreeSet<String>,
    last_used_ms: i64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Records {
    images: BTreeMap<String, Record>,
}

type Work = BoxFuture<'static, Result<(), PullError>>;

struct Pull {
    image: ImageRef,
    auth: Option<RegistryAuth>,
    work: WeakShared<Work>,
    progress: watch::Receiver<PullProgress>,
}

struct Inner {
    config: ImagesConfig,
    file: PathBuf,
    records: Mutex<Records>,
    pulls: Mutex<Vec<Pull>>,
    /// One collection at a time.
    collecting: tokio::sync::Mutex<()>,
}

/// The images of a node; copies are the same.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Images {
    /// Reads what is remembered in `file`; what cannot be read is forgotten, and
    /// then those images stay.
    pub fn open(file: PathBuf, config: ImagesConfig) -> Self {
        let records = match read_json::<Records>(&file) {
            Ok(records) => records.unwrap_or_default(),
            Err(error) => {
                warn!(%error, path = %file.display(), "which images this node fetched is forgotten; they stay");
                Records::default()
            }
        };
        let inner = Inner {
            config,
            file,
            records: Mutex::new(records),
            pulls: Mutex::new(Vec::new()),
            collecting: tokio::sync::Mutex::new(()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Makes sure that the engine has an image, and tells `progress` at most once
    /// a second, and at the end. Those who ask for the same at the same time wait for
    /// one pull; it is canceled when the last of them is dropped.
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn fetch(
        &self,
        docker: &Docker,
        request: &ImageRequest<'_>,
        mut progress: impl FnMut(PullProgress),
    ) -> Result<FetchedImage, ImageError> {
        let image = self.inner.config.admit(request.image)?;
        let policy = pull_policy(request.pull, &image);
        let present = match policy {
            PullPolicy::Always => None,
            PullPolicy::IfMissing | PullPolicy::Never => inspect(docker, &image).await?,
        };
        let is_pulled = present.is_none();
        let found = match present {
            Some(found) => found,
            None if policy == PullPolicy::Never => return Err(ImageError::Absent { image }),
            None => {
                self.collect_or_warn(docker).await;
                let (work, news) = self.join(docker, &image, request.auth);
                followed(work, news, &mut progress).await?;
                let missing =
                    || ImageError::Engine { image: image.clone(), said: "it is not there after its pull".into() };
                inspect(docker, &image).await?.ok_or_else(missing)?
            }
        };
        let id = found.id.clone().unwrap_or_default();
        self.used(&id, is_pulled.then(|| image.engine_name()));
        if is_pulled {
            self.collect_or_warn(docker).await;
        }
        let digest = digest_of(&image, &found);
        let user = found.config.and_then(|config| config.user).unwrap_or_default();
        Ok(FetchedImage { image, id, digest, user, is_pulled })
    }

    /// The pull that is under way for the same image and credentials, else a new one.
    /// Others' credentials are not borrowed.
    fn join(
        &self,
        docker: &Docker,
        image: &ImageRef,
        auth: Option<&RegistryAuth>,
    ) -> (Shared<Work>, watch::Receiver<PullProgress>) {
        let mut pulls = self.inner.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|pull| pull.work.upgrade().is_some_and(|work| work.peek().is_none()));
        let same = pulls.iter().find(|pull| pull.image == *image && pull.auth.as_ref() == auth);
        if let Some((work, progress)) = same.and_then(|pull| Some((pull.work.upgrade()?, pull.progress.clone()))) {
            return (work, progress);
        }
        let (tell, progress) = watch::channel(PullProgress::default());
        let timeout = Duration::from_secs(self.inner.config.pull_timeout_s);
        let (docker, image_too, auth_too) = (docker.clone(), image.clone(), auth.cloned());
        let work = async move {
            let tell = |now| {
                tell.send_replace(now);
            };
            pull(&docker, &image_too, auth_too.as_ref(), timeout, tell).await
        };
        let work = work.boxed().shared();
        if let Some(weak) = work.downgrade() {
            pulls.push(Pull { image: image.clone(), auth: auth.cloned(), work: weak, progress: progress.clone() });
        }
        (work, progress)
    }

    /// Remembers that an image is used now; `fetched_as` makes it this node's.
    fn used(&self, id: &str, fetched_as: Option<String>) {
        let mut records = self.inner.records.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = clock::wall().unix_ms();
        match (records.images.get_mut(id), fetched_as) {
            (Some(record), name) => {
                record.last_used_ms = now_ms;
                record.names.extend(name);
            }
            (None, Some(name)) => {
                let record = Record { names: BTreeSet::from([name]), last_used_ms: now_ms };
                records.images.insert(id.to_owned(), record);
            }
            (None, None) => return,
        }
        self.save(&records);
    }

    fn save(&self, records: &Records) {
        if let Err(error) = replace_json(&self.inner.file, records, Durability::Cached) {
            warn!(%error, "which images this node fetched could not be written down");
        }
    }

    async fn collect_or_warn(&self, docker: &Docker) {
        if let Err(error) = self.collect(docker).await {
            warn!(%error, "images that are not used could not be removed");
        }
    }

    /// Removes images that this node fetched, the least recently used first, until
    /// they fit into the limits. None that a container uses, that the configuration keeps,
    /// or that was used a moment ago.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn collect(&self, docker: &Docker) -> Result<Vec<Removal>, Error> {
        let _one = self.inner.collecting.lock().await;
        let (stored, names) = self.stored(docker).await?;
        let config = &self.inner.config;
        let limits = Limits {
            bytes_max: config.images_mib_max.map(|mib| mib.saturating_mul(MIB)),
            bytes_short: bytes_short(docker, config.disk_free_mib_min.saturating_mul(MIB)).await,
            unused_ms_min: i64::try_from(config.unused_s_min.saturating_mul(1_000)).unwrap_or(i64::MAX),
        };
        let mut removed = Vec::new();
        for removal in plan_gc(&stored, clock::wall().unix_ms(), &limits) {
            let names = names.get(&removal.id).into_iter().flatten();
            if remove(docker, names).await? {
                info!(image = removal.id, mib = removal.bytes / MIB, "an unused image was removed");
                let mut records = self.inner.records.lock().unwrap_or_else(PoisonError::into_inner);
                records.images.remove(&removal.id);
                self.save(&records);
                drop(records);
                removed.push(removal);
            }
        }
        Ok(removed)
    }

    /// What this node fetched and the engine still has. Use is brought up to date.
    async fn stored(&self, docker: &Docker) -> Result<(Vec<Stored>, BTreeMap<String, BTreeSet<String>>), Error> {
        let all = ListContainersOptionsBuilder::default().all(true).build();
        let containers = docker.list_containers(Some(all)).await?;
        let used: BTreeSet<String> =
            containers.into_iter().filter_map(|one| one.image_id).map(|id| bare(&id).to_owned()).collect();
        let images = docker.list_images(Some(ListImagesOptionsBuilder::default().build())).await?;
        let mut records = self.inner.records.lock().unwrap_or_else(PoisonError::into_inner);
        let present: BTreeMap<String, u64> =
            images.into_iter().map(|one| (bare(&one.id).to_owned(), u64::try_from(one.size).unwrap_or(0))).collect();
        records.images.retain(|id, _| present.contains_key(bare(id)));
        let now_ms = clock::wall().unix_ms();
        let mut stored = Vec::new();
        for (id, record) in &mut records.images {
            let in_use = used.contains(bare(id));
            if in_use {
                record.last_used_ms = now_ms;
            }
            stored.push(Stored {
                id: id.clone(),
                bytes: present.get(bare(id)).copied().unwrap_or(0),
                last_used_ms: record.last_used_ms,
                in_use,
                pinned: record.names.iter().any(|name| self.inner.config.keeps(name)),
            });
        }
        self.save(&records);
        let names = records.images.iter().map(|(id, record)| (id.clone(), record.names.clone())).collect();
        Ok((stored, names))
    }
}

/// Waits for a pull and passes on how far it is.
async fn followed(
    work: Shared<Work>,
    mut news: watch::Receiver<PullProgress>,
    progress: &mut impl FnMut(PullProgress),
) -> Result<(), PullError> {
    let mut work = std::pin::pin!(work);
    let interval = Duration::from_millis(PROGRESS_INTERVAL_MS);
    let mut next = Instant::now();
    loop {
        tokio::select! {
            biased;
            result = &mut work => {
                progress(*news.borrow());
                return result;
            }
            Ok(()) = async {
                tokio::time::sleep_until(next).await;
                news.changed().await
            } => {
                progress(*news.borrow_and_update());
                next = Instant::now() + interval;
            }
        }
    }
}

/// The image as the engine has it; `None` if it has not.
async fn inspect(docker: &Docker, image: &ImageRef) -> Result<Option<ImageInspect>, ImageError> {
    match docker.inspect_image(&image.engine_name()).await {
        Ok(found) => Ok(Some(found)),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(ImageError::Engine { image: image.clone(), said: error.to_string() }),
    }
}

/// What an image's name means in its registry.
fn digest_of(image: &ImageRef, found: &ImageInspect) -> Option<String> {
    let digests = found.repo_digests.iter().flatten();
    let mut own = digests
        .filter_map(|text| ImageRef::parse(text, Some(DOCKER_HUB)).ok())
        .filter(|known| known.name() == image.name())
        .filter_map(|known| known.digest().map(ToOwned::to_owned));
    image.digest().map(ToOwned::to_owned).or_else(|| own.next())
}

/// Without the prefix that engines write or leave out.
fn bare(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

/// Takes the names of an image away; the last one takes the image. An engine refuses
/// what a container uses, and then it stays.
async fn remove(docker: &Docker, names: impl Iterator<Item = &String>) -> Result<bool, Error> {
    let mut is_removed = true;
    for name in names {
        let options = RemoveImageOptionsBuilder::default().force(false).build();
        match docker.remove_image(name, Some(options), None).await {
            Ok(_) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(Error::DockerResponseServerError { status_code: 409, message }) => {
                info!(name, message, "an image stays: it is used");
                is_removed = false;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(is_removed)
}

/// Bytes that are missing to the least free space on the engine's disk.
async fn bytes_short(docker: &Docker, bytes_min: u64) -> u64 {
    let root = match docker.info().await {
        Ok(info) => info.docker_root_dir,
        // Podman's answer is not always what the interface says.
        Err(_) => None,
    };
    let free = root.ok_or(io::ErrorKind::NotFound.into()).and_then(|root| free_bytes(root.as_ref()));
    free.map_or(0, |free| bytes_min.saturating_sub(free))
}
