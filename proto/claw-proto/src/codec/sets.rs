//! A desired set of any size, in frames that keep their limit.

use prost::Message as _;

use super::gateway::{encode_desired, encode_stop};
use crate::ids::Generation;
use crate::limits;
use crate::message::{DesiredWorkload, GatewayMessage, StopOrder};

/// Bytes of a frame that the set may fill; the rest is for the envelope.
const SET_BYTES_MAX: usize = limits::FRAME_BYTES_MAX / 2;
/// Key and length of one entry of a repeated message, at most.
const ENTRY_BYTES: usize = 6;

/// The messages that give a node its full desired set: a `DesiredSet` with as
/// many orders and workloads as its frame holds, then a `StartWorkload` or
/// `StopWorkload` of the same generation for each further one. To a node that
/// is the same: it takes a change of the generation that it just saw, and
/// stops nothing for not being in a set.
pub fn desired_set_messages(
    generation: Generation,
    workloads: Vec<DesiredWorkload>,
    stop: Vec<StopOrder>,
) -> Vec<GatewayMessage> {
    let mut left = SET_BYTES_MAX;
    let n_stop = fitting(&stop, &mut left, |order| encode_stop(order).encoded_len());
    let n_workloads = fitting(&workloads, &mut left, |workload| encode_desired(workload).encoded_len());
    let (mut workloads, mut stop) = (workloads, stop);
    let further_workloads = workloads.split_off(n_workloads);
    let further_stop = stop.split_off(n_stop);
    let set = GatewayMessage::DesiredSet { generation, workloads, stop };
    let stops = further_stop.into_iter().map(|order| GatewayMessage::StopWorkload { generation, order });
    let starts = further_workloads.into_iter().map(|workload| GatewayMessage::StartWorkload { generation, workload });
    std::iter::once(set).chain(stops).chain(starts).collect()
}

/// How many of the items, from the first, fit in what is left.
fn fitting<T>(items: &[T], left: &mut usize, n_bytes: impl Fn(&T) -> usize) -> usize {
    items
        .iter()
        .take(limits::WORKLOADS_PER_NODE_MAX)
        .take_while(|item| match left.checked_sub(n_bytes(item) + ENTRY_BYTES) {
            Some(rest) => {
                *left = rest;
                true
            }
            None => false,
        })
        .count()
}
