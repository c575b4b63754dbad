use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

fn open(root: &Path, mib_max: Option<u64>) -> Cache {
    Cache::open(root.join("cache"), CacheConfig { mib_max, ..CacheConfig::default() }).unwrap()
}

fn names(cache: &Cache) -> Vec<String> {
    cache.entries().unwrap().into_iter().map(|entry| entry.name).collect()
}

fn fill(cache: &Cache, name: &str, writer: &str, bytes: usize) -> Result<Vec<(String, Manifest)>, CacheError> {
    let folder = cache.fill(name, writer)?;
    fs::write(folder.join("weights.bin"), vec![0; bytes]).unwrap();
    cache.filled(writer, true)
}

#[test]
fn a_cache_is_there_when_it_is_complete_and_readers_keep_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), None);
    let staged = cache.fill("llama", "wl-1").unwrap();
    fs::create_dir(staged.join("sub")).unwrap();
    fs::write(staged.join("sub/a"), "old").unwrap();
    assert_eq!(cache.fill("llama", "wl-1").unwrap(), staged, "the same writer goes on");
    expect_test::expect!["cache llama is being filled by wl-1"]
        .assert_eq(&cache.fill("llama", "wl-2").unwrap_err().to_string());
    expect_test::expect!["cache llama is empty on this node; it has: none"]
        .assert_eq(&cache.read("llama", "wl-3").unwrap_err().to_string());
    let (_, manifest) = cache.filled("wl-1", true).unwrap().remove(0);
    assert_eq!((manifest.n_files, manifest.bytes, manifest.filled_by.as_str()), (1, 3, "wl-1"));

    let old = cache.read("llama", "wl-3").unwrap();
    fill(&cache, "llama", "wl-4", 7).unwrap();
    assert_eq!(fs::read_to_string(old.join("sub/a")).unwrap(), "old", "a reader keeps what it began with");
    let new = cache.read("llama", "wl-5").unwrap();
    assert_eq!(fs::read(new.join("weights.bin")).unwrap().len(), 7);
    cache.release("wl-3").unwrap();
    assert!(!old.exists(), "what nobody reads any more is removed");

    let lost = cache.fill("llama", "wl-6").unwrap();
    assert_eq!(cache.filled("wl-6", false).unwrap(), []);
    assert!(!lost.exists() && new.exists(), "what was not finished is thrown away");
    expect_test::expect!["cache llama is used by wl-5"].assert_eq(&cache.remove("llama").unwrap_err().to_string());
    cache.release("wl-5").unwrap();
    cache.remove("llama").unwrap();
    assert!(names(&cache).is_empty());
}

#[test]
fn after_a_crash_there_is_the_old_one_and_no_leftover() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), None);
    fill(&cache, "a", "wl-1", 5).unwrap();
    fs::write(cache.fill("a", "wl-2").unwrap().join("half"), "x").unwrap();
    fs::write(cache.fill("b", "wl-3").unwrap().join("half"), "x").unwrap();
    let kept = cache.read("a", "wl-4").unwrap();
    let gone = folder.path().join("cache/staging/.gone-1-1");
    fs::create_dir(&gone).unwrap();
    // The agent comes back and knows two of them.
    let cache = open(folder.path(), None);
    cache.recover(&BTreeSet::from(["wl-3".to_owned(), "wl-4".to_owned()])).unwrap();
    let staged: Vec<PathBuf> =
        fs::read_dir(folder.path().join("cache/staging")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(staged, [folder.path().join("cache/staging/b")]);
    assert!(kept.join("weights.bin").exists() && !gone.exists());
    assert_eq!(cache.filled("wl-3", true).unwrap()[0].1.n_files, 1, "a writer goes on over a restart");
    assert_eq!(names(&cache), ["a", "b"]);
}

#[test]
fn the_least_recently_used_goes_for_what_is_new() {
    const MIB_BYTES: usize = 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), Some(3));
    for name in ["a", "b", "c"] {
        fill(&cache, name, "wl", MIB_BYTES).unwrap();
    }
    cache.read("a", "reader").unwrap();
    fill(&cache, "d", "wl", MIB_BYTES).unwrap();
    assert_eq!(names(&cache), ["a", "c", "d"], "b is the oldest that nobody uses");
    let error = fill(&cache, "e", "wl", 3 * MIB_BYTES).unwrap_err().to_string();
    expect_test::expect![
        "cache e takes 3 MiB, and 2 MiB are left under this node's limit; nothing unused is left to remove"
    ]
    .assert_eq(&error);
    assert_eq!(names(&cache), ["a", "c", "d"], "nothing went for what does not fit");
}

