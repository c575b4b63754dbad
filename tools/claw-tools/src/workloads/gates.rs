//! What keeps a waiting workload from starting, closed and opened.

mutation_params! {
    /// Keep a waiting workload from starting.
    WorkloadHoldParams {
        /// Id, name or unique prefix.
        workload: String,
        /// Gate that is closed, such as `budget`: lower-case letters, digits, dashes; `hold` by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(max = 63))]
        gate: Option<String>,
    }
}
mutation_params! {
    /// Open gates of a waiting workload.
    WorkloadReleaseParams {
        /// Id, name or unique prefix.
        workload: String,
        /// Which gates; all that are closed by default.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 8))]
        gates: Vec<String>,
    }
}
