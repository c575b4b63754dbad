//! Short requests to a node about one running attempt, and their answers. They
//! are not part of the desired state: nobody repeats them after a lost connection.

use serde::{Deserialize, Serialize};

use crate::closed_enum;

/// Number of a request, unique for one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId(pub u64);

/// Place of one node in a workload that spans several processes, as its programs are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankAssignment {
    /// Number of this node among the workload's nodes, from 0.
    pub node_rank: u32,
    /// Nodes of the workload.
    pub n_nodes: u32,
    /// Rank of the first process on this node.
    pub first_rank: u32,
    /// Processes of the workload in all.
    pub world_size: u32,
    /// Where the processes meet: host name or address of rank 0's node.
    pub master_address: String,
    /// Port there.
    pub master_port: u16,
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputEntry {
    /// Name within its folder.
    pub name: String,
    /// Size, bytes; 0 for a folder.
    pub bytes: u64,
    /// It is a folder.
    pub is_folder: bool,
}

/// What stands at a path of an attempt's outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputContent {
    /// A folder.
    Folder {
        /// Its entries, in order of names.
        entries: Vec<OutputEntry>,
        /// There are more entries than are told.
        truncated: bool,
    },
    /// A piece of a file.
    File {
        /// The piece.
        bytes: Vec<u8>,
        /// Where it begins.
        offset: u64,
        /// Size of the whole file, bytes.
        total_bytes: u64,
        /// SHA-256 of the whole file, hex; with its last piece, if it is at hand.
        sha256: Option<String>,
    },
}

closed_enum! {
    /// Why a node did not do what a task asked.
    TaskErrorCode {
        /// There is no such attempt or path.
        NotFound = "not_found",
        /// The attempt does not run.
        NotRunning = "not_running",
        /// The path or command is not allowed.
        Refused = "refused",
        /// The attempt's runtime cannot do it.
        Unsupported = "unsupported",
        /// The answer or what is asked for is too large.
        TooLarge = "too_large",
        /// It took too long.
        Timeout = "timeout",
        /// Some other fault.
        Internal = "internal"
    }
}
