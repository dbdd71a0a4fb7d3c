"""Work in a thread that holds nobody up, also not the end of the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def in_background(work: Callable[[], Result], name: str) -> Future[Result]:
    """Call `work` in a thread of its own; what it returns or raises is the future's.

    An executor's threads are joined when the interpreter ends, whatever they hang in; this one is not.

    Args:
        work: called once.
        name: of the thread.
    """
    future: Future[Result] = Future()

    def call() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, name=name, daemon=True).start()
    return future
