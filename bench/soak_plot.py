"""The soak's memory, verdicts and drops over time, as one small SVG."""

from __future__ import annotations

from typing import Any

from ndp_edge.report_svg import nice_ticks

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 300, 60, 40, 34, 70


def plot(report: dict[str, Any]) -> str:
    """An SVG document from a report of `bench.soak`; memory on the left axis from 0."""
    curve = report["curve"]
    minutes = curve["minutes"]
    end = max(minutes[-1], 1e-9)
    memory_top = 1.2 * max(curve["resident_mib"])
    count_top = 1.2 * max(1, curve["verdicts"][-1], curve["drops"][-1])
    series = [
        ("resident memory, MiB", "#1f5fa8", curve["resident_mib"], memory_top, 2.5),
        ("verdicts", "#2f7d4f", curve["verdicts"], count_top, 1.5),
        ("frames dropped", "#b3471d", curve["drops"], count_top, 1.5),
    ]
    parts = [_axis(end, memory_top, count_top)]
    for index, (name, colour, values, top, width) in enumerate(series):
        points = " ".join(
            f"{_x(t, end):.1f},{_y(v, top):.1f}" for t, v in zip(minutes, values, strict=True)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
        )
        label = f'<text x="{LEFT + 10 + 200 * index}" y="20" fill="{colour}">{name}</text>'
        parts.append(label)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">\n'
        f"<title>Soak of {report['minutes']:g} minutes: memory and counts</title>\n"
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _axis(end: float, memory_top: float, count_top: float) -> str:
    base, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [
        f'<path d="M{LEFT} {TOP}V{base}H{right}V{TOP}" fill="none" stroke="#444"/>',
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">minutes</text>',
    ]
    for value in nice_ticks(0, memory_top):
        y = _y(value, memory_top)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in nice_ticks(0, count_top):
        y = _y(value, count_top)
        parts.append(f'<text x="{right + 6}" y="{y + 4:.1f}">{value:g}</text>')
    for value in nice_ticks(0, end):
        x = _x(value, end)
        parts.append(f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{value:g}</text>')
    return "\n".join(parts)


def _x(minutes: float, end: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * minutes / end


def _y(value: float, top: float) -> float:
    base = HEIGHT - BOTTOM
    return base - (base - TOP) * value / top
