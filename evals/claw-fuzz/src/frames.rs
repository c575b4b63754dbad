//! Frames between gateway and node.

use claw_proto::codec::{check_version, decode_gateway, decode_node, encode_gateway, encode_node, for_version};
use claw_proto::message::Envelope;

/// What is read can be written and read again, in the words of version 1 too.
pub(crate) fn node_frame(bytes: &[u8]) {
    if let Ok(read) = decode_node(bytes) {
        assert_eq!(decode_node(&encode_node(&read)).as_ref(), Ok(&read));
        let Envelope { version, epoch, sequence, ack, generation, body } = read;
        if let Some(body) = for_version(body, 1) {
            let older = Envelope { version, epoch, sequence, ack, generation, body };
            assert_eq!(decode_node(&encode_node(&older)), Ok(older));
        }
    }
    if let Ok(read) = decode_gateway(bytes) {
        assert_eq!(decode_gateway(&encode_gateway(&read)).as_ref(), Ok(&read));
        if let Err(lacking) = check_version(&read.body, 1) {
            assert!(lacking.needs > 1 && check_version(&read.body, lacking.needs).is_ok());
        }
    }
}
