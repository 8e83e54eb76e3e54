import inspect
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from lichen import errors
from lichen.jobs import console, options
from lichen.jobs.cli import build_app
from lichen.jobs.options import JsonOption

KODAK_FOLDER = Path(__file__).parents[1] / "data" / "kodak"
HEAVY = (
    "torch",
    "ray",
    "numpy",
    "scipy",
    "pyarrow",
    "pandas",
    "numba",
    "matplotlib",
    "PIL",
    "compressai",
    "fsspec",
)
RUN = "import sys; sys.argv[0] = 'lichen'; from lichen.jobs.cli import main; main()"


def lichen(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a person would."""
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_help_imports_nothing_heavy() -> None:
    program = "import sys; from lichen.jobs.cli import build_app; build_app(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not set(HEAVY) & set(done.stdout.split())


def test_help_answers_at_once() -> None:
    # Processor time, which another load on the machine does not stretch; the best of three.
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = lichen("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0
        assert "evaluate" in done.stdout and "Exit codes" in done.stdout
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("u"), 2),
        (errors.UnknownCodec("c"), 2),
        (errors.ArchiveNotFound("a"), 2),
        (errors.CorruptArchive("x"), 1),
        (errors.KeyNotFound("k"), 1),
        (errors.VerificationFailed("v"), 4),
    ],
)
def test_own_errors_end_with_a_line_and_their_code(error: errors.LichenError, code: int) -> None:
    app = build_app()

    @app.command()
    def fail() -> None:
        raise error

    result = CliRunner().invoke(app, ["fail"])
    assert result.exit_code == code == error.exit_code
    assert result.stdout == "" and result.stderr == f"lichen: {error}\n"


def test_own_errors_are_a_document_where_json_is_asked_for(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.lichen"
    for arguments, code, exit_code in (
        (["info", str(missing), "--json"], "archive-not-found", 2),
        (["models", "show", "no-such-codec", "--json"], "unknown-codec", 2),
        (["report", str(missing), "--worst", "many", "--json"], "usage", 2),
        (["compress", "--json", "--no-such-option", "a", "b"], "usage", 2),
    ):
        result = CliRunner().invoke(build_app(), arguments)
        told = json.loads(result.stdout)
        assert (told["code"], told["exit_code"], result.exit_code) == (code, exit_code, exit_code)
        assert told.keys() == {"code", "message", "exit_code"} and told["message"].strip()
        assert result.stderr
    plain = CliRunner().invoke(build_app(), ["info", str(missing)])
    assert plain.stdout == "" and plain.stderr.startswith("lichen: ")


def test_an_answer_that_has_begun_stays_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    app = build_app()

    @app.command()
    def fail(as_json: JsonOption = False) -> None:
        console.write("[1,\n")
        raise errors.CorruptArchive("half of it is gone")

    result = CliRunner().invoke(app, ["fail", "--json"])
    assert result.stdout == "[1,\n" and result.stderr == "lichen: half of it is gone\n" and result.exit_code == 1


def test_every_option_has_a_help_text() -> None:
    def parameters(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        for one in command.params:
            yield name, one
        for inner, sub in getattr(command, "commands", {}).items():
            yield from parameters(sub, f"{name} {inner}".strip())

    found = list(parameters(get_command(build_app()), ""))
    assert len(found) > 100
    silent = [f"{name} {one.name}" for name, one in found if one.name != "help" and not getattr(one, "help", None)]
    assert not silent


def test_any_other_exception_is_not_hidden() -> None:
    app = build_app()

    @app.command()
    def fail() -> None:
        raise ZeroDivisionError

    assert isinstance(CliRunner().invoke(app, ["fail"]).exception, ZeroDivisionError)


def test_every_command_has_help_and_a_known_name() -> None:
    listed = CliRunner().invoke(build_app(), ["--help"]).stdout
    for name in ("evaluate", "models", "bench"):
        assert name in listed
        assert CliRunner().invoke(build_app(), [name, "--help"]).exit_code == 0


def test_usage_errors_end_with_2() -> None:
    for arguments in (["nonsense"], ["evaluate"], ["evaluate", ".", "--no-such-option"]):
        assert CliRunner().invoke(build_app(), arguments).exit_code == 2
    done = lichen("evaluate", str(KODAK_FOLDER), "--codec", "no-such-codec")
    assert (done.returncode, done.stdout) == (2, "") and "no-such-codec" in done.stderr
    done = lichen("evaluate", str(KODAK_FOLDER), "--codec", "jpeg", "--quality", "10,high")
    assert (done.returncode, done.stdout) == (2, "") and "10,high" in done.stderr


def test_version_is_that_of_the_installed_distribution() -> None:
    try:
        installed = metadata.version("lichen")
    except metadata.PackageNotFoundError:
        pytest.skip("runs from the source tree, not installed")
    assert lichen("--version").stdout == f"lichen {installed}\n"


def test_models_as_json_and_as_a_table() -> None:
    done = lichen("models", "--json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert {"jpeg", "webp", "avif", "jxl"} <= {codec["name"] for codec in listed}
    for codec in listed:
        assert len(codec["digest"]) == 64 and codec["decoder_bytes"] == sum(codec["files"].values())
    shown = CliRunner().invoke(build_app(), ["models", "show", "avif", "--json"])
    assert json.loads(shown.stdout)["configuration"]["name"] == "avif"
    assert "avif" in CliRunner().invoke(build_app(), ["models"]).stdout
    assert CliRunner().invoke(build_app(), ["models", "show", "nope"]).exit_code == 2


def test_evaluate_end_to_end(tmp_path: Path) -> None:
    plot, save = tmp_path / "rd.png", tmp_path / "rd.json"
    arguments = [
        "evaluate",
        str(KODAK_FOLDER),
        "--codec",
        "webp",
        "--quality",
        "10,40,80",
        "--against",
        "jpeg",
        "--measures",
        "psnr,ms_ssim,ssimulacra2",
    ]
    done = lichen(*arguments, "--plot", str(plot), "--save", str(save), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads(save.read_text())
    assert [point["quality"] for point in result["curve"]["points"]] == [10, 40, 80]
    # Four images are not Kodak: the shipped anchors stay out by themselves.
    assert [curve["name"] for curve in result["others"]] == ["jpeg"]
    assert plot.stat().st_size > 10_000

    table = CliRunner().invoke(build_app(), [*arguments, "--against", "none", "--anchors", "none"])
    assert table.exit_code == 0 and "webp on 4 pictures" in table.stdout and "BD-rate" not in table.stdout


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.6, 1.2, 2.5])
@pytest.mark.parametrize("executor", [(), ("--local",), ("--address", "local")])
def test_sigterm_ends_with_a_message_at_any_moment(tmp_path: Path, delay: float, executor: tuple[str, ...]) -> None:
    """While it imports, lists, starts a worker, loads the codec: never a traceback, never silence."""
    command = ["compress", str(KODAK_FOLDER), str(tmp_path / "archive"), "--effort", "9", *executor]
    job = subprocess.Popen(
        [sys.executable, "-c", RUN, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with pytest.raises(subprocess.TimeoutExpired):
        job.wait(delay)
    job.terminate()
    out, error = job.communicate(timeout=150)  # Ray takes its time to go
    assert (job.returncode, out) == (1, "")
    assert "stopped" in error and "Traceback" not in error


def paths(app: typer.Typer, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every parameter of every command that is a path, named with its command, and what typer knows of it."""
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from paths(group.typer_instance, f"{prefix}{group.name} ")
    for command in app.registered_commands:
        assert command.callback is not None
        for name, parameter in inspect.signature(command.callback, eval_str=True).parameters.items():
            if get_origin(parameter.annotation) is Annotated:
                kind, known = get_args(parameter.annotation)
                if Path in (kind, *get_args(kind)):
                    yield f"{prefix}{command.name or command.callback.__name__} {name}", known


def test_what_is_a_place_on_this_machine_takes_no_url_of_a_store() -> None:
    """A URL as a path is a folder here, with slashes lost and the password in its name."""
    found = dict(paths(build_app()))
    assert {"decode to", "train out", "evaluate save", "bench portability pictures"} <= found.keys()
    assert {name for name, known in found.items() if known.parser is not options.path} == set()


def test_decode_makes_no_folder_of_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = "s3://AKIDEXAMPLE:topsecret@bucket/out"
    done = CliRunner().invoke(build_app(), ["decode", "any.lichen", "--to", url, "--json"])
    assert done.exit_code == 2 and json.loads(done.stdout)["code"] == "usage"
    assert "s3://***@bucket/out" in done.output and "topsecret" not in done.output
    assert not list(tmp_path.iterdir())
    assert options.path(f"file://{tmp_path}/a b") == tmp_path / "a b"
