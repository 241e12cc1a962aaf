"""The whole way in three chapters: one release is served, one half fails, and one heals."""

from collections.abc import Mapping, Sequence

from examples.music.analysis import Analysis
from examples.music.catalogue import Song, catalogue, song
from examples.music.disk import copy_artifacts, repair
from examples.music.reader import ReaderProcess
from examples.music.watching import Watcher, print_states
from indexrelay.rebuilder import Rebuilder
from indexrelay.storage import ArtifactStore

BROKEN = ("artist_similarity", "clap")


class Story:
    """What happens to a record shop with two readers, ``studio`` and ``stage``.

    ``studio`` shares the rebuilder's disk. ``stage`` is on another host, with a copy of the
    artifacts on a disk of its own.
    """

    def __init__(
        self,
        *,
        analysis: Analysis,
        rebuilder: Rebuilder,
        store: ArtifactStore,
        readers: Mapping[str, ReaderProcess],
        watcher: Watcher,
    ) -> None:
        self._analysis = analysis
        self._rebuilder = rebuilder
        self._store = store
        self._readers = readers
        self._watcher = watcher

    def tell(self) -> bool:
        """All three chapters; whether each ended as it should."""
        return self._serve() and self._corrupt() and self._heal()

    def _serve(self) -> bool:
        """Everything is built, released, and served by both readers."""
        songs = list(catalogue())
        artists = {song.artist for song in songs}
        genres = {song.genre for song in songs}
        print(f"Listening to {len(songs)} songs by {len(artists)} artists in {len(genres)} genres")
        self._hand_over(songs, name="first catalogue")
        failed = self._release()
        print("\nWhat both readers answer:")
        agreed = all(
            [
                self._ask("voyager", "nachtzug-1"),
                self._ask("voyager", "wren-2"),
                self._ask("artist_similarity", "Ida Moreau Trio"),
                self._ask("clap", "gravelord-3"),
                self._ask("mulan", "tape-delay-4"),
            ]
        )
        return self._map_is_sound() and agreed and not failed

    def _corrupt(self) -> bool:
        """A new album; two of its files go bad on the way to the disk of ``stage``."""
        print("\nA new album by Nachtzug; on the disk of stage, two files are corrupt")
        self._hand_over([song("techno", "Nachtzug", number) for number in range(5, 11)], name="two")
        failed = self._release(corrupting=BROKEN)
        print("\nThe last good version still answers there:")
        old, new = (
            self._readers[reader].ask("clap", "nachtzug-1") for reader in ("stage", "studio")
        )
        print(f"  clap, nachtzug-1: stage {', '.join(old)} | studio {', '.join(new)}")
        return failed == [f"stage/{name}" for name in BROKEN]

    def _heal(self) -> bool:
        """The disk is repaired, and the next release is loaded as a whole."""
        repaired = repair(self._store, self._readers["stage"].artifacts)
        print(f"\nThe disk of stage is repaired ({repaired} files), and Wren records two songs")
        self._hand_over([song("folk", "Wren", number) for number in (5, 6)], name="three")
        failed = self._release()
        print("\nWhat both readers answer:")
        agreed = all([self._ask("clap", "nachtzug-5"), self._ask("artist_similarity", "Wren")])
        return agreed and not failed

    def _hand_over(self, songs: Sequence[Song], *, name: str) -> None:
        heard = self._analysis.listen(songs)
        for commit in self._analysis.commit(heard, name=name):
            print(
                f"  {commit.collection}: {commit.upserts} entries, generation {commit.generation}"
            )

    def _release(self, *, corrupting: Sequence[str] = ()) -> list[str]:
        """Build what is due, carry it to the other host, and see what became of it there.

        The rebuilder is told when to look, so that each chapter has one release. Left to itself
        (`Rebuilder.start`, or ``indexrelay rebuilder``) it looks when the events say so.
        """
        result = self._rebuilder.step()
        if result is None or result.release is None:
            raise RuntimeError(f"nothing was released: {result.message if result else 'not due'}")
        print(f"\nRelease {result.release}: {result.status}, {result.message}")
        copy_artifacts(self._store, self._readers["stage"].artifacts, corrupting=corrupting)
        return print_states(self._watcher.states_at(result.release, self._readers))

    def _map_is_sound(self) -> bool:
        """Whether songs lie beside songs of their own genre on the map, as they should."""
        genres = {song.id: song.genre for song in catalogue()}
        ask = self._readers["studio"].ask
        beside = {song: ask("main_map", song, k=1)[0] for song in genres}
        alike = sum(genres[song] == genres[other] for song, other in beside.items())
        sound = alike >= 0.9 * len(genres)
        share = "nine in ten or more" if sound else f"only {alike} of {len(genres)}"
        print(f"  main_map: {share} lie beside a song of their own genre")
        return sound

    def _ask(self, component: str, entry_id: str) -> bool:
        """Ask both readers the same, print the answer, and say whether they agree."""
        answers = [reader.ask(component, entry_id) for reader in self._readers.values()]
        print(f"  {component}, {entry_id}: {', '.join(answers[0])}")
        if answers[0] != answers[1]:
            print(f"  … but the other reader says {', '.join(answers[1])}")
        return answers[0] == answers[1]
