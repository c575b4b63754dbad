//! `claw bench sched`: replays a trace of a GPU cluster with one policy of placement.

pub(crate) mod backfill;
mod core;
pub(crate) mod jct;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use claw_gateway::scheduler::jobs::{Fleet, Nodes};
use claw_gateway::scheduler::packing::replay::{Protocol, Trace, replay, replay_scanning, replay_with};
use claw_gateway::scheduler::packing::{Machine, Manner, ModelSet, Policy, Request, Typical, rehearsed};
use serde_json::{Value, json};

use self::core::CoreFleet;

use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Screen;

/// What is replayed.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedOptions {
    /// Policy.
    pub policy: Policy,
    /// Machines: `sn,cpu_milli,memory_mib,gpu,model`.
    pub nodes: PathBuf,
    /// Requests: `name,cpu_milli,memory_mib,num_gpu,gpu_milli[,gpu_spec,…]`.
    pub pods: PathBuf,
    /// Seeds, from 0.
    pub seeds: u64,
    /// Where the allocation is read, as arrived demand over the fleet's GPUs.
    pub arrival: f64,
    /// Requests that may wait; 0 for none.
    pub window: usize,
    /// So many of each machine.
    pub times: usize,
    /// What will be asked for in all over the fleet's GPUs, as far as the queue knows.
    pub offered: f64,
    /// Through the gateway's core in place of the policy alone.
    pub core: bool,
    /// Without an index: every machine is asked at every decision.
    pub scan: bool,
}

/// What jobs are replayed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetOptions {
    /// GPUs in all.
    pub gpus: u32,
    /// GPUs of each node.
    pub gpus_per_node: u32,
    /// What a stop costs whom it stops, seconds.
    pub restart_s: u64,
}

impl FleetOptions {
    fn build(&self) -> Fleet {
        Fleet { nodes: Nodes::new(self.gpus, self.gpus_per_node), restart_s: self.restart_s, quotas: Vec::new() }
    }
}

/// Replays and prints one line.
pub(crate) fn sched(options: &SchedOptions, screen: &Screen) -> Result<Exit, CliError> {
    if options.core && options.policy != Policy::Ours {
        return Err(CliError::Usage("--core decides by the gateway's own policy: leave --policy out"));
    }
    if options.scan && (options.core || options.policy != Policy::Fgd) {
        return Err(CliError::Usage("--scan is what FGD costs without an index: say --policy fgd, and no --core"));
    }
    let (mut trace, models) = trace(&options.nodes, &options.pods)?;
    trace.machines = trace.machines.repeat(options.times);
    let typical = Arc::new(Typical::new(&trace.requests, &trace.machines));
    let core = if options.core { Some(CoreFleet::new(&trace, &models)?) } else { None };
    let protocol = protocol(options, &trace, &typical);
    let (mut allocations, mut outcomes, mut seconds, mut decisions) = (Vec::new(), Vec::new(), 0.0, 0_u64);
    for seed in 0..options.seeds {
        let begun = Instant::now();
        let outcome = if let Some(core) = &core {
            let mut fleet = core.fresh();
            let outcome = replay_with(&trace, protocol, seed, &mut fleet);
            seconds += fleet.deciding.as_secs_f64();
            outcome
        } else {
            let replay = if options.scan { replay_scanning } else { replay };
            let outcome = replay(&trace, &typical, protocol, seed);
            seconds += begun.elapsed().as_secs_f64();
            outcome
        };
        decisions += outcome.decisions;
        allocations.push(outcome.allocation_percent);
        outcomes.push(outcome);
    }
    let (mean, sd) = spread(&allocations);
    let pods = options.pods.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut line = json!({
        "policy": options.policy,
        "pods": pods,
        "arrival": options.arrival,
        "seeds": options.seeds,
        "allocation_percent": { "mean": rounded(mean), "sd": rounded(sd) },
        "decisions_per_second": (decisions as f64 / seconds.max(1e-9)).round(),
        "refused_though_feasible": outcomes.iter().map(|o| o.violations).sum::<u64>(),
    });
    if options.core {
        line["through"] = json!("core");
    }
    if options.scan {
        line["through"] = json!("scan");
    }
    if options.times > 1 {
        line["machines"] = json!(trace.machines.len());
    }
    if options.window > 0 {
        let n = outcomes.len().max(1) as f64;
        line["window"] = json!(options.window);
        if !options.core {
            line["offered"] = json!(options.offered);
            line["served_first"] = json!(protocol.manner.serve);
            line["turned_away_early"] = json!(protocol.manner.shed);
        }
        line["p99_wait_arrivals"] = json!(outcomes.iter().map(|o| o.p99_wait_arrivals).max());
        line["dropped"] = json!(rounded(outcomes.iter().map(|o| o.dropped as f64).sum::<f64>() / n));
        line["dropped_gpus"] = json!(rounded(outcomes.iter().map(|o| o.dropped_gpus).sum::<f64>() / n));
    }
    if screen.is_json() {
        screen.print(&format!("{line}\n"))?;
    } else {
        screen.print(&words(&line))?;
    }
    Ok(if line["refused_though_feasible"] == 0 { Exit::Ok } else { Exit::Fault })
}

