//! Python tracebacks: the exception that started it, and the first frame that is the user's.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

/// Writers whose tracebacks are kept apart at the same time.
const WRITERS: usize = 32;
/// Lines that a traceback may be long before it is given up.
const LINES: u32 = 400;

/// An exception that ended a program or a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raised {
    /// Its type, without its module.
    pub kind: String,
    /// `file:line in function` of the last frame that is not a library's.
    pub frame: Option<String>,
    /// Only passes on what another process or thread met.
    pub wrapper: bool,
    /// The image lacks something.
    pub missing: bool,
    /// It was raised while another one was handled.
    pub chained: bool,
    /// A whole traceback stood before it.
    pub traced: bool,
}

#[derive(Debug, Default)]
struct Open {
    lines: u32,
    frame: Option<String>,
    chained: bool,
    done: bool,
    frames: u32,
}

/// Follows the tracebacks of several writers.
#[derive(Debug, Default)]
pub(super) struct Tracebacks {
    open: BTreeMap<String, Open>,
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern; compiled by the tests")
}

static FRAME: LazyLock<Regex> =
    LazyLock::new(|| regex(r#"^\s*File "(?P<file>[^"]{1,300})", line (?P<line>\d+)(?:, in (?P<function>\S{1,120}))?"#));

static RAISED: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"^(?:\(\w[^)]*\) |E  +)?(?P<module>(?:[A-Za-z_]\w*\.)*)(?P<kind>[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Timeout|Expired|Failed|Failure|Stop|NotFound|Killed|Warning)\w*|Killed)(?:\(\w*\))?(?:: ?(?P<said>.*))?$",
    )
});

/// Frames of the interpreter and of libraries.
const LIBRARY: [&str; 7] =
    ["site-packages", "dist-packages", "/lib/python", "<frozen", "importlib", "/usr/lib", "<string>"];

/// Exceptions that tell of another process, a signal or a plain end.
const WRAPPERS: [&str; 24] = [
    "ChildFailedError",
    "DistBackendError",
    "DistNetworkError",
    "DistStoreError",
    "ProcessRaisedException",
    "ProcessExitedException",
    "SignalException",
    "KeyboardInterrupt",
    "SystemExit",
    "RayTaskError",
    "RayActorError",
    "ActorDiedError",
    "WorkerCrashedError",
    "EngineDeadError",
    "AsyncEngineDeadError",
    "CalledProcessError",
    "BrokenPipeError",
    "ConnectionResetError",
    "EOFError",
    "CancelledError",
    "BrokenProcessPool",
    "FutureWarning",
    "UserWarning",
    "DeprecationWarning",
];

/// Exceptions that say that the image lacks something.
const MISSING: [&str; 4] = ["ModuleNotFoundError", "ImportError", "PackageNotFoundError", "DistributionNotFound"];

impl Tracebacks {
    /// Is any traceback open?
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Reads one message of a writer; an exception, if it ends a traceback or names one.
    pub(super) fn line(&mut self, writer: &str, message: &str) -> Option<Raised> {
        let text = message.trim_end();
        if text.contains("Traceback (most recent call last)") {
            self.begin(writer);
            return None;
        }
        let open = self.open.get_mut(writer);
        let Some(open) = open else { return raised(text, &Open::default(), false) };
        open.lines += 1;
        let chain = text.starts_with("During handling of the above") || text.starts_with("The above exception was");
        if chain {
            open.chained = true;
            open.done = false;
            return None;
        }
        if let Some(frame) = FRAME.captures(text) {
            open.frames += 1;
            let file = &frame["file"];
            if !LIBRARY.iter().any(|part| file.contains(part)) {
                let function = frame.name("function").map_or("", |m| m.as_str());
                open.frame = Some(format!("{file}:{} in {function}", &frame["line"]));
            }
            return None;
        }
        let indented = message.starts_with([' ', '\t']) || text.is_empty();
        if indented && open.lines <= LINES {
            return None;
        }
        let ended = if open.done { None } else { raised(text, open, true) };
        if ended.is_some() {
            open.done = true;
        } else if open.done || open.lines > LINES {
            self.open.remove(writer);
        }
        ended
    }

    /// The tracebacks whose exception is cut off, by writer.
    pub(super) fn unfinished(&self) -> Vec<(String, Option<String>)> {
        let open = self.open.iter().filter(|(_, open)| !open.done && open.frames > 0);
        open.map(|(writer, open)| (writer.clone(), open.frame.clone())).collect()
    }

    fn begin(&mut self, writer: &str) {
        if let Some(open) = self.open.get_mut(writer) {
            let chained = open.chained;
            *open = Open { chained, ..Open::default() };
            return;
        }
        if self.open.len() >= WRITERS {
            self.open.pop_first();
        }
        self.open.insert(writer.to_owned(), Open::default());
    }
}

fn raised(text: &str, open: &Open, traced: bool) -> Option<Raised> {
    let found = RAISED.captures(text)?;
    let kind = found["kind"].to_owned();
    let said = found.name("said").map_or("", |said| said.as_str());
    // Without a traceback, only `Type: words` is an exception and not a name in a sentence.
    if !traced && found.name("said").is_none() {
        return None;
    }
    let shared_library = said.contains("cannot open shared object file") || said.contains("undefined symbol");
    Some(Raised {
        wrapper: WRAPPERS.contains(&kind.as_str())
            || kind.ends_with("Warning")
            || said.starts_with("Engine core")
            || said.contains("NCCL error"),
        missing: MISSING.contains(&kind.as_str()) || shared_library,
        frame: open.frame.clone(),
        chained: open.chained,
        traced,
        kind,
    })
}
