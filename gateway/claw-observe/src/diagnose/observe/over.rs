//! A machine that was started anew: what is over with that, and what is not.

use super::{GONE, Observer, RESTARTED};
use crate::diagnose::device::Unit;

impl Observer {
    /// The machine was started anew: what was found of its GPUs so far is over, unless it comes again. Of a GPU that
    /// did not come back with it nothing is over.
    pub fn restarted(&mut self, missing: &[Unit]) {
        for finding in &mut self.findings {
            let is_gone = finding.unit.as_ref().is_some_and(|unit| missing.contains(unit));
            finding.over = !is_gone;
            let mark = if is_gone { GONE } else { RESTARTED };
            finding.marks.insert(mark.to_owned(), self.given);
        }
    }
}
