"""OpenAI's request bodies, and their translation to an `Ask`.

What the platform cannot do is refused by name. Parameters that change nothing in the answer (store, service_tier,
reasoning_effort, ...) are accepted and ignored. Nothing that an engine would execute (grammars, chat templates, regular
expressions) is passed on, whatever the caller sends.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from intern.errors import InvalidInput, NotFound
from intern.pipeline import AUTO
from intern.schema import parse_json
from intern.types import Ask, Caller, Json, Message, Sampling
from server.body import at_most

PREFIX = "intern/"
MAX_MESSAGES = 1_000
MAX_PARTS = 1_000  # of one message's content
MAX_TOOLS = 256

REFUSED = {
    "audio": "answers are text",
    "function_call": "use tools and tool_choice",
    "functions": "use tools",
    "logit_bias": "it is not supported",
    "web_search_options": "there is no web search",
    "grammar": "use response_format",
    "guided_grammar": "use response_format",
    "guided_json": "use response_format",
    "guided_regex": "use response_format",
    "guided_choice": "use response_format",
    "structured_outputs": "use response_format",
    "chat_template": "it cannot be changed by a request",
    "chat_template_kwargs": "it cannot be changed by a request",
    "prompt_embeds": "it is not supported",
    "lora": "name the adapter in the model",
}


class _Part(BaseModel):
    type: str
    text: str | None = None
    refusal: str | None = None


class _Open(BaseModel):
    """An object that is passed on as it came, once what engines rely on is there: they fail with messages that quote
    what they were sent, and a failure is no answer to a caller's mistake."""

    model_config = ConfigDict(extra="allow")

    def given(self) -> dict[str, Json]:
        return self.model_dump(exclude_unset=True)


class _CalledFunction(_Open):
    name: str = Field(min_length=1, max_length=200)
    arguments: str

    @field_validator("arguments")
    @classmethod
    def _is_object(cls, text: str) -> str:
        if not text.strip():  # how some clients write a call without arguments
            return "{}"
        if not isinstance(parse_json(text)[0], dict):
            raise ValueError("it must be the text of a JSON object, such as '{}'")
        return text


class _ToolCall(_Open):
    id: str = Field(min_length=1, max_length=200)
    type: Literal["function"]
    function: _CalledFunction


class _DeclaredFunction(_Open):
    name: str = Field(min_length=1, max_length=200)
    description: str | None = None
    parameters: dict[str, Json] | None = None


class _Tool(_Open):
    type: Literal["function"]
    function: _DeclaredFunction


class _NamedFunction(_Open):
    name: str = Field(min_length=1, max_length=200)


class _NamedTool(_Open):
    type: Literal["function"]
    function: _NamedFunction


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str | Annotated[list[_Part], Field(fail_fast=True)] | None, at_most(MAX_PARTS, "parts")] = None
    tool_calls: Annotated[
        Annotated[list[_ToolCall], Field(fail_fast=True)] | None, at_most(MAX_TOOLS, "tool calls")
    ] = None
    tool_call_id: str | None = None

    def message(self, place: str) -> Message:
        return Message(
            role="system" if self.role == "developer" else self.role,
            content=self._text(place),
            tool_calls=tuple(call.given() for call in self.tool_calls or ()),
            tool_call_id=self.tool_call_id,
        )

    def _text(self, place: str) -> str:
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        texts = []
        for number, part in enumerate(self.content):
            text = part.text if part.type == "text" else part.refusal if part.type == "refusal" else None
            if text is None:
                raise InvalidInput(
                    f"Content of type '{part.type}' is not supported; send text.",
                    param=f"{place}.content.{number}.type",
                )
            texts.append(text)
        return "\n".join(texts)


class _JsonSchema(BaseModel):
    name: str
    description: str | None = None
    schema_: dict[str, Json] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class StreamOptions(BaseModel):
    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """The body of POST /v1/chat/completions. Unknown parameters are ignored, except those in REFUSED."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True), at_most(MAX_MESSAGES, "messages")]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Annotated[str | list[str] | None, at_most(4, "stop sequences")] = None
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[Annotated[list[_Tool], Field(fail_fast=True)] | None, at_most(MAX_TOOLS, "tools")] = None
    tool_choice: Literal["none", "auto", "required"] | _NamedTool | None = None
    modalities: Annotated[list[str] | None, at_most(8, "modalities")] = None
    user: str | None = Field(default=None, max_length=200)
    safety_identifier: str | None = Field(default=None, max_length=200)
    metadata: Annotated[dict[str, str] | None, at_most(16, "entries")] = None

    @field_validator("stop")
    @classmethod
    def _stops(cls, value: Any) -> Any:
        if "" in (value if isinstance(value, list) else [value]):
            raise ValueError("a stop sequence cannot be empty")
        return value

    def ask(self, caller: Caller) -> Ask:
        """Raises InvalidInput naming the parameter, NotFound for a model name of another form."""
        for name, hint in REFUSED.items():
            if (self.model_extra or {}).get(name):
                raise InvalidInput(f"The parameter '{name}' cannot be used here: {hint}.", param=name)
        if self.modalities not in (None, ["text"]):
            raise InvalidInput("Only the modality text is supported.", param="modalities")
        if self.top_logprobs and not self.logprobs:
            raise InvalidInput("top_logprobs needs logprobs: true.", param="top_logprobs")
        if self.tool_choice is not None and not self.tools:
            raise InvalidInput("tool_choice needs tools.", param="tool_choice")
        skill, version = parse_model(self.model)
        form = self.response_format
        schema = None
        if form is not None and form.type == "json_schema":
            if form.json_schema is None or form.json_schema.schema_ is None:
                raise InvalidInput(
                    "json_schema must hold a name and a schema.", param="response_format.json_schema.schema"
                )
            schema = form.json_schema.schema_
        return Ask(
            messages=tuple(m.message(f"messages.{i}") for i, m in enumerate(self.messages)),
            skill=skill,
            version=version,
            sampling=Sampling(
                temperature=self.temperature,
                top_p=self.top_p,
                max_tokens=self.max_completion_tokens or self.max_tokens,
                stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
                seed=self.seed,
                n=self.n or 1,
                presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty,
                logprobs=bool(self.logprobs),
                top_logprobs=self.top_logprobs or 0,
            ),
            output_schema=schema,
            json_object=form is not None and form.type == "json_object",
            tools=tuple(tool.given() for tool in self.tools or ()) if self.tool_choice != "none" else (),
            tool_choice=self.tool_choice.given() if isinstance(self.tool_choice, _NamedTool) else self.tool_choice,
            caller=caller.model_copy(update={"person": self.user or self.safety_identifier}),
            metadata=self.metadata or {},
        )


def parse_model(model: str) -> tuple[str | None, str | None]:
    """(skill, version) of a model name: intern-auto, intern/<skill>, intern/<skill>@<version>. Raises NotFound."""
    if model == AUTO:
        return None, None
    skill, at, version = model.removeprefix(PREFIX).partition("@")
    if not model.startswith(PREFIX) or not skill or (at and not version):
        raise NotFound("model", model[:200], f"Use '{AUTO}', '{PREFIX}<skill>' or '{PREFIX}<skill>@<version>'.")
    return skill, version or None


class EmbeddingsRequest(BaseModel):
    """The body of POST /v1/embeddings."""

    model: str
    input: str | list[Json]  # the route says what may stand in the list, once for all of it
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None
