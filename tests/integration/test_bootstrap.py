"""`headrace` finds its own packages whatever else is called `distributed` or `actors`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


def run(*arguments, cwd, **environment):
    """A command in another directory, with PYTHONPATH only as given."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=inherited | environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def foreign(tmp_path):
    """A directory with packages of our names that are not ours."""
    for name in ("distributed", "actors"):
        (tmp_path / "foreign" / name).mkdir(parents=True)
        (tmp_path / "foreign" / name / "__init__.py").write_text("FOREIGN = True\n")
    return tmp_path / "foreign"


@pytest.fixture
def elsewhere(tmp_path):
    """A user's directory with a module of the user's own."""
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    (directory / "my_module.py").write_text("MINE = 1\n")
    return directory


def test_the_program_wins_over_a_foreign_package_ahead_on_the_path(foreign, elsewhere):
    done = run(ROOT / "headrace.py", "--version", cwd=elsewhere, PYTHONPATH=str(foreign))
    assert (done.returncode, done.stdout.split()[0]) == (0, "headrace"), done.stderr


def test_it_wins_from_inside_a_directory_with_packages_of_its_names(foreign):
    done = run("-m", "headrace", "--version", cwd=foreign, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr


def test_python_m_distributed_from_the_checkout(foreign):
    done = run("-m", "distributed", "--version", cwd=ROOT, PYTHONPATH=str(foreign))
    assert (done.returncode, done.stdout.split()[0]) == (0, "headrace"), done.stderr


def test_a_foreign_package_that_was_imported_first_is_named(foreign, elsewhere):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport headrace\nsys.exit(headrace.main())"
    done = run("-c", f"import distributed\n{code}", cwd=elsewhere, PYTHONPATH=str(foreign))
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"headrace: error: 'distributed' was imported from {foreign}/distributed, which is not")
    done = run("-c", f"import actors\n{code}", cwd=elsewhere, PYTHONPATH=str(foreign))
    assert f"'actors' was imported from {foreign}/actors" in done.stderr


def test_the_users_modules_can_be_imported(elsewhere):
    code = "import headrace; headrace.put_first_on_path(); import my_module, sys; print(sys.path[:2])"
    done = run("-c", code, cwd=elsewhere, PYTHONPATH=str(ROOT))
    assert done.stdout.strip() == str([str(ROOT), str(elsewhere)]), done.stderr


def test_python_path_for_workers(elsewhere, foreign):
    code = "import headrace; headrace.put_first_on_path(); print(headrace.python_path())"
    done = run("-c", code, cwd=elsewhere, PYTHONPATH=f"{ROOT}{os.pathsep}{foreign}")
    assert done.stdout.strip() == os.pathsep.join([str(ROOT), str(elsewhere), str(foreign)]), done.stderr
    done = run("-c", code, cwd=ROOT)
    assert done.stdout.strip() == str(ROOT)


def test_a_users_package_that_would_win_in_workers_is_named(foreign, elsewhere):
    code = "import headrace; headrace.put_first_on_path(); headrace.python_path()"
    done = run("-c", code, cwd=foreign, PYTHONPATH=str(ROOT))
    assert f"ConfigError: {foreign}/actors/__init__.py would hide headrace's own 'actors'" in done.stderr
    (elsewhere / "actors").mkdir()  # without an __init__.py it hides nothing
    assert run("-c", code, cwd=elsewhere, PYTHONPATH=str(ROOT)).returncode == 0
