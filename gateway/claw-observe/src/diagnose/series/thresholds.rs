//! The thresholds, as `rules/series.toml` holds them.

use serde::Deserialize;

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $ty,)*
            /// Where it is written, with date.
            pub source: String,
        }
    };
}

section! {
    /// When a slowdown counts.
    Throttle {
        /// Samples with the reason, a minute.
        events_per_minute: f64,
        /// Over so many seconds.
        window_s: f64,
    }
}
section! {
    /// When a power brake counts.
    Brake {
        /// Samples in a row.
        polls: usize,
    }
}
section! {
    /// From where a GPU is loaded.
    Load {
        /// Percent.
        utilization_percent: f64,
    }
}
section! {
    /// When a link is trained down.
    Downtrain {
        /// Samples in a row.
        samples: usize,
    }
}
section! {
    /// When a link flaps.
    Link {
        /// Intervals with new errors.
        intervals: usize,
        /// Within so many seconds.
        window_s: f64,
        /// Times the peers' median.
        peers_factor: f64,
    }
}
section! {
    /// When memory errors are a trend.
    Ecc {
        /// Corrected errors an hour.
        corrected_per_hour: f64,
        /// Times the peers' median.
        peers_factor: f64,
    }
}
section! {
    /// When clocks are locked.
    Clock {
        /// Share of the peers' clock.
        share: f64,
        /// Samples in a row.
        samples: usize,
    }
}
section! {
    /// When a GPU is idle.
    Idle {
        /// Percent.
        utilization_percent: f64,
        /// Share of the memory that is held.
        memory_share: f64,
        /// For so many seconds.
        for_s: f64,
    }
}
section! {
    /// When a job hangs.
    Hang {
        /// Percent of all ranks.
        utilization_percent: f64,
        /// Share of the power before.
        power_share: f64,
        /// For so many seconds.
        for_s: f64,
    }
}
section! {
    /// When a rank is slow.
    Straggler {
        /// Robust deviations above the median.
        deviations: f64,
        /// And as a share of it.
        share: f64,
        /// In so many of the samples.
        steps_share: f64,
    }
}
section! {
    /// When a job waits for data.
    Starvation {
        /// Share of a step.
        wait_share: f64,
        /// In so many of the samples.
        samples_share: f64,
    }
}
section! {
    /// When memory leaks.
    Leak {
        /// Rank correlation with time.
        correlation: f64,
        /// Growth as a share of the GPU.
        growth_share: f64,
        /// Hours until it is full.
        hours_left: f64,
    }
}
section! {
    /// When a neighbor took the memory.
    Neighbor {
        /// Free share that is nothing.
        free_share: f64,
        /// Share that others took.
        others_share: f64,
    }
}

/// All thresholds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Slowdowns.
    pub throttle: Throttle,
    /// Power brake.
    pub brake: Brake,
    /// Load.
    pub load: Load,
    /// PCIe.
    pub downtrain: Downtrain,
    /// `NVLink` and network.
    pub link: Link,
    /// Memory errors.
    pub ecc: Ecc,
    /// Clocks.
    pub clock: Clock,
    /// Idle GPUs.
    pub idle: Idle,
    /// Hangs.
    pub hang: Hang,
    /// Slow ranks.
    pub straggler: Straggler,
    /// Data.
    pub starvation: Starvation,
    /// Leaks.
    pub leak: Leak,
    /// Neighbors.
    pub neighbor: Neighbor,
}
