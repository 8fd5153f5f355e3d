"""`ndp-edge <verb>`: finds the verb, imports nothing else, says what is wrong in one line."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from ndp_edge import __version__, cli


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in ("train", "build", "evaluate", "verify", "run", "doctor", "export"):
        assert any(line.split()[:1] == [verb] for line in text.splitlines())


def test_an_unknown_verb_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["biuld"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "biuld" in err
    assert err.count("\n") == 1


def test_no_verb_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: ndp-edge" in capsys.readouterr().err


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_every_verb_has_a_main(verb: str) -> None:
    module = importlib.import_module(cli.VERBS[verb][0])
    with pytest.raises(SystemExit) as stopped:
        module.main(["--help"])
    assert stopped.value.code == 0


def test_a_misspelt_option_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", "bundle", "--source", "x", "--out", "y", "--max-frame-s", "3"])
    assert stopped.value.code == 2
    assert "max-frame-s" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    check = (
        "import sys\nfrom ndp_edge import cli\ncli.main(['--help'])\n"
        "heavy = {'torch', 'openvino', 'onnxruntime', 'cv2', 'onnx'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    command = [sys.executable, "-c", check]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_users_mistake_shows_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "/nowhere", "--source", "/none", "--out", "/none"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
