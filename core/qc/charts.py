"""The plots of the QC report as plain Plotly figures: counted here, drawn in the page.

Values are binned before they go into the page, so that a report over 10^6 rows stays small. Colours
are named roles (`kept`, `rejected`, ...) that the page fills in for its light and dark look.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from core.qc.funnel import FunnelCounts
from core.qc.verdicts import Distributions, QCReport

BINS = 30
Figure = dict[str, Any]


def report_figures(report: QCReport, margin_nats: float | None) -> dict[str, Figure]:
    """Figures by name, in page order; one that has no data is left out."""
    numbers = report.distributions
    figures = {
        "Response length": _lengths(numbers),
        "Critic scores": _scores(numbers, margin_nats),
        "Funnel": _funnel(report.funnel, report),
        "What fell, and why": _rejections(report.funnel),
        "Finish reasons": _finish_reasons(numbers),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def _lengths(numbers: Distributions) -> Figure | None:
    unit = "words (no token counts)" if numbers.tokens_estimated else "tokens"
    return _two_histograms(numbers.kept_tokens, numbers.rejected_tokens, f"response length, {unit}")


def _scores(numbers: Distributions, margin_nats: float | None) -> Figure | None:
    figure = _two_histograms(numbers.kept_scores, numbers.rejected_scores, "pair score, nats")
    if figure is not None and margin_nats is not None:
        line = {"x0": margin_nats, "x1": margin_nats, "y0": 0, "y1": 1, "yref": "paper"}
        figure["layout"]["shapes"] = [{"type": "line", **line, "line": {"dash": "dash", "width": 2}}]
        figure["layout"]["annotations"] = [
            {
                "x": margin_nats,
                "y": 1,
                "yref": "paper",
                "yanchor": "top",
                "xanchor": "left",
                "xshift": 4,
                "text": f"margin {margin_nats:g}",
                "showarrow": False,
            }
        ]
    return figure


def _two_histograms(kept: Sequence[float], rejected: Sequence[float], axis: str) -> Figure | None:
    everything = [value for value in (*kept, *rejected) if math.isfinite(value)]
    if not everything:
        return None
    start, step = _bins(everything)
    traces = [
        _histogram(name, values, start, step)
        for name, values in (("kept", kept), ("rejected", rejected))
        if values
    ]
    layout = {
        "barmode": "stack",
        "bargap": 0.04,
        "xaxis": {"title": {"text": axis}},
        "yaxis": {"title": {"text": "candidates"}},
        "showlegend": True,
    }
    return {"data": traces, "layout": layout}


def _bins(values: Sequence[float]) -> tuple[float, float]:
    """Start and width of at most 30 bins; whole numbers get whole widths."""
    low, high = min(values), max(values)
    step = (high - low) / BINS or 1.0
    if all(float(value).is_integer() for value in values):
        step = float(max(1, math.ceil(step)))
    return low, step


def _histogram(name: str, values: Sequence[float], start: float, step: float) -> dict[str, Any]:
    counts: dict[int, int] = {}
    for value in values:
        if math.isfinite(value):
            slot = min(int((value - start) / step), BINS)
            counts[slot] = counts.get(slot, 0) + 1
    slots = sorted(counts)
    whole = step.is_integer() and float(start).is_integer()
    edges = [(start + slot * step, start + (slot + 1) * step) for slot in slots]
    labels = [f"{low:g}" if whole and step == 1 else f"{low:.4g} to {high:.4g}" for low, high in edges]
    return {
        "type": "bar",
        "name": name,
        "x": [low + (0 if whole and step == 1 else step / 2) for low, _ in edges],
        "y": [counts[slot] for slot in slots],
        "width": [step] * len(slots),
        "customdata": labels,
        "hovertemplate": "%{customdata}: %{y}<extra>" + name + "</extra>",
        "meta": {"role": name},
    }


def _funnel(funnel: FunnelCounts | None, report: QCReport) -> Figure | None:
    counts = funnel or FunnelCounts()
    steps = {
        "instruction candidates": counts.instruction_candidates,
        "instructions judged": counts.instructions_judged,
        "instructions accepted": counts.instructions_accepted,
        "response candidates": counts.response_candidates or report.candidates,
        "pairs judged": counts.pairs_judged,
        "pairs accepted": counts.pairs_accepted,
        "kept": report.kept,
    }
    return _bars({name: count for name, count in steps.items() if count is not None}, "kept")


def _rejections(funnel: FunnelCounts | None) -> Figure | None:
    if funnel is None:
        return None
    counts = {
        f"{kind}: {reason}": count
        for kind, reasons in (
            ("instruction", funnel.instruction_rejections),
            ("response", funnel.response_rejections),
        )
        for reason, count in sorted((reasons or {}).items(), key=lambda item: -item[1])
    }
    return _bars(counts, "rejected")


def _finish_reasons(numbers: Distributions) -> Figure | None:
    shown = {repr(name)[1:-1]: count for name, count in numbers.finish_reasons.items()}
    return _bars(shown, "neutral")


def _bars(counts: Mapping[str, int], role: str) -> Figure | None:
    if not counts:
        return None
    # Plotly reads a little HTML in labels: names that came with the data are shown as they are.
    names = [html.escape(name if len(name) <= 34 else f"{name[:33]}…") for name in counts]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": list(counts.values()),
        "y": list(range(len(names))),
        "customdata": names,
        "text": [f"{count:,}" for count in counts.values()],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": "%{customdata}: %{x}<extra></extra>",
        "meta": {"role": role},
    }
    layout = {
        "height": 110 + 34 * len(names),
        "xaxis": {"title": {"text": "count"}, "range": [0, 1.15 * max(1, *counts.values())]},
        "yaxis": {
            "autorange": "reversed",
            "tickvals": list(range(len(names))),
            "ticktext": names,
            "automargin": True,
        },
        "showlegend": False,
    }
    return {"data": [trace], "layout": layout}
