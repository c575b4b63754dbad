//! What was had lately, half of it forgotten after each half-life.

/// A share over time, as its mean with weights that halve: a share that never
/// changes tends to itself, and one that ends is half as much a half-life later.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decayed {
    half_life_s: f64,
    mean: f64,
    at_s: f64,
    share: f64,
}

impl Decayed {
    /// Nothing had. A half-life below a second counts as one.
    pub fn new(half_life_s: f64) -> Self {
        Self { half_life_s: half_life_s.max(1.0), mean: 0.0, at_s: 0.0, share: 0.0 }
    }

    /// From now on this share is had. Time that runs backwards does not pass.
    pub fn set(&mut self, share: f64, now_s: f64) {
        self.mean = self.mean(now_s);
        self.at_s = self.at_s.max(now_s);
        self.share = share;
    }

    /// The mean up to now.
    pub fn mean(&self, now_s: f64) -> f64 {
        let kept = (-(now_s - self.at_s).max(0.0) / self.half_life_s).exp2();
        self.mean * kept + self.share * (1.0 - kept)
    }
}
