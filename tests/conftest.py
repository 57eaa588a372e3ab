from __future__ import annotations

from hypothesis import settings

# Examples run on a virtual clock, so a slow machine is no reason to fail one.
settings.register_profile("default", deadline=None)
# The gate tries the same examples on every run; look for new ones without it.
settings.register_profile("gate", deadline=None, derandomize=True)
settings.load_profile("default")
