//! The protobuf form: committed output of `prost-build` for
//! `proto/v1/node.proto`, private to this crate. A test makes it anew and
//! compares; `UPDATE_EXPECT=1` rewrites it.

#[rustfmt::skip]
#[allow(
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    reason = "generated; which lints it trips changes with the generator"
)]
pub(crate) mod node_v1;

#[cfg(test)]
mod tests;
