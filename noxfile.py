"""Checks of the project. Sessions use the current environment: torch is not installed a second time."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]

CODE = ("attacks", "bench", "defenses", "hashing", "reports", "suites", "tests", "noxfile.py")
READERS = (
    "suites", "lists", "archives", "records", "codes", "weights", "kernels", "images", "reports", "bundles", "best",
    "parquet", "poisons",
)  # fmt: skip

# Tests of trained models. Left out are those of Ray and of memory limits, which compare a machine with itself, and long
# files that train nothing.
TRAINED = (
    "tests/attacks", "tests/bench", "tests/cli/test_results.py", "tests/conformance", "tests/contracts",
    "tests/defenses", "tests/hashing/test_train.py", "tests/oracles/test_end_to_end.py", "tests/reports",
    *(
        f"--ignore=tests/bench/test_{name}.py"
        for name in ("scheduler", "ray_executor", "machines", "large_data", "suite", "reported")
    ),
)  # fmt: skip
CHECKED = ("tests/contracts", "tests/hashing", "tests/oracles", "tests/properties")  # every component runs in them
PARALLEL = ("-n", "auto", "--dist", "loadfile")  # files stay together: their fixtures are finished runs
OLD_CPU = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}  # torch without AVX and AVX-512


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests that take little time, a process per core; arguments after `--` go to pytest (`-n 0`: one process).

    `-- --long` runs all that takes minutes at most.
    """
    session.run("python", "-m", "pytest", *PARALLEL, *session.posargs, external=True)


@nox.session
def long(session: nox.Session) -> None:
    """Run the tests marked long, except those that `shapes` runs. Arguments after `--` go to pytest."""
    elsewhere = [f"--ignore={folder}" for folder in CHECKED]
    session.run(
        "python", "-m", "pytest", "-m", "long", "--long", *elsewhere, *PARALLEL, *session.posargs, external=True
    )


@nox.session
def shapes(session: nox.Session) -> None:
    """Run every component, and check types and shapes of all arguments. Arguments after `--` go to pytest."""
    packages = "bench,hashing,attacks,defenses,reports,beartype.beartype"
    session.run(
        "python", "-m", "pytest", *CHECKED, "--long", f"--jaxtyping-packages={packages}", *PARALLEL,
        *session.posargs, external=True,
    )  # fmt: skip


@nox.session
def portable(session: nox.Session) -> None:
    """Run the short tests that train once more, as on an old CPU. Arguments after `--` go to pytest."""
    session.run("python", "-m", "pytest", *TRAINED, *PARALLEL, *session.posargs, env=OLD_CPU, external=True)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz every reader of strangers' files, ten minutes each; arguments: seconds, names of targets.

    With atheris where it is installed (pip install atheris), else with the tests' inputs.
    """
    seconds = next((word for word in session.posargs if word.isdigit()), "600")
    named = [word for word in session.posargs if not word.isdigit()]
    for target in named or READERS:
        session.run("python", "-m", "tests.fuzz.run", target, "--seconds", seconds, external=True)


@nox.session
def faults(session: nox.Session) -> None:
    """Kill, hang, fill up and damage everything; about two hours. Arguments after `--` go to pytest."""
    session.run("python", "-m", "pytest", "tests/faults", "tests/security", "--slow", *session.posargs, external=True)


@nox.session
def gpu(session: nox.Session) -> None:
    """Check everything that needs a GPU in eight minutes; arguments: `--minutes M`, `--out DIR`, `--only STEP`."""
    session.run("python", "-m", "tests.experiments.gpu", *session.posargs, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.run("python", "-m", "ruff", "check", *CODE, external=True)
    session.run("python", "-m", "ruff", "format", "--check", *CODE, external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Check types strictly."""
    session.run("python", "-m", "mypy", external=True)


@nox.session
def bench(session: nox.Session) -> None:
    """Time the kernels, each after its result was checked, then compare the tree with a base revision.

    `-- --quick` takes fewer rounds, `-- --against REVISION` another base; all else goes to pytest.
    """
    words = list(session.posargs)
    gate = ["--quick"] if "--quick" in words else []
    if "--against" in words:
        at = words.index("--against")
        gate += words[at : at + 2]
        del words[at : at + 2]
    rest = [word for word in words if word != "--quick"]
    longest = "0.1" if "--quick" in words else "1"
    session.run(
        "python", "-m", "pytest", "tests/benchmarks", "--benchmark-enable", "--benchmark-only",
        f"--benchmark-max-time={longest}", "--benchmark-group-by=param:operation,param:bits",
        "--benchmark-columns=median,iqr,rounds",
        "-o", "addopts=--import-mode=importlib", *rest, external=True,  # no checks of types inside what is timed
    )  # fmt: skip
    session.run("python", "tests/benchmarks/gate.py", *gate, external=True)


@nox.session
def plugin(session: nox.Session) -> None:
    """Install a package of somebody else's beside HashDoor, use it, and break it in every way."""
    session.run("python", "-m", "pytest", "tests/packages", "--slow", *session.posargs, external=True)
