//! Why a frame was refused.

use std::fmt;

/// Why a frame was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The frame is larger than the limit.
    #[error("frame of {bytes} bytes is over the limit of {max}")]
    FrameTooLarge {
        /// Size of the frame.
        bytes: usize,
        /// Largest allowed size.
        max: usize,
    },
    /// The frame is not protobuf, or a field has another type.
    #[error("frame is not a message of the protocol")]
    Malformed {
        /// What the parser says.
        #[from]
        source: prost::DecodeError,
    },
    /// The message is one that this build does not know; answer `unsupported`.
    #[error("unknown message in field {field}")]
    UnknownMessage {
        /// Field number of the body.
        field: u32,
    },
    /// The message is one that the other side sends.
    #[error("message {message} runs in the wrong direction")]
    WrongDirection {
        /// Name of the message.
        message: &'static str,
    },
    /// A field is not as the protocol demands.
    #[error("field {path} {problem}")]
    Field {
        /// Which field, such as `register.capabilities.gpus[3].uuid`.
        path: String,
        /// What is wrong with it.
        problem: FieldProblem,
    },
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldProblem {
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// It is empty.
    #[error("is empty")]
    Empty,
    /// It is an enum's unspecified value.
    #[error("is unspecified")]
    Unspecified,
    /// It is an enum value that this build does not know.
    #[error("has the unknown value {value}")]
    UnknownValue {
        /// The value.
        value: i32,
    },
    /// It is not of its fixed length.
    #[error("has {bytes} bytes instead of {expected}")]
    WrongLength {
        /// Its length.
        bytes: usize,
        /// The right length.
        expected: usize,
    },
    /// It is too long.
    #[error("has a length of {length}, over the limit of {max}")]
    TooLong {
        /// Its length, in the unit of the limit.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// It is repeated too often.
    #[error("has {count} entries, over the limit of {max}")]
    TooMany {
        /// Its entries.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// It is out of range.
    #[error("is {value}, not {min} to {max}")]
    OutOfRange {
        /// Its value.
        value: u64,
        /// The least value.
        min: u64,
        /// The largest value.
        max: u64,
    },
    /// It is a number that is not finite.
    #[error("is not a finite number")]
    NotFinite,
    /// It has the same key as an entry before it.
    #[error("repeats a key")]
    Duplicate,
}

/// A problem on its way up; the path grows as it passes its parents.
#[derive(Debug)]
pub(super) struct Fault {
    path: String,
    problem: FieldProblem,
}

impl Fault {
    pub(super) fn new(problem: FieldProblem) -> Self {
        Self { path: String::new(), problem }
    }

    /// Puts a parent (`gpus` or `gpus[3]`) before the path.
    pub(super) fn at(mut self, parent: impl fmt::Display) -> Self {
        self.path = if self.path.is_empty() { parent.to_string() } else { format!("{parent}.{}", self.path) };
        self
    }
}

impl From<Fault> for CodecError {
    fn from(fault: Fault) -> Self {
        Self::Field { path: fault.path, problem: fault.problem }
    }
}

/// Puts a parent before the path of a result's fault.
pub(super) trait At {
    fn at(self, parent: impl fmt::Display) -> Self;
}

impl<T> At for Result<T, Fault> {
    fn at(self, parent: impl fmt::Display) -> Self {
        self.map_err(|fault| fault.at(parent))
    }
}
