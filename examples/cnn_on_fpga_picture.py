"""Accuracy in 8-bit numbers against frames per second, drawn from the records of cnn_on_fpga.yaml.

Run: `python examples/cnn_on_fpga_picture.py RECORDS OUT.svg`; prints the table that the picture shows.
"""

import sys
from pathlib import Path

from harness.results.records import read


def points(records: list[dict], model: str) -> list[dict]:
    """The fastest engine that fits for every cell, by frames per second, one engine for all layers or one for each."""
    found = []
    for record in records:
        for label, cost in record["hardware"].items():
            if cost.get("model") != model or not cost.get("fits"):
                continue
            piped = cost["details"].get("pipelined") or {}
            ways = [("one for all", cost["steps_per_s"], cost["latency_us"])]
            if piped.get("fits"):
                ways.append(("one for each", piped["steps_per_s"], piped["latency_us"]))
            found += [
                {
                    "pattern": record["pattern"], "strategy": record["strategy"], "engine": cost["engine"],
                    "way": way, "fps": fps, "us": us, "accuracy": record["fixed_point"][model]["value"],
                    "uj": cost["event_energy_uj"] if way == "one for all" else None,
                }
                for way, fps, us in ways
                # Engines that are published as hundreds of microseconds of start-up say nothing of small networks.
                if label.partition("[")[2] not in ("csr_stream]", "mcbbs_systolic]")
            ]  # fmt: skip
    best: dict[tuple[str, str, str], dict] = {}
    for each in found:
        place = each["pattern"], each["strategy"], each["way"]
        if place not in best or each["fps"] > best[place]["fps"]:
            best[place] = each
    return list(best.values())


def draw(records: list[dict], out: Path) -> None:
    """A panel per device; filled marks are one engine for all layers, hollow ones an engine for each."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "cnn_on_fpga"
    from matplotlib import pyplot as plt

    models = list(records[0]["fixed_point"])
    figure, panels = plt.subplots(1, len(models), figsize=(10, 4), sharey=True, layout="constrained")
    patterns = dict.fromkeys(record["pattern"] for record in records)
    colours = dict(zip(patterns, ("#7a7a7a", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b"), strict=False))
    shapes = dict(zip(patterns, "osD^vP", strict=False))
    for panel, model in zip(panels, models, strict=True):
        for each in points(records, model):
            colour = colours[each["pattern"]]
            face = colour if each["way"] == "one for all" else "none"
            shape = shapes[each["pattern"]]
            panel.scatter(each["fps"] / 1e3, each["accuracy"], marker=shape, edgecolors=colour, facecolors=face)
        panel.set(title=model, xlabel="thousand frames per second, modelled")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy in 8-bit numbers, %")
    marks = [plt.Line2D([], [], marker=shapes[name], ls="", color=colours[name], label=name) for name in colours]
    ways = [
        plt.Line2D([], [], marker="o", ls="", color="black", label="filled: one engine\nfor all layers"),
        plt.Line2D([], [], marker="o", ls="", color="black", mfc="none", label="hollow: an engine\nfor each layer"),
    ]
    # Beside the panels: nothing lies over the data.
    figure.legend(handles=[*marks, *ways], fontsize=8, loc="outside right center", frameon=False)
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    """Read, draw, and print the rows."""
    records = [record.model_dump(mode="json") for record in read(Path(sys.argv[1]))]
    draw(records, Path(sys.argv[2]))
    for model in records[0]["fixed_point"]:
        print(f"| {model} | strategy | accuracy, 8 bits | layers | engine | frames/s | µs | µJ by events |")
        print("| --- | --- | ---: | --- | --- | ---: | ---: | ---: |")
        for row in sorted(points(records, model), key=lambda row: -row["fps"]):
            told = f"{row['accuracy']:.2f} | {row['way']} | {row['engine']} | {row['fps']:,.0f} | {row['us']:.1f}"
            told += " | –" if row["uj"] is None else f" | {row['uj']:.2f}"
            print(f"| {row['pattern']} | {row['strategy']} | {told} |")


if __name__ == "__main__":
    main()
