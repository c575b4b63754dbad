//! Looks at containers that do not fail for one word of a state.
//!
//! Podman says of containers what Docker's interface has no word for: "stopped"
//! between the end of a program and its cleanup, "initialized" between making
//! and starting. The client knows Docker's words only and refuses the whole
//! answer, the containers of others included. Then it is read without the words.

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum,
};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The containers that are asked for; without the states that have no word at Docker.
pub(super) async fn list(docker: &Docker, options: ListContainersOptions) -> Result<Vec<ContainerSummary>, Error> {
    docker.list_containers(Some(options)).await.or_else(|error| read_without(error, forget_of_list))
}

/// One container; no word for its state where Docker has none.
pub(super) async fn inspect(docker: &Docker, name: &str) -> Result<ContainerInspectResponse, Error> {
    let found = docker.inspect_container(name, None::<InspectContainerOptions>).await;
    found.or_else(|error| read_without(error, forget_of_inspect))
}

fn forget_of_list(answer: &mut Value) {
    for one in answer.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        one.retain(|key, word| key != "State" || ContainerSummaryStateEnum::deserialize(&*word).is_ok());
    }
}

fn forget_of_inspect(answer: &mut Value) {
    if let Some(state) = answer.get_mut("State").and_then(Value::as_object_mut) {
        state.retain(|key, word| key != "Status" || ContainerStateStatusEnum::deserialize(&*word).is_ok());
    }
}

/// Reads an answer that the client could not, without what is to be forgotten. If that was not what it could not
/// read, the error stays, without the answer: that may hold what a container was told in confidence.
fn read_without<T: DeserializeOwned>(error: Error, forget: fn(&mut Value)) -> Result<T, Error> {
    let Error::JsonDataError { message, contents, column } = error else { return Err(error) };
    let read = serde_json::from_str::<Value>(&contents).and_then(|mut answer| {
        forget(&mut answer);
        serde_json::from_value(answer)
    });
    read.map_err(|_| Error::JsonDataError { message, contents: String::new(), column })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error that the client makes of an answer it cannot read.
    fn refused<T: DeserializeOwned>(contents: &str) -> Error {
        let Err(error) = serde_json::from_str::<T>(contents) else { panic!("it can be read: {contents}") };
        Error::JsonDataError { message: error.to_string(), contents: contents.to_owned(), column: error.column() }
    }

    #[test]
    fn one_unknown_state_hides_no_other_container() {
        let list = r#"[{"Id":"a","ImageID":"sha256:1","State":"running","Labels":{"x":"y"}},
            {"Id":"b","ImageID":"sha256:2","State":"stopped"}]"#;
        let read: Vec<ContainerSummary> = read_without(refused::<Vec<ContainerSummary>>(list), forget_of_list).unwrap();
        let states: Vec<_> = read.iter().map(|one| one.state).collect();
        assert_eq!(states, [Some(ContainerSummaryStateEnum::RUNNING), None]);
        let images: Vec<_> = read.iter().filter_map(|one| one.image_id.as_deref()).collect();
        assert_eq!(images, ["sha256:1", "sha256:2"]);
        assert_eq!(read[0].labels.as_ref().map(|labels| labels["x"].as_str()), Some("y"));
    }

    #[test]
    fn a_state_without_a_word_leaves_the_rest() {
        let answer = r#"{"Id":"a","State":{"Status":"stopped","Running":false,"ExitCode":3,"FinishedAt":"2026-12-01T10:00:00Z"}}"#;
        let read: ContainerInspectResponse =
            read_without(refused::<ContainerInspectResponse>(answer), forget_of_inspect).unwrap();
        let state = read.state.unwrap();
        assert_eq!((state.status, state.exit_code, state.running), (None, Some(3), Some(false)));
    }

    #[test]
    fn what_is_wrong_otherwise_stays_an_error() {
        let answer = r#"[{"Id":7,"State":"stopped"}]"#;
        let read = read_without::<Vec<ContainerSummary>>(refused::<Vec<ContainerSummary>>(answer), forget_of_list);
        let Err(Error::JsonDataError { contents, .. }) = read else { panic!("{read:?}") };
        assert_eq!(contents, "", "an error holds nothing of a container");
    }
}
