"""Record what a pipeline does in a file, then read it back.

`actorflow events FILE` and `actorflow timeline FILE -o run.svg` show such a file too.

Prints:
  1 pipeline.started
  2 stage.started listen
  3 stage.completed listen
  4 stage.started answer
  5 app.thought answer
  6 stage.completed answer
  7 pipeline.completed
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from actorflow import Pipeline, StageContext, stage
from actorflow.events import AnalyticsSink, BufferedExporter, JSONFileExporter, read_events


async def listen(ctx: StageContext) -> dict[str, str]:
    return {"heard": ctx.snapshot.input_text or ""}


async def answer(ctx: StageContext) -> dict[str, str]:
    ctx.try_emit_event("app.thought", {"about": "manners"})
    return {"said": "fine, and you?"}


conversation = Pipeline.from_stages(
    stage("listen", listen), stage("answer", answer, after="listen"), name="conversation"
)


async def record(path: Path) -> None:
    # Leaving the block writes what is still on its way.
    async with AnalyticsSink(BufferedExporter(JSONFileExporter(path))) as sink:
        await conversation.run("how are you?", event_sink=sink)


with TemporaryDirectory() as directory:
    file = Path(directory, "conversation.jsonl")
    trio.run(record, file)
    for event in read_events(file):
        print(*filter(None, (event.data["seq"], event.event_type, event.stage_name)))
