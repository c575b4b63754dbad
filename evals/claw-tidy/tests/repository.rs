//! The rules of the repository: one test each. A failure lists every finding with its
//! file, its line and the way out.

use claw_tidy::metadata::{Resolved, Workspace, cargo_metadata, resolved, workspace};
use claw_tidy::repo::Repo;
use claw_tidy::scan::Source;
use claw_tidy::{Broken, components, docs, errors, holds, layers, manifests, purity};
use claw_tidy::{scripts, sizes, words};

fn repo() -> Repo {
    Repo::load().expect("the checkout is readable")
}

fn sources() -> Vec<Source> {
    repo().rust()
}

fn crates() -> Workspace {
    let metadata = cargo_metadata(&repo().root, false);
    workspace(&metadata.expect("cargo metadata --no-deps works"))
}

fn graph() -> Resolved {
    let metadata = cargo_metadata(&repo().root, true);
    resolved(&metadata.expect("cargo metadata works offline once the workspace is built"))
}

#[test]
fn every_crate_has_a_layer_and_arrows_point_down() -> Result<(), Broken> {
    holds(layers::check_layers(&repo(), &crates()))
}

#[test]
fn gateway_and_node_do_not_know_each_other() -> Result<(), Broken> {
    holds(layers::check_sides(&repo(), &crates()))
}

#[test]
fn pure_crates_link_no_runtime_network_or_database() -> Result<(), Broken> {
    holds(layers::check_pure_graph(&crates(), &graph()))
}

#[test]
fn heavy_packages_stay_behind_their_fences() -> Result<(), Broken> {
    holds(layers::check_fences(&repo(), &crates()))
}

#[test]
fn gpu_runtimes_are_linked_by_a_feature_only() -> Result<(), Broken> {
    holds(layers::check_by_feature(&crates(), &graph()))
}

#[test]
fn one_tls_stack_and_sorted_json() -> Result<(), Broken> {
    let repo = repo();
    let lock = repo.text("Cargo.lock").expect("the lock file is committed");
    holds(layers::check_packages(lock, &graph()))
}

#[test]
fn every_library_is_linked_into_a_program() -> Result<(), Broken> {
    holds(layers::check_reachable(&crates()))
}

#[test]
fn pure_crates_read_no_clock_and_touch_nothing_outside() -> Result<(), Broken> {
    holds(purity::check_purity(&sources()))
}

#[test]
fn every_crate_shares_the_lints() -> Result<(), Broken> {
    holds(manifests::check_lints(&repo(), &crates()))
}

#[test]
fn crates_stand_in_folders_of_their_names() -> Result<(), Broken> {
    holds(manifests::check_folders(&crates()))
}

#[test]
fn every_crate_is_a_member() -> Result<(), Broken> {
    holds(manifests::check_members(&repo(), &crates()))
}

#[test]
fn no_crate_is_empty() -> Result<(), Broken> {
    holds(manifests::check_content(&sources(), &crates()))
}

#[test]
fn the_component_table_is_true() -> Result<(), Broken> {
    holds(components::check_components(&repo(), &sources()))
}

#[test]
fn files_are_short() -> Result<(), Broken> {
    holds(sizes::check_files(&sources()))
}

#[test]
fn functions_are_short() -> Result<(), Broken> {
    holds(sizes::check_functions(&sources()))
}

#[test]
fn nothing_confesses_to_be_unfinished() -> Result<(), Broken> {
    let repo = repo();
    let texts = repo.with_extension(&[".rs", ".md"]);
    let findings = texts.iter().flat_map(|(path, text)| words::check_words(path, text));
    holds(findings.collect::<Vec<_>>())
}

#[test]
fn no_path_of_one_machine() -> Result<(), Broken> {
    let repo = repo();
    let texts = repo.files.iter();
    let findings = texts.flat_map(|(path, text)| words::check_machine_paths(path, text));
    holds(findings.collect::<Vec<_>>())
}

#[test]
fn queues_are_bounded_and_the_environment_is_left_alone() -> Result<(), Broken> {
    holds(sources().iter().flat_map(words::check_calls).collect())
}

#[test]
fn tests_do_not_sleep() -> Result<(), Broken> {
    holds(words::check_sleeps(&sources()))
}

#[test]
fn every_error_code_has_its_page() -> Result<(), Broken> {
    holds(errors::check_error_pages(&repo()))
}

#[test]
fn every_refused_field_is_a_known_gap() -> Result<(), Broken> {
    holds(errors::check_gaps(&repo()))
}

#[test]
fn the_documents_are_there() -> Result<(), Broken> {
    holds(docs::check_required(&repo()))
}

#[test]
fn links_lead_somewhere() -> Result<(), Broken> {
    holds(docs::check_links(&repo()))
}

#[test]
fn paths_in_documents_exist() -> Result<(), Broken> {
    holds(docs::check_paths(&repo()))
}

#[test]
fn commands_in_documents_exist() -> Result<(), Broken> {
    holds(docs::check_commands(&repo()))
}

#[test]
fn every_crate_is_on_the_map() -> Result<(), Broken> {
    holds(docs::check_map(&repo(), &crates()))
}

#[test]
fn every_promise_has_its_test() -> Result<(), Broken> {
    holds(docs::check_promises(&repo(), &sources()))
}

#[test]
fn the_scripts_are_small_and_ci_runs_what_people_run() -> Result<(), Broken> {
    holds(scripts::check_scripts(&repo()))
}
