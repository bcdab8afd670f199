"""Vocabulary and rules of Maskdrop: jobs, options, catalogue, messages, errors, settings. Standard library only.

No module here uses a network, a global clock or the environment. Every other folder imports this one; it imports none
of them.
"""

__version__ = "0.1.0"
