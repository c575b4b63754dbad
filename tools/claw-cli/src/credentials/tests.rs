use std::fs;
use std::path::Path;

use super::*;

fn connection(data_dir: &Path) -> Connection {
    Connection { gateway: None, key: None, key_file: None, ca_file: None, data_dir: data_dir.to_owned() }
}

#[test]
fn a_key_given_directly_is_before_a_named_file_and_that_before_the_data_folder() {
    let dir = tempfile::tempdir().unwrap();
    let shown = |c: &Connection| {
        let (key, source) = c.key().unwrap();
        (key.map(|key| key.expose().to_owned()), source)
    };
    let mut c = connection(dir.path());
    let admin = dir.path().join(ADMIN_KEY_FILE);
    let nowhere = KeySource::Nowhere { looked_at: admin.clone() };
    assert_eq!(shown(&c), (None, nowhere));
    fs::write(&admin, "admin-key\n").unwrap();
    assert_eq!(shown(&c), (Some("admin-key".to_owned()), KeySource::File(admin)));
    let other = dir.path().join("other");
    c.key_file = Some(other.clone());
    assert!(matches!(c.key(), Err(CliError::File { path, .. }) if path == other));
    fs::write(&other, " other-key ").unwrap();
    assert_eq!(shown(&c), (Some("other-key".to_owned()), KeySource::File(other)));
    c.key = Some(Secret::new("given"));
    assert_eq!(shown(&c), (Some("given".to_owned()), KeySource::Given));
    assert_eq!(format!("{:?}", c.key), "Some([secret])");
}

#[test]
fn the_url_is_the_named_one_or_that_of_the_gateway_here_or_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = connection(dir.path());
    assert_eq!(c.url(), GATEWAY_DEFAULT);
    fs::write(dir.path().join(URL_FILE), "http://127.0.0.1:9/mcp\n").unwrap();
    assert_eq!(c.url(), "http://127.0.0.1:9/mcp");
    c.gateway = Some("https://fleet.example/mcp".to_owned());
    assert_eq!(c.url(), "https://fleet.example/mcp");
    assert_eq!(c.endpoint().unwrap().ca_pem, None);
    c.ca_file = Some(dir.path().join("authority.pem"));
    assert!(matches!(c.endpoint(), Err(CliError::File { .. })));
    fs::write(dir.path().join("authority.pem"), "pem").unwrap();
    assert_eq!(c.endpoint().unwrap().ca_pem.as_deref(), Some("pem"));
}

#[test]
fn the_data_folder_follows_the_base_directories() {
    let path = |xdg: Option<&str>, home: Option<&str>| {
        default_data_dir(xdg.map(Path::new), home.map(Path::new)).display().to_string()
    };
    assert_eq!(path(Some("/x"), Some("/h")), "/x/clawbernetes");
    assert_eq!(path(Some("relative"), Some("/h")), "/h/.local/share/clawbernetes");
    assert_eq!(path(None, Some("/h")), "/h/.local/share/clawbernetes");
    assert_eq!(path(None, None), "./clawbernetes");
}
