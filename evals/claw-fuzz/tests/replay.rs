//! Every kept input goes through its target, with the compiler that everybody has.

use std::fs;
use std::path::PathBuf;

use claw_fuzz::{TARGETS, corpus_dir, run};

/// Most files of the corpus, and most bytes of them.
const FILES_MAX: usize = 60;
const BYTES_MAX: u64 = 300 * 1024;

fn corpus_of(target: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(corpus_dir().join(target)).unwrap_or_else(|error| panic!("corpus of {target}: {error}"));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn every_kept_input_keeps_the_promises() {
    for target in TARGETS {
        for path in corpus_of(target.name) {
            println!("{}", path.display());
            run(target.name, &fs::read(path).unwrap());
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_it_is_small() {
    let mut kept = Vec::new();
    for target in TARGETS {
        let files = corpus_of(target.name);
        assert!(!files.is_empty(), "{} has no corpus", target.name);
        kept.extend(files);
    }
    let n_bytes: u64 = kept.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(kept.len() <= FILES_MAX && n_bytes <= BYTES_MAX, "{} files, {n_bytes} bytes", kept.len());
}

#[test]
fn every_folder_is_of_a_target_and_every_target_is_a_program() {
    let names = TARGETS.map(|target| target.name);
    for entry in fs::read_dir(corpus_dir()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&name.as_str()), "corpus/{name} is of no target");
    }
    let manifest = fs::read_to_string(corpus_dir().join("../fuzz/Cargo.toml")).unwrap();
    let programs: Vec<&str> =
        manifest.split("[[bin]]\nname = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(programs, names);
}

#[test]
fn nothing_and_anything_go_through_every_target() {
    for target in TARGETS {
        for bytes in [&b""[..], b"\0", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"workload_run\n{}", &[0x0A; 300]] {
            (target.run)(bytes);
        }
    }
}
