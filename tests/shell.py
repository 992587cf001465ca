"""The command line as a user has it: arguments in, exit code, stdout and stderr out."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.cli import main


class Shell:
    """Runs commands in one folder and keeps what they printed."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.out = self.err = ""

    def run(self, *arguments: str) -> int:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        self.out, self.err = self._capsys.readouterr()
        code = caught.value.code
        assert isinstance(code, int)
        return code

    def files(self) -> dict[str, bytes]:
        """Everything in the folder; a folder counts as a file without content.

        Apart from what SQLite keeps beside a database while somebody reads it.
        """
        return {
            str(path.relative_to(self.folder)): path.read_bytes() if path.is_file() else b""
            for path in sorted(self.folder.rglob("*"))
            if not path.name.endswith(("-shm", "-wal"))
        }

    def write(self, name: str, content: str) -> str:
        (self.folder / name).write_text(content)
        return name


@pytest.fixture
def shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return Shell(tmp_path, capsys)
