//! `claw workload copy --to`: a file or a folder of outputs, whole or not at all.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claw_tools::inside::WorkloadCopy;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::approve;
use crate::error::CliError;
use crate::exit::Exit;
use crate::run::Session;

/// Bytes of one piece.
const PIECE_BYTES: u32 = 512 * 1024;
/// Deepest folder that is followed.
const DEPTH_MAX: usize = 32;
/// Ending of a file that is not whole yet.
const PARTIAL: &str = ".part";

/// What was saved.
#[derive(Debug, Default)]
struct Saved {
    files: u64,
    bytes: u64,
}

/// Saves what stands at the path of the call's arguments.
pub(crate) async fn to(session: &Session<'_>, args: &Map<String, Value>, to: &Path) -> Result<Exit, CliError> {
    let mut saved = Saved::default();
    let first = piece(session, args, 0).await?;
    let root = first.path.clone();
    if root.is_empty() {
        return Err(CliError::Usage("say which output: --path (without --to the declared ones are named)"));
    }
    if first.entries.is_some() {
        folder(session, args, first, to, &mut saved).await?;
    } else {
        let into = if to.is_dir() { to.join(last_name(&root)?) } else { to.to_owned() };
        file(session, args, first, &into, &mut saved).await?;
    }
    let Saved { files, bytes } = saved;
    if session.screen.is_json() {
        session.screen.json(&json!({ "saved": to, "files": files, "bytes": bytes }))?;
    } else {
        session.screen.print(&format!("saved {root} to {}: {files} file(s), {bytes} bytes\n", to.display()))?;
    }
    Ok(Exit::Ok)
}

fn last_name(path: &str) -> Result<&str, CliError> {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if is_plain(name) { Ok(name) } else { Err(CliError::Usage("say the name of the file: --to DIR/NAME")) }
}

/// A name comes from the workload: it must not lead out of the folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0', '\u{fffd}'])
}

async fn piece(session: &Session<'_>, args: &Map<String, Value>, offset: u64) -> Result<WorkloadCopy, CliError> {
    let mut args = args.clone();
    args.insert("encoding".into(), json!("base64"));
    args.insert("bytes_max".into(), json!(PIECE_BYTES));
    args.insert("offset".into(), json!(offset));
    approve::ask(session, "workload_copy", Value::Object(args)).await
}

fn broken(session: &Session<'_>, why: String) -> CliError {
    CliError::Protocol { url: session.client.url().to_owned(), why }
}

async fn file(
    session: &Session<'_>,
    args: &Map<String, Value>,
    first: WorkloadCopy,
    to: &Path,
    saved: &mut Saved,
) -> Result<(), CliError> {
    let mut partial = to.as_os_str().to_owned();
    partial.push(PARTIAL);
    let partial = PathBuf::from(partial);
    let written = pieces(session, args, first, &partial).await;
    match written {
        Ok(bytes) => {
            fs::rename(&partial, to).map_err(|error| CliError::file(to, error))?;
            saved.files += 1;
            saved.bytes += bytes;
            Ok(())
        }
        Err(error) => {
            // What is not whole must not look as if it were.
            drop(fs::remove_file(&partial));
            Err(error)
        }
    }
}

async fn pieces(
    session: &Session<'_>,
    args: &Map<String, Value>,
    first: WorkloadCopy,
    partial: &Path,
) -> Result<u64, CliError> {
    let failed = |error| CliError::file(partial, error);
    let mut out = File::create(partial).map_err(failed)?;
    let (mut digest, mut n_bytes, mut copy) = (Sha256::new(), 0_u64, first);
    let total = copy.total_bytes;
    loop {
        let text = copy.base64.as_deref().ok_or_else(|| broken(session, "a piece of a file has no content".into()))?;
        let bytes = STANDARD.decode(text).map_err(|error| broken(session, error.to_string()))?;
        out.write_all(&bytes).map_err(failed)?;
        digest.update(&bytes);
        n_bytes += bytes.len() as u64;
        if copy.total_bytes != total {
            return Err(broken(session, "the file changed while it was read; read it again when it is whole".into()));
        }
        let Some(next) = copy.next_offset else { break };
        copy = piece(session, args, next).await?;
    }
    out.sync_all().map_err(failed)?;
    if total != Some(n_bytes) {
        return Err(broken(session, format!("{n_bytes} bytes came, and the file has {}", total.unwrap_or_default())));
    }
    let hex = digest.finalize().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    match &copy.sha256 {
        Some(told) if *told != hex => {
            Err(broken(session, "what came is not what the node has (SHA-256 differs)".into()))
        }
        Some(_) | None => Ok(n_bytes),
    }
}

/// Saves a folder, whatever is below it first come first.
async fn folder(
    session: &Session<'_>,
    args: &Map<String, Value>,
    top: WorkloadCopy,
    to: &Path,
    saved: &mut Saved,
) -> Result<(), CliError> {
    let mut open = vec![(top, to.to_owned(), 0)];
    while let Some((listing, to, depth)) = open.pop() {
        if listing.truncated || depth > DEPTH_MAX {
            let why = format!("{} has more than can be listed; copy what is below it one by one", listing.path);
            return Err(broken(session, why));
        }
        fs::create_dir_all(&to).map_err(|error| CliError::file(&to, error))?;
        for entry in listing.entries.iter().flatten() {
            if !is_plain(&entry.name) {
                return Err(broken(session, format!("{:?} is not a name that can be saved", entry.name)));
            }
            let mut args = args.clone();
            args.insert("path".into(), json!(format!("{}/{}", listing.path.trim_end_matches('/'), entry.name)));
            let (copy, into) = (piece(session, &args, 0).await?, to.join(&entry.name));
            if copy.entries.is_some() {
                open.push((copy, into, depth + 1));
            } else {
                file(session, &args, copy, &into, saved).await?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn a_name_from_a_workload_stays_in_its_folder() {
        assert!(is_plain("result.json") && is_plain("..hidden"));
        for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0b"] {
            assert!(!is_plain(name), "{name:?}");
        }
    }
}
