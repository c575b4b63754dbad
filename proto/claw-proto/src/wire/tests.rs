use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use prost_build::Config;
use protox::prost_reflect::prost_types::field_descriptor_proto::Label;

/// The folder `proto/`.
fn proto_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn committed_code_is_what_the_contract_generates() {
    let descriptors = protox::compile(["v1/node.proto"], [proto_dir()]).unwrap();
    let out = tempfile::tempdir().unwrap();
    Config::new().btree_map(["."]).out_dir(out.path()).compile_fds(descriptors).unwrap();
    let code = std::fs::read_to_string(out.path().join("claw.node.v1.rs")).unwrap();
    expect_file!["./node_v1.rs"].assert_eq(&code);
}

/// Numbers, names and types of the contract. In a review of a change, a line of
/// this golden may be added; one that is changed or gone breaks old peers.
#[test]
fn fields_and_their_numbers_are_as_recorded() {
    let descriptors = protox::compile(["v1/node.proto"], [proto_dir()]).unwrap();
    let mut lines = Vec::new();
    for file in &descriptors.file {
        for message in &file.message_type {
            for field in &message.field {
                let type_name = match field.type_name() {
                    "" => format!("{:?}", field.r#type()).to_lowercase(),
                    name => name.trim_start_matches(".claw.node.v1.").to_owned(),
                };
                let label = match (field.label(), field.proto3_optional(), field.oneof_index) {
                    (Label::Repeated, _, _) => "repeated ",
                    (_, true, _) => "optional ",
                    (_, false, Some(_)) => "oneof ",
                    (_, false, None) => "",
                };
                lines.push(format!("{}.{} = {} {label}{type_name}", message.name(), field.name(), field.number()));
            }
        }
        for kind in &file.enum_type {
            for value in &kind.value {
                lines.push(format!("{}.{} = {}", kind.name(), value.name(), value.number()));
            }
        }
    }
    let mut text = String::new();
    for line in lines {
        writeln!(text, "{line}").unwrap();
    }
    expect_file!["./node_v1.txt"].assert_eq(&text);
}
