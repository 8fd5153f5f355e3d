"""One block of the bench report: a table and the conditions it was measured under."""

from __future__ import annotations

from dataclasses import dataclass

from ndp_edge.bench import tables

NOTHING = "Nothing measured yet."
Rows = list[list[str]]


@dataclass(frozen=True)
class Block:
    """One block.

    Attributes:
        name: in the README's markers.
        title: over it in the report.
        rows: the table, headings first; empty for none.
        notes: what its figures hang on, a line each.
        charts: SVG texts, in the HTML report alone.
    """

    name: str
    title: str
    rows: Rows
    notes: tuple[str, ...] = ()
    charts: tuple[str, ...] = ()

    @property
    def markdown(self) -> str:
        """Table and notes; NOTHING without rows."""
        if len(self.rows) < 2:
            return NOTHING
        table = tables.markdown_table(self.rows)
        return "\n\n".join([table, *self.notes])
