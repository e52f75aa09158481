"""Check of a store and of the nodes that would work on a sweep, with what to mend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sweeps import environment
from sweeps.operations.node_facts import node_facts
from sweeps.store.store import Store

if TYPE_CHECKING:
    from sweeps.spec.spec import Sweep

Facts = Mapping[str, Any]
MUST_AGREE = ("distlaw", "torch", "numpy", "python", "transformers", "tokenizers")
"""Packages whose versions can change a loss, or read what another wrote."""
SLOW_SECONDS, TOO_SLOW_SECONDS = 0.25, 2.0
"""Seconds of a request to the store from which sweeps are held up, and from which heartbeats come late."""
LOW_DISK, NO_DISK = 10e9, 1e9


class Severity(StrEnum):
    """Severity of a diagnosis."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Diagnosis by one check."""

    severity: Severity
    subject: str
    """Thing that was looked at, and its host."""
    found: str
    mend: str = ""
    """Remedy; empty if all is well."""

    def as_json(self) -> dict[str, str]:
        """Return the diagnosis as plain data."""
        return asdict(self)


def examine(store: Store, address: str | None = None) -> list[Diagnosis]:
    """Check a store from here and, of a Ray cluster, from every node.

    Args:
        store: Store of a sweep, or one that is to be.
        address: Ray cluster, as ``sweep run`` takes it.

    Raises:
        InputError: for an address that leads nowhere.
    """
    claims: list[tuple[Facts, float | None]] = [(node_facts(store.url), None)]
    if address:
        from sweeps.operations.ray_nodes import facts_of_nodes

        claims += facts_of_nodes(address, store.url)
    diagnoses = [diagnosis for facts, gpus in claims for diagnosis in examine_node(facts, gpus)]
    everyone = [facts for facts, _ in claims]
    return [*diagnoses, *compare_nodes(everyone), *_sweep(store)]


def examine_node(facts: Facts, gpus_promised: float | None = None) -> Iterator[Diagnosis]:
    """Yield what to say of one node; ``gpus_promised`` are those that its scheduler believes it has."""
    host = facts["host"]
    yield from _store_of(facts)
    found, told = len(facts["gpus"]), facts["gpus_told"]
    names = ", ".join(sorted(set(facts["gpus"]))) or "none"
    if gpus_promised is not None and gpus_promised != found:
        yield Diagnosis(
            Severity.FAULT,
            f"GPUs of {host}",
            f"the cluster promises {gpus_promised:g}, torch can use {found}",
            "start its Ray with --num-gpus as it has, or mend driver and torch; steps placed there fail",
        )
    elif told and not found:
        yield Diagnosis(
            Severity.FAULT,
            f"GPUs of {host}",
            f"{told} there, none that torch can use",
            "install a torch built for this driver (python -c 'import torch; torch.cuda.init()' says why)",
        )
    else:
        memory = f" with {facts['gpu_bytes'] / 2**30:.0f} GiB" if found else ""
        yield Diagnosis(Severity.OK, f"GPUs of {host}", f"{found}: {names}{memory}" if found else "none")
    yield _disk_of(facts)


def _store_of(facts: Facts) -> Iterator[Diagnosis]:
    host = facts["host"]
    if fault := facts.get("store_fault"):
        yield Diagnosis(
            Severity.FAULT, f"store from {host}", fault, "no step can run there until it is mended"
        )
        return
    write, read, ahead = (facts[name] for name in ("write_seconds", "read_seconds", "clock_ahead"))
    slow = max(write, read)
    verdict, mend = Severity.OK, ""
    if slow >= TOO_SLOW_SECONDS:
        verdict, mend = (
            Severity.FAULT,
            f"heartbeats come late; set DISTLAW_LEASE_SECONDS to {60 * slow:.0f}",
        )
    elif slow >= SLOW_SECONDS:
        verdict, mend = Severity.WARNING, "a store in the nodes' region would serve better"
    told = f"creates a file once; writes in {1e3 * write:.0f} ms, reads in {1e3 * read:.0f} ms"
    yield Diagnosis(verdict, f"store from {host}", told, mend)
    if abs(ahead) > environment.LEASE_SECONDS / 2:
        yield Diagnosis(
            Severity.WARNING,
            f"clock of {host}",
            f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the store's",
            "start NTP there; leases do not depend on it, but times in status and timeline do",
        )


def _disk_of(facts: Facts) -> Diagnosis:
    free, subject = facts["cache_free"], f"disk of {facts['host']}"
    if free is None:
        return Diagnosis(
            Severity.WARNING, subject, f"{facts['cache']}: cannot be looked at", "set DISTLAW_CACHE"
        )
    told = f"{free / 1e9:.0f} GB free for {facts['cache']}"
    if free < NO_DISK:
        return Diagnosis(Severity.FAULT, subject, told, "make room, or set DISTLAW_CACHE to a larger disk")
    if free < LOW_DISK:
        return Diagnosis(
            Severity.WARNING, subject, told, "large texts and caches may not fit; set DISTLAW_CACHE"
        )
    return Diagnosis(Severity.OK, subject, told)


def compare_nodes(nodes: Sequence[Facts]) -> Iterator[Diagnosis]:
    """Yield what to say of nodes beside each other; the first is the one that asks."""
    for package in MUST_AGREE:
        found: dict[str, list[str]] = {}
        for facts in nodes:
            found.setdefault(facts["versions"].get(package, "none"), []).append(facts["host"])
        if len(found) > 1:
            told = "; ".join(f"{version} on {', '.join(hosts)}" for version, hosts in found.items())
            yield Diagnosis(
                Severity.FAULT,
                f"versions of {package}",
                told,
                "install one version everywhere: losses may differ",
            )
    if len(nodes) > 1 and len({facts["versions"].get("torch") for facts in nodes}) == 1:
        yield Diagnosis(Severity.OK, "versions", f"torch {nodes[0]['versions'].get('torch')} on all nodes")
    kinds = {name for facts in nodes for name in facts["gpus"]}
    if len(kinds) > 1:
        yield Diagnosis(
            Severity.WARNING,
            "GPUs",
            f"several kinds: {', '.join(sorted(kinds))}",
            "losses may differ in the last digits, and estimates of time hold for one kind",
        )


def _sweep(store: Store) -> Iterator[Diagnosis]:
    """Yield whether the text of the sweep in ``store`` is tokenized here."""
    from sweeps.spec.spec import parse_sweep

    try:
        record = store.read("sweep.json") if store.exists() else None
    except Exception as error:  # the store is faulty, which is told already
        yield Diagnosis(Severity.WARNING, "sweep", f"cannot be read ({error})", "mend the store first")
        return
    if record is None:
        yield Diagnosis(Severity.OK, "sweep", "none in this store yet")
        return
    yield _text_of(parse_sweep(record["spec"]))


def _text_of(sweep: Sweep) -> Diagnosis:
    from sweeps.data.corpus import fingerprint_of, resolve_corpus
    from sweeps.data.tokens import corpus_path

    fingerprint = fingerprint_of(resolve_corpus(sweep.corpus))
    if corpus_path(fingerprint).is_dir():
        return Diagnosis(Severity.OK, "text", f"{sweep.corpus.source}: tokenized here")
    return Diagnosis(Severity.OK, "text", f"{sweep.corpus.source}: tokenized on each node when first needed")
