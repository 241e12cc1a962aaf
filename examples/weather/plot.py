"""Draws the error by horizon."""

from pathlib import Path

from examples.weather.story import Skill


def draw(skills: list[Skill], path: Path) -> None:
    """Write the plot to ``path``; its ending says in which format."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "weather"
    from matplotlib import pyplot as plt

    hours = [each.hours for each in skills]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    axes.plot(hours, [each.climatology for each in skills], "--", color="0.6", label="climatology")
    axes.plot(hours, [each.persistence for each in skills], "s-", color="0.4", label="persistence")
    axes.plot(hours, [each.lists for each in skills], "^-", color="C1", label="analogs, IVF64,Flat")
    axes.plot(hours, [each.flat for each in skills], "o-", color="C0", label="analogs, Flat")
    axes.set(xlabel="hours ahead", ylabel="error (root mean square)", xticks=hours, ylim=(0, None))
    axes.set_title("Forecasts of the Lorenz-96 system by the ten nearest analogs")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
