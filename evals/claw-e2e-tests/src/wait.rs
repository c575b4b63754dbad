//! Waiting on a condition with a deadline; never on time alone.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Polls until `look` gives a value, or fails with what it last said.
pub async fn poll_until<T, F, Fut>(what: &str, deadline: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let start = Instant::now();
    let mut last = String::from("the condition did not hold");
    loop {
        match look().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {}
            Err(error) => last = format!("{error:#}"),
        }
        if start.elapsed() > deadline {
            bail!("gave up after {} s waiting until {what}: {last}", deadline.as_secs());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
