"""Draws the benchmarks' plots from their JSON: python plot.py FOLDER. Needs matplotlib."""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt


def draw_scale(folder):
    scale = json.loads((folder / "scale.json").read_text())
    figure, axes = plt.subplots(figsize=(8, 5))
    for name, dollars in scale["series"].items():
        axes.loglog(scale["fleets"], dollars, marker="o", linestyle="--" if "Jobs" in name else "-", label=name)
    axes.set_xlabel("devices, each listed")
    axes.set_ylabel("US dollars per release, 1 MiB image")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(folder / "scale.png", dpi=120)


def draw_ratios(folder):
    figures = [
        figure
        for file in sorted(folder.glob("*.json"))
        if file.name != "scale.json"
        for figure in json.loads(file.read_text())["figures"]
        if figure["ratio"] is not None
    ]
    names = [f"{figure['row']}: {figure['what']}" for figure in figures]
    colours = ["tab:red" if figure["is_met"] is False else "tab:blue" for figure in figures]
    drawing, axes = plt.subplots(figsize=(10, 0.32 * len(figures) + 1.2))
    axes.barh(names, [figure["ratio"] for figure in figures], color=colours)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 2, 3, 5, 10, 30], labels=["½", "1", "2", "3", "5", "10", "30"])
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel("times the floor (red: misses its goal)")
    drawing.tight_layout()
    drawing.savefig(folder / "ratios.png", dpi=110)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if (folder / "scale.json").exists():
        draw_scale(folder)
    draw_ratios(folder)
