//! The connection to the gateway: WebSocket over TLS 1.3 with the node's
//! certificate, made again and again with a growing, jittered delay.
//!
//! The link knows frames, not what they mean: it tells the shell when a
//! connection is up or gone and what arrived; the shell gives it frames to send.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use claw_proto::codec::{CodecError, decode_gateway};
use claw_proto::limits::FRAME_BYTES_MAX;
use claw_proto::message::{Envelope, GatewayMessage};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::config::LinkConfig;
use crate::endpoint::Endpoint;

/// The WebSocket subprotocol of the node link.
pub const SUBPROTOCOL: &str = "claw.node.v1";
/// Frames that may wait to be sent; a peer that reads slower is cut off.
const OUTBOUND_FRAMES_MAX: usize = 1_024;
/// Events that may wait for the shell.
const EVENTS_MAX: usize = 256;
/// Longest time for a polite end of a connection.
const FAREWELL_MS: u64 = 500;

/// Why a connection could not be made, or ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Network or TLS.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// WebSocket.
    #[error("{0}")]
    WebSocket(#[from] tungstenite::Error),
    /// It took too long.
    #[error("no connection within {timeout_ms} ms")]
    Timeout {
        /// How long was waited.
        timeout_ms: u64,
    },
    /// The gateway ended it.
    #[error("the gateway closed the connection{reason}")]
    Closed {
        /// What it said, with a leading `: `, or nothing.
        reason: String,
    },
    /// The shell ended it.
    #[error("closed by this node")]
    ClosedHere,
}

/// A frame from the gateway.
pub type Received = Result<Envelope<GatewayMessage>, CodecError>;

/// News of the link.
#[derive(Debug)]
pub enum LinkEvent {
    /// A connection is up.
    Up(Connection),
    /// A frame arrived.
    Frame(Box<Received>),
    /// The connection is gone.
    Down(LinkError),
}

/// The sending side of one connection.
#[derive(Debug)]
pub struct Connection {
    outbound: mpsc::Sender<Bytes>,
    close: CancellationToken,
    registered: Arc<AtomicBool>,
}

impl Connection {
    /// Queues a frame; `false` if the peer is too slow or gone.
    pub fn send(&self, frame: Vec<u8>) -> bool {
        self.outbound.try_send(Bytes::from(frame)).is_ok()
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.close.cancel();
    }

    /// The gateway took this node in: the next failure starts with a short delay again.
    pub fn set_registered(&self) {
        self.registered.store(true, Ordering::Relaxed);
    }
}

/// The TLS configuration in use; a renewal replaces it for the next connection.
#[derive(Debug, Clone)]
pub struct TlsCell(Arc<RwLock<Arc<ClientConfig>>>);

impl TlsCell {
    /// Begins with this one.
    pub fn new(config: Arc<ClientConfig>) -> Self {
        Self(Arc::new(RwLock::new(config)))
    }

