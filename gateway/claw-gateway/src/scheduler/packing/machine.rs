//! Machines and requests, as numbers.

/// Most GPUs of one machine.
pub const GPUS_MAX: usize = 8;
/// A whole GPU.
pub const GPU_MILLI: u16 = 1_000;

/// Models of GPUs, as bits; the empty set means any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ModelSet(pub u64);

impl ModelSet {
    /// The model with this number is one of them.
    pub const fn allows(self, model: u8) -> bool {
        self.0 == 0 || (self.0 >> model) & 1 == 1
    }
}

/// What one piece of work asks of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    /// CPU, thousandths of a core.
    pub cpu_milli: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// GPUs.
    pub gpus: u8,
    /// Of each GPU, thousandths; below 1000 only for one GPU, which is then shared.
    pub gpu_milli: u16,
    /// Models that will do.
    pub models: ModelSet,
}

impl Request {
    /// GPU thousandths in all.
    pub const fn demand_milli(&self) -> u32 {
        self.gpus as u32 * self.gpu_milli as u32
    }

    /// It shares a GPU with others.
    pub const fn is_shared(&self) -> bool {
        self.gpus == 1 && self.gpu_milli < GPU_MILLI
    }

    /// What sort of work it is, by its GPUs.
    pub const fn kind(&self) -> Kind {
        match self.gpus {
            0 => Kind::CPU,
            _ if self.is_shared() => Kind::SHARED,
            1 => Kind::ONE,
            2 => Kind::TWO,
            3..=4 => Kind::FOUR,
            _ => Kind::EIGHT,
        }
    }
}

/// Sorts of work by the GPUs that it takes, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Kind(pub u8);

impl Kind {
    /// Without GPUs.
    pub const CPU: Self = Self(0);
    /// Part of one GPU.
    pub const SHARED: Self = Self(1);
    /// One GPU.
    pub const ONE: Self = Self(2);
    /// Two GPUs.
    pub const TWO: Self = Self(4);
    /// Three or four GPUs.
    pub const FOUR: Self = Self(8);
    /// More.
    pub const EIGHT: Self = Self(16);
}

/// Bits of a GPU in a [`Machine::state`].
pub(crate) const GPU_BITS: usize = 10;
/// Bits below the cores in it: how many GPUs of which model, and what sorts of work it holds.
pub(crate) const KIND_BITS: usize = 15;
/// Those of the sorts of work.
const HOLDS_BITS: usize = 5;

/// What is free on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Machine {
    /// CPU, thousandths of a core.
    pub cpu_milli: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Of each GPU, thousandths; only the first `gpus` count.
    pub free_milli: [u16; GPUS_MAX],
    /// GPUs.
    pub gpus: u8,
    /// Model of its GPUs.
    pub model: u8,
    /// Sorts of work that it holds.
    pub holds: Kind,
}

impl Machine {
    /// An empty machine.
    ///
    /// # Panics
    /// With more than [`GPUS_MAX`] GPUs or a model above 63.
    pub fn new(cpu_milli: u32, memory_mib: u32, gpus: u8, model: u8) -> Self {
        assert!(usize::from(gpus) <= GPUS_MAX && model < 64, "a machine has at most 8 GPUs, a fleet 64 models");
        let mut free_milli = [0; GPUS_MAX];
        free_milli[..usize::from(gpus)].fill(GPU_MILLI);
        Self { cpu_milli, memory_mib, free_milli, gpus, model, holds: Kind::CPU }
    }

    /// All but its memory as one number: ten bits for each GPU, 32 for its cores, four and six for how many GPUs of
    /// which model, five for what it holds.
    pub(crate) fn state(&self) -> u128 {
        let gpus = self.free_milli.iter().fold(0_u128, |state, free| state << GPU_BITS | u128::from(*free));
        let kind = u128::from(self.gpus) << 6 | u128::from(self.model);
        let kind = kind << HOLDS_BITS | u128::from(self.holds.0);
        (gpus << 32 | u128::from(self.cpu_milli)) << KIND_BITS | kind
    }

    /// Free thousandths of each of its GPUs.
    pub fn free(&self) -> &[u16] {
        &self.free_milli[..usize::from(self.gpus)]
    }

    /// Free thousandths of all its GPUs.
    pub fn free_gpu_milli(&self) -> u32 {
        self.free().iter().map(|free| u32::from(*free)).sum()
    }

    /// No GPU is taken, not even in part.
    pub fn is_untouched(&self) -> bool {
        self.free().iter().all(|free| *free == GPU_MILLI)
    }

    /// Its GPUs and CPU would do.
    pub fn fits_without_memory(&self, request: &Request) -> bool {
        let n_enough = || self.free().iter().filter(|free| **free >= request.gpu_milli).count();
        let has_gpus = || request.models.allows(self.model) && n_enough() >= usize::from(request.gpus);
        self.cpu_milli >= request.cpu_milli && (request.gpus == 0 || has_gpus())
    }

    /// It can take the request.
    pub fn fits(&self, request: &Request) -> bool {
        self.memory_mib >= request.memory_mib && self.fits_without_memory(request)
    }

    /// What is left after the request took GPU number `gpu` (shared), or the first
    /// ones that are free (whole). Nothing if it does not fit.
    pub fn after(&self, request: &Request, gpu: u8) -> Option<Self> {
        let mut left = *self;
        left.cpu_milli = left.cpu_milli.checked_sub(request.cpu_milli)?;
        left.memory_mib = left.memory_mib.checked_sub(request.memory_mib)?;
        if request.gpus > 0 && !request.models.allows(self.model) {
            return None;
        }
        left.holds.0 |= request.kind().0;
        if request.is_shared() {
            let free = left.free_milli.get_mut(usize::from(gpu)).filter(|_| gpu < self.gpus)?;
            *free = free.checked_sub(request.gpu_milli)?;
            return Some(left);
        }
        let mut missing = request.gpus;
        for free in &mut left.free_milli[..usize::from(self.gpus)] {
            if missing > 0 && *free >= request.gpu_milli {
                *free -= request.gpu_milli;
                missing -= 1;
            }
        }
        (missing == 0).then_some(left)
    }

    /// GPUs that a shared request could take: of equally free ones the first.
    /// Requests that share nothing have one choice.
    pub fn choices(&self, request: &Request) -> impl Iterator<Item = u8> {
        let (free_milli, gpu_milli, is_shared) = (self.free_milli, request.gpu_milli, request.is_shared());
        let count = if is_shared { self.gpus } else { 1 };
        (0..count).filter(move |gpu| {
            let at = usize::from(*gpu);
            !is_shared || (free_milli[at] >= gpu_milli && !free_milli[..at].contains(&free_milli[at]))
        })
    }
}
