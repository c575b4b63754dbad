//! The calls for one request, within its bounds.

use std::time::Duration;

use async_openai::config::Config as _;
use async_openai::error::OpenAIError;
use async_openai::types::chat::{
    ChatCompletionRequestAssistantMessage, ChatCompletionRequestAssistantMessageContent, ChatCompletionRequestMessage,
    ChatCompletionRequestSystemMessage, ChatCompletionRequestSystemMessageContent, ChatCompletionRequestUserMessage,
    ChatCompletionRequestUserMessageContent, CreateChatCompletionRequest, ResponseFormat, ResponseFormatJsonSchema,
};
use claw_intents::Catalog;
use claw_intents::proposer::{Fault, Inputs, Proposer, Round, schema};
use claw_prompts::{INTENT_PROPOSE, INTENT_REPAIR, IntentPropose, IntentRepair};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::failure::{Failure, FailureCode};
use crate::settings::{Limits, Settings};
use crate::transcript::PromptUsed;
use crate::wire::{Client, WireError, redact, redact_all};

/// How long to wait where an endpoint that is busy does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(1);
/// Most bytes of an answer that did not pass, when the model is shown it again.
const SHOWN_AGAIN_BYTES_MAX: usize = 8 << 10;

/// The calls for one request.
pub(crate) struct Session<'a> {
    client: &'a Client,
    model: &'a str,
    limits: Limits,
    models: Vec<&'a str>,
    /// When it must be over; set by the first call.
    end: Option<Instant>,
    calls: u32,
    tokens: u64,
    repaired: bool,
}

/// What of an answer matters; endpoints differ in all the rest.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Completion {
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    message: Option<Message>,
    finish_reason: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    total_tokens: Option<u64>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(settings: &'a Settings, client: &'a Client, catalog: &'a Catalog) -> Self {
        let models = catalog.models().iter().map(|model| model.id.as_str()).collect();
        let limits = settings.limits;
        Self { client, model: &settings.model, limits, models, end: None, calls: 0, tokens: 0, repaired: false }
    }

    pub(crate) fn calls(&self) -> u32 {
        self.calls
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The prompts that were used.
    pub(crate) fn prompts(&self) -> Vec<PromptUsed> {
        let propose = (self.calls > 0).then_some(INTENT_PROPOSE);
        let repair = self.repaired.then_some(INTENT_REPAIR);
        propose.into_iter().chain(repair).map(PromptUsed::from).collect()
    }

    /// One answer; a busy endpoint is waited for, a broken connection tried again, within the bounds.
    async fn answer(&mut self, request: &CreateChatCompletionRequest) -> Result<String, Failure> {
        let end = *self.end.get_or_insert_with(|| Instant::now() + self.limits.all);
        let mut broken = false;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(FailureCode::TimedOut.because(format!("no answer in {:?} in all", self.limits.all)));
            }
            if self.calls >= self.limits.calls {
                return Err(FailureCode::Failing.because(format!("no answer in {} calls", self.limits.calls)));
            }
            self.calls += 1;
            let wait = self.limits.call.min(left);
            let error = match timeout(wait, self.client.chat().create_byot::<_, Value>(request)).await {
                Ok(Ok(reply)) => return self.content(reply),
                Ok(Err(error)) => wire_error(error),
                Err(_) => return Err(FailureCode::TimedOut.because(format!("no answer in {wait:?}"))),
            };
            match &error {
                WireError::Busy { retry_after_s } => {
                    let wait = retry_after_s.map_or(WAIT_DEFAULT, Duration::from_secs);
                    if wait >= end.saturating_duration_since(Instant::now()) {
                        return Err(FailureCode::Busy.because(format!("{error}; it asks to wait {wait:?}")));
                    }
                    sleep(wait).await;
                }
                _ if is_passing(&error) && !broken => broken = true,
                _ => return Err(failure(&error)),
            }
        }
    }

    /// The text of an answer, without the key whatever the endpoint made of it.
    fn content(&mut self, reply: Value) -> Result<String, Failure> {
        let Ok(completion) = serde_json::from_value::<Completion>(reply) else {
            return Err(FailureCode::Foreign.because("the answer is JSON of another form"));
        };
        let tokens = completion.usage.and_then(|usage| usage.total_tokens).unwrap_or_default();
        self.tokens = self.tokens.saturating_add(tokens);
        let Some(Choice { message: Some(message), finish_reason }) = completion.choices.into_iter().next() else {
            return Err(FailureCode::Foreign.because("the answer has no message"));
        };
        let filtered = finish_reason.as_ref().and_then(Value::as_str) == Some("content_filter");
        if filtered || message.refusal.is_some_and(|text| !text.is_empty()) {
            return Err(FailureCode::Declined.because("the model declines to answer"));
        }
        let (text, key) = (message.content.unwrap_or_default(), self.client.config().api_key());
        Ok(match serde_json::from_str::<Value>(&text) {
            Ok(mut value) => {
                redact_all(&mut value, key);
                value.to_string()
            }
            Err(_) => redact(&text, key),
        })
    }

    fn request(&self, inputs: &Inputs<'_>, before: &[Round]) -> Result<CreateChatCompletionRequest, Failure> {
        let user = serde_json::json!({
            "request": inputs.request,
            "grammar": inputs.answer,
            "unsure": inputs.unsure,
            "context": inputs.context,
        });
        let mut messages = vec![system(IntentPropose { models: &self.models }.render()), from_user(user.to_string())];
        for round in before {
            let faults: Vec<String> = round.faults.iter().map(Fault::to_string).collect();
            messages.push(assistant(clipped(&round.answer)));
            messages.push(from_user(IntentRepair { faults: &faults }.render()));
        }
        let schema = schema::of_replies().clone();
        let format = ResponseFormatJsonSchema { description: None, name: "intent".into(), schema, strict: Some(true) };
        let request = CreateChatCompletionRequest {
            model: self.model.to_owned(),
            messages,
            response_format: Some(ResponseFormat::JsonSchema { json_schema: format }),
            max_completion_tokens: Some(self.limits.answer_tokens),
            ..CreateChatCompletionRequest::default()
        };
        let bytes = serde_json::to_vec(&request).map_or(usize::MAX, |body| body.len());
        if bytes > self.limits.request_bytes {
            let most = self.limits.request_bytes;
            return Err(
                FailureCode::TooLarge.because(format!("the prompt would have {bytes} bytes, at most {most} go"))
            );
        }
        Ok(request)
    }
}

