//! What the two ports need: names, certificates, routes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use claw_security::secret_file::read_private;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::StartError;
use crate::config::{HttpConfig, NodePortConfig};
use crate::serve::Tls;

/// Names of the node port.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) dns: Vec<String>,
    pub(super) ips: Vec<IpAddr>,
    /// The first configured one, with its port.
    pub(super) advertised: Option<String>,
}

/// The loopback names, the address listened on, and what is configured.
pub(super) fn names(config: &NodePortConfig, listening: SocketAddr) -> Names {
    let mut dns = BTreeSet::from(["localhost".to_owned()]);
    let mut ips = BTreeSet::from([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    if !listening.ip().is_unspecified() {
        ips.insert(listening.ip());
    }
    let mut advertised = None;
    for text in &config.advertise {
        let (host, port) = split_port(text);
        let shown = if let Ok(ip) = host.parse::<IpAddr>() {
            ips.insert(ip);
            match ip {
                IpAddr::V4(_) => host.to_owned(),
                IpAddr::V6(_) => format!("[{host}]"),
            }
        } else {
            dns.insert(host.to_owned());
            host.to_owned()
        };
        let port = port.unwrap_or_else(|| listening.port());
        advertised.get_or_insert_with(|| format!("{shown}:{port}"));
    }
    Names { dns: dns.into_iter().collect(), ips: ips.into_iter().collect(), advertised }
}

/// `host`, `host:port`, `192.0.2.7:7701`, `::1` or `[::1]:7701`.
fn split_port(text: &str) -> (&str, Option<u16>) {
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (text, None),
        },
        None => (text, None),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    (bare.unwrap_or(host), port)
}

/// Certificate and key of the HTTP port, if there are any.
pub(super) fn http_tls(config: &HttpConfig) -> Result<Tls, StartError> {
    let Some(files) = &config.tls else {
        return Ok(Tls::Plain);
    };
    let problem =
        |path: &std::path::Path, why: String| StartError::HttpTls { problem: format!("{}: {why}", path.display()) };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(|error| problem(&files.cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(problem(&files.cert, "it holds no certificate".into()));
    }
    let key = read_private(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| problem(&files.key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| problem(&files.cert, error.to_string()))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Tls::Fixed(Arc::new(tls)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_may_call_the_port_stands_in_its_certificate() {
        let config = NodePortConfig {
            advertise: ["gw.example", "gw.example:7443", "192.0.2.7:7443", "2001:db8::7", "[2001:db8::8]:7443"]
                .map(str::to_owned)
                .to_vec(),
            ..NodePortConfig::default()
        };
        let found = names(&config, "0.0.0.0:7701".parse().unwrap());
        assert_eq!(found.dns, ["gw.example", "localhost"]);
        let ips: Vec<String> = found.ips.iter().map(ToString::to_string).collect();
        assert_eq!(ips, ["127.0.0.1", "192.0.2.7", "::1", "2001:db8::7", "2001:db8::8"]);
        assert_eq!(found.advertised.as_deref(), Some("gw.example:7701"));
    }
}
