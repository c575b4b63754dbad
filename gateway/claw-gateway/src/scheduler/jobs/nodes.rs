//! Nodes with numbered GPUs, and where a gang stands on them.

use crate::scheduler::certificate::Part;

/// GPUs of one node at most: a node's GPUs are the bits of a number.
pub const GPUS_PER_NODE_MAX: u32 = 64;

/// Where a whole gang stands.
pub type Gang = Vec<Part>;

/// Equal nodes and what is free on them.
///
/// A job of at most one node's GPUs stands on one node, the fullest that has
/// room. A larger one takes whole nodes, and one more for what is left over.
#[derive(Debug, Clone)]
pub struct Nodes {
    per_node: u32,
    free: Vec<u64>,
    n_free: Vec<u32>,
    /// Nodes without any work.
    n_whole: u32,
    total_free: u32,
}

impl Nodes {
    /// So many GPUs, `per_node` on each node; what does not fill a node is left out.
    /// `per_node` is held within 1 and [`GPUS_PER_NODE_MAX`].
    pub fn new(gpus: u32, per_node: u32) -> Self {
        let per_node = per_node.clamp(1, GPUS_PER_NODE_MAX);
        let n = gpus / per_node;
        let all = if per_node == 64 { u64::MAX } else { (1_u64 << per_node) - 1 };
        Self {
            per_node,
            free: vec![all; n as usize],
            n_free: vec![per_node; n as usize],
            n_whole: n,
            total_free: n * per_node,
        }
    }

    /// GPUs in all.
    #[expect(clippy::cast_possible_truncation, reason = "made from a count of 32 bits")]
    pub fn capacity(&self) -> u32 {
        self.free.len() as u32 * self.per_node
    }

    /// GPUs that are free.
    pub fn free(&self) -> u32 {
        self.total_free
    }

    /// A gang of so many GPUs could stand here if nothing else did.
    pub fn could_hold(&self, gpus: u32) -> bool {
        gpus >= 1 && gpus <= self.capacity()
    }

    /// A gang of so many GPUs fits on nodes with so many free GPUs each.
    pub(super) fn fits_on(&self, counts: &[u32], gpus: u32) -> bool {
        if gpus <= self.per_node {
            return counts.iter().any(|free| *free >= gpus);
        }
        let (whole, rest) = (gpus / self.per_node, gpus % self.per_node);
        let n_whole = counts.iter().filter(|free| **free == self.per_node).count();
        let enough = n_whole.cmp(&(whole as usize));
        enough.is_gt()
            || (enough.is_eq() && (rest == 0 || counts.iter().any(|free| *free < self.per_node && *free >= rest)))
    }

    /// A gang of so many GPUs fits beside what stands here.
    pub fn fits(&self, gpus: u32) -> bool {
        if gpus > self.total_free {
            return false;
        }
        if gpus <= self.per_node {
            return self.n_free.iter().any(|free| *free >= gpus);
        }
        let (whole, rest) = (gpus / self.per_node, gpus % self.per_node);
        self.n_whole > whole
            || (self.n_whole == whole
                && (rest == 0 || self.n_free.iter().any(|free| *free < self.per_node && *free >= rest)))
    }

    /// Takes GPUs for a gang, or nothing if it does not fit whole.
    pub fn take(&mut self, gpus: u32) -> Option<Gang> {
        if gpus == 0 || !self.fits(gpus) {
            return None;
        }
        let mut gang = Gang::new();
        let mut rest = gpus;
        if gpus > self.per_node {
            for node in 0..self.free.len() {
                if rest < self.per_node {
                    break;
                }
                if self.n_free[node] == self.per_node {
                    gang.push(self.take_on(node, self.per_node));
                    rest -= self.per_node;
                }
            }
        }
        if rest > 0 {
            let nodes = 0..self.free.len();
            let best = nodes.filter(|node| self.n_free[*node] >= rest).min_by_key(|node| self.n_free[*node])?;
            gang.push(self.take_on(best, rest));
        }
        Some(gang)
    }

    /// Takes GPUs of one node, which has so many free.
    #[expect(clippy::cast_possible_truncation, reason = "nodes are counted with 32 bits")]
    pub(super) fn take_on(&mut self, node: usize, gpus: u32) -> Part {
        let mut left = self.free[node];
        for _ in 0..gpus {
            left &= left.wrapping_sub(1);
        }
        let part = Part { node: node as u32, gpus: self.free[node] & !left };
        self.n_whole -= u32::from(self.n_free[node] == self.per_node);
        self.free[node] = left;
        self.n_free[node] -= gpus;
        self.total_free -= gpus;
        part
    }

    /// Takes exactly these GPUs, as far as they are free.
    pub(super) fn take_these(&mut self, gang: &[Part]) -> Gang {
        let mut taken = Gang::new();
        for part in gang {
            let node = part.node as usize;
            let gpus = part.gpus & self.free[node];
            self.n_whole -= u32::from(self.n_free[node] == self.per_node && gpus != 0);
            self.free[node] &= !gpus;
            self.n_free[node] -= gpus.count_ones();
            self.total_free -= gpus.count_ones();
            taken.push(Part { node: part.node, gpus });
        }
        taken
    }

    /// Gives a gang's GPUs back.
    pub fn give(&mut self, gang: &[Part]) {
        for part in gang {
            let node = part.node as usize;
            let n = part.gpus.count_ones();
            self.free[node] |= part.gpus;
            self.n_free[node] += n;
            self.total_free += n;
            self.n_whole += u32::from(self.n_free[node] == self.per_node);
        }
    }

    /// Free GPUs of each node.
    pub(super) fn counts(&self) -> &[u32] {
        &self.n_free
    }

    /// GPUs of a node.
    pub(super) fn per_node(&self) -> u32 {
        self.per_node
    }
}