impl Proposer for Session<'_> {
    type Error = Failure;

    async fn propose(&mut self, inputs: &Inputs<'_>, before: &[Round]) -> Result<String, Failure> {
        if self.tokens > self.limits.tokens {
            let (used, most) = (self.tokens, self.limits.tokens);
            return Err(FailureCode::TooLarge.because(format!("{used} tokens are used, at most {most} may be")));
        }
        let request = self.request(inputs, before)?;
        self.repaired |= !before.is_empty();
        Box::pin(self.answer(&request)).await
    }
}

fn system(text: String) -> ChatCompletionRequestMessage {
    let content = ChatCompletionRequestSystemMessageContent::Text(text);
    ChatCompletionRequestSystemMessage { content, name: None }.into()
}

fn from_user(text: String) -> ChatCompletionRequestMessage {
    let content = ChatCompletionRequestUserMessageContent::Text(text);
    ChatCompletionRequestUserMessage { content, name: None }.into()
}

fn assistant(text: String) -> ChatCompletionRequestMessage {
    let content = Some(ChatCompletionRequestAssistantMessageContent::Text(text));
    ChatCompletionRequestAssistantMessage { content, ..Default::default() }.into()
}

fn clipped(text: &str) -> String {
    let mut end = text.len().min(SHOWN_AGAIN_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Our own error inside of async-openai's.
fn wire_error(error: OpenAIError) -> WireError {
    match error {
        OpenAIError::Boxed(inner) => inner.downcast::<WireError>().map_or(WireError::Cut, |error| *error),
        OpenAIError::Reqwest(_) | OpenAIError::StreamError(_) => WireError::Cut,
        // The wire has looked at status and form; what is left is a request that cannot be built.
        OpenAIError::ApiError(_)
        | OpenAIError::JSONDeserialize(..)
        | OpenAIError::FileSaveError(_)
        | OpenAIError::FileReadError(_)
        | OpenAIError::InvalidArgument(_) => WireError::NotJson,
    }
}

/// Whether the same call may succeed at once.
fn is_passing(error: &WireError) -> bool {
    match error {
        WireError::Cut => true,
        WireError::Status { status, .. } => matches!(status.as_u16(), 500 | 502 | 503 | 504),
        WireError::Unreachable(_)
        | WireError::TimedOut
        | WireError::Busy { .. }
        | WireError::Denied(_)
        | WireError::Redirected(_)
        | WireError::TooLarge(_)
        | WireError::NotJson => false,
    }
}

fn failure(error: &WireError) -> Failure {
    let code = match error {
        WireError::Unreachable(_) => FailureCode::Unreachable,
        WireError::TimedOut => FailureCode::TimedOut,
        WireError::Busy { .. } => FailureCode::Busy,
        WireError::Denied(_) => FailureCode::Denied,
        WireError::Redirected(_) => FailureCode::Redirected,
        WireError::Status { .. } => FailureCode::Failing,
        WireError::TooLarge(_) => FailureCode::TooLarge,
        WireError::Cut => FailureCode::Cut,
        WireError::NotJson => FailureCode::Foreign,
    };
    code.because(error.to_string())
}
