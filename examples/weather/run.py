"""Run the example: ``python examples/weather/run.py [PLOT.svg]``.

Five weeks of a weather office, in seconds: indexes of analogs for four horizons, rebuilt on
Sundays, one batch that the gates refuse, one that they cannot know to be wrong and that is rolled
back, and a backup that brings everything back. Ends 0 when it went as `expected.txt` says; with an
argument, the skill by horizon is drawn there.
"""

import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(plot: Path | None) -> int:
    """Put everything together, tell the story, and take it apart again."""
    from examples.weather.office import Office, first_day, server
    from examples.weather.story import Story

    with server() as (url, folder):
        clock = first_day()
        with ExitStack() as office:
            story = Story(Office(url, folder, clock, office))
            story.weeks()
            before = story.skill()
            backup = story.back_up()
        for place in ("artifacts", "catalog.db", "catalog.db-wal", "catalog.db-shm"):
            lost = folder / place
            if lost.is_dir():
                shutil.rmtree(lost)
            else:
                lost.unlink(missing_ok=True)
        print("\nThe disk is lost: no artifacts, no catalog")
        with ExitStack() as office:
            story = Story(Office(url, folder, clock, office))
            story.restore(backup)
            after = story.skill()
    same = before == after
    print(f"The restored indexes forecast {'the same' if same else 'SOMETHING ELSE'}")
    story.show(after)
    if plot is not None:
        from examples.weather.plot import draw

        draw(after, plot)
    return 0 if same and story.went_well else 1


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parents[1]))
    raise SystemExit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
