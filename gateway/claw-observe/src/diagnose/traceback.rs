//! Python tracebacks: the exception that started it, and the first frame that is the user's.

use super::observe::cut;
use super::pattern::{Pattern, regex};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Writers whose tracebacks are kept apart at the same time.
const WRITERS: usize = 32;
/// Bytes of a writer's name that tell it from others.
const WRITER_BYTES: usize = 256;
/// Lines that a traceback may be long before it is given up.
const LINES: u32 = 400;

/// An exception that ended a program or a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raised {
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
    /// Line of its heading.
    at: u64,
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
    /// Without an exception, and pushed out by others.
    cut: Vec<Unfinished>,
}

/// A traceback whose exception is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unfinished {
    /// Who wrote it.
    pub writer: String,
    /// Line of its heading.
    pub at: u64,
    /// The last frame that is not a library's.
    pub frame: Option<String>,
}

static FRAME: LazyLock<Pattern> =
    LazyLock::new(|| regex(r#"^\s*File "(?P<file>[^"]{1,300})", line (?P<line>\d+)(?:, in (?P<function>\S{1,120}))?"#));

static RAISED: LazyLock<Pattern> = LazyLock::new(|| {
    regex(concat!(
        r"^(?:\(\w[^)]*\) |E  +)?(?:",
        r"(?:[A-Za-z_]\w*\.)*(?P<kind>[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Timeout|Expired|Failed|Failure|Stop|NotFound|Killed|Warning)\w*|Killed)",
        // A class whose module tells that it is one of errors.
        r"|(?:[a-z_]\w*\.)+(?:errors?|exceptions?)\.(?P<other>[A-Z]\w*)",
        r")(?:\(\w*\))?(?:: ?(?P<said>.*))?$",
    ))
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

    /// Bytes that it holds.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let of = |writer: &String, frame: Option<&String>| writer.capacity() + frame.map_or(0, String::capacity);
        let open: usize = self
            .open
            .iter()
            .map(|(writer, open)| of(writer, open.frame.as_ref()) + 3 * size_of::<(String, Open)>())
            .sum();
        let cut: usize = self.cut.iter().map(|cut| of(&cut.writer, cut.frame.as_ref())).sum();
        open + cut + self.cut.capacity() * size_of::<Unfinished>() + 1_024
    }

    /// Reads one message of a writer, in line `at`; an exception, if it ends a traceback or names one.
    pub(super) fn line(&mut self, writer: &str, message: &str, at: u64) -> Option<Raised> {
        let writer = cut(writer, WRITER_BYTES);
        let text = message.trim_end();
        if text.contains("Traceback (most recent call last)") {
            self.begin(writer, at);
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
            let gone = self.open.remove(writer);
            self.give_up(writer, gone);
        }
        ended
    }

    /// Ends all; those whose exception is cut off, pushed out ones first.
    pub(super) fn close(&mut self) -> Vec<Unfinished> {
        for (writer, open) in std::mem::take(&mut self.open) {
            self.give_up(&writer, Some(open));
        }
        std::mem::take(&mut self.cut)
    }

    /// Those that were pushed out by others; there is none in most lines.
    pub(super) fn pushed_out(&mut self) -> Vec<Unfinished> {
        std::mem::take(&mut self.cut)
    }

    fn give_up(&mut self, writer: &str, open: Option<Open>) {
        if let Some(open) = open.filter(|open| !open.done && open.frames > 0) {
            self.cut.push(Unfinished { writer: writer.to_owned(), at: open.at, frame: open.frame });
        }
    }

    fn begin(&mut self, writer: &str, at: u64) {
        let begun = |chained| Open { at, chained, ..Open::default() };
        if let Some(open) = self.open.get_mut(writer) {
            let chained = open.chained;
            let old = std::mem::replace(open, begun(chained));
            // In a chain the exception before was told already.
            self.give_up(writer, Some(old).filter(|_| !chained));
            return;
        }
        if self.open.len() >= WRITERS
            && let Some((other, open)) = self.open.pop_first()
        {
            self.give_up(&other, Some(open));
        }
        self.open.insert(writer.to_owned(), begun(false));
    }
}

fn raised(text: &str, open: &Open, traced: bool) -> Option<Raised> {
    let found = RAISED.captures(text)?;
    let kind = found.name("kind").or(found.name("other")).map_or("", |kind| kind.as_str());
    let said = found.name("said").map_or("", |said| said.as_str());
    // Without a traceback, only `Type: words` is an exception and not a name in a sentence.
    if !traced && found.name("said").is_none() {
        return None;
    }
    let shared_library = said.contains("cannot open shared object file") || said.contains("undefined symbol");
    Some(Raised {
        wrapper: WRAPPERS.contains(&kind)
            || kind.ends_with("Warning")
            || said.starts_with("Engine core")
            || said.contains("NCCL error"),
        missing: MISSING.contains(&kind) || shared_library,
        frame: open.frame.clone(),
        chained: open.chained,
        traced,
    })
}
