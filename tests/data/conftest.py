"""No test of the data room sees the user's cache, folders or proxies."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GRAPHJIT_CACHE_DIR", str(folder))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("GRAPHJIT_DATA", raising=False)
    return folder / "data"
