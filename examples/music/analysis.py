"""The analysis jobs: songs in, entries of four collections out.

Numbers of different kinds are made comparable by the mean and the spread of the first catalogue.
That is fitted once: refitted with every album, each would move all the songs there are.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from examples.music.catalogue import Song
from examples.music.features import Numbers, describe
from examples.music.sounds import render
from indexrelay.producers import Commit, Producer

VIEWS: Mapping[str, tuple[str, ...]] = {
    "songs": ("timbre", "harmony", "rhythm"),
    "clap_songs": ("timbre",),
    "mulan_songs": ("harmony", "rhythm"),
}
"""Which descriptors make the entries of which collection."""


class Analysis:
    """Listens to songs, and remembers them: an artist is the mean of all that was heard."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._heard: dict[Song, dict[str, Numbers]] = {}
        self._middle: dict[str, Numbers] = {}
        self._spread: dict[str, Numbers] = {}

    def listen(self, songs: Iterable[Song]) -> list[Song]:
        """Play and measure songs; nothing is committed."""
        new = {song: describe(render(song.style, seed=song.seed)) for song in songs}
        self._heard |= new
        if not self._middle:
            for part in VIEWS["songs"]:
                numbers = [features[part] for features in new.values()]
                self._middle[part] = np.mean(numbers, axis=0)
                self._spread[part] = np.std(numbers, axis=0) + 1e-9
        return list(new)

    def commit(self, songs: Sequence[Song], *, name: str) -> list[Commit]:
        """Hand songs, and the artists that they change, over: one batch for each collection."""
        tags = [{"title": song.title, "artist": song.artist, "genre": song.genre} for song in songs]
        commits = [
            self._hand_over(
                f"{name}/{collection}",
                collection,
                {song.id: self._vector(song, parts) for song in songs},
                tags,
            )
            for collection, parts in VIEWS.items()
        ]
        genres = {song.artist: song.genre for song in songs}
        artists = {artist: self._artist(artist) for artist in genres}
        kinds = [{"genre": genre} for genre in genres.values()]
        return [*commits, self._hand_over(f"{name}/artists", "artists", artists, kinds)]

    def _hand_over(
        self,
        batch_id: str,
        collection: str,
        entries: Mapping[str, Numbers],
        payloads: Sequence[Mapping[str, str]],
    ) -> Commit:
        with self._producer.batch(collection, batch_id) as batch:
            batch.upsert(list(entries), np.stack(list(entries.values())), payloads=payloads)
        return batch.commit

    def _artist(self, artist: str) -> Numbers:
        songs = [
            self._vector(song, VIEWS["songs"]) for song in self._heard if song.artist == artist
        ]
        return np.asarray(np.mean(songs, axis=0))

    def _vector(self, song: Song, parts: Iterable[str]) -> Numbers:
        """A song's descriptors, in spreads from the middle."""
        heard = self._heard[song]
        return np.concatenate(
            [(heard[part] - self._middle[part]) / self._spread[part] for part in parts]
        )
