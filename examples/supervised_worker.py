"""A worker that depends on something flaky, kept alive by its supervisor.

The worker does not try to mend its connection: it crashes, and its next life
opens a new one. Waits between lives grow, because a service that is down is not
helped by being called at once. A job that is in hand at a crash is not repeated
behind anybody's back; whoever asked for it is told, and here asks again.

Prints:
  job 1 done in life 1
  job 2 done in life 1
  the worker crashed: ConnectionResetError('connection lost')
  its next life begins in 0.05 s
  the worker crashed: ConnectionRefusedError('nobody there')
  its next life begins in 0.10 s
  job 3 done in life 3
  job 4 done in life 3
"""

from __future__ import annotations

import itertools
import logging
from typing import final

import attrs
import trio

from actorflow.actors import (
    Actor,
    ActorEnded,
    ActorRef,
    Backoff,
    Child,
    Crashed,
    Notice,
    Reply,
    RestartPlanned,
    open_system,
)
from actorflow.errors import ActorCrashedError


@final
class Service:
    """Loses its first connection after two jobs and refuses the next one."""

    def __init__(self) -> None:
        self._calls = itertools.count(1)

    async def connect(self) -> Connection:
        await trio.sleep(0.01)
        call = next(self._calls)
        if call == 2:
            raise ConnectionRefusedError("nobody there")
        return Connection(jobs_left=2)


@final
@attrs.define
class Connection:
    jobs_left: int

    async def work(self) -> None:
        await trio.sleep(0.01)
        if self.jobs_left == 0:
            raise ConnectionResetError("connection lost")
        self.jobs_left -= 1


@final
@attrs.frozen
class Job:
    number: int
    done: Reply[str]


@final
class Worker(Actor[Job]):
    def __init__(self, service: Service) -> None:
        self._service = service

    async def on_start(self) -> None:
        self._connection = await self._service.connect()

    async def receive(self, job: Job) -> None:
        await self._connection.work()
        job.done.send(f"job {job.number} done in life {self.ctx.incarnation}")


async def until_done(worker: ActorRef[Job], number: int) -> str:
    while True:
        try:
            return await worker.ask(lambda done: Job(number, done))
        except ActorCrashedError:
            # Asked again at once; the job waits in the mailbox for the next life.
            continue


def report(notice: Notice) -> None:
    match notice:
        case ActorEnded(reason=Crashed(error)):
            print(f"the worker crashed: {error!r}")
        case RestartPlanned(delay=delay):
            print(f"its next life begins in {delay:.2f} s")


async def main() -> None:
    service = Service()
    worker = Child("worker", lambda: Worker(service), backoff=Backoff(base=0.05, cap=10))
    async with open_system(worker, max_restarts=5, window=60) as system:
        system.subscribe(report)
        for number in range(1, 5):
            print(await until_done(system["worker"], number))


if __name__ == "__main__":
    # Crashes are logged with their tracebacks, as warnings.
    logging.basicConfig(level=logging.ERROR)
    trio.run(main)
