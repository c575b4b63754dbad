//! A value that must not stand on a command line, where other users of the machine and the
//! shell's history see it: it is the content of a file, or comes from standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claw_proto::limits::SECRET_BYTES_MAX;
use serde_json::{Map, Value};

use crate::error::CliError;

/// Reads the value from a file, or from standard input if the path is `-`. A text loses the one
/// line end that editors put at its end; bytes are told as base64, with their `encoding`.
pub(crate) fn read(path: &str, args: &mut Map<String, Value>) -> Result<Value, CliError> {
    let bytes = if path == "-" {
        limited(io::stdin().lock())?
    } else {
        let path = Path::new(path);
        let file = File::open(path).map_err(|error| CliError::file(path, error))?;
        limited(file).map_err(|error| CliError::file(path, error))?
    };
    match String::from_utf8(bytes) {
        Ok(text) => {
            let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
            Ok(Value::from(text))
        }
        Err(error) => {
            args.insert("encoding".to_owned(), Value::from("base64"));
            Ok(Value::from(STANDARD.encode(error.as_bytes())))
        }
    }
}

/// One byte more than is allowed: the gateway says that it is too long.
fn limited(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(SECRET_BYTES_MAX as u64 + 2).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_text_without_the_last_line_end_or_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let value = |bytes: &[u8]| {
            let path = dir.path().join("value");
            std::fs::write(&path, bytes).unwrap();
            let mut args = Map::new();
            let value = read(path.to_str().unwrap(), &mut args).unwrap();
            (value, args.get("encoding").cloned())
        };
        assert_eq!(value(b"hunter2\n"), (Value::from("hunter2"), None));
        assert_eq!(value(b"a\n\n"), (Value::from("a\n"), None));
        assert_eq!(value(&[0xff, 0x0a]), (Value::from("/wo="), Some(Value::from("base64"))));
        assert!(read("/nonexistent/value", &mut Map::new()).is_err());
    }
}
