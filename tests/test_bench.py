"""What `make bench` says moved: more than the tolerance, and more than the measurements spread."""

from __future__ import annotations

import json

import pytest

from image_to_prompt.tests import bench


def row(value: float, spread: float = 0.0) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


@pytest.mark.parametrize(
    ("now", "before", "found"),
    [
        (row(1.05), row(1.0), [1.05]),
        (row(0.90), row(1.0), [0.90]),
        (row(1.01), row(1.0), []),  # within the tolerance
        (row(1.05, 0.04), row(1.0, 0.02), []),  # the spreads overlap
        (row(1.10, 0.04), row(1.0, 0.02), [1.10]),
    ],
)
def test_what_moved_is_beyond_the_tolerance_and_both_spreads(now, before, found):
    moved = list(bench.moved({"a": now}, {"a": before}))
    assert [change for _, change in moved] == pytest.approx(found)


def test_a_row_without_a_past_has_not_moved():
    assert not list(bench.moved({"new": row(2.0)}, {"old": row(1.0)}))


def test_only_what_became_worse_fails(capsys):
    before = {"0.1": {"step": row(1.0), "memory": row(1.0)}}
    assert bench.compare({"0.1": {"step": row(0.5)}}, before) == 0
    assert bench.compare({"0.1": {"step": row(0.5), "memory": row(1.5)}}, before) == 1
    assert "memory: 1.500 of what it was" in capsys.readouterr().out
    assert bench.compare({"0.2": {"step": row(9.0)}}, before) == 0  # never measured there


def test_saving_keeps_ratios_and_the_other_hosts(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "BASELINE", tmp_path / "baseline.json")
    bench.save({"0.1": {"step": row(1.0), "closed form, seconds": row(0.3)}})
    bench.save({"0.2": {"step": row(2.0, 0.5)}})
    assert json.loads(bench.BASELINE.read_text()) == {
        "0.1": {"step": row(1.0)},
        "0.2": {"step": row(2.0, 0.5)},
    }


def test_a_saved_baseline_holds_ratios():
    baseline = bench.known()
    assert bool(baseline) == bench.BASELINE.exists()
    for rows in baseline.values():
        assert rows
        assert not [name for name in rows if name.endswith(bench.ABSOLUTE)]
        assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in rows.values())
