"""A process whose parent is gone ends, whatever it waits for."""

import subprocess
import sys

CODE = """
import threading
from replay_server.parent_process import end_within
end_within(0.1)
threading.Event().wait()
"""


def test_who_hangs_is_ended_by_force():
    assert subprocess.run([sys.executable, "-c", CODE], timeout=60).returncode == 1


def test_who_ends_in_time_ends_by_itself():
    code = CODE.replace("0.1", "60").replace("threading.Event().wait()", "")
    assert subprocess.run([sys.executable, "-c", code], timeout=50).returncode == 0