/// In the manner that did best in rehearsals. The core tells nobody what a place is worth.
fn protocol(options: &SchedOptions, trace: &Trace, typical: &Arc<Typical>) -> Protocol {
    let SchedOptions { policy, arrival, window, offered, core, .. } = *options;
    let protocol = Protocol { policy, arrival, window, offered, manner: Manner::PLAIN };
    let manner = if core { Manner::PLAIN } else { rehearsed(&trace.machines, typical, protocol) };
    Protocol { manner, ..protocol }
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// Mean and sample standard deviation.
fn spread(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n.max(1.0);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0).max(1.0)).sqrt())
}

fn words(line: &Value) -> String {
    let allocation = &line["allocation_percent"];
    let mut text = format!(
        "{} on {} at {} % arrived: {} % of the GPUs allocated (sd {}, {} seeds), {} decisions/s, {} refused though feasible",
        line["policy"].as_str().unwrap_or_default(),
        line["pods"].as_str().unwrap_or_default(),
        (line["arrival"].as_f64().unwrap_or(0.0) * 100.0).round(),
        allocation["mean"],
        allocation["sd"],
        line["seeds"],
        line["decisions_per_second"],
        line["refused_though_feasible"],
    );
    let waited = format!(
        "; of {} waiting at most, {} dropped with {} GPUs, 99 of 100 waited at most {} arrivals",
        line["window"], line["dropped"], line["dropped_gpus"], line["p99_wait_arrivals"]
    );
    if line.get("window").is_some() {
        text.push_str(&waited);
    }
    if let (Some(offered), Some(first), Some(early)) =
        (line.get("offered"), line["served_first"].as_str(), line["turned_away_early"].as_str())
    {
        let knew =
            format!("; {offered} times the fleet's GPUs offered, served first: {first}, turned away early: {early}");
        text.push_str(&knew);
    }
    text + "\n"
}

