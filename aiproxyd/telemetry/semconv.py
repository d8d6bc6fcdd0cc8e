"""OpenTelemetry's semantic conventions for generative AI, as far as spans and metrics use them; the one place with their words.

The conventions are in development and have moved to a repository of their own; this is their version of 2026-10.

Source:
    https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-spans.md
    https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-metrics.md
"""

import json
from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.38.0"

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_CALL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
HTTP_METHOD: Final = "http.request.method"
HTTP_STATUS: Final = "http.response.status_code"
URL_PATH: Final = "url.path"
USER_ID: Final = "user.id"
USER_AGENT: Final = "user_agent.original"

_PROVIDERS: Final = {
    "chatgpt": "openai",
    "openai-compat": "openai",
    "copilot": "github.copilot",
    "google": "gcp.gemini",
    "bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""Where the conventions' word is not the type's name. They have none for Copilot, OpenRouter, Together and Vercel."""

_OPERATIONS: Final = {
    "cohere.embed": "embeddings",
    "google.embed_content": "embeddings",
    "google.generate_content": "generate_content",
    "google.interactions": "generate_content",
    "openai.completions": "text_completion",
    "openai.embeddings": "embeddings",
    "openai.images": "generate_content",
    "openai.speech": "generate_content",
    "openai.transcriptions": "generate_content",
}


def operation_name(api: str) -> str:
    """Return the operation that requests of an API are."""
    return _OPERATIONS.get(api, "chat")


def provider_name(provider_type: str, host: str) -> str:
    """Return what the conventions call a provider of this type at this host; the type itself where they have no word."""
    if provider_type == "google" and host.endswith("aiplatform.googleapis.com"):
        return "gcp.vertex_ai"
    return _PROVIDERS.get(provider_type, provider_type)


def input_messages(prompt: str) -> str:
    """Return a user's prompt as the JSON of the conventions' input messages."""
    return json.dumps([{"role": "user", "parts": [{"type": "text", "content": prompt}]}], ensure_ascii=False)
