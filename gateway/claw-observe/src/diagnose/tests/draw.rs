//! Seeded draws for tests: the same seed gives the same text.

/// A small generator (`splitmix64`).
#[derive(Debug)]
pub(super) struct Draw(pub(super) u64);

impl Draw {
    /// A generator of its own for each name and round (`FNV-1a` of the name).
    pub(super) fn of(name: &str, round: u64) -> Self {
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, hash) ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most.max(1) as u64).unwrap()
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A number of the environment, or its default; what is set and is no number is a mistake of whoever set it.
pub(super) fn knob(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Err(std::env::VarError::NotPresent) => default,
        Ok(text) => number(name, &text),
        Err(error) => panic!("{name}: {error}"),
    }
}

/// The same for rounds, of which none would test nothing.
pub(super) fn rounds(name: &str, default: u64) -> u64 {
    let rounds = knob(name, default);
    assert!(rounds > 0, "{name} asks for no round");
    rounds
}

fn number(name: &str, text: &str) -> u64 {
    text.parse().unwrap_or_else(|error| panic!("{name}={text:?}: {error}"))
}

#[test]
#[should_panic(expected = "CLAW_SEED=\"x7\"")]
fn a_knob_that_is_no_number_is_a_mistake() {
    number("CLAW_SEED", "x7");
}

#[test]
#[should_panic(expected = "asks for no round")]
fn no_rounds_are_a_mistake() {
    rounds("CLAW_NOBODY_SETS_THIS", 0);
}
