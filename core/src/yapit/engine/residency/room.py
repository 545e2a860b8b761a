"""Who must go so that another model can be loaded: exclusive groups, a number of models, the memory of a device."""

from collections.abc import Callable, Iterable

from msgspec import Struct

from yapit.engine.residency.residents import Resident
from yapit.errors import LoadError
from yapit.quantities import written


class Room(Struct, frozen=True):
    """The limits on what is loaded.

    Args:
        max_loaded: how many models; 0 = no limit.
        budget: bytes that models may take of a device; None where nothing limits them.
    """

    max_loaded: int
    budget: Callable[[str], int | None]

    def victims(self, wanted: Resident, residents: Iterable[Resident]) -> list[Resident]:
        """Return those that must be gone before `wanted` can be loaded: what leaves anyway, then idle, then busy ones.

        Of equals, the one that has not been used for longest comes first; pinned ones stay.

        Raises:
            LoadError: there is no room for it even then.
        """
        others = [resident for resident in residents if resident.admitted and resident is not wanted]
        movable = sorted((other for other in others if not _stays(other)), key=_order)
        chosen = [other for other in movable if _excludes(wanted, other)]
        fixed = [other for other in others if _stays(other) and _excludes(wanted, other)]
        if fixed:
            raise LoadError(f"{_subject(wanted)} may not be loaded beside '{fixed[0].model.id}', which is pinned.")
        while lack := self._lack(wanted, [other for other in others if other not in chosen]):
            device, reason = lack
            helping = (other for other in movable if other not in chosen and device in (None, other.device))
            helper = next(helping, None)
            if helper is None:
                raise LoadError(f"{_subject(wanted)} cannot be loaded: {reason}.")
            chosen.append(helper)
        return chosen

    def excess(self, device: str, residents: Iterable[Resident]) -> list[Resident]:
        """Return the idle ones that should go because models turned out to take more than they may."""
        budget = self.budget(device)
        there = [resident for resident in residents if resident.admitted and resident.device == device]
        taken = sum(resident.memory_bytes for resident in there)
        idle = sorted((one for one in there if not _stays(one) and not one.users and one.state == "loaded"), key=_order)
        going = []
        while budget is not None and taken > budget and idle:
            going.append(idle.pop(0))
            taken -= going[-1].memory_bytes
        return going

    def _lack(self, wanted: Resident, staying: list[Resident]) -> tuple[str | None, str] | None:
        """Return what is missing: the device, if it is that, and a sentence; None if it fits."""
        if self.max_loaded and len(staying) >= self.max_loaded:
            return None, f"engine.max_loaded is {self.max_loaded}, and the loaded models are pinned"
        budget = self.budget(wanted.device)
        taken = sum(other.memory_bytes for other in staying if other.device == wanted.device)
        if budget is None or taken + wanted.memory_bytes <= budget:
            return None
        rest = f", of which pinned models take {written(taken)}" if taken else ""
        needs = f"it needs {written(wanted.memory_bytes)} of {wanted.device}"
        return wanted.device, f"{needs}, whose budget is {written(budget)}{rest}"


def _stays(resident: Resident) -> bool:
    return resident.model.pin and resident.state != "unloading"


def _excludes(wanted: Resident, other: Resident) -> bool:
    group = wanted.model.exclusive
    return group is not None and other.model.exclusive == group and other.model.id != wanted.model.id


def _order(resident: Resident) -> tuple[bool, bool, float]:
    return resident.state != "unloading", resident.users > 0, resident.used


def _subject(resident: Resident) -> str:
    return f"The model '{resident.model.id}'"
