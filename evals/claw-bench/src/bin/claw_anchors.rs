//! `claw-anchors [a|b|c|d|e]... [--rounds N] [--seconds N] [--nodes N,N] [--clients N,N] [--sides core,mcp,etcd]`:
//! the figures beside their anchors.
//! Data lies in the build folder, so that every side writes to the same disk.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use claw_bench::anchors::Anchors;
use claw_bench::submits::{Load, Side};
use claw_bench::{links, reads, starts, submits};
use claw_e2e_tests::process::bin_dir;

// As in the gateway's program: the core runs in this one. It is linked as `malloc`.
use mimalloc as _;

struct Wanted {
    figures: String,
    rounds: usize,
    time: Duration,
    sizes: Vec<usize>,
    clients: Vec<usize>,
    sides: Vec<Side>,
}

fn wanted(mut args: impl Iterator<Item = String>) -> Result<Wanted> {
    let mut wanted = Wanted {
        figures: String::new(),
        rounds: 4,
        time: Duration::from_secs(3),
        sizes: vec![1_000, 10_000],
        clients: vec![1, 64, 512],
        sides: Side::ALL.to_vec(),
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "a" | "b" | "c" | "d" | "e" => wanted.figures.push_str(&arg),
            "--rounds" => wanted.rounds = value()?.parse()?,
            "--seconds" => wanted.time = Duration::from_secs(value()?.parse()?),
            "--nodes" => wanted.sizes = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--clients" => wanted.clients = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--sides" => wanted.sides = value()?.split(',').map(Side::parse).collect::<Result<_>>()?,
            other => bail!("{other} is none of a, b, c, d, e, --rounds, --seconds, --nodes, --clients, --sides"),
        }
    }
    if wanted.figures.is_empty() {
        wanted.figures.push_str("abcde");
    }
    Ok(wanted)
}

async fn figure(name: char, wanted: &Wanted, dir: &Path, anchors: &Anchors) -> Result<Vec<String>> {
    match name {
        'a' => {
            let load =
                Load { rounds: wanted.rounds, time: wanted.time, clients: &wanted.clients, sides: &wanted.sides };
            submits::figure(dir, anchors, &load).await
        }
        'b' => reads::figure(dir, anchors, wanted.rounds, wanted.time).await,
        'c' => links::figure(dir, &wanted.sizes).await,
        'd' => starts::submit_to_running(dir).await,
        _ => starts::crash_to_status(dir, 1_000).await,
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let wanted = wanted(std::env::args().skip(1))?;
    let anchors = Anchors::from_env();
    let dir = bin_dir()?;
    let mut out = std::io::stdout();
    if anchors.etcd.is_none() {
        writeln!(out, "SKIP: there is no etcd (evals/scripts/anchors installs it)")?;
    }
    if anchors.fastmcp_python.is_none() {
        writeln!(out, "SKIP: there is no FastMCP (evals/scripts/anchors installs it)")?;
    }
    for name in wanted.figures.chars() {
        for line in figure(name, &wanted, &dir, &anchors).await.with_context(|| format!("figure ({name})"))? {
            writeln!(out, "{line}")?;
        }
        out.flush()?;
    }
    Ok(())
}
