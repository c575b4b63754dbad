//! The weights cache through the whole runtime, on real engines.

use claw_proto::message::{DesiredWorkload, LogStream, NodeWorkloadState, StatusCause};
use claw_proto::spec::Volume;
use clawnode::runtime::docker::cache::{Cache, CacheConfig};

use crate::docker::{Bench, engines};

const MIB: u64 = 1024 * 1024;

fn with_cache(mut workload: DesiredWorkload, name: &str, read_only: bool) -> DesiredWorkload {
    let source = format!("cache:{name}");
    workload.spec.volumes.push(Volume { source, target: "/models".into(), read_only });
    workload
}

/// One container fills a cache and another reads it; one that fills on and on is stopped
/// before the disk is full, and says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_is_filled_and_read_and_kept_below_its_limit() {
    for engine in engines() {
        let name = engine.name;
        let limits = CacheConfig { mib_max: Some(6), keep: vec!["llama".into()], ..CacheConfig::default() };
        let mut bench = Bench::new(engine, |config| config.cache = limits.clone());
        let script = bench.script("head -c 2097152 /dev/zero >/models/weights; echo 7 >/models/version");
        let end = bench.run(&with_cache(script, "llama", false)).await;
        assert_eq!(end.state, NodeWorkloadState::Completed, "{name}: {end:?}");
        assert!(end.detail.contains("cache llama is filled: 2 files, 2 MiB"), "{name}: {end:?}");

        let script = bench.script("cat /models/version; touch /models/x || echo read-only");
        let reader = with_cache(script, "llama", true);
        assert_eq!(bench.run(&reader).await.state, NodeWorkloadState::Completed);
        assert_eq!(bench.log(&reader, LogStream::Stdout), ["7", "read-only"], "{name}");

        let script =
            "trap 'exit 0' TERM; n=0; while :; do head -c 524288 /dev/zero >/models/$n; n=$((n + 1)); sleep 0.1; done";
        let script = bench.script(script);
        let greedy = with_cache(script, "more", false);
        let end = bench.run(&greedy).await;
        assert_eq!((end.state, end.cause), (NodeWorkloadState::Failed, StatusCause::VolumeRefused), "{name}: {end:?}");
        assert!(end.detail.contains("stopped for the cache that it fills: cache more takes "), "{name}: {end:?}");
        assert!(end.detail.contains("and 3 MiB are left under this node's limit"), "{name}: {end:?}");
        let told = bench.log(&greedy, LogStream::System);
        assert!(told.iter().any(|line| line.contains("TERM is sent: volume_refused")), "{name}: {told:?}");

        let cache = Cache::open(bench.folder.path().join("cache"), limits).unwrap();
        let entries = cache.entries().unwrap();
        let kept: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.manifest.bytes / MIB)).collect();
        assert_eq!(kept, [("llama", 2)], "{name}: nothing of the other is left");
        let staged = std::fs::read_dir(bench.folder.path().join("cache/staging")).unwrap().count();
        assert_eq!((staged, entries[0].readers.len()), (0, 0));
    }
}
