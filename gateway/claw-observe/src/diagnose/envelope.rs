//! What programs put around a message: times, hosts, levels, streams, ranks.
//!
//! Read are dmesg, kmsg, syslog, journald's JSON, Kubernetes' CRI and klog,
//! JSON lines, docker compose, torchrun, srun and mpirun.

use super::pattern::{Pattern, regex};
use std::borrow::Cow;
use std::sync::LazyLock;

/// A line without its envelope.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Envelope<'a> {
    /// What was said. May hold several lines, if a JSON field did.
    pub message: Cow<'a, str>,
    /// Seconds, on the clock of the line's own form: since boot, or since 1970.
    pub time_s: Option<f64>,
    /// The program that a syslog line names.
    pub tag: Option<String>,
    /// Marks of rank or process before the message; keeps interleaved writers apart.
    pub writer: String,
    /// The machine that a syslog line or a field names.
    pub host: Option<String>,
}

/// Pieces of an envelope, in no fixed order; each is taken off from the left.
static PIECE: LazyLock<Pattern> = LazyLock::new(|| {
    regex(concat!(
        r"^(?:",
        r"(?P<priority><\d{1,3}>(?:\d )?)",
        r"|(?P<kmsg>\d+,\d+,\d+,[\w\-=,]*;)",
        r"|(?P<boot>\[\s*(?P<boot_s>\d{1,9}\.\d{3,9})\]\s*(?:\[\s*[TC]\d+\]\s*)?)",
        r"|(?P<long>\[?[A-Z][a-z]{2} [A-Z][a-z]{2}\s+\d{1,2} \d\d:\d\d:\d\d(?:\.\d+)? (?:[A-Z]{3,4} )?\d{4}\]?\s*)",
        r"|(?P<iso>\[?(?P<year>\d{4})[-/](?P<month>\d\d)[-/](?P<day>\d\d)[T ](?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d(?:[.,]\d+)?)(?:Z|[+-]\d\d:?\d\d)?(?: ?(?:UTC|GMT|[A-Z]{2,3}T)\b)?\]?[,:]?\s*)",
        r"|(?P<syslog>[A-Z][a-z]{2}\s+\d{1,2} \d\d:\d\d:\d\d(?:\.\d+)?\s+)",
        r"|(?P<clock>\[?\d\d:\d\d:\d\d(?:[.,]\d+)?\]?\s+)",
        r"|(?P<stream>std(?:out|err) [FP] )",
        r"|(?P<klog>[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+\s+\d+ [\w.\-/]+:\d+\] ?)",
        r"|(?P<level>[\[(]?(?:TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERR(?:OR)?|CRIT(?:ICAL)?|FATAL|ALERT|EMERG)[\])]?:?\s+(?:\d\d-\d\d \d\d:\d\d:\d\d )?(?:\[[\w.]+(?:\.py)?:\d+\] )?)",
        r"|(?P<facility>kern\s*:\s*\w+\s*:\s*)",
        r"|(?P<kernel>(?:(?P<host>[\w.\-]+) )?kernel(?:\[\d+\])?: ?)",
        r"|(?P<rank>\[(?:rank ?|default|Rank )?\d+(?:,\d+)?\](?:<std(?:out|err)>)?:? ?)",
        r"|(?P<process>\((?:\w[\w.\-]*\s+)?(?:\w+ )?pid=\d+(?:, ip=[\w.:]+)?\) ?)",
        r"|(?P<pod>\[pod/[^\]\s]+\] ?)",
        r"|(?P<srun>\d{1,5}: )",
        r"|(?P<compose>[\w./\-]+ +\| )",
        r"|(?P<repeated>message repeated \d+ times: \[ ?)",
        r")",
    ))
});

static TAG: LazyLock<Pattern> = LazyLock::new(|| regex(r"^(?:(?P<host>[\w.\-]+) )?(?P<tag>[\w.\-/()]+)(?:\[\d+\])?: "));

/// Colors and other escapes of a terminal.
static ESCAPES: LazyLock<Pattern> = LazyLock::new(|| regex(r"\x1b\[[0-9;?]*[A-Za-z]"));

/// Fields of JSON log lines that hold the message, the surest first.
const MESSAGE_FIELDS: [&str; 12] =
    ["MESSAGE", "message", "msg", "log", "error", "err", "reason", "line", "event", "body", "data", "textPayload"];
/// Fields that hold the name of the machine.
const HOST_FIELDS: [&str; 4] = ["_HOSTNAME", "hostname", "host", "node_name"];
/// An object of a JSON log line that holds such fields instead of the line.
const PAYLOAD: &str = "jsonPayload";

