from maskdrop import errors
from maskdrop.errors import ErrorInfo, MaskdropError


def with_a_code(kind: type[MaskdropError]) -> list[type[MaskdropError]]:
    """Those below `kind` that name a code of their own; the others only group."""
    below = kind.__subclasses__()
    return [one for one in below if "code" in vars(one)] + [deeper for one in below for deeper in with_a_code(one)]


def test_an_error_as_data_survives_the_wire() -> None:
    info = errors.QueueFull("Full.").info
    assert ErrorInfo.from_json(info.to_json()) == info == ErrorInfo("queue_full", "Full.", True)


def test_what_was_written_down_is_the_same_error_again() -> None:
    here = [kind for kind in with_a_code(MaskdropError) if kind.__module__ == errors.__name__]
    written = [kind("It went wrong.").info for kind in here]
    assert [(type(again), again.message) for again in map(errors.error_of, written)] == [
        (kind, "It went wrong.") for kind in here
    ]


def test_a_code_that_nobody_knows_is_a_fault_of_ours() -> None:
    assert type(errors.error_of(ErrorInfo("new_code", "It is new.", False))) is errors.Internal
