"""Maskdrop: the words and the rules of the product, in plain Python.

Nothing here touches a network, a clock that was not handed in, or the environment. Every other folder imports this
one; it imports none of them.
"""

__version__ = "0.1.0"
