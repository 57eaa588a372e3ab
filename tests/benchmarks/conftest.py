from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def wrong_payloads() -> list[str]:
    """Empty: here nobody looks at the payloads, because that would be measured too."""
    return []
