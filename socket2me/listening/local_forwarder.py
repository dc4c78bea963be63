"""What `socket2me listen` does with each request: choose, save, forward, report, and answer its caller."""

import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path

from ..exceptions import AnswerRefused, Dropped, NotHandled, OutsideTarget, TargetDown, TargetSlow
from ..inspector.filters import Filter
from ..local_app.target import Answer, Exchange, Target
from ..output.report import Outcome, Report
from ..output.terminal import is_read
from ..request import Reply, Request
from ..saved import request_files
from ..steps import run
from .receivers import Receiver
from .recorder import Recorder, record_of
from .signing_options import LateSigner
from .slow_requests import SlowRequests

# A request that takes longer than this has a line of its own before its answer comes.
SLOW_SECONDS = 2


class Forwarder:
    """The handler of `socket2me listen`. Several threads may call it at once.

    Parameters:
        receiver: what the requests are sent to.
        is_replying: says whether callers get the app's answers.
        only: the filters of which one must hold; none: everything is forwarded.
        folder: where each request is saved, if it is; with the curl command for `saved_for`, if there is that.
        recorder: records what becomes of each request, for the inspector, if there is one.
        signer: signs again what arrives late.
    """

    def __init__(
        self,
        receiver: Receiver,
        report: Report,
        *,
        is_replying: Callable[[], bool],
        only: Sequence[Filter] = (),
        folder: Path | None = None,
        saved_for: Target | None = None,
        recorder: Recorder | None = None,
        signer: LateSigner | None = None,
    ) -> None:
        self._receiver = receiver
        self._app = receiver if isinstance(receiver, Target) else None
        self._saved_for = saved_for
        self._report = report
        self._is_replying = is_replying
        self._only = only
        self._folder = folder
        self._recorder = recorder
        self._signer = signer
        self._slow = SlowRequests(SLOW_SECONDS, report.slow)

    def __call__(self, request: Request) -> Reply | None:
        """Forward a request. Raises `NotHandled` if that should be tried again, or no caller waits for it."""
        return run(self.steps(request), self._perform)

    @property
    def inline_target(self) -> Target | None:
        """The target, unless more than its answer may have to be waited for."""
        return self._app if self._folder is None else None

    def is_blocked(self) -> bool:
        """Return whether what is printed would not be read."""
        return not is_read(sys.stdout)

    def steps(self, request: Request) -> Generator[Exchange, Answer, Reply | None]:
        """Do what a call does. Yields the exchange that the target is to perform."""
        recorder = self._recorder
        if recorder is not None:
            recorder.begin(request)
        if not is_meant(request, self._only):
            return self._refuse(request, "not forwarded: --only does not name it")
        started = time.perf_counter()
        try:
            if self._folder is not None:
                self._save(self._folder, request)
            sent = self._signer.late(request) if self._signer is not None else request
            if recorder is not None:
                recorder.sent(request, self._receiver.where(sent))
            with self._slow.watching(request):
                app = self._app
                answer = self._receiver.send(sent) if app is None else (yield from app.steps(sent))
        except OutsideTarget as error:
            return self._refuse(request, f"not forwarded: {error}")
        except Dropped as error:
            why = "Dropped: the app is not waited for."
            self._report_refused(request, error.status, time.perf_counter() - started, why)
            raise
        except AnswerRefused as error:
            is_passed_on = request.attempt is None and self._is_replying()
            remark = "" if is_passed_on else f"Rejected. {_fate(request, error)}"
            self._report_answered(request, error.answer, time.perf_counter() - started, remark)
            if is_passed_on:  # no mailbox has it, and its caller can see what the app said
                return _reply(error.answer)
            raise
        except NotHandled as error:
            seconds = time.perf_counter() - started
            where = f"{self._receiver.name}: " if isinstance(error, TargetDown | TargetSlow) else ""
            self._report_refused(request, error.status, seconds, f"{where}{error.in_words} {_fate(request, error)}")
            raise
        self._report_answered(request, answer, time.perf_counter() - started, "")
        return _reply(answer) if self._is_replying() else None

    def _perform(self, exchange: Exchange) -> Answer:
        if self._app is None:
            raise RuntimeError("there is no exchange but with an app")
        return self._app.perform(exchange)

    def _save(self, folder: Path, request: Request) -> None:
        try:
            request_files.save(folder, request, self._saved_for)
        except OSError as error:
            raise NotHandled(f"It cannot be saved: {error.strerror or error}.") from None

    def _refuse(self, request: Request, why: str) -> Reply | None:
        """Take a request without forwarding it: it would be no better the next time."""
        reply = Reply(404, "The app behind this relay does not take this request.\n")
        self._report_refused(request, reply.status, 0, why)
        return reply if self._is_replying() else None

    def _report_answered(self, request: Request, answer: Answer, seconds: float, remark: str) -> None:
        self._report.request(request, Outcome(answer.status, seconds, remark, answer=answer))
        if self._recorder is not None:
            self._recorder.answered(request, answer, seconds)

    def _report_refused(self, request: Request, status: int, seconds: float, why: str) -> None:
        self._report.request(request, Outcome(None, seconds, why))
        if self._recorder is not None:
            self._recorder.refused(request, status, seconds, why)


def is_meant(request: Request, only: Sequence[Filter]) -> bool:
    """Say whether one of some filters holds for a request, or there is none. An empty path is `/` to them."""
    if not only:
        return True
    seen = record_of(replace(request, path=request.path or "/"), [])
    return any(each.holds(seen) for each in only)


def _fate(request: Request, error: NotHandled) -> str:
    """Return what becomes of a request that was not handled, and what its caller receives."""
    if request.is_last_attempt:
        return f"It was the last attempt. `socket2me events retry {request.id}` has it sent again."
    if request.attempt is not None:
        return "The request comes again."
    if request.deadline is not None:
        return f"Its caller is answered {error.status}."
    if request.replay_of:
        return "It was a replay."
    return "The request is lost, unless its caller sends it again."


def _reply(answer: Answer) -> Reply:
    if answer.is_cut:
        return Reply(502, f"The app answered {answer.status} with more than a relay carries back.\n")
    if not 200 <= answer.status <= 599:
        return Reply(502, f"The app answered {answer.status}.\n")
    headers: dict[str, list[str]] = {}
    for name, value in answer.headers:
        headers.setdefault(name, []).append(value)
    return Reply(answer.status, answer.body or None, headers)
