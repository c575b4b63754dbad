//! # clawnode
