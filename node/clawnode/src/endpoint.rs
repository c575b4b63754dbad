//! Where a gateway is: scheme, host, port.

use std::fmt;

/// Why a text is not a gateway's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{got:?} is not an address like {scheme}://host:port")]
pub struct EndpointError {
    /// What was given.
    pub got: String,
    /// The wanted scheme.
    pub scheme: &'static str,
}

/// Host and port of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path with its leading slash, or nothing.
    pub path: String,
}

impl Endpoint {
    /// Reads `scheme://host:port/path`.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn parse(text: &str, scheme: &'static str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError { got: text.to_owned(), scheme };
        let rest = text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")).ok_or_else(wrong)?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if host.is_empty() || !host.chars().all(plain) {
            return Err(wrong());
        }
        let port = port.parse().map_err(|_| wrong())?;
        Ok(Self { host: host.to_owned(), port, path: path.to_owned() })
    }
}

/// `host:port`, as in a `Host` header.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_read_and_written() {
        let read = |text| {
            Endpoint::parse(text, "https")
                .map(|endpoint| (endpoint.host.clone(), endpoint.path.clone(), endpoint.to_string()))
        };
        let ok = |host: &str, path: &str, text: &str| Ok((host.to_owned(), path.to_owned(), text.to_owned()));
        assert_eq!(read("https://gw.example:7443"), ok("gw.example", "", "gw.example:7443"));
        assert_eq!(read("https://[::1]:7443/x"), ok("::1", "/x", "[::1]:7443"));
        for wrong in
            ["http://gw:1", "https://gw", "https://:1", "https://gw:99999", "https://g w:1", "https://user@gw:1"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
