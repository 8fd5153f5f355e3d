"""`python -m ndp_edge.bench.report`: one page from every JSON file in bench/results.

--html and --markdown write it. --readme FILE (repeat it: README.md, docs/devices.md) puts the
tables into a text file between markers (`<!-- bench:accuracy -->` ... `<!-- /bench -->`) and
leaves the prose around them alone; --check only tells whether they differ, with exit code 1.
"""

from __future__ import annotations

import argparse
import html
import importlib.resources
import json
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from ndp_edge.bench.block import NOTHING, Block
from ndp_edge.bench.blocks import all_blocks, marked_blocks
from ndp_edge.bench.saved import Saved, of_kind, read_results
from ndp_edge.console import info, run_verb
from ndp_edge.errors import GateError, InputError
from ndp_edge.files import write_atomic

RESULTS = Path("bench/results")
TITLE = "ndp-edge: what was measured"

_MARKED = re.compile(
    r"(?P<open><!-- bench:(?P<name>[a-z0-9_-]+) -->\n)(?P<body>.*?)(?P<close><!-- /bench -->)",
    re.DOTALL,
)
_ANY = re.compile(r"<!-- (/?)bench[: ]")
_TICKS = re.compile(r"`([^`]+)`")


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.report", description=__doc__)
    p.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help=f"default: {RESULTS}"
    )
    p.add_argument("--html", type=Path, metavar="FILE", help="the page, self-contained")
    p.add_argument("--markdown", type=Path, metavar="FILE", help="the same without plots")
    p.add_argument(
        "--readme", type=Path, action="append", metavar="FILE", help="fill its marked blocks"
    )
    p.add_argument("--check", action="store_true", help="fill nothing, tell what differs")
    return p


def fill(text: str, blocks: Mapping[str, Block]) -> str:
    """The text with the body of every marked block made anew.

    Raises:
        InputError: a marker names no block, or one is not closed.
    """
    if len(_ANY.findall(text)) != 2 * len(_MARKED.findall(text)):
        raise InputError(
            "a bench marker is not closed, or one stands in another; each wants "
            "<!-- bench:NAME --> and <!-- /bench --> on lines of their own"
        )

    def made(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in blocks:
            raise InputError(f"there is no bench block {name!r}; there are {', '.join(blocks)}")
        return f"{match['open']}{blocks[name].markdown}\n{match['close']}"

    return _MARKED.sub(made, text)


def different(before: str, after: str) -> list[str]:
    """Names of the marked blocks that differ."""
    pairs = zip(_MARKED.finditer(before), _MARKED.finditer(after), strict=True)
    return [a["name"] for a, b in pairs if a["body"] != b["body"]]


def markdown_page(blocks: Mapping[str, Block], saved: Sequence[Saved]) -> str:
    """The report as Markdown: blocks with something in them, then the files."""
    parts = [f"# {TITLE}"]
    for block in blocks.values():
        if block.markdown != NOTHING:
            parts += [f"## {block.title}", block.markdown]
    files = "\n".join(f"- `{one.name}`: {one.kind}" for one in saved)
    return "\n\n".join([*parts, "## Files", files]) + "\n"


def html_page(blocks: Mapping[str, Block], saved: Sequence[Saved]) -> str:
    """The report as one self-contained page, in the look of the build's report."""
    body = [f"<header><h1>{TITLE}</h1></header>"]
    for block in blocks.values():
        if block.markdown != NOTHING:
            body.append(_section(block))
    files = "".join(f"<li><code>{html.escape(o.name)}</code>: {o.kind}</li>" for o in saved)
    body.append(f"<section><h2>Files</h2><ul>{files}</ul>{_others(saved)}</section>")
    template = importlib.resources.files("ndp_edge").joinpath("report.html").read_text("utf-8")
    return string.Template(template).substitute(title=TITLE, body="".join(body))


def _section(block: Block) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in block.rows[0])
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in block.rows[1:]
    )
    notes = "".join(f"<p>{_code(note)}</p>" for note in block.notes)
    return (
        f"<section><h2>{html.escape(block.title)}</h2>{''.join(block.charts)}"
        f'<div class="scroll"><table><tr>{head}</tr>{lines}</table></div>{notes}</section>'
    )


def _code(note: str) -> str:
    """Escaped, with what stands between backticks in code type."""
    return _TICKS.sub(r"<code>\1</code>", html.escape(note))


def _others(saved: Sequence[Saved]) -> str:
    """Files that no block knows, as they are."""
    return "".join(
        f"<details><summary>{html.escape(one.name)}</summary>"
        f"<pre>{html.escape(json.dumps(one.data, indent=1))}</pre></details>"
        for one in of_kind(saved, "other")
    )


def run(args: argparse.Namespace) -> int:
    """Write what was asked for; with nothing asked, print the Markdown.

    Raises:
        GateError: --check, and a file is not what the results say.
    """
    if args.check and not args.readme:
        raise InputError("--check wants --readme FILE")
    saved = read_results(args.results)
    blocks = all_blocks(saved)
    if args.html:
        write_atomic(args.html, html_page(blocks, saved).encode())
        info(f"report: {args.html}")
    if args.markdown:
        write_atomic(args.markdown, markdown_page(blocks, saved).encode())
        info(f"markdown: {args.markdown}")
    if args.readme:
        _fill_files(args, marked_blocks(saved))
    if not (args.html or args.markdown or args.readme):
        print(markdown_page(blocks, saved))
    return 0


def _fill_files(args: argparse.Namespace, blocks: Mapping[str, Block]) -> None:
    """Every --readme made anew, or none where one is wrong."""
    made: list[tuple[Path, str, list[str]]] = []
    for path in args.readme or ():
        try:
            before = path.read_text("utf-8")
        except (OSError, UnicodeError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        after = fill(before, blocks)
        made.append((path, after, different(before, after)))
    differing = [(path, names) for path, _, names in made if names]
    if args.check and differing:
        told = "; ".join(f"{path} in {', '.join(names)}" for path, names in differing)
        again = " ".join(f"--readme {path}" for path in args.readme)
        raise GateError(
            f"other than {args.results} says: {told}; run python -m ndp_edge.bench.report "
            f"--results {args.results} {again}"
        )
    for path, after, names in made:
        if names:
            write_atomic(path, after.encode())
        info(f"{path}: {', '.join(names) + ' made anew' if names else 'nothing differs'}")


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 done, 1 a file differs (--check), 2 bad input."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
