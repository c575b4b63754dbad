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
use super::look;
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
    /// Names that it was fetched by and that no later fetch took; none once all have moved on.
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
    /// Held while a name is looked up for somebody, and while an image is removed: neither comes
    /// between the other's look and what follows from it.
    looking: tokio::sync::Mutex<()>,
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
            looking: tokio::sync::Mutex::new(()),
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
            PullPolicy::IfMissing | PullPolicy::Never => self.look_up(docker, &image, false).await?,
        };
        let is_pulled = present.is_none();
        let found = match present {
            Some(found) => found,
            None if policy == PullPolicy::Never => return Err(ImageError::Absent { image }),
            None => {
                self.collect_or_warn(docker, None).await;
                let (work, news) = self.join(docker, &image, request.auth);
                followed(work, news, &mut progress).await?;
                let missing =
                    || ImageError::Engine { image: image.clone(), said: "it is not there after its pull".into() };
                self.look_up(docker, &image, true).await?.ok_or_else(missing)?
            }
        };
        let id = found.id.clone().unwrap_or_default();
        if is_pulled {
            self.collect_or_warn(docker, Some(&id)).await;
        }
        let digest = digest_of(&image, &found);
        let user = found.config.and_then(|config| config.user).unwrap_or_default();
        Ok(FetchedImage { image, id, digest, user, is_pulled })
    }

    /// What a name means now, remembered as used before a removal can come between.
    async fn look_up(
        &self,
        docker: &Docker,
        image: &ImageRef,
        is_pulled: bool,
    ) -> Result<Option<ImageInspect>, ImageError> {
        let _looking = self.inner.looking.lock().await;
        let found = inspect(docker, image).await?;
        if let Some(id) = found.as_ref().and_then(|found| found.id.as_deref()) {
            self.used(id, is_pulled.then(|| image.engine_name()));
        }
        Ok(found)
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
        let inner = Arc::clone(&self.inner);
        let work = async move {
            // A removal that does not know of this pull ends before it may move the name.
            drop(inner.looking.lock().await);
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

    /// Whether one of these names is being fetched, so that what it means may change.
    fn is_pulling(&self, names: &BTreeSet<String>) -> bool {
        let pulls = self.inner.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = |pull: &&Pull| pull.work.upgrade().is_some_and(|work| work.peek().is_none());
        pulls.iter().filter(is_open).any(|pull| names.contains(&pull.image.engine_name()))
    }

    /// Remembers that an image is used now; `fetched_as` makes it this node's, and the name its alone.
    fn used(&self, id: &str, fetched_as: Option<String>) {
        let mut records = self.inner.records.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = clock::wall().unix_ms();
        if let Some(name) = &fetched_as {
            for (_, other) in records.images.iter_mut().filter(|(other, _)| bare(other) != bare(id)) {
                other.names.remove(name);
            }
        }
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

    async fn collect_or_warn(&self, docker: &Docker, kept: Option<&str>) {
        if let Err(error) = self.collect_but(docker, kept).await {
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
        self.collect_but(docker, None).await
    }

    /// [`Self::collect`], but not `kept`, which a fetch has just got.
    async fn collect_but(&self, docker: &Docker, kept: Option<&str>) -> Result<Vec<Removal>, Error> {
        let _one = self.inner.collecting.lock().await;
        let stored = self.stored(docker, kept).await?;
        let config = &self.inner.config;
        let limits = Limits {
            bytes_max: config.images_mib_max.map(|mib| mib.saturating_mul(MIB)),
            bytes_short: bytes_short(docker, config.disk_free_mib_min.saturating_mul(MIB)).await,
            unused_ms_min: i64::try_from(config.unused_s_min.saturating_mul(1_000)).unwrap_or(i64::MAX),
        };
        let used_ms: BTreeMap<&str, i64> = stored.iter().map(|one| (one.id.as_str(), one.last_used_ms)).collect();
        let mut removed = Vec::new();
        for removal in plan_gc(&stored, clock::wall().unix_ms(), &limits) {
            let planned_ms = used_ms.get(removal.id.as_str()).copied().unwrap_or(0);
            if self.remove(docker, &removal.id, planned_ms).await? {
                info!(image = removal.id, mib = removal.bytes / MIB, "an unused image was removed");
                removed.push(removal);
            }
        }
        Ok(removed)
    }

    /// Removes an image, unless it was used since `planned_ms`, when the plan saw it last, or one of
    /// its names is being fetched. Its names are taken away as far as they still mean it (the last one
    /// takes the image along), and the rest goes by its id, which hits no other image.
    async fn remove(&self, docker: &Docker, id: &str, planned_ms: i64) -> Result<bool, Error> {
        let _looking = self.inner.looking.lock().await;
        let Some(names) = self.names_if_unused_since(id, planned_ms) else { return Ok(false) };
        if self.is_pulling(&names) {
            return Ok(false);
        }
        for name in &names {
            let found = known(docker, name).await?.and_then(|found| found.id);
            if found.is_some_and(|found| bare(&found) == bare(id)) && !take_away(docker, name).await? {
                return Ok(false);
            }
        }
        let rest = known(docker, id).await?;
        let has_other_names = rest.as_ref().is_some_and(|rest| rest.repo_tags.iter().any(|names| !names.is_empty()));
        if rest.is_some() && !has_other_names && !take_away(docker, id).await? {
            return Ok(false);
        }
        // With a name that somebody else gave it, it is not this node's any more.
        let mut records = self.inner.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.images.remove(id);
        self.save(&records);
        Ok(!has_other_names)
    }

    fn names_if_unused_since(&self, id: &str, planned_ms: i64) -> Option<BTreeSet<String>> {
        let records = self.inner.records.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.images.get(id).filter(|record| record.last_used_ms == planned_ms);
        record.map(|record| record.names.clone())
    }

    /// What this node fetched and the engine still has. Use is brought up to date.
    async fn stored(&self, docker: &Docker, kept: Option<&str>) -> Result<Vec<Stored>, Error> {
        let all = ListContainersOptionsBuilder::default().all(true).build();
        let containers = look::list(docker, all).await?;
        let used: BTreeSet<String> =
            containers.into_iter().filter_map(|one| one.image_id).map(|id| bare(&id).to_owned()).collect();
        // What is fetched meanwhile is not in the list, and must not be forgotten for that.
        let _looking = self.inner.looking.lock().await;
        let images = docker.list_images(Some(ListImagesOptionsBuilder::default().build())).await?;
        let mut records = self.inner.records.lock().unwrap_or_else(PoisonError::into_inner);
        let present: BTreeMap<String, u64> =
            images.into_iter().map(|one| (bare(&one.id).to_owned(), u64::try_from(one.size).unwrap_or(0))).collect();
        records.images.retain(|id, _| present.contains_key(bare(id)));
        let now_ms = clock::wall().unix_ms();
        let mut stored = Vec::new();
        for (id, record) in &mut records.images {
            let in_use = used.contains(bare(id)) || kept.is_some_and(|kept| bare(kept) == bare(id));
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
        Ok(stored)
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
    let said = |error: Error| ImageError::Engine { image: image.clone(), said: error.to_string() };
    known(docker, &image.engine_name()).await.map_err(said)
}

/// What the engine has under a name or an id.
async fn known(docker: &Docker, name: &str) -> Result<Option<ImageInspect>, Error> {
    match docker.inspect_image(name).await {
        Ok(found) => Ok(Some(found)),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(error),
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

/// Takes a name away, the last one with its image; or an image by its id. An engine refuses
/// what a container uses, and then it stays.
async fn take_away(docker: &Docker, name: &str) -> Result<bool, Error> {
    let options = RemoveImageOptionsBuilder::default().force(false).build();
    match docker.remove_image(name, Some(options), None).await {
        Ok(_) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(true),
        Err(Error::DockerResponseServerError { status_code: 409, message }) => {
            info!(name, message, "an image stays: it is used");
            Ok(false)
        }
        Err(error) => Err(error),
    }
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

#[cfg(test)]
mod tests;
