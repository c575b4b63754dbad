//! What was had lately, half of it forgotten after each half-life.

use serde::{Deserialize, Serialize};

use super::{Amounts, RESOURCES};

/// Amounts over time, as their mean with weights that halve: an amount that never
/// changes tends to itself, and one that ends is half as much a half-life later.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "Bits", into = "Bits")]
pub struct Decayed {
    half_life_s: f64,
    mean: [f64; RESOURCES],
    at_s: f64,
    amounts: Amounts,
}

/// The same, as bits: a number that is written and read again must be the same number.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Bits {
    half_life_s: u64,
    mean: [u64; RESOURCES],
    at_s: u64,
    amounts: Amounts,
}

impl From<Bits> for Decayed {
    fn from(bits: Bits) -> Self {
        let mean = bits.mean.map(f64::from_bits);
        let (half_life_s, at_s) = (f64::from_bits(bits.half_life_s), f64::from_bits(bits.at_s));
        Self { half_life_s, mean, at_s, amounts: bits.amounts }
    }
}

impl From<Decayed> for Bits {
    fn from(had: Decayed) -> Self {
        let mean = had.mean.map(f64::to_bits);
        Self { half_life_s: had.half_life_s.to_bits(), mean, at_s: had.at_s.to_bits(), amounts: had.amounts }
    }
}

impl Decayed {
    /// Nothing had. A half-life below a second counts as one.
    pub fn new(half_life_s: f64) -> Self {
        let mean = [0.0; RESOURCES];
        Self { half_life_s: half_life_s.max(1.0), mean, at_s: 0.0, amounts: Amounts::default() }
    }

    /// The same with another half-life from its last change on.
    #[must_use]
    pub fn with_half_life(self, half_life_s: f64) -> Self {
        Self { half_life_s: half_life_s.max(1.0), ..self }
    }

    /// From now on so much is had. Time that runs backwards does not pass.
    pub fn set(&mut self, amounts: Amounts, now_s: f64) {
        self.mean = self.mean(now_s);
        self.at_s = self.at_s.max(now_s);
        self.amounts = amounts;
    }

    /// The mean of each up to now.
    pub fn mean(&self, now_s: f64) -> [f64; RESOURCES] {
        let kept = (-(now_s - self.at_s).max(0.0) / self.half_life_s).exp2();
        std::array::from_fn(|at| self.mean[at] * kept + self.amounts.0[at] as f64 * (1.0 - kept))
    }

    /// The largest share of any resource of a whole that was had, in the mean up to now.
    pub fn dominant_share(&self, whole: Amounts, now_s: f64) -> f64 {
        let shares = self.mean(now_s).into_iter().zip(whole.0).filter(|(_, whole)| *whole > 0);
        shares.map(|(mean, whole)| mean / whole as f64).fold(0.0, f64::max)
    }
}
