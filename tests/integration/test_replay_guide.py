"""Every block of docs/replay-server.md runs as it stands there."""

import re
import runpy
import subprocess
from pathlib import Path

import numpy as np
import pytest

from distributed.cli import main
from distributed.config_loading import load
from replay_server import connect
from replay_server.serving import open_server
from replay_server.shard_config import ShardConfig

pytestmark = pytest.mark.integration
GUIDE = (Path(__file__).parents[2] / "docs" / "replay-server.md").read_text()


def blocks(language):
    found = re.findall(r"^```(\w*)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADRACE_TOKEN", raising=False)


def serve(text):
    Path("shard.yaml").write_text(text.replace("127.0.0.1:7400", "127.0.0.1:0"))
    return open_server(load(ShardConfig, Path("shard.yaml")).config)


def test_the_python_blocks_run_against_the_shard_of_the_guide(capsys):
    plain = [block for block in blocks("python") if "TLS(" not in block]
    assert len(plain) == 4
    with serve(blocks("yaml")[0]) as server:
        for block in sorted(plain, key=lambda block: "sample(256" in block):  # the learner's needs the writer's records
            exec(block.replace("127.0.0.1:7400", server.address), {})
        capsys.readouterr()
        [command] = re.findall(r"^headrace (status .*)$", GUIDE, re.MULTILINE)
        assert main(command.replace("127.0.0.1:7400", server.address).split()) == 0
        assert "1,600 inserted" in capsys.readouterr().out


def test_the_journal_of_the_guide_keeps_what_was_acknowledged():
    [durability] = [block for block in blocks("yaml") if "durability" in block]
    for size in (0, 64):
        with serve(blocks("yaml")[0] + durability) as server, connect([server.address], prefetch=0) as replay:
            assert replay.stats().size == size
            zeros = replay.spec.columns(np.zeros((64, replay.spec.record_size), np.uint8))
            assert replay.insert(zeros).level == "journal"


def test_certificates_and_token_of_the_guide_protect_a_shard(capsys):
    [commands] = [block for block in blocks("") if "openssl" in block]
    subprocess.run(["bash", "-e"], input=commands, text=True, check=True, capture_output=True, timeout=60)
    [client] = [block for block in blocks("python") if "TLS(" in block]
    [security] = [block for block in blocks("yaml") if "token_file" in block]
    with serve(blocks("yaml")[0] + security) as server:
        exec(client.replace("127.0.0.1:7400", server.address), {})
        assert capsys.readouterr().out == "0\n"
        assert main(["status", server.address, "--tls-ca", "ca.pem", "--token-file", "token"]) == 0
    assert "--tls-ca ca.pem --token-file token" in GUIDE


def test_the_example_client_works_with_the_example_shard(capsys):
    examples = Path(__file__).parents[2] / "examples"
    with serve((examples / "shard.yaml").read_text()) as server:
        runpy.run_path(str(examples / "replay_client.py"))["main"]([server.address])
    assert "Ack(accepted=3200, duplicates=0, unknown=0, level='journal')" in capsys.readouterr().out
