//! Takes the bytes of a state as they come, and sums them up on the way.

use std::fmt;
use std::io::{self, BufWriter, Write};

use sha2::{Digest as _, Sha256};

/// Bytes that go on together.
const CHUNK_BYTES: usize = 256 * 1024;

/// What a state is written to.
pub type StateWriter<'a> = BufWriter<Summed<'a>>;

/// Counts and sums what goes through it.
pub struct Summed<'a> {
    to: &'a mut (dyn Write + Send),
    sum: Sha256,
    n_bytes: u64,
}

impl fmt::Debug for Summed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Summed").field("n_bytes", &self.n_bytes).finish_non_exhaustive()
    }
}

/// Has `write` write to `to`; returns the size of it, and its SHA-256.
pub(crate) fn write_summed(
    to: &mut (dyn Write + Send),
    write: impl FnOnce(&mut StateWriter<'_>) -> io::Result<()>,
) -> io::Result<(u64, [u8; 32])> {
    let mut out = BufWriter::with_capacity(CHUNK_BYTES, Summed { to, sum: Sha256::new(), n_bytes: 0 });
    write(&mut out)?;
    let Summed { sum, n_bytes, .. } = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok((n_bytes, sum.finalize().into()))
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.sum.update(&bytes[..n]);
        self.n_bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
