//! `claw-gateway health`: asks the gateway of this configuration whether it can
//! decide and write; for container engines and service managers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::GatewayConfig;

/// Whoever asks waits no longer.
const DEADLINE: Duration = Duration::from_secs(3);
/// An answer is a head and a few words.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Asks `/readyz` on this machine; one line about the answer.
///
/// # Errors
/// Nobody answers in time, the answer is not 200, or over TLS somebody answers
/// with another certificate than the one in the configuration.
pub(super) async fn check(config: &GatewayConfig) -> anyhow::Result<String> {
    let addr = local(config.http.listen);
    anyhow::ensure!(addr.port() != 0, "http.listen has port 0, which is another one at each start; name a port");
    let asked = tokio::time::timeout(DEADLINE, ask(addr, config));
    let answer =
        asked.await.map_err(|_| anyhow::anyhow!("{addr} did not answer within {} s", DEADLINE.as_secs()))??;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    anyhow::ensure!(status.split(' ').nth(1) == Some("200"), "{addr} is not ready: {status} {}", body.trim());
    Ok(format!("ready http={addr}\n"))
}

/// Where one that listens there is reached from here.
fn local(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask(addr: SocketAddr, config: &GatewayConfig) -> anyhow::Result<String> {
    let stream = TcpStream::connect(addr).await.with_context(|| format!("nobody listens on {addr}"))?;
    match &config.http.tls {
        None => exchange(stream).await,
        Some(files) => {
            let connector = TlsConnector::from(Arc::new(pinned(&files.cert)?));
            exchange(connector.connect(ServerName::from(addr.ip()), stream).await?).await
        }
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> anyhow::Result<String> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Trusts exactly the certificate that this gateway is configured to show: its
/// names are for callers from outside, not for this machine.
fn pinned(cert: &Path) -> anyhow::Result<rustls::ClientConfig> {
    let certificate =
        CertificateDer::from_pem_file(cert).with_context(|| format!("http.tls.cert {}", cert.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Pinned { certificate, provider: Arc::clone(&provider) });
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if end_entity.as_ref() == self.certificate.as_ref() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("the certificate is not the one of http.tls.cert".into()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
