from lambdas.sweep import process
from maskdrop.flow import admit, new_jobs
from tests.fakes import NOW, World, a_source, minutes_later


def test_sweep_returns_the_number_of_retried_jobs() -> None:
    world = World()
    admit(new_jobs([a_source(), a_source("inbox/b.jpg")], NOW), world.settings, world.services, NOW)
    assert process(world.settings, world.services, minutes_later(10)) == {"moved": 0}
    assert process(world.settings, world.services, minutes_later(1000)) == {"moved": 2}
