"""Remarks: what has no counterpart, or means something else here, with its place in the source."""

from typing import Literal, NamedTuple

from rich.table import Table

Weight = Literal["left out", "differs", "to do"]


class Remark(NamedTuple):
    """``left out``: nothing of it is in the file. ``differs``: it is, and means something else. ``to do``: by hand."""

    weight: Weight
    place: str
    text: str


class Remarks:
    """Those of one import, each once."""

    def __init__(self) -> None:
        self.all: list[Remark] = []

    def add(self, weight: Weight, place: str, text: str) -> None:
        """Note one."""
        remark = Remark(weight, place, text)
        if remark not in self.all:
            self.all.append(remark)

    def as_table(self) -> Table:
        """For a terminal."""
        table = Table("", "where", "what", box=None, header_style="bold")
        for remark in self.all:
            table.add_row(remark.weight, remark.place, remark.text)
        return table

    def as_comments(self) -> str:
        """For the head of the file; no line of it can end the comment."""
        lines = [f"# {remark.weight}: {remark.place}: {remark.text}" for remark in self.all]
        return "".join(f"{_printable(line)}\n" for line in lines)


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in line)
