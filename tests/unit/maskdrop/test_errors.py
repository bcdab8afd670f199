from maskdrop import errors
from maskdrop.errors import ErrorInfo, MaskdropError


def with_a_code(kind: type[MaskdropError]) -> list[type[MaskdropError]]:
    """Those below `kind` that name a code of their own; the others only group."""
    below = kind.__subclasses__()
    return [one for one in below if "code" in vars(one)] + [deeper for one in below for deeper in with_a_code(one)]


def test_an_error_info_survives_json() -> None:
    info = errors.QueueFull("Full.").info
    assert ErrorInfo.from_json(info.to_json()) == info == ErrorInfo("queue_full", "Full.", True)


def test_an_error_info_becomes_the_same_exception() -> None:
    here = [kind for kind in with_a_code(MaskdropError) if kind.__module__ == errors.__name__]
    written = [kind("It went wrong.").info for kind in here]
    assert [(type(again), again.message) for again in map(errors.error_of, written)] == [
        (kind, "It went wrong.") for kind in here
    ]


def test_an_unknown_code_becomes_an_internal_error() -> None:
    assert type(errors.error_of(ErrorInfo("new_code", "It is new.", False))) is errors.Internal


def test_a_long_message_keeps_its_start_and_its_end() -> None:
    message = errors.InvalidOptions(f"Unknown option '{'x' * 4_000_000}'; options are engine, output.").message
    assert len(message) <= errors.MESSAGE_CHARACTERS
    assert message.startswith("Unknown option 'xxx")
    assert message.endswith("xxx'; options are engine, output.")
