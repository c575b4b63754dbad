//! Answers stay small: an agent pays for every byte of them.

use serde::Serialize;
use serde_json::Value;

use super::output::{Output, size_of};
use super::{OpError, OpReply, reply};

/// Size of one answer, bytes of JSON.
pub(super) const ANSWER_BYTES_MAX: usize = 20_000;
/// Rows of a page unless asked otherwise.
const ROWS_DEFAULT: u32 = 20;
/// How far texts and lists of an answer that is too large are cut, step by step:
/// (characters, rows). Never so far that an id, a hash or a secret is cut.
const CUTS: [(usize, usize); 5] = [(2_000, 100), (1_000, 50), (500, 20), (200, 10), (200, 3)];

/// A page with as many of the wanted rows as an answer holds. The page is asked
/// for again with fewer rows, so that its cursor stands where it ends.
pub(super) fn page<T: Serialize, E: Into<OpError>>(
    limit: Option<u32>,
    query: impl Fn(u32) -> Result<T, E>,
) -> Result<OpReply, OpError> {
    let mut limit = limit.unwrap_or(ROWS_DEFAULT).max(1);
    loop {
        let page = reply(&query(limit).map_err(Into::into)?);
        let size = page.output.text().len();
        if size <= ANSWER_BYTES_MAX || limit == 1 {
            return Ok(page);
        }
        let share = usize::try_from(limit).unwrap_or(usize::MAX).saturating_mul(ANSWER_BYTES_MAX) / size;
        limit = u32::try_from(share).unwrap_or(u32::MAX).clamp(1, limit - 1);
    }
}

/// Cuts long texts and lists of an answer until it fits, and says so in `truncated`.
pub(super) fn fit(output: Output, bytes_max: usize) -> Output {
    if output.text().len() <= bytes_max {
        return output;
    }
    let mut value = output.value();
    for (chars, rows) in CUTS {
        cut(&mut value, chars, rows);
        if let Value::Object(map) = &mut value {
            map.insert("truncated".into(), true.into());
        }
        if size_of(&value) <= bytes_max {
            break;
        }
    }
    Output::of(&value)
}

fn cut(value: &mut Value, chars: usize, rows: usize) {
    match value {
        Value::String(text) => {
            let n_chars = text.chars().count();
            if n_chars > chars {
                let kept: String = text.chars().take(chars).collect();
                *text = format!("{kept}… ({} characters left out)", n_chars - chars);
            }
        }
        Value::Array(list) => {
            list.truncate(rows);
            for inner in list {
                cut(inner, chars, rows);
            }
        }
        Value::Object(map) => {
            for inner in map.values_mut() {
                cut(inner, chars, rows);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_fits_stays_and_what_does_not_is_cut_and_says_so() {
        let small = json!({ "rows": [1, 2, 3], "text": "t".repeat(5_000) });
        let fit = |value: &Value| super::fit(Output::of(value), ANSWER_BYTES_MAX).value();
        assert_eq!(fit(&small), small);
        let large =
            json!({ "rows": vec![json!({ "text": "é".repeat(900) }); 400], "id": "wl_00000000000000000000000001" });
        let cut = fit(&large);
        assert!(size_of(&cut) <= ANSWER_BYTES_MAX);
        assert_eq!((&cut["truncated"], &cut["id"]), (&json!(true), &json!("wl_00000000000000000000000001")));
        assert!(!cut["rows"].as_array().unwrap().is_empty());
    }

    #[test]
    fn a_page_has_as_many_rows_as_fit() {
        let query = |limit: u32| Ok::<_, OpError>(json!({ "rows": vec!["r".repeat(1_000); limit as usize] }));
        let n = |limit| page(limit, query).unwrap().output.value()["rows"].as_array().unwrap().len();
        assert_eq!((n(None), n(Some(5))), (19, 5));
        assert!((15..20).contains(&n(Some(100))));
    }
}
