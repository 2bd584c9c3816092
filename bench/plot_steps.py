#!/usr/bin/env python3
"""Draws time per token against context as an SVG, from the JSON of `cepe bench --shape`.

    cepe bench --shape llama2-7b --device cuda --contexts 8K,32K,128K,1M --parts steps --no-full-attention --json > steps.json
    bench/plot_steps.py steps.json > docs/steps.svg
"""
import json
import math
import sys

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 360, 60, 50, 20, 20


def read_result(path):
    try:
        with open(path, encoding="utf-8") as file:
            result = json.load(file)
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {getattr(error, 'strerror', None) or error}")
    if not isinstance(result, dict) or "rows" not in result:
        sys.exit(f"{path}: no output of cepe bench --shape NAME --json")
    return result


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    result = read_result(sys.argv[1])
    rows = [row for row in result["rows"] if row["what"] == "a token, absorbed"]
    rows.sort(key=lambda row: row["context_tokens"])
    if len({row["context_tokens"] for row in rows}) < 2:
        sys.exit(f"{sys.argv[1]}: rows 'a token, absorbed' of fewer than two lengths; measure with --parts steps")
    low, high = (math.log2(rows[i]["context_tokens"]) for i in (0, -1))
    top = 1.1 * max(max(row["seconds"], row["bound_seconds"]) for row in rows)

    def x(tokens):
        return LEFT + (math.log2(tokens) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(seconds):
        return HEIGHT - BOTTOM - seconds / top * (HEIGHT - BOTTOM - TOP)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
           'font-size="12">', f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    step = 10 ** math.floor(math.log10(top)) / (2 if top / 10 ** math.floor(math.log10(top)) < 3 else 1)
    for i in range(int(top / step) + 1):
        out.append(f'<path d="M{LEFT} {y(i * step):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 6}" y="{y(i * step) + 4:.1f}" text-anchor="end">{i * step * 1e3:g}</text>')
    for row in rows:
        tokens = row["context_tokens"]
        name = f"{tokens / 2**20:g}M" if tokens >= 2**20 else f"{tokens / 2**10:g}K"
        out.append(f'<text x="{x(tokens):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{name}</text>')
    for key, color, label, place in (("seconds", "#1f77b4", "measured", 40), ("bound_seconds", "#d62728", "bound", 58)):
        points = " ".join(f'{x(row["context_tokens"]):.1f},{y(row[key]):.1f}' for row in rows)
        out.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        out += [f'<circle cx="{x(row["context_tokens"]):.1f}" cy="{y(row[key]):.1f}" r="3" fill="{color}"/>'
                for row in rows]
        out.append(f'<text x="{LEFT + 12}" y="{place}" fill="{color}">{label}</text>')
    out.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">tokens of context ({result["shape"]}, '
               'one sequence)</text>'
               f'<text x="14" y="{HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 14 {HEIGHT / 2})">'
               'ms a token</text></svg>')
    print("\n".join(out))


if __name__ == "__main__":
    main()
