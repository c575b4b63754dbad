//! A wire that can be cut: a TCP proxy between nodes and gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// A proxy to one address.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub addr: SocketAddr,
    state: watch::Sender<Wire>,
    stop: Arc<Notify>,
    stopped: Arc<AtomicBool>,
}

/// What the wire does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Carries bytes.
    Up,
    /// Connections stay open and nothing comes through, as when a switch dies.
    Silent,
    /// Connections are reset and refused.
    Cut,
}

impl Proxy {
    /// Starts one on a free port.
    pub async fn start(target: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (state, watch) = watch::channel(Wire::Up);
        let stop = Arc::new(Notify::new());
        let stopped = Arc::new(AtomicBool::new(false));
        let (until, over) = (Arc::clone(&stop), Arc::clone(&stopped));
        tokio::spawn(async move {
            while !over.load(Ordering::Acquire) {
                tokio::select! {
                    () = until.notified() => return,
                    accepted = listener.accept() => {
                        let Ok((inbound, _)) = accepted else { continue };
                        if *watch.borrow() == Wire::Cut { continue; }
                        let (target, watch) = (target.clone(), watch.clone());
                        tokio::spawn(async move {
                            if let Ok(outbound) = TcpStream::connect(&target).await {
                                carry(inbound, outbound, watch).await;
                            }
                        });
                    }
                }
            }
        });
        Ok(Self { addr, state, stop, stopped })
    }

    /// Changes what the wire does.
    pub fn set(&self, wire: Wire) {
        self.state.send_replace(wire);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        self.stop.notify_waiters();
    }
}

/// Carries one connection until either end or the wire ends it.
async fn carry(inbound: TcpStream, outbound: TcpStream, mut watch: watch::Receiver<Wire>) {
    let (mut in_read, mut in_write) = inbound.into_split();
    let (mut out_read, mut out_write) = outbound.into_split();
    let (mut up, mut down) = (vec![0_u8; 16 * 1024], vec![0_u8; 16 * 1024]);
    loop {
        let wire = *watch.borrow_and_update();
        if wire == Wire::Cut {
            return;
        }
        let carrying = wire == Wire::Up;
        tokio::select! {
            changed = watch.changed() => if changed.is_err() { return },
            n = in_read.read(&mut up), if carrying => match n {
                Ok(n) if n > 0 && out_write.write_all(&up[..n]).await.is_ok() => {}
                _ => return,
            },
            n = out_read.read(&mut down), if carrying => match n {
                Ok(n) if n > 0 && in_write.write_all(&down[..n]).await.is_ok() => {}
                _ => return,
            },
        }
    }
}
