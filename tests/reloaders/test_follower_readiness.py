"""A reader is ready when every required component is served, from whatever version."""

from indexrelay.schemas.settings import ComponentDefinition, Settings
from tests.reloaders.bench import Bench, make_settings
from tests.reloaders.kinds import WORDS


def test_a_reader_is_not_ready_before_it_serves_what_is_required(bench: Bench) -> None:
    reader = bench.reader()
    reader.step()
    assert not reader.ready
    bench.publish(clap="c1")
    reader.step()
    assert not reader.ready
    assert not reader.wait_ready(0)
    bench.publish(voyager="v1")
    reader.step()
    assert reader.ready
    assert reader.wait_ready(0)
    assert reader.state.ready


def test_a_reader_without_declarations_requires_what_is_released(bench: Bench) -> None:
    bench.settings = Settings(data_dir=bench.folder)
    reader = bench.reader()
    reader.step()
    assert not reader.ready, "nothing was released yet"


def test_what_only_the_release_knows_is_required_too(bench: Bench) -> None:
    bench.settings = make_settings(bench.folder, names=("clap", "voyager"))
    bench.publish(voyager="v1", map="m1")
    reader = bench.reader()
    reader.step()
    assert not reader.ready, "its class is not declared here, so it cannot be loaded"


def test_what_the_reader_does_not_serve_is_not_required(bench: Bench) -> None:
    bench.settings = make_settings(bench.folder, components=("clap",))
    bench.publish(clap="c1")
    reader = bench.reader()
    reader.step()
    assert reader.ready


def test_a_failed_load_of_a_newer_version_leaves_a_reader_ready(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    bench.publish(voyager="rubbish")
    reader.step()
    assert reader.ready


def test_a_reader_stops_being_ready_when_a_required_component_leaves(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(
        update={
            "components": {
                name: ComponentDefinition.of(WORDS, "tracks") for name in ("voyager", "clap")
            }
        }
    )
    bench.publish(voyager="v1", clap="c1")
    reader = bench.reader()
    reader.step()
    assert reader.ready
    bench.drop("clap")
    reader.step()
    assert not reader.ready
