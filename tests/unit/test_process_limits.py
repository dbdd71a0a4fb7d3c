"""What the program of a shard changes about its process."""

import subprocess
import sys

CODE = """
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(64, hard), hard))
from replay_server.process_limits import prepare_process
prepare_process()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))
"""


def test_as_many_files_may_be_open_as_the_system_allows():
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == "True\n"
