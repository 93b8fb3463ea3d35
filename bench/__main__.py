"""`python -m bench`, where no folder of the current directory hides HashDoor's packages."""

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("attacks", "bench", "defenses", "hashing", "reports", "suites")


def hidden(root: Path) -> str:
    """A package of HashDoor's that another file or folder of the same name hides; "" without any.

    root: the folder of HashDoor's packages, resolved.
    """
    for name in PACKAGES:
        spec = find_spec(name)
        # asked for the file and not for the folder: a strict editable install has folders of links
        if spec is None or not spec.origin or Path(spec.origin).resolve() != (root / name / "__init__.py").resolve():
            return name
    return ""


def main() -> None:
    """The installed command."""
    root = Path(__file__).resolve().parents[1]
    if name := hidden(root):
        found = find_spec(name)
        where = "nowhere" if found is None else found.origin or next(iter(found.submodule_search_locations or ()), "")
        sys.stderr.write(
            f"error: Python finds '{name}' in {where}, and not HashDoor's in {root}: run the installed command"
            " `hashdoor`, which does not look into the current folder, or run from another folder\n"
        )
        sys.exit(2)
    from bench.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
