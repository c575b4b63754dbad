//! What is taken of one node (or of one owner's quota) now and later.

/// Something that is taken for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// By which job.
    pub(super) job: u32,
    /// GPUs.
    pub(super) gpus: u32,
    /// From, seconds.
    pub(super) from_s: u64,
    /// Until, seconds, exclusive.
    pub(super) until_s: u64,
}

/// A stretch of starts, both ends included, seconds.
pub(super) type Starts = (u64, u64);

/// Free GPUs over time.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    capacity: u32,
    spans: Vec<Span>,
    /// From when on so many are free; the first begins at zero, the last has no end.
    steps: Vec<(u64, u32)>,
}

impl Timeline {
    pub(super) fn new(capacity: u32) -> Self {
        Self { capacity, spans: Vec::new(), steps: vec![(0, capacity)] }
    }

    pub(super) fn add(&mut self, span: Span) {
        self.spans.push(span);
        self.count();
    }

    pub(super) fn remove(&mut self, job: u32) {
        self.spans.retain(|span| span.job != job);
        self.count();
    }

    fn count(&mut self) {
        let mut changes: Vec<(u64, i64)> = Vec::with_capacity(2 * self.spans.len());
        for span in &self.spans {
            changes.push((span.from_s, -i64::from(span.gpus)));
            changes.push((span.until_s, i64::from(span.gpus)));
        }
        changes.sort_unstable();
        let mut free = i64::from(self.capacity);
        self.steps.clear();
        self.steps.push((0, self.capacity));
        for (at_s, change) in changes {
            free += change;
            let now_free = u32::try_from(free.max(0)).unwrap_or(0);
            match self.steps.last_mut() {
                Some(last) if last.0 == at_s => last.1 = now_free,
                _ => self.steps.push((at_s, now_free)),
            }
        }
    }

    /// Free GPUs at a time.
    pub(super) fn free_at(&self, at_s: u64) -> u32 {
        let next = self.steps.partition_point(|(from, _)| *from <= at_s);
        self.steps[next.saturating_sub(1)].1
    }

    /// How long from now on so many stay free, seconds; for ever is [`u64::MAX`].
    pub(super) fn free_for_s(&self, gpus: u32, now_s: u64) -> u64 {
        let next = self.steps.partition_point(|(from, _)| *from <= now_s);
        let ahead = &self.steps[next.saturating_sub(1)..];
        match ahead.iter().find(|(_, free)| *free < gpus) {
            Some((from, _)) => from.saturating_sub(now_s),
            None => u64::MAX,
        }
    }

    /// When, from now on, so many could be taken for so long.
    pub(super) fn starts(&self, gpus: u32, for_s: u64, now_s: u64) -> Vec<Starts> {
        let mut starts = Vec::new();
        let mut open: Option<u64> = None;
        for (from_s, free) in &self.steps {
            match (open, *free >= gpus) {
                (None, true) => open = Some(*from_s),
                (Some(since), false) => {
                    let since = since.max(now_s);
                    if since.saturating_add(for_s) <= *from_s {
                        starts.push((since, from_s - for_s));
                    }
                    open = None;
                }
                (None, false) | (Some(_), true) => {}
            }
        }
        if let Some(since) = open {
            starts.push((since.max(now_s), u64::MAX));
        }
        starts
    }
}

/// The earliest start at which `whole` of the first lists hold and `any` of the second, and the third list holds.
pub(super) fn earliest_common(
    whole: (&[Vec<Starts>], usize),
    any: (&[Vec<Starts>], usize),
    quota: &[Starts],
) -> Option<u64> {
    // +1 where a stretch begins, -1 behind its end; which list it is of: 0 whole, 1 any, 2 quota.
    let mut edges: Vec<(u64, i8, usize)> = Vec::new();
    let quota = [quota.to_vec()];
    for (list, of) in [whole.0, any.0, quota.as_slice()].into_iter().zip(0..) {
        for (from, to) in list.iter().flatten() {
            edges.push((*from, 1, of));
            if *to < u64::MAX {
                edges.push((to + 1, -1, of));
            }
        }
    }
    edges.sort_unstable();
    let needed = [whole.1, any.1, 1];
    let mut counts = [0_usize; 3];
    let mut at = 0;
    while at < edges.len() {
        let now = edges[at].0;
        while let Some((_, change, of)) = edges.get(at).filter(|edge| edge.0 == now) {
            counts[*of] = counts[*of].wrapping_add_signed(isize::from(*change));
            at += 1;
        }
        if counts.iter().zip(needed).all(|(count, needed)| *count >= needed) {
            return Some(now);
        }
    }
    None
}