/// The line without the escapes of a terminal.
pub fn plain(line: &str) -> Cow<'_, str> {
    if line.contains('\x1b') { ESCAPES.replace_all(line, "") } else { Cow::Borrowed(line) }
}

/// Takes the envelope off one plain line.
pub fn open(line: &str) -> Envelope<'_> {
    if line.starts_with('{')
        && let Some(opened) = json(line)
    {
        return opened;
    }
    strip(line)
}

fn strip(line: &str) -> Envelope<'_> {
    let mut rest = line;
    let (mut time_s, mut tag, mut writer, mut host) = (None, None, String::new(), None);
    for _ in 0..10 {
        let Some(found) = PIECE.captures(rest) else { break };
        let whole = found.get(0).map_or("", |m| m.as_str());
        if let Some(boot) = found.name("boot_s") {
            time_s = boot.as_str().parse().ok();
        } else if found.name("iso").is_some() {
            time_s = iso_seconds(&found).or(time_s);
        }
        if ["rank", "process", "srun", "pod"].iter().any(|mark| found.name(mark).is_some()) {
            writer.push_str(whole.trim());
        }
        let dated = found.name("iso").is_some() || found.name("syslog").is_some();
        if found.name("kernel").is_some() {
            tag = Some("kernel".to_owned());
        }
        host = found.name("host").map(|name| name.as_str().to_owned()).or(host);
        rest = rest.get(whole.len()..).unwrap_or_default();
        if dated && let Some(named) = TAG.captures(rest) {
            let name = named.name("tag").map_or("", |m| m.as_str());
            let is_level = matches!(name, "INFO" | "WARNING" | "ERROR" | "NVRM" | "DEBUG" | "WARN");
            if !is_level && named[0].matches(' ').count() == 2 {
                tag = Some(name.to_owned());
                host = named.name("host").map(|name| name.as_str().to_owned()).or(host);
                rest = rest.get(named[0].len()..).unwrap_or_default();
            }
        }
        if let Some(inner) = rest.trim_start().strip_prefix('{')
            && inner.contains(':')
            && let Some(opened) = json(rest.trim_start())
        {
            let message = Cow::Owned(opened.message.into_owned());
            return Envelope {
                message,
                time_s: opened.time_s.or(time_s),
                tag: opened.tag.or(tag),
                writer,
                host: opened.host.or(host),
            };
        }
    }
    Envelope { message: Cow::Borrowed(rest), time_s, tag, writer, host }
}

/// Seconds since 1970, of the groups of an ISO date.
fn iso_seconds(found: &regex::Captures<'_>) -> Option<f64> {
    let number = |name: &str| found.name(name)?.as_str().parse::<i64>().ok();
    let seconds = found.name("s")?.as_str().replace(',', ".").parse::<f64>().ok()?;
    let (year, month, day) = (number("year")?, number("month")?, number("day")?);
    let days = days_since_1970(year, month, day);
    let whole = days * 86_400 + number("h")? * 3_600 + number("m")? * 60;
    Some(whole as f64 + seconds)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// A JSON log line; none if it is no object with a message.
fn json(line: &str) -> Option<Envelope<'static>> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    let object = value.as_object()?;
    let payload = object.get(PAYLOAD).and_then(serde_json::Value::as_object);
    let text = |name: &str| object.get(name).or_else(|| payload?.get(name)).and_then(serde_json::Value::as_str);
    // A turn of a conversation is no log line.
    if object.contains_key("role") || object.contains_key("prompt") || object.contains_key("messages") {
        return Some(Envelope::default());
    }
    let mut message = String::new();
    for field in MESSAGE_FIELDS {
        if let Some(said) = text(field).filter(|said| !said.is_empty()) {
            if !message.is_empty() {
                message.push('\n');
            }
            message.push_str(said);
        }
    }
    let kernel = text("_TRANSPORT") == Some("kernel");
    let tag = if kernel { Some("kernel".to_owned()) } else { text("SYSLOG_IDENTIFIER").map(str::to_owned) };
    let micros = text("__REALTIME_TIMESTAMP").and_then(|stamp| stamp.parse::<f64>().ok());
    let written = text("time").or_else(|| text("timestamp")).or_else(|| text("ts")).map(strip);
    let time_s = micros.map(|stamp| stamp / 1e6).or_else(|| written.and_then(|inner| inner.time_s));
    // The field may hold an envelope of its own (`[  12.3] NVRM: …` in `log`).
    let inner = strip(message.trim_end());
    Some(Envelope {
        message: Cow::Owned(inner.message.into_owned()),
        time_s: time_s.or(inner.time_s),
        tag: inner.tag.or(tag),
        writer: inner.writer,
        host: inner.host.or_else(|| HOST_FIELDS.iter().find_map(|name| text(name)).map(str::to_owned)),
    })
}
