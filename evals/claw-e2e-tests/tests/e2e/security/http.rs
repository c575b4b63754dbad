//! The HTTP port: keys, hosts, origins.

use anyhow::{Result, ensure};
use claw_e2e_tests::fleet::Fleet;
use reqwest::{Client, Method, StatusCode};

use crate::support::on_fleet;

/// Everything that is served over HTTP and needs a key.
const CLOSED: &[(Method, &str)] = &[
    (Method::POST, "/mcp"),
    (Method::GET, "/mcp"),
    (Method::POST, "/mcp/readonly"),
    (Method::POST, "/mcp/x/fleet"),
    (Method::GET, "/api/status"),
    (Method::GET, "/api/nodes"),
    (Method::GET, "/api/nodes/any"),
    (Method::GET, "/api/nodes/any/metrics"),
    (Method::GET, "/api/workloads"),
    (Method::GET, "/api/workloads/any"),
    (Method::GET, "/api/workloads/any/logs"),
    (Method::GET, "/api/ws"),
    (Method::POST, "/api/ops/cluster_status"),
    (Method::GET, "/metrics"),
];

/// What asks whether the gateway lives may ask without a key.
const OPEN: &[&str] = &["/healthz", "/readyz"];

fn client() -> Result<Client> {
    Ok(Client::builder().no_proxy().tls_certs_only([]).build()?)
}

async fn status(fleet: &Fleet, path: &str, headers: &[(&str, &str)]) -> Result<StatusCode> {
    let mut request = client()?.get(format!("{}{path}", fleet.gateway.http_url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(request.send().await?.status())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_health_is_told_without_a_key() -> Result<()> {
    on_fleet(60, &[], async |fleet| {
        let client = client()?;
        let key = fleet.gateway.admin_key()?;
        let other = format!("{}x", &key[..key.len() - 1]);
        let basic = format!("Basic {key}");
        let wrong: [Option<String>; 5] = [
            None,
            Some("Bearer ".to_owned()),
            Some("Bearer clawkey_wrong".to_owned()),
            Some(format!("Bearer {other}")),
            Some(basic),
        ];
        for (method, path) in CLOSED {
            let url = format!("{}{path}", fleet.gateway.http_url());
            for authorization in &wrong {
                let mut request = client.request(method.clone(), &url);
                if let Some(authorization) = authorization {
                    request = request.header("authorization", authorization);
                }
                let reply = request.send().await?;
                let said = reply.status();
                ensure!(said == StatusCode::UNAUTHORIZED, "{method} {path} with {authorization:?}: {said}");
                let challenge = reply.headers().contains_key("www-authenticate");
                ensure!(challenge, "{method} {path}: 401 without WWW-Authenticate");
                let body = reply.text().await?;
                ensure!(!body.contains(&key) && !body.contains(&other), "{method} {path} repeats a key: {body}");
            }
        }
        for path in OPEN {
            let said = status(fleet, path, &[]).await?;
            ensure!(said == StatusCode::OK, "{path}: {said}");
        }
        let said = status(fleet, "/no/such/page", &[]).await?;
        ensure!(said == StatusCode::UNAUTHORIZED || said == StatusCode::NOT_FOUND, "an unknown page: {said}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_hosts_and_web_pages_are_refused() -> Result<()> {
    on_fleet(60, &["http.allowed_origins=https://console.example"], async |fleet| {
        let bearer = format!("Bearer {}", fleet.gateway.admin_key()?);
        let key = ("authorization", bearer.as_str());
        let (path, port) = ("/api/status", fleet.gateway.http_url());
        let port = port.rsplit(':').next().unwrap_or_default().to_owned();
        for host in ["localhost", "127.0.0.1"] {
            let said = status(fleet, path, &[key, ("host", &format!("{host}:{port}"))]).await?;
            ensure!(said == StatusCode::OK, "host {host}: {said}");
        }
        // A name that somebody else's DNS points at this machine.
        for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example"] {
            for path in [path, "/mcp", "/metrics"] {
                let said = status(fleet, path, &[key, ("host", host)]).await?;
                ensure!(said == StatusCode::FORBIDDEN, "{path} with host {host}: {said}");
            }
        }
        for origin in ["http://evil.example", "null", "http://localhost:1"] {
            for path in [path, "/mcp", "/metrics"] {
                let said = status(fleet, path, &[key, ("origin", origin)]).await?;
                ensure!(said == StatusCode::FORBIDDEN, "{path} with origin {origin}: {said}");
            }
        }
        let said = status(fleet, path, &[key, ("origin", "https://console.example")]).await?;
        ensure!(said == StatusCode::OK, "the allowed origin: {said}");
        Ok(())
    })
    .await
}
