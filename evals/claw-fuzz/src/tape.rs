//! An input read as a row of orders: bytes, numbers, pieces. At its end it gives zeros.

/// Bytes that are used up from the front.
#[derive(Debug, Clone)]
pub(crate) struct Tape<'a> {
    rest: &'a [u8],
}

impl<'a> Tape<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    /// The next byte, folded to a number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// Three bytes, folded to a place in `len` bytes or right behind them.
    pub(crate) fn place(&mut self, len: usize) -> usize {
        let [a, b, c] = [self.byte(), self.byte(), self.byte()].map(usize::from);
        (a << 16 | b << 8 | c) % (len + 1)
    }

    /// A number: mostly small, also any, also near the largest.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            kind @ 0..=0xEF => u64::from(kind),
            0xF0..=0xF7 => u64::MAX - u64::from(self.byte()),
            0xF8..=0xFB => u64::MAX / 2 + u64::from(self.byte()),
            _ => {
                let piece = self.piece(8);
                let mut number = [0; 8];
                number[..piece.len()].copy_from_slice(piece);
                u64::from_le_bytes(number)
            }
        }
    }

    /// The next `n` bytes, or as many as there are.
    pub(crate) fn piece(&mut self, n: usize) -> &'a [u8] {
        let (piece, rest) = self.rest.split_at(n.min(self.rest.len()));
        self.rest = rest;
        piece
    }

    /// A piece with its length before it.
    pub(crate) fn short(&mut self) -> &'a [u8] {
        let n = usize::from(self.byte());
        self.piece(n)
    }
}
