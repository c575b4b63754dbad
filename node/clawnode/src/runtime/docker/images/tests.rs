//! Images on an engine whose answers are scripted, so that it is known what comes between them.

use std::path::Path;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::super::engine::client;
use super::*;

const NAME: &str = "registry.test/claw/x:latest";
const BYTES: u64 = 15 * 1024 * MIB;

/// What an engine has, and what its registry has.
struct World {
    /// Names of the images, by id.
    images: BTreeMap<String, BTreeSet<String>>,
    /// What [`NAME`] means in the registry.
    newest: &'static str,
    /// Done when the engine is asked about itself: a collection does so before it plans.
    on_info: Option<Box<dyn FnOnce() + Send>>,
}

impl World {
    /// The first image has the name, the registry has the second one under it.
    fn new() -> Self {
        let images = BTreeMap::from([("sha256:a".to_owned(), BTreeSet::from([NAME.to_owned()]))]);
        Self { images, newest: "sha256:b", on_info: None }
    }

    fn answer(&mut self, method: &str, path: &str) -> (u16, String) {
        let path = path.split('?').next().unwrap_or_default();
        let Some((_, rest)) = path.split_once("/images/") else {
            let is_info = path.ends_with("/info");
            if is_info && let Some(act) = self.on_info.take() {
                act();
            }
            return (200, if is_info { "{}" } else { "[]" }.to_owned());
        };
        match (method, rest) {
            ("GET", "json") => (200, self.list()),
            ("POST", _) => {
                self.pull();
                (200, String::new())
            }
            ("GET", _) => match self.find(rest.trim_end_matches("/json")) {
                Some(id) => (200, json!({ "Id": id, "RepoTags": self.images[&id] }).to_string()),
                None => (404, json!({ "message": "no such image" }).to_string()),
            },
            (_, name) => self.remove(name),
        }
    }

    fn list(&self) -> String {
        let one = |id: &String| {
            json!({
                "Id": id, "ParentId": "", "RepoTags": [], "RepoDigests": [], "Created": 0, "Size": BYTES,
                "SharedSize": 0, "Labels": {}, "Containers": 0,
            })
        };
        json!(self.images.keys().map(one).collect::<Vec<_>>()).to_string()
    }

    fn pull(&mut self) {
        for names in self.images.values_mut() {
            names.remove(NAME);
        }
        self.images.entry(self.newest.to_owned()).or_default().insert(NAME.to_owned());
    }

    fn find(&self, name: &str) -> Option<String> {
        let mut images = self.images.iter();
        images.find(|(id, names)| id.as_str() == name || names.contains(name)).map(|(id, _)| id.clone())
    }

    /// A name goes, the last one with its image; an image with several names does not go by its id.
    fn remove(&mut self, name: &str) -> (u16, String) {
        let Some(id) = self.find(name) else {
            return (404, json!({ "message": "no such image" }).to_string());
        };
        let names = self.images.get_mut(&id).unwrap();
        if name == id && names.len() > 1 {
            return (409, json!({ "message": "it has several names" }).to_string());
        }
        names.remove(name);
        if name == id || names.is_empty() {
            self.images.remove(&id);
        }
        (200, "[]".to_owned())
    }
}

async fn answer(mut stream: UnixStream, world: Arc<Mutex<World>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        request.push(byte);
    }
    let request = String::from_utf8(request).unwrap();
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let (status, body) = world.lock().unwrap().answer(method, path);
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}

/// The engine, and what this node remembers of its first image: fetched long ago.
fn engine(folder: &Path) -> (Docker, Arc<Mutex<World>>) {
    let socket = folder.join("engine.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let world = Arc::new(Mutex::new(World::new()));
    let served = Arc::clone(&world);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&served)));
        }
    });
    let record = Record { names: BTreeSet::from([NAME.to_owned()]), last_used_ms: 0 };
    let records = Records { images: BTreeMap::from([("sha256:a".to_owned(), record)]) };
    replace_json(&folder.join("images.json"), &records, Durability::Cached).unwrap();
    (client(&socket, &(1, 41)).unwrap(), world)
}

fn images(folder: &Path, gib_max: Option<u64>) -> Images {
    let images_mib_max = gib_max.map(|gib| gib * 1024);
    let config = ImagesConfig { images_mib_max, disk_free_mib_min: 0, ..ImagesConfig::default() };
    Images::open(folder.join("images.json"), config)
}

#[tokio::test]
async fn an_image_whose_name_moved_goes_by_its_id_and_the_new_one_stays() {
    // Collected right behind the pull, or by a later agent that has less room.
    for gib_max in [Some(25), None] {
        let folder = tempfile::tempdir().unwrap();
        let (docker, world) = engine(folder.path());
        let always = ImageRequest { image: NAME, pull: Some(PullPolicy::Always), auth: None };
        let fetched = images(folder.path(), gib_max).fetch(&docker, &always, |_| {}).await.unwrap();
        assert_eq!(fetched.id, "sha256:b");
        let later = images(folder.path(), Some(25));
        later.collect(&docker).await.unwrap();
        let left = world.lock().unwrap().images.clone();
        assert_eq!(left, BTreeMap::from([("sha256:b".to_owned(), BTreeSet::from([NAME.to_owned()]))]), "{gib_max:?}");
        let known: Vec<String> = later.inner.records.lock().unwrap().images.keys().cloned().collect();
        assert_eq!(known, ["sha256:b"]);
    }
}

#[tokio::test]
async fn what_was_looked_up_after_the_plan_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (docker, world) = engine(folder.path());
    let images = images(folder.path(), Some(0));
    let starting = images.clone();
    world.lock().unwrap().on_info = Some(Box::new(move || starting.used("sha256:a", None)));
    assert_eq!(images.collect(&docker).await.unwrap(), []);
    assert_eq!(world.lock().unwrap().find(NAME).as_deref(), Some("sha256:a"));
}
