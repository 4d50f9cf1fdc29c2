"""The state of a tally, for a checkpoint, and a tally that goes on from it."""

from typing import Any

from thalweg.knowledge.torch._account import TOLERANCES, Account
from thalweg.knowledge.torch._part import Part


def saved(account: Account) -> dict[str, Any]:
    """All that the tally needs to go on."""
    account.flush()
    account.settle()
    parts = account.parts
    for part in parts.values():
        part.spill()
    # Of gradients that are being accumulated over several passes.
    open_ones = {name: part for name, part in parts.items() if part.filled and part.parameter.grad is not None}
    for part in open_ones.values():
        part.settle()
    kinds = next(iter(parts.values())).kinds if parts else ()
    return {
        "kept": {kind: {name: part.kept[kind].clone() for name, part in parts.items()} for kind in kinds},
        "gradients": {name: part.gradients.clone() for name, part in open_ones.items()},
        "momenta": {name: part.momenta.clone() for name, part in parts.items() if part.momenta is not None},
        "fades": {name: part.fade for name, part in parts.items()},
        "counts": account.counts.clone(),
        "visits": account.visits.clone(),
        "numbers": [account.seen, account.tallied, account.off, account.cancelling],
        "precision": str(account.precision),
        "refused": dict(account.refused),
        "notes": sorted(account.notes),
    }


def load(account: Account, state: dict[str, Any]) -> None:
    """Go on from a checkpoint of the same tally."""
    left_out = state.get("refused", {})
    for name in set(account.parts) & set(left_out):
        account.refuse(name, left_out[name])
    for part in account.parts.values():
        for kind, table in part.kept.items():
            given = state.get("kept", {}).get(kind, {}).get(part.name)
            if given is None or given.shape != table.shape:
                raise ValueError(f"state must be of a tally of the same model, groups, kinds and per: {kind} differs")
    for part in account.parts.values():
        _load_part(part, state)
    for bundle in account.bundles:
        bundle.forget()
    account.notes = set(state["notes"])
    account.counts, account.visits = state["counts"].cpu().clone(), state["visits"].cpu().clone()
    account.seen, account.tallied, account.off, account.cancelling = state["numbers"]
    account.offs, account.ratios, account.sizes, account.moves = [], [], [], []
    account.precision = next(kind for kind in TOLERANCES if str(kind) == state["precision"])


def _load_part(part: Part, state: dict[str, Any]) -> None:
    name = part.name
    part.forget()
    # Into the tables that are there: they may be slices of larger ones.
    for kind, table in part.kept.items():
        table.copy_(state["kept"][kind][name])
    part.fade = state["fades"].get(name, 1.0)
    if name in state["momenta"]:
        part.start_momenta().copy_(state["momenta"][name])
    if name in state["gradients"]:
        part.gradients.copy_(state["gradients"][name])
        part.filled.update(range(part.groups + 1))
