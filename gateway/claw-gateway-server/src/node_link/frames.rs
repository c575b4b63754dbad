//! One end of a WebSocket in terms of the protocol.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use claw_proto::codec::{self, CodecError};
use claw_proto::ids::Generation;
use claw_proto::limits::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use claw_proto::message::{Envelope, GatewayMessage, NodeMessage, RefusalCode};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};

use super::CLOSE_DEADLINE_MS;
use super::links::Ending;

pub(super) type Sink = SplitSink<WebSocket, Message>;
pub(super) type Stream = SplitStream<WebSocket>;

/// Versions that this build speaks.
pub(super) const VERSIONS: (u32, u32) = (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION);

/// What came in.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A message.
    Message(Box<Envelope<NodeMessage>>),
    /// Something that is not of the protocol.
    Bad(BadFrame),
    /// The connection is over.
    End,
}

/// Why a frame was not a message.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadFrame {
    /// It does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// It is a text frame.
    #[error("a text frame; messages are binary")]
    Text,
}

/// The next message; pings are answered below us.
pub(super) async fn next(stream: &mut Stream) -> Incoming {
    loop {
        return match stream.next().await {
            Some(Ok(Message::Binary(bytes))) => match codec::decode_node(&bytes) {
                Ok(envelope) => Incoming::Message(Box::new(envelope)),
                Err(error) => Incoming::Bad(error.into()),
            },
            Some(Ok(Message::Text(_))) => Incoming::Bad(BadFrame::Text),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Close(_))) | None => Incoming::End,
            Some(Err(error)) => {
                tracing::debug!(%error, "connection failed");
                Incoming::End
            }
        };
    }
}

/// Reads on without looking, so that our last word is not lost to a reset.
pub(super) async fn drain(stream: &mut Stream) {
    while let Some(Ok(message)) = stream.next().await {
        if matches!(message, Message::Close(_)) {
            return;
        }
    }
}

/// Numbers and surrounds what goes out.
#[derive(Debug)]
pub(super) struct Outgoing {
    version: u32,
    epoch: u64,
    sequence: u64,
    generation: Generation,
}

impl Outgoing {
    pub(super) const fn new(epoch: u64) -> Self {
        Self { version: PROTOCOL_VERSION, epoch, sequence: 0, generation: Generation { epoch, n: 0 } }
    }

    /// Speaks this version from now on.
    pub(super) fn speak(&mut self, version: u32) {
        self.version = version;
    }

    /// The frame of a message. The envelope's generation is the highest that this
    /// connection has carried, never one whose orders are still under way.
    pub(super) fn frame(&mut self, ack: u64, body: GatewayMessage) -> Message {
        if let Some(generation) = generation_of(&body) {
            self.generation = self.generation.max(generation);
        }
        self.sequence += 1;
        let envelope = Envelope {
            version: self.version,
            epoch: self.epoch,
            sequence: self.sequence,
            ack,
            generation: self.generation,
            body,
        };
        Message::Binary(codec::encode_gateway(&envelope).into())
    }
}

const fn generation_of(message: &GatewayMessage) -> Option<Generation> {
    match message {
        GatewayMessage::DesiredSet { generation, .. }
        | GatewayMessage::StartWorkload { generation, .. }
        | GatewayMessage::StopWorkload { generation, .. } => Some(*generation),
        GatewayMessage::Registered { .. }
        | GatewayMessage::UpdateConfig { .. }
        | GatewayMessage::Heartbeat { .. }
        | GatewayMessage::LogsAck { .. }
        | GatewayMessage::MeshPeers { .. }
        | GatewayMessage::CertificateRenewed { .. }
        | GatewayMessage::CertificateRefused { .. }
        | GatewayMessage::TrustBundle { .. }
        | GatewayMessage::Exec { .. }
        | GatewayMessage::ReadOutput { .. }
        | GatewayMessage::CancelTask { .. }
        | GatewayMessage::CheckpointNotice { .. }
        | GatewayMessage::Ack
        | GatewayMessage::Refused { .. } => None,
    }
}

/// A typed refusal.
pub(super) fn refused(code: RefusalCode, message: impl Into<String>) -> GatewayMessage {
    GatewayMessage::Refused { code, message: message.into(), versions: VERSIONS }
}

/// Says the last word and closes, within the deadline.
pub(super) async fn close(sink: &mut Sink, out: &mut Outgoing, ack: u64, ending: Ending) {
    let (refusal, code, reason) = match ending {
        Ending::Refused(code, message) => (Some(refused(code, message)), 1_000, code.to_string()),
        Ending::Closed(code, why) => (None, code.number(), why),
    };
    let last_words = async {
        if let Some(message) = refusal {
            sink.send(out.frame(ack, message)).await?;
        }
        sink.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await
    };
    let deadline = Duration::from_millis(CLOSE_DEADLINE_MS);
    match tokio::time::timeout(deadline, last_words).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the peer was gone before the close frame"),
        Err(_) => tracing::debug!("the peer did not take the close frame in time"),
    }
}
