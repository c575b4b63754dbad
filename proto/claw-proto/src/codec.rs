//! Between messages and frames: the domain form outside, protobuf inside.
//!
//! A frame is one binary WebSocket message. Encoding cannot fail; texts for
//! people that are over [`limits::DETAIL_BYTES_MAX`] are cut, so that no status
//! record is ever undeliverable for its detail. Decoding trusts nobody: the
//! size of the frame and the number of repeated parts are checked before
//! anything is allocated for them, then every length, number and enum value. A
//! refusal names the field. The rules of a specification beyond its sizes are
//! those of [`crate::validation`], applied by who acts on it.
//!
//! Not checked here, for it needs memory of what came before: the order of
//! frames, records and lines, and whether a generation is stale.

mod capabilities;
mod enums;
mod error;
mod gateway;
mod guard;
mod negotiation;
mod node;
mod parts;
mod sets;
mod spec;
mod tasks;
mod telemetry;
#[cfg(test)]
mod tests;
mod versions;

use prost::Message as _;

use self::error::Fault;
use crate::limits;
use crate::message::{Envelope, GatewayMessage, NodeMessage};
use crate::wire::node_v1 as wire;
use crate::wire::node_v1::envelope::Body;

pub use error::{CodecError, FieldProblem};
pub use negotiation::{Side, VersionMismatch, negotiate};
pub use sets::desired_set_messages;
pub use versions::{NotInVersion, check_version, for_version};

/// The frame of a node's message.
pub fn encode_node(envelope: &Envelope<NodeMessage>) -> Vec<u8> {
    frame(envelope, node::encode(&envelope.body))
}

/// The frame of a gateway's message.
pub fn encode_gateway(envelope: &Envelope<GatewayMessage>) -> Vec<u8> {
    frame(envelope, gateway::encode(&envelope.body))
}

/// Reads a frame that a node sent.
///
/// # Errors
/// [`CodecError::UnknownMessage`] if a newer peer sent what this build does not
/// know: to be answered, not skipped. Any other error: the peer broke the protocol.
pub fn decode_node(frame: &[u8]) -> Result<Envelope<NodeMessage>, CodecError> {
    decode(frame, node::decode)
}

/// Reads a frame that a gateway sent.
///
/// # Errors
/// As [`decode_node`].
pub fn decode_gateway(frame: &[u8]) -> Result<Envelope<GatewayMessage>, CodecError> {
    decode(frame, gateway::decode)
}

fn frame<M>(envelope: &Envelope<M>, body: Body) -> Vec<u8> {
    wire::Envelope {
        version: envelope.version,
        epoch: envelope.epoch,
        sequence: envelope.sequence,
        ack: envelope.ack,
        generation: Some(parts::encode_generation(envelope.generation)),
        body: Some(body),
    }
    .encode_to_vec()
}

/// What a body of one direction makes of a frame's body.
enum Read<M> {
    Message(M),
    /// The body is one that the other side sends.
    WrongDirection(&'static str),
}

fn decode<M>(frame: &[u8], read: impl FnOnce(Body) -> Result<Read<M>, Fault>) -> Result<Envelope<M>, CodecError> {
    if frame.len() > limits::FRAME_BYTES_MAX {
        return Err(CodecError::FrameTooLarge { bytes: frame.len(), max: limits::FRAME_BYTES_MAX });
    }
    guard::check_counts(frame)?;
    let envelope = wire::Envelope::decode(frame)?;
    let Some(body) = envelope.body else {
        return Err(match guard::unknown_body(frame) {
            Some(field) => CodecError::UnknownMessage { field },
            None => Fault::new(FieldProblem::Missing).at("body").into(),
        });
    };
    let body = match read(body)? {
        Read::Message(message) => message,
        Read::WrongDirection(message) => return Err(CodecError::WrongDirection { message }),
    };
    if envelope.version == 0 {
        return Err(Fault::new(FieldProblem::Missing).at("version").into());
    }
    Ok(Envelope {
        version: envelope.version,
        epoch: envelope.epoch,
        sequence: envelope.sequence,
        ack: envelope.ack,
        generation: parts::decode_generation(envelope.generation)?,
        body,
    })
}
