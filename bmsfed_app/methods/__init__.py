"""Methods: each is a class of settings that says how to build its strategy, objective and head.

Adding one is adding a file here, beside a strategy or an objective of its own where the existing
ones do not serve. Other packages add theirs by an entry point, a subclass of
:class:`MethodSettings`, in the group ``bmsfed.methods``.
"""

from bmsfed_app.methods.base import METHODS, MethodSettings, Named, field, find_method

__all__ = ["METHODS", "MethodSettings", "Named", "field", "find_method"]
