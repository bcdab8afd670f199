import re

from maskdrop import errors
from maskdrop.errors import ErrorInfo, MaskdropError


def leaves(kind: type[MaskdropError]) -> list[type[MaskdropError]]:
    below = kind.__subclasses__()
    return [leaf for one in below for leaf in leaves(one)] if below else [kind]


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    rows = re.findall(r"─ (\w+) +([a-z_]+) +(\d{3}) +(yes|no)", errors.__doc__ or "")
    drawn = {name: (code, int(status), retryable == "yes") for name, code, status, retryable in rows}
    here = [leaf for leaf in leaves(MaskdropError) if leaf.__module__ == errors.__name__]
    assert drawn == {leaf.__name__: (leaf.code, leaf.status, leaf.retryable) for leaf in here}


def test_an_error_as_data_survives_the_wire() -> None:
    info = errors.QueueFull("Full.").info
    assert ErrorInfo.from_json(info.to_json()) == info == ErrorInfo("queue_full", "Full.", True)


def test_what_was_written_down_is_the_same_error_again() -> None:
    here = [leaf for leaf in leaves(MaskdropError) if leaf.__module__ == errors.__name__]
    written = [leaf("It went wrong.").info for leaf in here]
    assert [(type(again), again.message) for again in map(errors.error_of, written)] == [
        (leaf, "It went wrong.") for leaf in here
    ]


def test_a_code_that_nobody_knows_is_a_fault_of_ours() -> None:
    assert type(errors.error_of(ErrorInfo("new_code", "It is new.", False))) is errors.Internal
