//! What a call is answered with: as a result of rmcp, and as the bytes of the same.

use rmcp::model::{CallToolResult, ContentBlock, MetaObject, RequestId};
use serde::Serialize;

use crate::ops::{OpError, OpReply, Output};

/// Marks an answer that was given before.
const REPLAYED: &str = "claw/replayed";
/// Room for what stands around an output.
const FRAME_BYTES: usize = 256;

/// Output, whether it is an error, whether it was given before.
fn parts(answer: Result<OpReply, OpError>) -> (Output, bool, bool) {
    match answer {
        Ok(OpReply { output, replayed }) => (output, false, replayed),
        Err(OpError::Refused(refusal)) => (Output::of(&*refusal), true, false),
        Err(OpError::Fault(fault)) => (Output::of(&fault), true, false),
    }
}

/// For rmcp to write.
pub(super) fn result(answer: Result<OpReply, OpError>) -> CallToolResult {
    let (output, is_error, replayed) = parts(answer);
    let content = vec![ContentBlock::text(output.text())];
    let mut result = if is_error { CallToolResult::error(content) } else { CallToolResult::success(content) };
    result.structured_content = Some(output.value());
    let meta = replayed.then(|| {
        let mut meta = MetaObject::new();
        meta.0.insert(REPLAYED.into(), true.into());
        meta
    });
    result.with_meta(meta)
}

/// The whole message, as rmcp writes it.
pub(super) fn result_json(id: &RequestId, is_stateless: bool, answer: Result<OpReply, OpError>) -> Vec<u8> {
    let (output, is_error, replayed) = parts(answer);
    let text = output.text();
    let mut json = Vec::with_capacity(2 * text.len() + text.len() / 4 + FRAME_BYTES);
    json.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    push(&mut json, id);
    json.extend_from_slice(br#","result":{"#);
    if is_stateless {
        json.extend_from_slice(br#""resultType":"complete","#);
    }
    json.extend_from_slice(br#""content":[{"type":"text","text":"#);
    push(&mut json, text);
    json.extend_from_slice(br#"}],"structuredContent":"#);
    json.extend_from_slice(text.as_bytes());
    json.extend_from_slice(if is_error { br#","isError":true"# } else { br#","isError":false"# });
    if replayed {
        json.extend_from_slice(br#","_meta":{""#);
        json.extend_from_slice(REPLAYED.as_bytes());
        json.extend_from_slice(br#"":true}"#);
    }
    json.extend_from_slice(b"}}");
    json
}

fn push<T: Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(json, value).expect("ids and texts are plain data, and memory takes all of it");
}
