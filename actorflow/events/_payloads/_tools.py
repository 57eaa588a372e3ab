"""Tool calls, their approval, and guardrails."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from .._spec import Delivery, Millis, event


class ToolCall(TypedDict):
    """What every event of a tool call says."""

    tool_name: str
    action_id: str
    action_type: str


@event("tool.invoked", Delivery.WAIT)
class ToolInvoked(ToolCall, TypedDict):
    """A tool was looked up; behaviour gate and approval come next."""

    payload_summary: Annotated[dict[str, Any], "cut to size, sensitive paths redacted"]
    behavior: str | None
    uuid_collision: NotRequired[bool]


@event("tool.denied", Delivery.WAIT)
class ToolDenied(ToolCall, TypedDict):
    """The behaviour gate or the approval refused a call."""

    reason: Literal[
        "behavior_not_allowed",
        "approval_denied",
        "approval_timeout",
        "audit_unavailable",
        "cancelled",
    ]
    behavior: str | None
    allowed_behaviors: Annotated[list[str], "as declared"]
    approval_id: NotRequired[str]


@event("tool.started", Delivery.WAIT)
class ToolStarted(ToolCall, TypedDict):
    """The handler is about to be called."""

    timeout_seconds: float | None
    sandboxed: bool


class ToolOutputSummary(TypedDict):
    """What a tool returned, without its contents."""

    success: bool
    has_data: bool
    has_error: bool
    has_artifacts: bool
    has_undo_metadata: bool


@event("tool.completed", Delivery.WAIT)
class ToolCompleted(ToolCall, TypedDict):
    """The handler returned a successful output."""

    duration_ms: Millis
    output_summary: ToolOutputSummary
    artifacts_count: int
    undo_available: bool
    replayed: Annotated[bool, "the recorded output of an earlier call"]


@event("tool.failed", Delivery.WAIT)
class ToolFailed(ToolCall, TypedDict):
    """An exception, a failed output, a timeout, invalid data, an unknown tool, or a cancel."""

    duration_ms: Millis
    error_code: str
    error_message: str
    violations: NotRequired[list[dict[str, Any]]]


@event("tool.undone", Delivery.WAIT)
class ToolUndone(ToolCall, TypedDict):
    """An action was taken back."""

    duration_ms: Millis
    original_action_timestamp: str


@event("tool.undo_failed", Delivery.WAIT)
class ToolUndoFailed(ToolCall, TypedDict):
    """An action could not be taken back."""

    error_message: str
    reason: Annotated[str, "class of the exception, `timeout` or `cancelled`"]


class Approval(ToolCall, TypedDict):
    """What every event of an approval says."""

    approval_id: str


@event("approval.requested", Delivery.WAIT)
class ApprovalRequested(Approval, TypedDict):
    """A call waits for somebody's approval."""

    approval_message: str
    payload_summary: Annotated[dict[str, Any], "cut to size, sensitive paths redacted"]
    expires_at: str | None


@event("approval.decided", Delivery.WAIT)
class ApprovalDecided(Approval, TypedDict):
    """A decision was recorded in time."""

    decision: Literal["granted", "denied"]
    decided_by: str | None
    reason: str | None
    edited: NotRequired[bool]


@event("approval.expired", Delivery.WAIT)
class ApprovalExpired(Approval, TypedDict):
    """The deadline passed without a decision."""

    reason: str


@event("approval.cancelled", Delivery.WAIT)
class ApprovalCancelled(Approval, TypedDict):
    """The run or the caller was cancelled before a decision."""

    reason: str


class Violation(TypedDict):
    """What a check found; never the text it found it in."""

    type: str
    message: str
    severity: float
    metadata: dict[str, Any]
    location: Annotated[list[int] | None, "first and last position"]


@event("guardrail.violations_detected", Delivery.TRY)
class GuardrailViolationsDetected(TypedDict):
    """A check found violations at or above the threshold and logs them."""

    stage: str
    check: Annotated[str, "class name"]
    violations: list[Violation]
    violation_count: int


@event("guardrail.fail_open", Delivery.WAIT)
class GuardrailFailOpen(TypedDict):
    """Violations were found and let pass, because the stage is told not to fail."""

    stage: str
    violation_count: int
    fail_on_violation: Literal[False]
    violations: list[Violation]
