"""`qc_summary.json` for programs and `qc_report.html` for people.

The page needs nothing but itself: Plotly's script and the styles are inside, and a content policy
forbids every connection. Generated text is data from a model: it is escaped wherever it stands,
and scripts run only with the page's nonce, so that neither `</script>` nor an event handler in a
response can execute.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from core.files import write_text
from core.qc import wording
from core.qc.charts import report_figures
from core.qc.verdicts import MetricResult, QCReport, Sample

SUMMARY_NAME = "qc_summary.json"
REPORT_NAME = "qc_report.html"
SHOWN_CHARACTERS = 4000


def write_report(
    report: QCReport, out_dir: Path, *, title: str, extra: Mapping[str, Any]
) -> tuple[Path, Path]:
    """Paths of the JSON summary and the HTML report, both written whole.

    Args:
        extra: facts of the run, put into both. `margin_nats` is also drawn into the score plot,
            `skipped_lines` (list of `line` and `reason`) is listed under the verdict.

    Raises:
        StorageError: the directory cannot be written.
    """
    summary = _finite({"title": title, **report.to_dict(), "extra": dict(extra)})
    summary_path, report_path = Path(out_dir) / SUMMARY_NAME, Path(out_dir) / REPORT_NAME
    content = json.dumps(summary, ensure_ascii=False, indent=2, allow_nan=False, default=str)
    write_text(summary_path, _encodable(content) + "\n")
    write_text(report_path, _encodable(render_html(report, title=title, extra=extra)))
    return summary_path, report_path


def render_html(report: QCReport, *, title: str, extra: Mapping[str, Any]) -> str:
    """The report page as one self-contained HTML document."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("core.qc", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=wording.count_text,
        value=wording.value_text,
        interval=wording.interval_text,
        bound=wording.bound_text,
        label=_label,
        marked=_marked,
    )
    margin = extra.get("margin_nats")
    figures = report_figures(report, float(margin) if isinstance(margin, int | float) else None)
    return environment.get_template("report.html.j2").render(
        title=title,
        report=report,
        kept_note=_kept_note,
        facts={name: _fact(value) for name, value in extra.items() if name != "skipped_lines"},
        skipped=list(extra.get("skipped_lines") or []),
        figures=list(figures),
        figures_json=_script_json(list(figures.values())),
        plotly_js=Markup(get_plotlyjs()),
        nonce=hashlib.sha256(title.encode("utf-8", "replace")).hexdigest()[:24],
    )


def _label(name: str) -> str:
    return name.replace("_", " ")


def _kept_note(result: MetricResult) -> str:
    if not result.kept_denominator or result.kept_numerator is None:
        return ""
    return f"Among kept: {result.kept_numerator:,} / {result.kept_denominator:,}."


def _fact(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _marked(sample: Sample, field: str) -> Markup:
    """Escaped text of the field, the finding's span marked, the middle of a long text left out."""
    text = sample.response if field == "response" else sample.instruction
    if sample.span is None or sample.field != field or sample.span == (0, len(text)):
        return escape(_shortened(text))
    start, end = sample.span
    before, found, after = text[:start], text[start:end], text[end:]
    return Markup("{}<mark>{}</mark>{}").format(_shortened(before), _shortened(found), _shortened(after))


def _shortened(text: str) -> str:
    if len(text) <= SHOWN_CHARACTERS:
        return text
    half = SHOWN_CHARACTERS // 2
    left_out = len(text) - SHOWN_CHARACTERS
    return f"{text[:half]} […{left_out:,} characters…] {text[-half:]}"


def _script_json(value: object) -> Markup:
    """JSON that may stand inside a script element: no `<` can end it or open a comment."""
    content = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False)
    return Markup(content.replace("<", "\\u003c").replace("&", "\\u0026"))


def _finite(value: Any) -> Any:
    """The same value with NaN and infinities as null: JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _encodable(text: str) -> str:
    """Half a surrogate pair cannot be written as UTF-8; it becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
