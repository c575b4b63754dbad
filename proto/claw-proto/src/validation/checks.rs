//! Checks of single values: forms, lengths and ranges that several inputs share.

use std::collections::BTreeMap;

use super::{FaultCode, Validator};
use crate::ids::{NodeId, TenantId};
use crate::limits;
use crate::spec::TAINT_PREFIX;

/// Characters of a given value that a fault repeats.
const SHOWN_CHARS: usize = 64;

/// A value as a fault repeats it: cut, and nothing in it can act on a terminal.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::new();
    for (place, c) in text.chars().enumerate() {
        if place == SHOWN_CHARS {
            out.push('…');
            break;
        }
        if is_unprintable(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// The path of a map's entry.
pub(super) fn keyed(path: &str, key: &str) -> String {
    let key = shown(key).replace('\\', "\\\\").replace('"', "\\\"");
    format!("{path}[\"{key}\"]")
}

/// The path of a list's entry.
pub(super) fn indexed(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// Control characters, and characters that reorder or hide text from a reader.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Text of a program (arguments, environment) may have lines and tabs, no other control character.
fn is_refused_in_program_text(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\r' | '\t')
}

fn all_in(text: &str, extra: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
}

fn edges_alphanumeric(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(text.chars().next()) && edge(text.chars().next_back())
}

/// Lower-case letters, digits and dashes, with a letter or digit at both ends.
fn is_name(text: &str) -> bool {
    all_in(text, "-") && edges_alphanumeric(text) && !text.contains(|c: char| c.is_ascii_uppercase())
}

/// Letters, digits and `-_.`, with a letter or digit at both ends: host names too.
fn is_host_like(text: &str) -> bool {
    all_in(text, "-_.") && edges_alphanumeric(text)
}

impl Validator {
    /// Text for people: no control or hidden characters, at most `chars_max` characters.
    /// Returns whether it is right.
    pub fn text(&mut self, path: &str, text: &str, chars_max: usize) -> bool {
        let n_chars = text.chars().count();
        if n_chars > chars_max {
            self.fault(path, FaultCode::TooLong, format!("is {n_chars} characters long"))
                .with_allowed(format!("at most {chars_max} characters"));
            return false;
        }
        if text.contains(is_unprintable) {
            self.fault(path, FaultCode::Malformed, "has control or hidden characters")
                .with_got(text)
                .with_allowed("printable text");
            return false;
        }
        true
    }

    /// A text of the form that `is_right` knows and `allowed` describes.
    pub(super) fn form(
        &mut self,
        path: &str,
        text: &str,
        chars_max: usize,
        allowed: &str,
        is_right: impl Fn(&str) -> bool,
    ) -> bool {
        if text.is_empty() {
            self.fault(path, FaultCode::Malformed, "is empty").with_allowed(allowed);
            return false;
        }
        if !self.text(path, text, chars_max) {
            return false;
        }
        if !is_right(text) {
            self.fault(path, FaultCode::Malformed, "does not have the right form").with_got(text).with_allowed(allowed);
            return false;
        }
        true
    }

    /// A name for people: 1–63 lower-case letters, digits and dashes, a letter or digit at both ends.
    pub fn name(&mut self, path: &str, text: &str) -> bool {
        self.form(
            path,
            text,
            limits::NAME_CHARS_MAX,
            "1-63 of a-z 0-9 -, with a letter or digit at both ends, such as llama-chat",
            is_name,
        )
    }

    /// Gates of a workload: names, each once.
    pub fn gates(&mut self, path: &str, gates: &[String]) {
        self.count(path, gates.len(), limits::GATES_MAX);
        for (index, gate) in gates.iter().enumerate().take(limits::GATES_MAX) {
            let at = indexed(path, index);
            if self.name(&at, gate) && gates[..index].contains(gate) {
                self.fault(&at, FaultCode::Conflict, "is listed twice").with_got(gate);
            }
        }
    }

    /// A node's name: 1–63 letters, digits and `-_.`; a host name is one.
    /// It must not look like an id.
    pub fn node_name(&mut self, path: &str, text: &str) -> bool {
        let allowed = "1-63 of A-Z a-z 0-9 - _ ., with a letter or digit at both ends, not beginning with node_";
        self.form(path, text, limits::NAME_CHARS_MAX, allowed, |t| is_host_like(t) && !t.starts_with(NodeId::PREFIX))
    }

    /// A node by its id or its name.
    pub fn node_ref(&mut self, path: &str, text: &str) -> bool {
        if text.starts_with(NodeId::PREFIX) {
            let allowed = "a node's name, or its id: node_ and 26 characters";
            return self.form(path, text, limits::NAME_CHARS_MAX, allowed, |t| t.parse::<NodeId>().is_ok());
        }
        self.node_name(path, text)
    }

    /// A tenant by its id or its name.
    pub fn tenant_ref(&mut self, path: &str, text: &str) -> bool {
        let allowed = "a tenant's name (1-63 of a-z 0-9 -), or its id: ten_ and 26 characters";
        self.form(path, text, limits::NAME_CHARS_MAX, allowed, |t| is_name(t) || t.parse::<TenantId>().is_ok())
    }

    /// A label's key: 1–63 letters, digits and `-_./`, a letter or digit at both ends.
    pub fn label_key(&mut self, path: &str, key: &str) -> bool {
        let allowed = "a key of 1-63 of A-Z a-z 0-9 - _ . /, with a letter or digit at both ends";
        self.form(path, key, limits::NAME_CHARS_MAX, allowed, |t| all_in(t, "-_./") && edges_alphanumeric(t))
    }

    /// Labels: number, keys and values.
    pub fn labels(&mut self, path: &str, labels: &BTreeMap<String, String>) {
        self.count(path, labels.len(), limits::LABELS_MAX);
        for (key, value) in labels.iter().take(limits::LABELS_MAX) {
            let at = keyed(path, key);
            if self.label_key(&at, key) {
                self.text(&at, value, limits::LABEL_VALUE_CHARS_MAX);
            }
        }
    }

    /// A taint that is borne: the key of one, or `key=value`; whatever a label can be that begins with
    /// [`TAINT_PREFIX`] can be borne.
    pub(super) fn toleration(&mut self, path: &str, text: &str) -> bool {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let key = key.strip_prefix(TAINT_PREFIX).unwrap_or(key);
        let chars_max = limits::NAME_CHARS_MAX - TAINT_PREFIX.len();
        let allowed = "a taint's key, or key=value: a node's label taint/<key> is its taint <key>";
        let is_key = |t: &str| all_in(t, "-_./") && t.ends_with(|c: char| c.is_ascii_alphanumeric());
        self.form(path, key, chars_max, allowed, is_key) && self.text(path, value, limits::LABEL_VALUE_CHARS_MAX)
    }

    /// Environment variables: number, keys and sizes. Values are never repeated.
    pub fn env(&mut self, path: &str, env: &BTreeMap<String, String>) {
        self.count(path, env.len(), limits::ENV_VARS_MAX);
        let n_bytes: usize = env.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.bytes(path, n_bytes, limits::ENV_BYTES_MAX);
        for (key, value) in env.iter().take(limits::ENV_VARS_MAX) {
            let at = keyed(path, key);
            let allowed = "a key of A-Z a-z 0-9 _, not beginning with a digit";
            let is_key = |t: &str| all_in(t, "_") && !t.starts_with(|c: char| c.is_ascii_digit());
            if self.form(&at, key, limits::ENV_KEY_CHARS_MAX, allowed, is_key) {
                self.program_text(|| at, value, limits::ENV_VALUE_BYTES_MAX);
            }
        }
    }

    /// Arguments of a program: number and sizes. They are never repeated.
    pub fn argv(&mut self, path: &str, argv: &[String]) {
        self.count(path, argv.len(), limits::COMMAND_ARGS_MAX);
        self.bytes(path, argv.iter().map(String::len).sum(), limits::COMMAND_BYTES_MAX);
        for (index, arg) in argv.iter().enumerate().take(limits::COMMAND_ARGS_MAX) {
            self.program_text(|| indexed(path, index), arg, limits::COMMAND_ARG_BYTES_MAX);
        }
    }

    /// The path is made where there is a fault: most texts have none.
    fn program_text(&mut self, path: impl FnOnce() -> String, text: &str, bytes_max: usize) {
        let is_malformed = text.contains(is_refused_in_program_text);
        if !is_malformed && text.len() <= bytes_max {
            return;
        }
        let path = path();
        self.bytes(&path, text.len(), bytes_max);
        if is_malformed {
            self.fault(&path, FaultCode::Malformed, "has control characters")
                .with_allowed("text; of the control characters only tab and line ends");
        }
    }

    /// At most `max` entries.
    pub fn count(&mut self, path: &str, n: usize, max: usize) {
        if n > max {
            self.fault(path, FaultCode::TooLong, format!("has {n} entries"))
                .with_allowed(format!("at most {max} entries"));
        }
    }

    /// At most `max` bytes.
    pub fn bytes(&mut self, path: &str, n: usize, max: usize) {
        if n > max {
            self.fault(path, FaultCode::TooLong, format!("has {n} bytes")).with_allowed(format!("at most {max} bytes"));
        }
    }

    /// A whole number from `min` to `max`.
    pub fn whole(&mut self, path: &str, value: u64, min: u64, max: u64) -> bool {
        let is_right = (min..=max).contains(&value);
        if !is_right {
            self.fault(path, FaultCode::OutOfRange, "is out of range")
                .with_got(value)
                .with_allowed(format!("{min} to {max}"));
        }
        is_right
    }

    /// A finite number over 0 and up to `max`.
    pub fn positive(&mut self, path: &str, value: f64, max: f64) -> bool {
        // A NaN fails both comparisons, an infinity the second.
        let is_right = value > 0.0 && value <= max;
        if !is_right {
            self.fault(path, FaultCode::OutOfRange, "is out of range")
                .with_got(format_args!("{value:?}"))
                .with_allowed(format!("over 0, up to {max}"));
        }
        is_right
    }

    /// An absolute path without `..`.
    pub fn absolute_path(&mut self, path: &str, text: &str) -> bool {
        self.form(path, text, limits::PATH_BYTES_MAX, "an absolute path without ..", |t| {
            t.starts_with('/') && has_no_parent_step(t)
        })
    }

    /// An absolute or relative path without `..`.
    pub fn inner_path(&mut self, path: &str, text: &str) -> bool {
        self.form(path, text, limits::PATH_BYTES_MAX, "a path without ..", has_no_parent_step)
    }

    /// A reference of a container image: `[registry/]name[:tag][@digest]`.
    pub fn image(&mut self, path: &str, text: &str) -> bool {
        let allowed =
            "[registry[:port]/]name[:tag][@sha256:digest] with a lower-case name, such as vllm/vllm-openai:v0.6.3";
        self.form(path, text, limits::IMAGE_CHARS_MAX, allowed, is_image)
    }

    /// A model's id: up to three segments of letters, digits and `-_.:`, divided by `/`.
    pub fn model_id(&mut self, path: &str, text: &str) -> bool {
        self.form(path, text, limits::MODEL_CHARS_MAX, "a catalogue id such as llama-3.1-70b-instruct", is_slashed_id)
    }

    /// A secret's handle: up to three segments of letters, digits and `-_.:`, divided by `/`.
    pub fn secret_handle(&mut self, path: &str, text: &str) -> bool {
        // A caller who put the secret itself here must not find it in a message.
        let allowed = "a handle of A-Z a-z 0-9 - _ . : /";
        let is_right = text.chars().count() <= limits::MODEL_CHARS_MAX && is_slashed_id(text);
        if !is_right {
            self.fault(path, FaultCode::Malformed, "is not a handle of a secret").with_allowed(allowed);
        }
        is_right
    }

    /// A user: a name, a uid, or uid:gid.
    pub fn user(&mut self, path: &str, text: &str) -> bool {
        self.form(path, text, limits::NAME_CHARS_MAX, "a user name, a uid, or uid:gid, such as 1000:1000", is_user)
    }

    /// A single word: letters, digits and `-_.`, such as a zone or a file name.
    pub fn word(&mut self, path: &str, text: &str) -> bool {
        let allowed = "1-63 of A-Z a-z 0-9 - _ ., not beginning with a dot or dash";
        let is_word = |t: &str| all_in(t, "-_.") && !t.starts_with(['.', '-']);
        self.form(path, text, limits::NAME_CHARS_MAX, allowed, is_word)
    }
}

fn has_no_parent_step(text: &str) -> bool {
    text.split('/').all(|step| step != "..")
}

/// A path without empty and `.` steps and without a slash at its end, to tell equal ones.
pub(super) fn canonical_path(text: &str) -> String {
    let steps: Vec<&str> = text.split('/').filter(|step| !step.is_empty() && *step != ".").collect();
    let root = if text.starts_with('/') { "/" } else { "" };
    format!("{root}{}", steps.join("/"))
}

fn is_slashed_id(text: &str) -> bool {
    let is_segment = |s: &str| s.starts_with(|c: char| c.is_ascii_alphanumeric()) && all_in(s, "-_.:");
    text.split('/').count() <= 3 && text.split('/').all(is_segment)
}

fn is_user(text: &str) -> bool {
    let is_number = |t: &str| t.len() <= 10 && t.bytes().all(|b| b.is_ascii_digit()) && t.parse::<u32>().is_ok();
    if let Some((uid, gid)) = text.split_once(':') {
        return is_number(uid) && is_number(gid);
    }
    let is_lower = |c: char| c.is_ascii_lowercase() || c == '_';
    let is_user_name = text.len() <= 32
        && text.starts_with(is_lower)
        && text.chars().all(|c| is_lower(c) || c.is_ascii_digit() || c == '-');
    is_number(text) || is_user_name
}

fn is_image(text: &str) -> bool {
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (text, None),
    };
    let is_digest = |d: &str| {
        let is_hex = |h: &str| h.len() == 64 && h.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        d.strip_prefix("sha256:").is_some_and(is_hex)
    };
    if digest.is_some_and(|d| !is_digest(d)) {
        return false;
    }
    let slash = named.rfind('/').map_or(0, |at| at + 1);
    let (repository, tag) = match named[slash..].find(':') {
        Some(colon) => (&named[..slash + colon], Some(&named[slash + colon + 1..])),
        None => (named, None),
    };
    let is_tag = |t: &str| !t.is_empty() && t.len() <= 128 && all_in(t, "-_.") && !t.starts_with(['.', '-']);
    tag.is_none_or(is_tag) && is_repository(repository)
}

fn is_repository(text: &str) -> bool {
    let is_component = |c: &str| {
        is_host_like(c) && !c.contains(|b: char| b.is_ascii_uppercase()) && !c.contains("..") && !c.contains("___")
    };
    match text.split_once('/') {
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) => {
            let (host, port) = first.split_once(':').map_or((first, None), |(h, p)| (h, Some(p)));
            is_host_like(host)
                && !host.contains("..")
                && port.is_none_or(|p| p.parse::<u16>().is_ok_and(|n| n > 0))
                && rest.split('/').all(is_component)
        }
        Some(_) | None => text.split('/').all(is_component),
    }
}
