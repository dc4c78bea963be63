"""What `listen` sends requests to, of its TARGETs, `--exec` and `--retries`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..exceptions import BadArgument
from ..listening.exec_handler import Command
from ..listening.receivers import Fanout, Receiver
from ..listening.retries import Retrying, Statuses
from ..local_app.target import Target
from ..output.report import Report
from ..request import Request

# How many TARGETs there may be. Each has as many connections as requests are handled at once.
MAX_TARGETS = 10


@dataclass(frozen=True)
class Receivers:
    """The apps and the command of one `listen`, the first of which answers callers."""

    targets: Sequence[Target]
    command: Command | None

    @classmethod
    def check(cls, targets: Sequence[Target], command: Command | None) -> "Receivers":
        """Return them. Raises `BadArgument` if there are none, too many, or one twice."""
        if not targets and command is None:
            raise BadArgument("Missing argument 'TARGET', the app, or '--exec', a command.")
        if len(targets) > MAX_TARGETS:
            raise BadArgument(f"There are {len(targets)} TARGETs, of which there may be {MAX_TARGETS}.")
        names = [target.name for target in targets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise BadArgument(f"{twice} is named twice.")
        return cls(targets, command)

    @property
    def names(self) -> list[str]:
        """What people read of each; the first is what the URL is kept for."""
        return [
            *(target.name for target in self.targets),
            *([self.command.name] if self.command is not None else []),
        ]

    def joined(
        self,
        report: Report,
        *,
        parallel: int,
        is_ordered: bool,
        retries: int,
        statuses: Statuses | None,
        is_closed: Callable[[], bool],
    ) -> Receiver:
        """Return one receiver that stands for all. Without `statuses` nothing is repeated."""

        def repeated(receiver: Receiver) -> Receiver:
            target = receiver.name if receiver.name != self.names[0] else ""

            def on_retry(request: Request, why: str, seconds: float) -> None:
                report.retry(request, why, seconds, target=target)

            return receiver if statuses is None else Retrying(receiver, retries, statuses, on_retry, is_closed)

        apps = [repeated(target) for target in self.targets]
        commands = [repeated(self.command)] if self.command is not None else []
        if len(apps) + len(commands) == 1:
            return [*apps, *commands][0]
        return Fanout(
            [*apps, *commands], required=commands, parallel=parallel, is_ordered=is_ordered, report=report
        )
