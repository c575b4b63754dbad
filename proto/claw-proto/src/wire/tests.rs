use std::path::{Path, PathBuf};

use expect_test::expect_file;
use prost_build::Config;

/// The folder `proto/`.
fn proto_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn committed_code_is_what_the_contract_generates() {
    let descriptors = protox::compile(["v1/node.proto"], [proto_dir()]).unwrap();
    let out = tempfile::tempdir().unwrap();
    Config::new()
        .btree_map(["."])
        .out_dir(out.path())
        .compile_fds(descriptors)
        .unwrap();
    let code = std::fs::read_to_string(out.path().join("claw.node.v1.rs")).unwrap();
    expect_file!["./node_v1.rs"].assert_eq(&code);
}
