//! JSON of vendors' programs, whose forms differ between versions.
//!
//! A key is found whatever its case, spaces and underscores; a value may be a
//! number, a number in a string with or without its unit, or a pair of `value`
//! and `unit`; `N/A` and its like are nothing. Pure, and total on any input.

use serde_json::Value;

/// Beginnings of JSON that are tried in an output with other words around it.
const BEGINNINGS_MAX: usize = 16;
/// What stands for nothing.
const NOTHING: [&str; 6] = ["", "n/a", "na", "none", "unknown", "not supported"];

/// The first object or list in an output. Warnings may stand before it; some
/// versions print the whole output twice.
pub fn first(output: &str) -> Option<Value> {
    let mut beginnings = Vec::new();
    let mut at = 0;
    for line in output.split_inclusive('\n') {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start().starts_with(['{', '[']) {
            beginnings.push(at + indent);
        }
        if beginnings.len() == BEGINNINGS_MAX {
            break;
        }
        at += line.len();
    }
    beginnings.into_iter().find_map(|at| {
        let mut values = serde_json::Deserializer::from_str(&output[at..]).into_iter::<Value>();
        values.next()?.ok().filter(|value| value.is_object() || value.is_array())
    })
}

fn folded(key: &str) -> String {
    key.chars().filter(|c| !c.is_whitespace() && !"_:-".contains(*c)).map(|c| c.to_ascii_lowercase()).collect()
}

/// The value of a key under any of its names, the first name that is there.
pub fn get<'a>(value: &'a Value, names: &[&str]) -> Option<&'a Value> {
    let object = value.as_object()?;
    names.iter().find_map(|name| {
        let wanted = folded(name);
        object.get(*name).or_else(|| object.iter().find(|(key, _)| folded(key) == wanted).map(|(_, value)| value))
    })
}

/// A value below a path of keys.
pub fn below<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| get(value, &[key]))
}

/// A text, if it says anything.
pub fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Object(_) => return text(get(value, &["value"])?),
        Value::Null | Value::Bool(_) | Value::Array(_) => return None,
    };
    (!NOTHING.contains(&text.to_ascii_lowercase().as_str())).then_some(text)
}

/// A whole number, decimal or hexadecimal with 0x before it, with or without a unit.
pub fn whole(value: &Value) -> Option<u64> {
    if let Some(number) = value.as_u64() {
        return Some(number);
    }
    let text = text(value)?;
    let text = text.split_whitespace().next()?;
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_read_in_every_form() {
        let forms = [json!(42), json!("42"), json!("42 W"), json!({"value": 42, "unit": "W"}), json!({"value": "42"})];
        assert_eq!(forms.map(|form| whole(&form)), [Some(42); 5]);
        let nothing = ["\"N/A\"", "null", "{\"value\": \"N/A\"}", "-1", "\"NaN\"", "[]", "1e300", "{\"unit\": 1}"];
        assert_eq!(nothing.map(|form| whole(&serde_json::from_str(form).unwrap())), [None; 8]);
        assert_eq!([json!("0x74a1"), json!(29_857), json!("29857")].map(|form| whole(&form)), [Some(0x74a1); 3]);
        let value = json!({"Card Series": "a", "PCI Bus": "b"});
        assert_eq!(get(&value, &["card_series"]).and_then(text).as_deref(), Some("a"));
        assert_eq!(get(&value, &["none", "pci bus"]).and_then(text).as_deref(), Some("b"));
    }

    #[test]
    fn the_json_is_found_between_other_words() {
        let twice = "WARNING: AMD GPU device(s) is/are in a low-power state.\n[1]\n[1]\n";
        assert_eq!(first(twice), Some(json!([1])));
        assert_eq!(first("[WARN] no\n  {\"a\": 1}\nbye"), Some(json!({"a": 1})));
        assert_eq!(first("ERROR:root:Driver not initialized"), None);
        assert_eq!(first(&"[".repeat(100_000)), None);
        assert_eq!(first(&"[\n".repeat(100_000)), None);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text_in in "[\\[\\]{}\":,0-9a-zA-Z.\\n /-]{0,300}") {
            if let Some(value) = first(&text_in) {
                let _ = (text(&value), whole(&value), get(&value, &["a"]).is_some());
            }
        }
    }
}
