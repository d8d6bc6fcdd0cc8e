import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from aiproxyd.ca.files import locked, private_folder, write_new, write_whole


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_has_its_mode_whatever_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "file", b"x", mode=mode)
    finally:
        os.umask(before)
    assert _mode(tmp_path / "file") == mode


def test_a_file_is_replaced_in_one_step_and_nothing_is_left_behind(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"old", mode=0o600)
    write_whole(tmp_path / "file", b"new", mode=0o644)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_put_in_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "taken", b"x", mode=0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_new_file_never_takes_the_place_of_another(tmp_path: Path) -> None:
    write_new(tmp_path / "file", b"one", mode=0o644)
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "file", b"two", mode=0o644)
    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "dangling", b"two", mode=0o644)
    assert (tmp_path / "file").read_bytes() == b"one"
    assert not (tmp_path / "elsewhere").exists()


def test_folders_that_are_made_are_for_the_owner_alone_and_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o755)
    (tmp_path / "there").chmod(0o755)
    private_folder(tmp_path / "there" / "a" / "b")
    assert [_mode(tmp_path / part) for part in ("there", "there/a", "there/a/b")] == [0o755, 0o700, 0o700]
    private_folder(tmp_path / "there" / "a" / "b")


def test_a_file_where_a_folder_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        private_folder(tmp_path / "file")
    with pytest.raises(OSError, match="Not a directory"):
        private_folder(tmp_path / "file" / "below")


def _count_up(folder: str, rounds: int) -> None:
    number = Path(folder) / "number"
    for _ in range(rounds):
        with locked(Path(folder)):
            number.write_text(str(int(number.read_text()) + 1))


def test_one_holder_at_a_time_has_the_lock(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count_up, args=(str(tmp_path), 50)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "number").read_text() == "150"
