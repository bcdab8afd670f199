from lambdas.sweep import process
from maskdrop.flow import admit, arrivals
from tests.fakes import NOW, World, a_source, minutes_later


def test_overdue_jobs_are_counted_as_they_are_sent_round_again() -> None:
    world = World()
    admit(arrivals([a_source(), a_source("inbox/b.jpg")], NOW), world.settings, world.services, NOW)
    assert process(world.settings, world.services, minutes_later(10)) == {"moved": 0}
    assert process(world.settings, world.services, minutes_later(1000)) == {"moved": 2}