    /// The one in use.
    pub fn get(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes another one from the next connection on.
    pub fn set(&self, config: Arc<ClientConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

/// Where and how to connect.
#[derive(Debug, Clone)]
pub struct Link {
    /// Gateway's node port.
    pub endpoint: Endpoint,
    /// The node's TLS, as of the last renewal.
    pub tls: TlsCell,
    /// Delays.
    pub config: LinkConfig,
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

impl Link {
    /// The channel through which [`Link::run`] tells its news.
    pub fn channel() -> (mpsc::Sender<LinkEvent>, mpsc::Receiver<LinkEvent>) {
        mpsc::channel(EVENTS_MAX)
    }

    /// Connects for ever, until `stop`.
    pub async fn run(self, events: mpsc::Sender<LinkEvent>, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let registered = Arc::new(AtomicBool::new(false));
            let Some(result) = stop.run_until_cancelled(Box::pin(self.connect())).await else { return };
            let error = match result {
                Ok(socket) => {
                    info!(endpoint = %self.endpoint, "connected");
                    let error = serve(socket, &events, &registered, &stop).await;
                    debug!(%error, "connection ended");
                    if stop.is_cancelled() || events.send(LinkEvent::Down(error)).await.is_err() {
                        return;
                    }
                    None
                }
                Err(error) => Some(error),
            };
            failures = if registered.load(Ordering::Relaxed) { 0 } else { failures + 1 };
            let delay_ms = self.delay_ms(failures);
            if let Some(error) = error {
                warn!(endpoint = %self.endpoint, %error, retry_in_ms = delay_ms, "no connection to the gateway");
            }
            let delay = tokio::time::sleep(Duration::from_millis(delay_ms));
            if stop.run_until_cancelled(delay).await.is_none() {
                return;
            }
        }
    }

    /// Doubles with each failure up to the most, then a random half of it off,
    /// so that a fleet does not come back as one wave.
    fn delay_ms(&self, failures: u32) -> u64 {
        let LinkConfig { reconnect_min_ms, reconnect_max_ms, .. } = self.config;
        let doubled = reconnect_min_ms.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let delay_ms = doubled.min(reconnect_max_ms);
        let mut random = [0; 8];
        if let Err(error) = getrandom::fill(&mut random) {
            debug!(%error, "no randomness for the jitter");
        }
        delay_ms - u64::from_le_bytes(random) % (delay_ms / 2 + 1)
    }

    async fn connect(&self) -> Result<Socket, LinkError> {
        let timeout_ms = self.config.connect_timeout_ms;
        let timeout = Duration::from_millis(timeout_ms);
        tokio::time::timeout(timeout, self.handshake()).await.map_err(|_| LinkError::Timeout { timeout_ms })?
    }

    async fn handshake(&self) -> Result<Socket, LinkError> {
        let Endpoint { host, port, .. } = &self.endpoint;
        let invalid = |_| std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let server_name = ServerName::try_from(host.clone()).map_err(invalid)?;
        let tcp = TcpStream::connect((host.as_str(), *port)).await?;
        tcp.set_nodelay(true)?;
        let tls = TlsConnector::from(self.tls.get()).connect(server_name, tcp).await?;
        let url = format!("wss://{}{}", self.endpoint, self.endpoint.path);
        let mut request = url.into_client_request()?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let config =
            WebSocketConfig::default().max_message_size(Some(FRAME_BYTES_MAX)).max_frame_size(Some(FRAME_BYTES_MAX));
        let (socket, _) = tokio_tungstenite::client_async_with_config(request, tls, Some(config)).await?;
        Ok(socket)
    }
}

/// Carries frames both ways until the connection ends.
async fn serve(
    socket: Socket,
    events: &mpsc::Sender<LinkEvent>,
    registered: &Arc<AtomicBool>,
    stop: &CancellationToken,
) -> LinkError {
    let (outbound, mut frames) = mpsc::channel::<Bytes>(OUTBOUND_FRAMES_MAX);
    let close = stop.child_token();
    let connection = Connection { outbound, close: close.clone(), registered: Arc::clone(registered) };
    if events.send(LinkEvent::Up(connection)).await.is_err() {
        return LinkError::ClosedHere;
    }
    let (mut sink, mut stream) = socket.split();
    let send = async {
        while let Some(frame) = frames.recv().await {
            sink.send(Message::Binary(frame)).await?;
        }
        Ok::<(), LinkError>(())
    };
    let receive = async {
        while let Some(message) = stream.next().await {
            match message? {
                Message::Binary(frame) => {
                    let event = LinkEvent::Frame(Box::new(decode_gateway(&frame)));
                    if events.send(event).await.is_err() {
                        return Ok(());
                    }
                }
                Message::Close(frame) => {
                    let reason = frame.map(|frame| format!(": {} ({})", frame.reason, frame.code)).unwrap_or_default();
                    return Err(LinkError::Closed { reason });
                }
                Message::Text(_) => debug!("a text frame is not part of the protocol and is ignored"),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Err::<(), LinkError>(LinkError::Closed { reason: String::new() })
    };
    let outcome = tokio::select! {
        () = close.cancelled() => Ok(()),
        outcome = send => outcome,
        outcome = receive => outcome,
    };
    match outcome {
        Ok(()) => {
            let farewell = tokio::time::timeout(Duration::from_millis(FAREWELL_MS), sink.close()).await;
            debug!(?farewell, "closed");
            LinkError::ClosedHere
        }
        Err(error) => error,
    }
}
