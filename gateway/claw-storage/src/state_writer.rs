//! Takes the bytes of a state as they come, and sums them up on the way.

use std::fs::File;
use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

/// Bytes that go on together.
const CHUNK_BYTES: usize = 256 * 1024;

/// A writer with a sum.
#[derive(Debug)]
pub struct StateWriter {
    chunk: Vec<u8>,
    sum: Sha256,
    n_bytes: u64,
    to: Target,
}

#[derive(Debug)]
enum Target {
    File(File),
    Memory(Vec<u8>),
}

impl StateWriter {
    fn new(to: Target) -> Self {
        Self { chunk: Vec::with_capacity(CHUNK_BYTES), sum: Sha256::new(), n_bytes: 0, to }
    }

    pub(crate) fn to_file(file: File) -> Self {
        Self::new(Target::File(file))
    }

    pub(crate) fn to_memory() -> Self {
        Self::new(Target::Memory(Vec::new()))
    }

    /// Ends a file, durably; returns its size and its sum.
    pub(crate) fn finish(mut self) -> io::Result<(u64, [u8; 32])> {
        self.flush()?;
        if let Target::File(file) = &self.to {
            file.sync_all()?;
        }
        Ok((self.n_bytes, self.sum.finalize().into()))
    }

    /// What was written to memory.
    pub(crate) fn into_memory(mut self) -> Vec<u8> {
        match self.to {
            Target::File(_) => Vec::new(),
            Target::Memory(ref mut bytes) => {
                bytes.append(&mut self.chunk);
                std::mem::take(bytes)
            }
        }
    }

    /// Hands bytes on.
    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.n_bytes += bytes.len() as u64;
        match &mut self.to {
            Target::File(file) => file.write_all(bytes),
            Target::Memory(memory) => memory.write_all(bytes),
        }
    }
}

impl Write for StateWriter {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.chunk.len() + bytes.len() > CHUNK_BYTES {
            self.flush()?;
            if bytes.len() >= CHUNK_BYTES {
                return self.pass(bytes);
            }
        }
        self.chunk.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let passed = self.pass(&chunk);
        chunk.clear();
        self.chunk = chunk;
        passed
    }
}
