use std::os::unix::fs::symlink;

use super::*;

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_written_file_is_private_whole_and_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    write_private(&path, b"one").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    write_private(&path, b"two").unwrap();

    assert_eq!(mode_of(&path), 0o600, "replacing also repairs the mode");
    assert_eq!(read_private(&path).unwrap().as_slice(), b"two");
    assert_eq!(names_in(folder.path()), ["key"], "no temporary file stays behind");
}

#[test]
fn creating_never_replaces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    create_private(&path, b"first").unwrap();
    let error = create_private(&path, b"second").unwrap_err();

    assert!(matches!(error, SecretFileError::AlreadyExists { .. }), "{error}");
    assert_eq!(read_private(&path).unwrap().as_slice(), b"first");
    assert_eq!(mode_of(&path), 0o600);
    assert_eq!(names_in(folder.path()), ["key"]);
}

#[test]
fn a_file_others_can_read_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    write_private(&path, b"secret").unwrap();
    for mode in [0o640, 0o604, 0o620, 0o610, 0o601] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let message = read_private(&path).unwrap_err().to_string();
        let expected = format!(
            "{path} has mode {mode:04o}, so others can reach the secret in it; run: chmod 600 {path}",
            path = path.display()
        );
        assert_eq!(message, expected);
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(read_private(&path).unwrap().as_slice(), b"secret", "stricter than 0600 is fine");
}

#[test]
fn only_regular_files_of_bounded_size_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);

    let missing = read_private(&at("missing")).unwrap_err();
    assert!(missing.is_not_found(), "{missing}");

    ensure_private_folder(&at("sub/folder")).unwrap();
    let error = read_private(&at("sub/folder")).unwrap_err();
    assert!(matches!(error, SecretFileError::NotRegular { .. }), "{error}");

    #[cfg(target_os = "linux")]
    {
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
        let error = read_private(&at("pipe")).unwrap_err();
        assert!(matches!(error, SecretFileError::NotRegular { .. }), "a pipe must not hang the start: {error}");
    }

    let limit = usize::try_from(FILE_BYTES_MAX).unwrap();
    write_private(&at("full"), &vec![7; limit]).unwrap();
    assert_eq!(read_private(&at("full")).unwrap().len(), limit);
    write_private(&at("over"), &vec![7; limit + 1]).unwrap();
    let error = read_private(&at("over")).unwrap_err();
    assert!(matches!(error, SecretFileError::TooLarge { .. }), "{error}");

    symlink(at("full"), at("link")).unwrap();
    assert_eq!(read_private(&at("link")).unwrap().len(), limit, "mounted secrets are links");
}

#[test]
fn a_private_folder_is_closed_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pki");
    ensure_private_folder(&path).unwrap();
    assert_eq!(mode_of(&path), 0o700);
    ensure_private_folder(&path).unwrap();

    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let message = ensure_private_folder(&path).unwrap_err().to_string();
    assert!(message.ends_with(&format!("run: chmod 700 {}", path.display())), "{message}");

    let file = folder.path().join("file");
    write_private(&file, b"x").unwrap();
    let error = ensure_private_folder(&file).unwrap_err();
    assert!(matches!(error, SecretFileError::NotFolder { .. }), "{error}");
}

#[test]
fn of_many_creators_exactly_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let path = path.as_path();
    let winners: Vec<u8> = std::thread::scope(|scope| {
        let tries: Vec<_> =
            (0..8_u8).map(|n| scope.spawn(move || create_private(path, &[n; 64]).is_ok().then_some(n))).collect();
        tries.into_iter().filter_map(|handle| handle.join().unwrap()).collect()
    });
    assert_eq!(winners.len(), 1);
    assert_eq!(read_private(path).unwrap().as_slice(), [winners[0]; 64]);
}
