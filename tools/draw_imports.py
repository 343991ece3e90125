"""The packages of cars_hw and who imports whom: a picture, the lines of code, and what breaks the order.

    python tools/draw_imports.py                     the packages from top to bottom, with lines and imports
    python tools/draw_imports.py --svg imports.svg   the picture

Every import counts, also those inside functions and those for type checkers. A package may import the packages
below it. The exit code is 1 if an import points up, or if modules import each other in a circle.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FLOORS = (
    ("cli",),
    ("testing", "tracking"),
    ("report",),
    ("studies",),
    ("pipeline",),
    ("evolution", "executors"),
    ("training",),
    ("latency",),
    ("export",),
    ("measurement",),
    ("data", "devices", "nn"),
    ("space",),
    ("config",),
    ("child_processes", "plugins", "progress_line"),
    ("callbacks", "errors", "formatting", "progress", "significance", "version"),
)
"""The packages, and modules that stand by themselves, from the top to the bottom."""

Imports = Mapping[str, set[str]]
"""The modules that each module imports, both with their full names."""


def imports_of(package: Path = ROOT / "cars_hw") -> dict[str, set[str]]:
    """Return the imports between the modules of ``package``, by module."""
    paths = {_name(path, package): path for path in package.rglob("*.py")}
    return {name: set(_imported(name, path, paths.keys())) for name, path in sorted(paths.items())}


def room_of(module: str) -> str:
    """Return the package, or the module of its own, that ``module`` belongs to; ``""`` is the root."""
    return module.split(".")[1] if "." in module else ""


def upward(imports: Imports) -> list[tuple[str, str]]:
    """Return the imports that point to a package on the same floor or above."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    found = []
    for module, targets in imports.items():
        for target in sorted(targets):
            here, there = room_of(module), room_of(target)
            # The root hands out the public names, and __main__ starts the command line.
            if here in ("", "__main__") or there == here:
                continue
            if there == "" or floor[there] <= floor[here]:
                found.append((module, target))
    return found


def circles(imports: Imports) -> list[list[str]]:
    """Return the modules that import each other in a circle: strongly connected components (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in imports.get(module, ()):
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1 or module in imports.get(module, ()):
                found.append(sorted(group))

    for module in imports:
        if module not in index:
            visit(module)
    return found


def lines_by_room(package: Path = ROOT / "cars_hw") -> Counter[str]:
    """Return the lines of Python by package."""
    counted: Counter[str] = Counter()
    for path in package.rglob("*.py"):
        counted[room_of(_name(path, package))] += len(path.read_text(encoding="utf-8").splitlines())
    return counted


def between_rooms(imports: Imports) -> Counter[tuple[str, str]]:
    """Return how many imports run from one package to another."""
    pairs = ((room_of(module), room_of(target)) for module, targets in imports.items() for target in targets)
    return Counter((here, there) for here, there in pairs if here not in ("", "__main__", there))


def draw(imports: Imports) -> str:
    """Return the picture as SVG: a row of boxes a floor, an arrow for each pair of packages."""
    counted = lines_by_room()
    width, height, gap = 150, 34, 30
    place = {
        room: (440 + (number - (len(rooms) - 1) / 2) * (width + 40) - width / 2, 20 + floor * (height + gap))
        for floor, rooms in enumerate(FLOORS)
        for number, room in enumerate(rooms)
        if room in counted
    }
    parts = []
    for (here, there), count in sorted(between_rooms(imports).items()):
        if here in place and there in place:
            (x1, y1), (x2, y2) = place[here], place[there]
            bend = 120 + 18 * abs(y2 - y1) / (height + gap) if y2 - y1 > height + gap else 0
            side = -1 if (x1 + x2) / 2 <= 400 else 1
            middle = (x1 + x2) / 2 + width / 2 + side * bend
            parts.append(
                f'<path d="M{x1 + width / 2:.0f},{y1 + height} Q{middle:.0f},{(y1 + y2 + height) / 2:.0f} '
                f'{x2 + width / 2:.0f},{y2:.0f}" fill="none" stroke="#5b7f95" stroke-opacity=".45" '
                f'stroke-width="{min(1 + count / 12, 4):.1f}" marker-end="url(#a)"/>'
            )
    for room, (x, y) in place.items():
        parts.append(
            f'<rect x="{x:.0f}" y="{y}" width="{width}" height="{height}" rx="6" fill="#f4f7f9" stroke="#33505f"/>'
            f'<text x="{x + width / 2:.0f}" y="{y + 22}" font-size="14" text-anchor="middle">'
            f"{room} ({counted[room]:,})</text>"
        )
    total = 40 + len(FLOORS) * (height + gap)
    arrow = (
        '<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="9" markerHeight="9" '
        'markerUnits="userSpaceOnUse" orient="auto">'
        '<path d="M0,0 8,4 0,8z" fill="#5b7f95"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 {total}" font-family="sans-serif">'
        f'<rect width="880" height="{total}" fill="white"/>{arrow}{"".join(parts)}</svg>\n'
    )


def main() -> None:
    """Print or draw the packages, and report what breaks their order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", type=Path, help="write the picture to this file")
    args = parser.parse_args()
    imports, counted = imports_of(), lines_by_room()
    arrows = between_rooms(imports)
    for rooms in FLOORS:
        for room in rooms:
            targets = ", ".join(f"{there} {count}" for (here, there), count in arrows.most_common() if here == room)
            print(f"{room:12} {counted[room]:6,} lines  -> {targets}")
    print(f"{'in all':12} {counted.total():6,} lines")
    if args.svg:
        args.svg.write_text(draw(imports), encoding="utf-8")
    wrong = [f"{module} imports {target}, which is not below it" for module, target in upward(imports)]
    wrong += [f"a circle: {', '.join(group)}" for group in circles(imports)]
    print("\n".join(wrong) or "No import points up, and no modules import each other in a circle.")
    sys.exit(1 if wrong else 0)


def _name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(module: str, path: Path, modules: Mapping[str, Path] | set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "cars_hw":
            for alias in node.names:
                # A module of a package, or a name in a module.
                full = f"{node.module}.{alias.name}"
                target = full if full in modules else node.module
                if target in modules and target != module:
                    yield target


if __name__ == "__main__":
    main()
