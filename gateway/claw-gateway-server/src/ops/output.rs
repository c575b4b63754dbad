//! What an operation says, as the text that goes out.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

/// An output as JSON text: written once, whoever it goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output(String);

impl Output {
    /// The text of an output.
    ///
    /// # Panics
    /// If it is no plain data: a map whose keys are no texts, which a type of ours has not.
    pub fn of<T: Serialize + ?Sized>(output: &T) -> Self {
        Self(serde_json::to_string(output).expect("outputs are plain data with string keys"))
    }
    /// As it goes out.
    pub fn text(&self) -> &str {
        &self.0
    }
    /// The same, without a copy.
    pub fn into_text(self) -> String {
        self.0
    }
    /// What it says.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).expect("it was written as JSON")
    }
}

/// Bytes of a value's text, which is not kept.
pub(super) fn size_of(value: &Value) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("counting takes everything");
    count.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_size_is_that_of_the_text() {
        for value in [json!(null), json!({ "a\"": ["é\n", 1.5, -3, true], "b": { "c": 1e300 } })] {
            assert_eq!(size_of(&value), value.to_string().len());
            assert_eq!((Output::of(&value).text(), Output::of(&value).value()), (&*value.to_string(), value));
        }
    }
}
