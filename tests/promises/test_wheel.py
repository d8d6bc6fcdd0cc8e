"""The wheel holds one package with its data and nothing else, and works when it is all there is."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.promises.checkout import PRIVATE_KEY, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_one_package_with_its_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"aiproxyd"}
    assert "aiproxyd/py.typed" in names
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "aiproxyd" / "providers" / "data").glob("*.yaml")}
    assert sources
    assert sources <= set(names)
    assert any(name.startswith("aiproxyd/storage/migrations/") and name.endswith(".py") for name in names)


def test_it_holds_no_key_and_no_rubbish(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    for name in archive.namelist():
        assert Path(name).suffix not in {".pem", ".key", ".pyc", ".sqlite3", ".jsonl", ".log"}, name
        assert not PRIVATE_KEY.search(archive.read(name)), name


def test_it_passes_check_wheel_contents(wheel: Path) -> None:
    command = [sys.executable, "-m", "check_wheel_contents", "--config", "pyproject.toml", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_it_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    for arguments in (["version"], ["check"], ["providers", "list"], ["run", "--help"]):
        # -S and -P keep the editable checkout and the current folder away; the libraries come from the environment's own folder.
        libraries = next(path for path in sys.path if path.endswith("site-packages"))
        script = (
            f"import sys; sys.path[:0] = [{str(tmp_path / 'site')!r}]; sys.path.append({libraries!r});"
            "import aiproxyd, runpy; assert 'site' in aiproxyd.__file__, aiproxyd.__file__;"
            f"sys.argv = ['aiproxyd', *{arguments!r}]; runpy.run_module('aiproxyd', run_name='__main__')"
        )
        done = subprocess.run(
            [sys.executable, "-S", "-P", "-c", script], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, (arguments, done.stderr)
