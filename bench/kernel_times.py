#!/usr/bin/env python3
"""What each kernel adds to a time line that libkernel_times.so wrote (bench/kernel_times.cpp).

    bench/kernel_times.py times.txt

For each kernel and the one that ended before it, if they follow one another at least 20 times: how often, and medians of
how much later its end is, how long it ran, and when it began after that end (below zero: while that one still ran), in
microseconds.
"""
import collections
import statistics
import sys


def read_kernels(path):
    """[(name:blocks, begin, end)], times in nanoseconds."""
    kernels = []
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    begin, end, blocks, name = line.rstrip("\n").split(" ", 3)
                    kernels.append((f"{name}:{blocks}", int(begin), int(end)))
                except ValueError:
                    sys.exit(f"{path}:{number}: expected 'BEGIN END BLOCKS NAME', as libkernel_times.so writes it")
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}")
    return kernels


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    kernels = read_kernels(sys.argv[1])
    pairs = collections.OrderedDict()
    for (before, _, ended), (name, begin, end) in zip(kernels, kernels[1:]):
        pairs.setdefault((name, before), []).append((end - ended, end - begin, begin - ended))
    print(f"{'kernel:blocks':40} {'times':>6} {'adds':>8} {'runs':>8} {'begins':>8}   after")
    for (name, before), times in pairs.items():
        if len(times) < 20:
            continue
        adds, runs, begins = (statistics.median(t[i] for t in times) / 1e3 for i in range(3))
        print(f"{name:40} {len(times):6} {adds:8.2f} {runs:8.2f} {begins:8.2f}   {before}")


if __name__ == "__main__":
    main()
