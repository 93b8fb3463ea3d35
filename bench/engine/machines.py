"""The machines that a result comes from: what floating-point numbers depend on beside code, data and seeds."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

from bench.api.untrusted import strip_controls
from bench.artifacts.inputs import STAGES
from bench.config.trial import digest
from bench.engine.record import Record
from bench.engine.record_cache import RecordCache

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn")  # those that compute floats
CPU = "cpu"


@dataclass(frozen=True, order=True)
class Machine:
    """A device with its arithmetic, threads, precision and packages; see `bench.engine.record.Provenance`.

    On a GPU instructions and arithmetic of the CPU do not count, and are "".
    """

    device: str
    instructions: str
    arithmetic: str
    threads: int
    precision: str
    packages: tuple[str, ...]

    @classmethod
    def of(cls, record: Record) -> Machine:
        """The machine of one stage. Texts may come from strangers and lose their control characters."""
        about = record.provenance
        cpu = about.device == CPU
        return cls(
            device=strip_controls(about.device),
            instructions=strip_controls(about.instructions) if cpu else "",
            arithmetic=strip_controls(about.arithmetic) if cpu else "",
            threads=about.threads,
            precision=strip_controls(about.precision),
            packages=tuple(f"{name} {strip_controls(about.packages.get(name) or '?')}" for name in PACKAGES),
        )

    def __str__(self) -> str:
        """For example "CPU (AVX2, arithmetic 5b08b7e5), float32, 1 thread, torch 2.14.1"."""
        device = f"CPU ({self.instructions}, arithmetic {self.arithmetic})" if self.device == CPU else self.device
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return ", ".join(filter(None, [device, self.precision, threads, self.packages[0]]))


def machines(record: Record, records: RecordCache) -> tuple[Machine, ...]:
    """The machines of a trial and of all stages that it depends on and that compute floats, sorted."""
    found: set[Machine] = set()
    seen, waiting = {record.key}, [record]
    while waiting:
        one = waiting.pop()
        if one.stage in STAGES and STAGES[one.stage].uses_device:
            found.add(Machine.of(one))
        for key in one.parents.values():
            if key not in seen:
                seen.add(key)
                parent = records.record(key)
                waiting += [parent] if parent is not None else []
    trained = {one.precision for one in found if one.precision}
    if len(trained) == 1:  # stages that do not train have none
        found = {replace(one, precision=next(iter(trained))) for one in found}
    return tuple(sorted(found))


def identity(of: tuple[Machine, ...]) -> str:
    """A digest that is equal for machines that compute alike."""
    return digest([astuple(one) for one in of])[:8]