#[test]
fn a_writer_of_several_seals_them_all_and_one_that_fails_takes_no_other_along() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), Some(1));
    for name in ["a", "b"] {
        fs::write(cache.fill(name, "wl-1").unwrap().join("x"), name).unwrap();
    }
    let sealed: Vec<String> = cache.filled("wl-1", true).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!((sealed, names(&cache)), (vec!["a".to_owned(), "b".to_owned()], vec!["a".to_owned(), "b".to_owned()]));
    for (name, bytes) in [("c", 2 << 20), ("d", 1)] {
        fs::write(cache.fill(name, "wl-2").unwrap().join("x"), vec![0; bytes]).unwrap();
    }
    assert!(matches!(cache.filled("wl-2", true), Err(CacheError::TooLarge { name, .. }) if name == "c"));
    assert!(names(&cache).contains(&"d".to_owned()));
    cache.fill("c", "wl-3").unwrap();
}

#[test]
fn what_would_leave_too_little_of_the_disk_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let config = CacheConfig { disk_free_mib_min: u64::MAX, ..CacheConfig::default() };
    let cache = Cache::open(folder.path().join("cache"), config).unwrap();
    assert!(matches!(fill(&cache, "a", "wl", 5), Err(CacheError::DiskFull { .. })));
    assert!(names(&cache).is_empty() && fs::read_dir(folder.path().join("cache/staging")).unwrap().count() == 0);
}

#[test]
fn who_fills_beyond_the_room_is_named_while_filling() {
    const MIB_BYTES: usize = 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), Some(4));
    for name in ["old", "read"] {
        fill(&cache, name, "wl", MIB_BYTES).unwrap();
    }
    cache.read("read", "reader").unwrap();
    let first = cache.fill("z", "wl-1").unwrap();
    let second = cache.fill("b", "wl-2").unwrap();
    let outgrown =
        || cache.outgrown().unwrap().into_iter().map(|(writer, why)| format!("{writer}: {why}")).collect::<Vec<_>>();
    fs::create_dir(first.join("sub")).unwrap();
    fs::write(first.join("sub/x"), vec![0; MIB_BYTES]).unwrap();
    fs::write(second.join("x"), vec![0; MIB_BYTES]).unwrap();
    assert_eq!((outgrown(), names(&cache).len()), (Vec::<String>::new(), 2), "all of it fits");
    fs::write(second.join("y"), vec![0; MIB_BYTES]).unwrap();
    assert_eq!(
        (outgrown(), names(&cache)),
        (Vec::<String>::new(), vec!["read".to_owned()]),
        "what nobody uses goes first"
    );
    fs::write(first.join("y"), vec![0; MIB_BYTES]).unwrap();
    let later =
        "wl-2: cache b takes 2 MiB, and 1 MiB are left under this node's limit; nothing unused is left to remove";
    assert_eq!(outgrown(), [later], "who began later gives way, whatever the names");
    cache.filled("wl-2", false).unwrap();
    assert_eq!(outgrown(), Vec::<String>::new());
    fs::write(first.join("z"), vec![0; 2 * MIB_BYTES]).unwrap();
    assert!(outgrown()[0].starts_with("wl-1: cache z takes 4 MiB, and 3 MiB are left"), "{:?}", outgrown());
    fs::remove_file(first.join("z")).unwrap();
    // A folder that has no room is not copied first.
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("x"), vec![0; 4 * MIB_BYTES]).unwrap();
    assert!(matches!(cache.import(&source, "m", false), Err(CacheError::TooLarge { mib: 4, room_mib: 1, .. })));
    assert!(!folder.path().join("cache/staging/m").exists());
    // What another import left that was cut off is in nobody's way.
    let cut_off = folder.path().join("cache/staging/m");
    fs::create_dir_all(cut_off.join("data")).unwrap();
    fs::write(cut_off.join("data/x"), vec![0; 4 * MIB_BYTES]).unwrap();
    let begin = |_: &Cache, uses: &mut Uses| {
        uses.begin("m", Some(4 << 20));
        uses.begin("without a folder", Some(4 << 20));
        Ok(())
    };
    cache.change(begin).unwrap();
    assert_eq!(outgrown(), Vec::<String>::new());
    fs::write(source.join("x"), vec![0; MIB_BYTES]).unwrap();
    assert_eq!(cache.import(&source, "m", false).unwrap().bytes, 1 << 20);
    // Measured before and sealed meanwhile: it is not counted twice, and nobody is stopped for it.
    cache.fill("b", "wl-3").unwrap();
    let measured = cache.filling().unwrap();
    assert_eq!(measured.iter().map(|one| one.bytes).collect::<Vec<_>>(), [2 << 20, 0]);
    cache.filled("wl-1", true).unwrap();
    cache.fill("z", "wl-9").unwrap();
    let (stopped, kept) = (cache.outgrown_of(&measured).unwrap().len(), names(&cache));
    assert_eq!((stopped, kept), (0, vec!["m".to_owned(), "read".to_owned(), "z".to_owned()]));
    cache.filled("wl-9", false).unwrap();
    cache.filled("wl-3", false).unwrap();
    // The disk gets full: who began last ends first.
    let config = CacheConfig { disk_free_mib_min: u64::MAX / MIB, ..CacheConfig::default() };
    let cache = Cache::open(folder.path().join("cache"), config).unwrap();
    cache.fill("a", "wl-3").unwrap();
    let outgrown = cache.outgrown().unwrap();
    assert!(matches!(&outgrown[..], [(writer, CacheError::DiskFull { name, .. })] if writer == "wl-3" && name == "a"));
    assert!(matches!(cache.import(&source, "m", false), Err(CacheError::DiskFull { .. })));
}