/// Reads both files; models get their numbers in order of the machines.
fn trace(nodes: &Path, pods: &Path) -> Result<(Trace, Vec<String>), CliError> {
    let mut models: Vec<String> = Vec::new();
    let mut machines: Vec<(String, Machine)> = Vec::new();
    for row in rows(nodes)? {
        let model = models.iter().position(|known| known == row.text(4)).unwrap_or_else(|| {
            models.push(row.text(4).to_owned());
            models.len() - 1
        });
        let (gpus, model) = (row.number(3, 8)?, u8::try_from(model).unwrap_or(u8::MAX));
        if model >= 64 {
            return Err(row.wrong("model", "at most 64 models"));
        }
        let machine =
            Machine::new(row.number(1, u64::from(u32::MAX))?, row.number(2, u64::from(u32::MAX))?, gpus, model);
        machines.push((row.text(0).to_owned(), machine));
    }
    let mut requests: Vec<(String, Request)> = Vec::new();
    for row in rows(pods)? {
        let number = |name: &str| models.iter().position(|model| model == name);
        let named = row.text(5).split('|').filter(|name| !name.is_empty());
        // A model that no machine has keeps its place, so that the set is not empty.
        let bits = named.map(|name| 1_u64 << number(name).unwrap_or(63)).fold(0, |set, bit| set | bit);
        let request = Request {
            cpu_milli: row.number(1, u64::from(u32::MAX))?,
            memory_mib: row.number(2, u64::from(u32::MAX))?,
            gpus: row.number(3, 8)?,
            gpu_milli: row.number(4, 1_000)?,
            models: ModelSet(bits),
        };
        requests.push((row.text(0).to_owned(), request));
    }
    if machines.is_empty() || requests.is_empty() {
        return Err(CliError::Usage("both files need at least one row below their header"));
    }
    if requests.iter().all(|(_, request)| request.demand_milli() == 0) || machines.iter().all(|(_, m)| m.gpus == 0) {
        return Err(CliError::Usage(
            "a trace is replayed until its demand of GPUs has arrived: one machine has to have a GPU and one request to ask for one",
        ));
    }
    machines.sort_by(|a, b| a.0.cmp(&b.0));
    requests.sort_by(|a, b| a.0.cmp(&b.0));
    let trace = Trace {
        machines: machines.into_iter().map(|(_, machine)| machine).collect(),
        requests: requests.into_iter().map(|(_, request)| request).collect(),
    };
    Ok((trace, models))
}

/// One row of a file without quotes.
struct Row<'a> {
    path: &'a Path,
    line: usize,
    fields: Vec<String>,
}

impl Row<'_> {
    fn text(&self, at: usize) -> &str {
        self.fields.get(at).map_or("", String::as_str)
    }

    fn number<T: TryFrom<u64>>(&self, at: usize, most: u64) -> Result<T, CliError> {
        let number = self.text(at).parse::<u64>().ok().filter(|number| *number <= most);
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            self.wrong(&format!("column {}: {:?}", at + 1, self.text(at)), &format!("a whole number up to {most}"))
        })
    }

    fn wrong(&self, what: &str, allowed: &str) -> CliError {
        CliError::Malformed {
            what: self.path.display().to_string(),
            form: "CSV",
            why: format!("line {}: {what}, allowed is {allowed}", self.line),
        }
    }
}

fn rows(path: &Path) -> Result<Vec<Row<'_>>, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| CliError::file(path, error))?;
    let rows = text.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty());
    Ok(rows
        .map(|(at, line)| Row { path, line: at + 1, fields: line.split(',').map(|f| f.trim().to_owned()).collect() })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(nodes: &str, pods: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("nodes.csv"), dir.path().join("pods.csv"));
        std::fs::write(&a, nodes).unwrap();
        std::fs::write(&b, pods).unwrap();
        (dir, a, b)
    }

    #[test]
    fn a_trace_is_read_in_order_of_names_and_a_wrong_row_is_named() {
        let nodes = "sn,cpu_milli,memory_mib,gpu,model\nb,64000,1000,2,T4\na,32000,1000,8,G2\n";
        let pods = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\np2,1,1,1,500,\np1,1,1,1,1000,G2|V100\n";
        let (_dir, a, b) = files(nodes, pods);
        let (read, _) = trace(&a, &b).unwrap();
        assert_eq!((read.machines[0].gpus, read.machines[0].model), (8, 1));
        assert_eq!(read.requests[0].models, ModelSet(1 << 1 | 1 << 63));
        assert_eq!(read.requests[1].models, ModelSet(0));
        let (_dir, a, b) = files(nodes, "name,cpu\np1,1,1,9,1000,\n");
        let error = trace(&a, &b).unwrap_err().to_string();
        let (_dir2, c, d) = files(nodes, "name,cpu,memory,gpu,milli\np1,1,1,0,0,\n");
        assert!(
            trace(&c, &d).unwrap_err().to_string().contains("one request to ask for one"),
            "nothing would ever arrive"
        );
        assert!(error.contains("line 2") && error.contains("column 4") && error.contains("up to 8"), "{error}");
    }
}
