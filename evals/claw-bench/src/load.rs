//! Clients that ask one call at a time, as fast as they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::stats::quantile;

/// Asked before anything is counted.
const WARM_UP: Duration = Duration::from_millis(500);

/// One client: asks, and returns when it is answered as it should be.
pub trait Client: Send + 'static {
    /// Makes call number `n` of this client.
    fn ask(&mut self, n: u64) -> impl Future<Output = Result<()>> + Send;
}

/// What some clients did in some time.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Answers in a second.
    pub per_second: f64,
    /// Half of them took at most so long, milliseconds.
    pub p50_ms: f64,
    /// 99 % of them took at most so long, milliseconds.
    pub p99_ms: f64,
}

/// Lets all clients ask for `time` after a warm-up.
///
/// # Errors
/// The first call that was not answered as it should be.
pub async fn run<C: Client>(clients: Vec<C>, time: Duration) -> Result<Sample> {
    let counting = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    for mut client in clients {
        let (counting, over) = (Arc::clone(&counting), Arc::clone(&over));
        tasks.spawn(async move {
            let mut took_ms = Vec::new();
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let counts = counting.load(Ordering::Relaxed);
                let begun = Instant::now();
                client.ask(n).await?;
                if counts {
                    took_ms.push(begun.elapsed().as_secs_f64() * 1e3);
                }
            }
            Ok::<_, anyhow::Error>(took_ms)
        });
    }
    tokio::time::sleep(WARM_UP).await;
    counting.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    tokio::time::sleep(time).await;
    over.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    while let Some(took) = tasks.join_next().await {
        all.extend(took.context("a client panicked")??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Sample { per_second: all.len() as f64 / seconds, p50_ms: quantile(&all, 0.5), p99_ms: quantile(&all, 0.99) })
}

/// The order of samples of `sides` in `rounds` rounds: there and back in each.
pub fn abba<T: Copy>(sides: &[T], rounds: usize) -> Vec<T> {
    let there_and_back = sides.iter().chain(sides.iter().rev()).copied();
    std::iter::repeat_n(there_and_back, rounds).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_is_as_often_early_as_late() {
        assert_eq!(abba(&["a", "b"], 2), ["a", "b", "b", "a", "a", "b", "b", "a"]);
    }

    /// Answers at once, to the last of its calls.
    struct Prompt {
        calls: u64,
    }

    impl Client for Prompt {
        async fn ask(&mut self, n: u64) -> Result<()> {
            tokio::task::yield_now().await;
            anyhow::ensure!(n < self.calls, "it breaks");
            Ok(())
        }
    }

    #[tokio::test]
    async fn answers_are_counted_and_a_failure_is_told() {
        let time = Duration::from_millis(20);
        let broken = run(vec![Prompt { calls: 3 }], time).await;
        assert_eq!(broken.unwrap_err().to_string(), "it breaks");
        let prompt = (0..4).map(|_| Prompt { calls: u64::MAX }).collect();
        let sample = run(prompt, time).await.unwrap();
        assert!(sample.per_second > 1_000.0 && sample.p50_ms <= sample.p99_ms, "{sample:?}");
    }
}
