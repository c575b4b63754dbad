//! The policies.

use claw_proto::closed_enum;

closed_enum! {
    /// How a machine is chosen among those that can take a request.
    Policy {
        /// Ours: least fragmentation and least stranded by CPU, models that others
        /// cannot do without last, machines that are still whole last.
        Ours = "ours",
        /// Fragmentation gradient descent (Weng et al., USENIX ATC 2023).
        Fgd = "fgd",
        /// Least free CPU and GPU left (Protean's best fit, as weighted by Weng et al.).
        BestFit = "bestfit",
        /// GPUs in use first, then machines in use, then empty ones (Weng et al., 2022, "MLaaS in the Wild").
        GpuPacking = "gpu_packing",
        /// Machines that hold the same sort of work first (Xiao et al., "Gandiva", OSDI 2018).
        GpuClustering = "gpu_clustering",
        /// Least dot product of what is free and what is asked for (Grandl et al., "Tetris", SIGCOMM 2014, reversed as by Weng et al.).
        DotProd = "dotprod",
        /// Any.
        Random = "random"
    }
}
