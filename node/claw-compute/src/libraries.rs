//! Whether a vendor's library can be opened, asked before a runtime is touched: a
//! runtime of CubeCL without its library panics, and that of AMD aborts the process.
#![expect(unsafe_code, reason = "opening a library runs its initializers")]

use crate::report::{ErrorCode, ProbeError};

/// Opens a library and leaves it open: the runtime that comes next finds it loaded.
///
/// # Errors
/// The loader's words.
pub(crate) fn open(names: &[&str], code: ErrorCode) -> Result<(), ProbeError> {
    let mut said = Vec::new();
    for name in names {
        // SAFETY: the vendor's initializers are trusted as those of every library of the system.
        match unsafe { libloading::Library::new(name) } {
            Ok(library) => {
                std::mem::forget(library);
                return Ok(());
            }
            Err(error) => said.push(error.to_string()),
        }
    }
    Err(ProbeError::new(code, format!("{} cannot be opened: {}", names.join(" or "), said.join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_an_error_that_names_it() {
        assert_eq!(open(&["libc.so.6"], ErrorCode::NoRuntime), Ok(()));
        let error = open(&["libnowhere.so.1", "libnever.so"], ErrorCode::NoRuntime).unwrap_err();
        assert_eq!(error.code, ErrorCode::NoRuntime);
        assert!(error.message.starts_with("libnowhere.so.1 or libnever.so cannot be opened: "), "{error}");
        assert!(error.message.matches("No such file").count() == 2, "{error}");
    }
}
