"""May this stage start? The rules, asked in a fixed order once all it waits for is there.

1. failure: under continue_on_failure nothing runs below a failed stage
2. join: enough edges are live
3. conditional: no dependency asks to skip
4. when: the stage's own condition holds
5. inputs: the dependencies left the keys it declares

The first rule that objects decides. Nothing here waits or remembers: the
outcomes so far come in, a decision goes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, final

import attrs

from actorflow.errors import PredicateError, UnknownBranchError, contract_error
from actorflow.model import StageOutput, StageStatus

from ._failure_mode import FailureMode
from ._predicates import Chosen, chosen_branches, label_of, not_a_bool

if TYPE_CHECKING:
    from actorflow.errors import ActorflowError, PipelineValidationError
    from actorflow.stages import SkippedBy, StageInputs

    from ._graph import EdgeRule, Wiring
    from ._spec import StageSpec

_About = TypeVar("_About")

_NOT_TAKEN: Final = frozenset({"conditional", "when", "dependency"})


@final
@attrs.frozen
class Settled:
    """How a stage ended, as far as those who depend on it are concerned."""

    output: StageOutput
    skipped_by: SkippedBy | None = None


@final
@attrs.frozen
class Start:
    """Nothing objects."""


@final
@attrs.frozen
class Skip:
    """A rule says no, so the stage is settled without being called."""

    reason: str
    skipped_by: SkippedBy

    @property
    def output(self) -> StageOutput:
        return StageOutput.skip(self.reason)


@final
@attrs.frozen
class Fail:
    """A rule could not be applied, so the stage fails without being called."""

    error: ActorflowError


Decision: TypeAlias = Start | Skip | Fail

_START: Final = Start()


def decide(
    wiring: Wiring,
    stage: int,
    settled: Sequence[Settled | None],
    mode: FailureMode,
    read_inputs: Callable[[], StageInputs],
) -> Decision:
    """What becomes of a stage whose dependencies are settled and whose producers have started.

    `settled` holds an entry per stage of the pipeline; a producer that is still
    running has none. `read_inputs` is called when the stage has a condition to
    ask, so that a stage without one costs no inputs before it starts.
    """
    spec = wiring.specs[stage]
    needed = [_ended(settled[number]) for number in wiring.dependencies[stage]]
    streamed = [settled[number] for number in wiring.stream_sources[stage]]
    try:
        return (
            _failure_rule(spec, needed, streamed, mode)
            or _join_rule(spec, wiring.edge_rules[stage], needed, streamed)
            or _conditional_rule(spec, needed)
            or _when_rule(spec, read_inputs)
            or _inputs_rule(spec, needed)
            or _START
        )
    except PredicateError as error:
        return Fail(error)


def _ended(settled: Settled | None) -> Settled:
    assert settled is not None, "a stage was decided on before its dependencies were settled"
    return settled


def _failure_rule(
    spec: StageSpec,
    needed: Sequence[Settled],
    streamed: Sequence[Settled | None],
    mode: FailureMode,
) -> Skip | None:
    if mode is FailureMode.BEST_EFFORT or spec.join == "always":
        return None
    for name, source in zip(
        (*spec.dependencies, *spec.stream_from), (*needed, *streamed), strict=True
    ):
        if source is None:
            continue
        if source.skipped_by == "failure":
            # It names the stage that failed, however far up that was.
            return Skip(source.output.reason, "failure")
        if source.output.status is StageStatus.FAIL:
            return Skip(f"dependency {name!r} failed", "failure")
    return None


def _join_rule(
    spec: StageSpec,
    rules: Sequence[EdgeRule],
    needed: Sequence[Settled],
    streamed: Sequence[Settled | None],
) -> Skip | None:
    if spec.join == "always":
        return None
    live = [
        source.skipped_by not in _NOT_TAKEN and _holds(spec, rule, source.output)
        for rule, source in zip(rules, needed, strict=True)
    ]
    live += [source is None or source.skipped_by not in _NOT_TAKEN for source in streamed]
    if not live or (all(live) if spec.join == "all" else any(live)):
        return None
    names = (*spec.dependencies, *spec.stream_from)
    dead = ", ".join(repr(name) for name, lives in zip(names, live, strict=True) if not lives)
    return Skip(f"not taken from {dead}", "dependency")


def _holds(spec: StageSpec, rule: EdgeRule, output: StageOutput) -> bool:
    if rule is None:
        return True
    if isinstance(rule, Chosen):
        return rule.matches(output)
    return _ask(spec.name, rule, output)


def _conditional_rule(spec: StageSpec, needed: Sequence[Settled]) -> Skip | None:
    if not spec.conditional:
        return None
    reasons = (source.output.data.get("skip_reason") for source in needed)
    reason = next(filter(None, reasons), None)
    return Skip(str(reason), "conditional") if reason else None


def _when_rule(spec: StageSpec, read_inputs: Callable[[], StageInputs]) -> Skip | None:
    # A string belongs to the only edge of the stage and was asked there.
    if spec.when is None or isinstance(spec.when, str) or _ask(spec.name, spec.when, read_inputs()):
        return None
    return Skip(f"condition not met: {label_of(spec.when)}", "when")


def _ask(stage: str, condition: Callable[[_About], bool], about: _About) -> bool:
    try:
        answer: object = condition(about)
    except Exception as error:
        raise PredicateError(stage, label_of(condition), f"raised {error!r}") from error
    if isinstance(answer, bool):
        return answer
    raise PredicateError(stage, label_of(condition), not_a_bool(answer))


def _inputs_rule(spec: StageSpec, needed: Sequence[Settled]) -> Fail | None:
    if not spec.inputs:
        return None
    ended = dict(zip(spec.dependencies, (source.output for source in needed), strict=True))
    missing = [declared for declared in spec.inputs if not _is_there(declared, ended)]
    if not missing:
        return None
    available = sorted(f"{name}:{key}" for name, output in ended.items() for key in output.data)
    return Fail(
        contract_error(
            "INPUT",
            f"stage {spec.name!r} declares the inputs {listed(missing)},"
            f" its dependencies left {listed(available)}",
            [spec.name],
            stage=spec.name,
            missing=missing,
            available=available,
        )
    )


def _is_there(declared: str, ended: Mapping[str, StageOutput]) -> bool:
    name, key = split_input(declared)
    candidates = ended.values() if name is None else (ended[name],)
    # What a stage that did not end OK would have left, nobody knows.
    return any(output.status is not StageStatus.OK or key in output.data for output in candidates)


def split_input(declared: str) -> tuple[str | None, str]:
    """A declared input as the stage it comes from, if it says so, and its key."""
    name, _, key = declared.rpartition(":")
    return name or None, key


def check_outputs(spec: StageSpec, output: StageOutput) -> PipelineValidationError | None:
    """What is wrong with an output whose stage declares keys; only OK outputs owe them."""
    if output.status is not StageStatus.OK:
        return None
    missing = [key for key in spec.outputs if key not in output.data]
    if not missing:
        return None
    available = sorted(output.data)
    return contract_error(
        "OUTPUT",
        f"stage {spec.name!r} declares the outputs {listed(missing)}, it returned {listed(available)}",
        [spec.name],
        stage=spec.name,
        missing=missing,
        available=available,
    )


def check_branch(wiring: Wiring, stage: int, output: StageOutput) -> UnknownBranchError | None:
    """What is wrong with the choice of a router: a label that nobody's edge has."""
    known = wiring.branch_labels[stage]
    if not known:
        return None
    unknown = [branch for branch in chosen_branches(output) or () if branch not in known]
    return UnknownBranchError(wiring.specs[stage].name, unknown[0], known) if unknown else None


def listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"