#[test]
fn a_folder_is_imported_with_its_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir_all(source.join("blobs")).unwrap();
    fs::write(source.join("blobs/1"), "abc").unwrap();
    std::os::unix::fs::symlink("blobs/1", source.join("model")).unwrap();
    let cache = open(folder.path(), None);
    let first = cache.import(&source, "m", true).unwrap();
    assert_eq!((first.n_files, first.bytes), (2, 3));
    let read = cache.read("m", "wl").unwrap();
    assert_eq!(fs::read_to_string(read.join("model")).unwrap(), "abc");
    assert_eq!(cache.import(&source, "m", true).unwrap().sha256, first.sha256);
    fs::write(source.join("blobs/1"), "abd").unwrap();
    assert_ne!(cache.import(&source, "m", true).unwrap().sha256, first.sha256);
    assert!(cache.import(&folder.path().join("none"), "m", false).is_err());
    assert!(cache.import(&source, "../m", false).is_err());
    assert_eq!(names(&cache), ["m"]);
}

/// Hashing and writing through takes minutes: who starts meanwhile does not wait for it.
#[test]
fn what_is_staged_is_measured_while_others_change_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), None);
    let staged = cache.fill("m", "wl-1").unwrap();
    fs::write(staged.join("x"), "abc").unwrap();
    let lock = open_lock(&folder.path().join("cache/lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let preparing = cache.clone();
    let thread = std::thread::spawn(move || tell.send(preparing.prepare("m", "wl-1", true).unwrap()));
    let prepared = told.recv_timeout(std::time::Duration::from_secs(20)).expect("it waits for the lock of all");
    drop(lock);
    thread.join().unwrap().unwrap();
    assert!(prepared.sha256.is_some() && prepared.bytes == 3);
    cache.read("m", "wl-2").unwrap_err();
    assert_eq!(cache.filled("wl-1", true).unwrap()[0].1.bytes, 3, "it becomes the cache by the rename alone");
    assert_eq!(names(&cache), ["m"]);
}

#[derive(Debug, Clone)]
enum Act {
    Fill(usize),
    End(usize, bool),
    Read(usize),
    Release(usize),
    Restart,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// C1 what a reader holds never changes; C2 a cache is always one whole writing;
    /// C3 after each step nothing lies about that nobody needs.
    #[test]
    fn readers_see_whole_caches(acts in prop::collection::vec(prop_oneof![
        (0_usize..3).prop_map(Act::Fill),
        ((0_usize..3), any::<bool>()).prop_map(|(n, ok)| Act::End(n, ok)),
        (0_usize..3).prop_map(Act::Read),
        (0_usize..3).prop_map(Act::Release),
        Just(Act::Restart),
    ], 1..16)) {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = open(folder.path(), None);
        let (mut stamp, mut held): (u32, BTreeMap<String, (PathBuf, String)>) = (0, BTreeMap::new());
        for act in acts {
            match act {
                Act::Fill(n) => if let Ok(data) = cache.fill("x", &format!("w{n}")) {
                    stamp += 1;
                    fs::write(data.join("one"), stamp.to_string()).unwrap();
                    fs::write(data.join("two"), stamp.to_string()).unwrap();
                },
                Act::End(n, ok) => { cache.filled(&format!("w{n}"), ok).unwrap(); }
                Act::Read(n) => if !held.contains_key(&format!("r{n}")) && let Ok(data) = cache.read("x", &format!("r{n}")) {
                    let text = fs::read_to_string(data.join("one")).unwrap();
                    prop_assert_eq!(&fs::read_to_string(data.join("two")).unwrap(), &text, "C2");
                    held.insert(format!("r{n}"), (data, text));
                },
                Act::Release(n) => {
                    cache.release(&format!("r{n}")).unwrap();
                    held.remove(&format!("r{n}"));
                }
                Act::Restart => {
                    cache = open(folder.path(), None);
                    cache.recover(&held.keys().cloned().collect()).unwrap();
                    prop_assert_eq!(fs::read_dir(folder.path().join("cache/staging")).unwrap().count(), 0, "C3");
                }
            }
            for (data, text) in held.values() {
                prop_assert_eq!(&fs::read_to_string(data.join("one")).unwrap(), text, "C1");
            }
            let n_sealed = fs::read_dir(folder.path().join("cache/sealed/x")).map_or(0, Iterator::count);
            prop_assert!(n_sealed <= held.len() + 1, "C3");
        }
    }
}
