//! Serves a router on a socket, with or without TLS, and stops without cutting
//! anybody off.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::response::Response;
use claw_proto::time::Timestamp;
use claw_security::pki::{Authorities, PkiError, server_tls_config};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::control::Clock;
use crate::face::{Answered, Direct};

/// A TLS handshake is done by then or the connection ends.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long requests under way may take when the gateway stops.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// Pause when the system has no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Validity of the node port's own certificate; a new one is made at half of it.
const SERVER_CERTIFICATE_TTL: Duration = Duration::from_hours(90 * 24);

/// Who is at the other end, as an extension of each request.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) addr: SocketAddr,
    /// Its certificates, verified; none if it showed none.
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
    /// Its place among the connections, also for what becomes of an upgrade.
    _place: Arc<OwnedSemaphorePermit>,
}

/// How a port encrypts.
pub(crate) enum Tls {
    /// Not at all.
    Plain,
    /// With a certificate from outside.
    Fixed(Arc<ServerConfig>),
    /// With a certificate of our own authority, made anew before it ends.
    Own(Box<OwnCertificate>),
}

impl Tls {
    fn acceptor(&self) -> Result<Option<TlsAcceptor>, PkiError> {
        match self {
            Self::Plain => Ok(None),
            Self::Fixed(config) => Ok(Some(TlsAcceptor::from(Arc::clone(config)))),
            Self::Own(own) => Ok(Some(TlsAcceptor::from(own.config()?))),
        }
    }
}

/// The node port's certificate and the names in it.
pub(crate) struct OwnCertificate {
    authorities: Arc<Authorities>,
    clock: Arc<dyn Clock>,
    dns_names: Vec<String>,
    ips: Vec<std::net::IpAddr>,
    current: Mutex<Option<InUse>>,
}

/// The configuration in use.
struct InUse {
    config: Arc<ServerConfig>,
    /// From when on it is to be replaced.
    replace_at: Timestamp,
    /// Version of the authorities that it was made under.
    version: u64,
}

impl OwnCertificate {
    /// A certificate for these names.
    ///
    /// # Errors
    /// [`PkiError`] if a name is none, or the authority has ended.
    pub(crate) fn new(
        authorities: Arc<Authorities>,
        clock: Arc<dyn Clock>,
        dns_names: Vec<String>,
        ips: Vec<std::net::IpAddr>,
    ) -> Result<Self, PkiError> {
        let own = Self { authorities, clock, dns_names, ips, current: Mutex::default() };
        own.config()?;
        Ok(own)
    }

    fn config(&self) -> Result<Arc<ServerConfig>, PkiError> {
        let now = self.clock.now();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.authorities.version();
        if let Some(in_use) = current.as_ref()
            && now < in_use.replace_at
            && version == in_use.version
        {
            return Ok(Arc::clone(&in_use.config));
        }
        let authority = self.authorities.server();
        let issued = authority.issue_server(&self.dns_names, &self.ips, now, SERVER_CERTIFICATE_TTL)?;
        let left_ms = issued.certificate.not_after.ms_since(now);
        tracing::info!(
            names = ?self.dns_names, ips = ?self.ips, not_after = %issued.certificate.not_after,
            "certificate of the node port made"
        );
        let trusted = self.authorities.trusted();
        let config = Arc::new(server_tls_config(&authority, &trusted, &issued.certificate, &issued.key)?);
        *current = Some(InUse { config: Arc::clone(&config), replace_at: now.plus_ms(left_ms / 2), version });
        Ok(config)
    }
}

/// What a port answers with.
#[derive(Clone)]
pub(crate) struct Serves {
    /// Answers plain calls of tools, where there are any.
    pub(crate) direct: Option<Arc<Direct>>,
    /// Answers everything else.
    pub(crate) router: Router,
}

impl Serves {
    /// Answers one request of a peer.
    async fn answer(self, peer: Peer, request: Request<Incoming>) -> Result<Response, Infallible> {
        let mut request = match &self.direct {
            None => request.map(Body::new),
            Some(direct) => match direct.answer(request).await {
                Answered::Here(response) => return Ok(response),
                Answered::Elsewhere(request) => request,
            },
        };
        // Tells who sent it.
        request.extensions_mut().insert(ConnectInfo(peer.addr));
        request.extensions_mut().insert(peer);
        self.router.oneshot(request).await
    }
}

/// What is served where.
pub(crate) struct Port {
    pub(crate) listener: TcpListener,
    pub(crate) serves: Serves,
    pub(crate) tls: Tls,
    /// Connections at the same time; who comes then waits.
    pub(crate) connections_max: usize,
    /// A connection without the head of a request for so long is closed, idle ones too.
    pub(crate) head_deadline: Duration,
}

/// What every connection of a port needs.
#[derive(Clone)]
struct Shared {
    serves: Serves,
    head_deadline: Duration,
    stop: CancellationToken,
}

/// Accepts and serves until `stop`, then waits for requests under way, within a
/// deadline.
pub(crate) async fn serve(port: Port, stop: CancellationToken) {
    let Port { listener, serves, tls, connections_max, head_deadline } = port;
    let shared = Shared { serves, head_deadline, stop: stop.clone() };
    let places = Arc::new(Semaphore::new(connections_max));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                report_panic(ended);
                continue;
            }
        };
        let (stream, addr, place) = accepted;
        let acceptor = match tls.acceptor() {
            Ok(acceptor) => acceptor,
            Err(error) => {
                tracing::error!(%error, "no certificate for this port; the connection is dropped");
                continue;
            }
        };
        let peer = Peer { addr, certificates: Arc::from([]), _place: Arc::new(place) };
        connections.spawn(connection(stream, peer, acceptor, shared.clone()));
    }
    // From here on nobody new is let in.
    drop(listener);
    let rest = async {
        while let Some(ended) = connections.join_next().await {
            report_panic(ended);
        }
    };
    if tokio::time::timeout(DRAIN_DEADLINE, rest).await.is_err() {
        tracing::warn!(open = connections.len(), "requests under way are cut off");
    }
    connections.shutdown().await;
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "serving a connection panicked");
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, addr)) => return (stream, addr, place),
            Err(error) => {
                // Out of file descriptors, mostly: others have to end first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, mut peer: Peer, acceptor: Option<TlsAcceptor>, shared: Shared) {
    let addr = peer.addr;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%addr, %error, "cannot switch off Nagle's algorithm");
    }
    let Some(acceptor) = acceptor else {
        return http(stream, peer, shared).await;
    };
    let handshake = tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream));
    let stream = tokio::select! {
        done = handshake => match done {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::info!(%addr, %error, "TLS handshake failed"),
            Err(_) => return tracing::info!(%addr, "TLS handshake took too long"),
        },
        () = shared.stop.cancelled() => return,
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    peer.certificates = certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
    Box::pin(http(stream, peer, shared)).await;
}

async fn http<S>(stream: S, peer: Peer, shared: Shared)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let addr = peer.addr;
    let serves = shared.serves;
    let answer = move |request| serves.clone().answer(peer.clone(), request);
    let service = TowerToHyperService::new(tower::service_fn(answer));
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(shared.head_deadline);
    builder.http2().timer(TokioTimer::new());
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let mut stopping = false;
    let result = loop {
        tokio::select! {
            result = served.as_mut() => break result,
            () = shared.stop.cancelled(), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%addr, error, "connection ended badly");
    }
}

/// Binds a socket.
///
/// # Errors
/// The operating system's, with the address.
pub(crate) async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|error| io::Error::new(error.kind(), format!("{addr}: {error}")))
}
