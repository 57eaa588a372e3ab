"""Interceptors for tests: they write down what they are asked, and do what they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from actorflow.interceptors import BaseInterceptor, ErrorAction, InterceptorResult
from actorflow.model import StageOutput
from actorflow.stages import StageResult

Hook = Callable[..., Any]


class Recorder(BaseInterceptor):
    """Subclass of the tests: notes each hook in `trace` as `name.hook`, then calls what it has.

    `hooks` maps names of hooks to functions of the hook's own arguments, without
    the stage's name.
    """

    def __init__(
        self,
        name: str,
        trace: list[str] | None = None,
        *,
        priority: int = 100,
        observer: bool = False,
        **hooks: Hook,
    ) -> None:
        super().__init__()
        self.name = name
        self.priority = priority
        self.observer = observer
        self.trace = [] if trace is None else trace
        self.results: list[StageResult] = []
        self.errors: list[Exception] = []
        self._hooks = hooks

    async def _do(self, hook: str, default: Any, *args: Any) -> Any:
        self.trace.append(f"{self.name}.{hook}")
        if hook not in self._hooks:
            return default
        found = self._hooks[hook](*args)
        return await found if hasattr(found, "__await__") else found

    async def before(self, stage_name: str, ctx: Any) -> InterceptorResult | None:
        answer: InterceptorResult | None = await self._do("before", None, ctx)
        return answer

    async def after(self, stage_name: str, result: StageResult, ctx: Any) -> StageOutput | None:
        self.results.append(result)
        output: StageOutput | None = await self._do("after", None, result, ctx)
        return output

    async def on_error(self, stage_name: str, error: Exception, ctx: Any) -> ErrorAction:
        self.errors.append(error)
        action: ErrorAction = await self._do("on_error", ErrorAction.FAIL, error, ctx)
        return action

    async def fallback(self, stage_name: str, error: Exception, ctx: Any) -> StageOutput | None:
        if "fallback" not in self._hooks:
            raise error
        output: StageOutput | None = await self._do("fallback", None, error, ctx)
        return output

    async def release(self, stage_name: str, ctx: Any) -> None:
        await self._do("release", None, ctx)


def raising(error: BaseException) -> Hook:
    def hook(*args: Any) -> Any:
        raise error

    return hook


def answering(answer: Any) -> Hook:
    return lambda *args: answer


async def for_ever(*args: Any) -> Any:
    await trio.sleep_forever()


class Stage:
    """Does one thing after the other, one per call: returns values, raises exceptions."""

    def __init__(self, *script: Any) -> None:
        self.script = script
        self.calls = 0

    async def __call__(self, ctx: Any = None) -> Any:
        step = self.script[min(self.calls, len(self.script) - 1)]
        self.calls += 1
        await trio.lowlevel.checkpoint()
        if isinstance(step, BaseException):
            raise step
        return step
