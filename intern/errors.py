"""Every error the platform raises on purpose, in one tree, without HTTP codes.

    InternError
    ├── InvalidInput            the caller sent something that cannot be worked with; `param` names it
    │   ├── ContextOverflow     prompt and answer do not fit the model; carries the numbers
    │   ├── SchemaRefused       a JSON Schema that is broken, hostile or not supported
    │   ├── DocumentRefused     a document that is broken, hostile, empty or of an unknown kind
    │   └── SkillInvalid        a skill folder with problems; carries all of them
    ├── NotAuthenticated        no key, or not a valid one
    ├── NotAllowed              a valid key without the right to do this
    ├── NotFound                no such skill, model, record, document, key
    ├── Conflict                it exists already, or changed meanwhile
    ├── Overloaded              expected under load; `retry_after` seconds
    ├── DeadlineExceeded        the work did not finish in its time
    ├── OutputInvalid           the model's answer breaks the skill's schema, after the repair attempt
    ├── EngineFailure           the engine broke while it answered
    ├── EngineUnavailable       no engine can take the request at all
    ├── ModelUnavailable        a base model or embedder cannot be found, loaded or verified
    ├── AdapterRefused          an adapter that is damaged, hostile, of another base model, or does nothing
    ├── TrainingUnavailable     training cannot start here: a library is missing, or the engine takes no adapters
    ├── TrainingFailed          a training began and did not end in an adapter
    ├── WorkspaceBusy           another process owns the workspace
    └── StoreFailure            the database or the disk refused

`server/errors.py` is the only place that maps them to HTTP. Messages are for people: they say what is wrong
and what would be right, and never carry prompts, documents or secrets.
"""

from __future__ import annotations

from collections.abc import Sequence


class InternError(Exception):
    """Root of the tree. `code` is a stable, machine-readable word for the kind of error."""

    code = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(InternError):
    """The caller's input cannot be worked with. `param` names the offending parameter, where there is one."""

    code = "invalid_input"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextOverflow(InvalidInput):
    """Prompt plus answer exceed the model's context. `tokens` and `limit` are counted in the model's tokens."""

    code = "context_length_exceeded"

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(
            f"The request needs {tokens} tokens and the model's context holds {limit}. "
            "Shorten the messages or lower max_tokens.",
            param="messages",
        )
        self.tokens = tokens
        self.limit = limit


class SchemaRefused(InvalidInput):
    """A JSON Schema that is broken, hostile, or uses what the engines do not support."""

    code = "invalid_schema"


class DocumentRefused(InvalidInput):
    """A document that cannot be ingested. `document` is its name."""

    code = "invalid_document"

    def __init__(self, message: str, *, document: str) -> None:
        super().__init__(f"{document}: {message}", param="file")
        self.document = document


class SkillInvalid(InvalidInput):
    """A skill folder with problems. `problems` lists each as 'file:line or key: what is wrong, what would be right'."""

    code = "invalid_skill"

    def __init__(self, skill: str, problems: list[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"skill '{skill}': {problems[0]}{more}", param="skill")
        self.skill = skill
        self.problems = problems


class NotAuthenticated(InternError):
    code = "invalid_api_key"


class NotAllowed(InternError):
    code = "not_allowed"


class NotFound(InternError):
    """`what` is one of model, skill, record, document, example, review, key."""

    code = "not_found"

    def __init__(self, what: str, name: str, hint: str = "") -> None:
        super().__init__(f"The {what} '{name}' does not exist.{' ' + hint if hint else ''}")
        self.what = what
        self.name = name


class Conflict(InternError):
    code = "conflict"


class Overloaded(InternError):
    """An expected outcome under load, not a crash. `retry_after` is in seconds."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceeded(InternError):
    code = "deadline_exceeded"


class OutputInvalid(InternError):
    """The model's answer breaks the skill's schema, also after the repair attempt. `record` keeps the raw output."""

    code = "output_invalid"

    def __init__(self, message: str, *, problems: list[str], record: str | None = None) -> None:
        super().__init__(message)
        self.problems = problems
        self.record = record


class EngineFailure(InternError):
    code = "engine_failure"


class EngineUnavailable(InternError):
    code = "engine_unavailable"


class ModelUnavailable(InternError):
    code = "model_unavailable"


class AdapterRefused(InternError):
    """An adapter that must not be loaded. `adapter` is its folder's name; the skill goes on without it."""

    code = "adapter_refused"

    def __init__(self, message: str, *, adapter: str) -> None:
        super().__init__(f"adapter {adapter}: {message}")
        self.adapter = adapter


class TrainingUnavailable(InternError):
    code = "training_unavailable"

    @classmethod
    def lacks(cls, what: str, names: Sequence[str]) -> TrainingUnavailable:
        """That `what` needs packages which are not installed."""
        return cls(
            f"{what} needs {', '.join(names)}, which this installation lacks. Run `make train` in the project's "
            "folder; an image has it that is built with TRAIN=1."
        )


class TrainingFailed(InternError):
    """`final`: it would fail in the same way again, however often it is taken up."""

    code = "training_failed"

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class WorkspaceBusy(InternError):
    code = "workspace_busy"


class StoreFailure(InternError):
    code = "store_failure"
