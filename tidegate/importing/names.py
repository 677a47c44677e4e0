"""Names that Tidegate takes, made of any text; two texts never share one."""

import re

MOST = 64
_FOREIGN = re.compile(r"[^a-z0-9._-]+")
_FOREIGN_IN_ATTRIBUTES = re.compile(r"[^a-z0-9_-]+")
_FOREIGN_IN_CLIENTS = re.compile(r"[^A-Za-z0-9._:@-]+")


class Names:
    """Gives the same name to the same text, and to another text another one."""

    def __init__(self, foreign: re.Pattern[str] = _FOREIGN, *, lower: bool = True, most: int = MOST) -> None:
        self._foreign = foreign
        self._lower = lower
        self._most = most
        self._given: dict[str, str] = {}
        self._taken: set[str] = set()

    @classmethod
    def of_attributes(cls) -> "Names":
        """Names of attributes."""
        return cls(_FOREIGN_IN_ATTRIBUTES)

    @classmethod
    def of_clients(cls) -> "Names":
        """Names of clients."""
        return cls(_FOREIGN_IN_CLIENTS, lower=False, most=128)

    def of(self, text: str) -> str:
        """The name of ``text``: the same each time."""
        if text not in self._given:
            self._given[text] = self.new(text)
        return self._given[text]

    def new(self, text: str) -> str:
        """A name made of ``text`` that nothing has yet."""
        plain = self._foreign.sub("-", text.lower() if self._lower else text).strip("-._:@")[: self._most] or "unnamed"
        name, number = plain, 1
        while name in self._taken:
            number += 1
            name = f"{plain[: self._most - 8]}-{number}"
        self._taken.add(name)
        return name
