"""A release as a page: for notebooks, which show it below the cell, and for browsers, which open the file.

No script, no address: the page loads nothing. Texts of columns, groups and sites come from the ledger and from others:
all of them are escaped, what nobody sees in them is shown as a replacement character, and none of them turns the order
of what stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from html import escape as html_escape
from typing import TYPE_CHECKING

from medveil.shown_text import plain

if TYPE_CHECKING:
    from medveil.client.declared import Declared
    from mpc.query import Query
    from mpc.release import Estimate, GroupResult, MeasureResult, Release

Words = tuple[str, str]

_STYLE = """
.mv{direction:ltr;font:15px/1.5 system-ui,"Segoe UI",Roboto,"Noto Sans","Noto Sans CJK SC",sans-serif;color:#16202a;
background:#fff;max-width:980px;padding:4px 16px 16px}.mv h1{font-size:22px;margin:.4em 0}
.mv h1,.mv p,.mv li{overflow-wrap:anywhere}.mv h2{font-size:17px;margin:1.2em 0 .3em}
.mv table{border-collapse:collapse;font-size:14px}.mv th,.mv td{text-align:left;padding:4px 14px 4px 0;
border-bottom:1px solid #dde3e8;vertical-align:middle;background:none;
min-width:6em}.mv th{color:#5a6875;font-weight:600}
.mv .n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.mv small{color:#5a6875}
.mv .h td{color:#5a6875}.mv .w{border-left:3px solid #a1490c;background:#f4f7f9;padding:6px 14px;margin:10px 0}
.mv .wide{overflow-x:auto}
.mv p.why{font-size:13px;color:#5a6875;margin:.5em 0;unicode-bidi:bidi-override}
.mv td{unicode-bidi:isolate}.mv code{font-size:12px}.mv ul{margin:.3em 0;padding-left:20px}
"""
_SAYS: dict[str, Words] = {
    "title": ("Release {query}", "发布结果 {query}"),
    "about": (
        (
            "{population}, for {purpose} ({title}); data of {sites}. "
            "Verified by proofs of the ledger up to block {height}."
        ),
        "{population}，用途 {purpose}（{title}）；数据来自 {sites}。已由账本证明核验至第 {height} 块。",
    ),
    "lost": ("Lost on the way: {sites}.", "途中缺席：{sites}。"),
    "earlier": (
        "The question was answered before: this is that answer, and nothing was spent now.",
        "该问题此前已回答：此即当时的答案，本次未花费预算。",
    ),
    "measure": ("{column} from {low} to {high}", "{column}，{low} 至 {high}"),
    "rows": ("Rows", "行数"),
    "count": ("count", "计数"),
    "mean": ("mean", "均值"),
    "sd": ("sd", "标准差"),
    "histogram": ("histogram, bins end at {edges}", "直方图，边界 {edges}"),
    "all": ("all", "全部"),
    "unresolved": ("not resolved", "无法分辨"),
    "interval": ("In brackets: the 95 % interval of the noise of this release.", "方括号内为本次结果噪声的 95% 区间。"),
    "bounds": ("Values beyond the bounds count as the bound.", "超出界限的取值按界限计。"),
    "noisy": ("noisy", "含噪"),
    "noisy-count-below-minimum": ("hidden: below {minimum}", "已隐藏：低于 {minimum}"),
    "perhaps-small": ("hidden: perhaps small", "已隐藏：可能过小"),
    "protects-another": ("hidden: protects a small group", "已隐藏：用于保护小分组"),
    "withheld": ("hidden: a small group could not be protected", "已隐藏：有小分组无法保护"),
    "privacy": ("Privacy", "隐私"),
    "spent": (
        "rho {rho} spent, {after} left then, {available} left in block {height}.",
        "花费 rho {rho}，当时剩余 {after}，第 {height} 块时剩余 {available}。",
    ),
    "unit": (
        "Unit: {unit}; neighbouring data differ by up to {rows} over all sites.",
        "单位：{unit}；相邻数据在全部机构中最多相差 {rows}。",
    ),
    "row": ("row", "行"),
    "person": ("person", "人"),
    "all-honest": ("every site added its noise", "各机构都加噪"),
    "colluders": ("the assumed colluders added none", "假定合谋的机构不加噪"),
    "one-honest": ("one site alone added noise", "只有一个机构加噪"),
    "epsilon": ("epsilon {epsilon} at delta {delta}, if {assumed}.", "若{assumed}，epsilon {epsilon}，delta {delta}。"),
    "hash": ("Hash of the query on the ledger:", "查询在账本上的哈希："),
    "notes": ("By the gateway's word alone", "仅凭网关所说"),
}


HEAD = (
    '<!doctype html><meta charset="utf-8"><title>medveil</title>'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)
"""What stands before a page that is a file of its own."""


def release_page(query: str, release: Release, declared: Declared, earlier: bool = False, language: str = "en") -> str:
    """A release as HTML, to stand in a page or alone. language: "en" or "zh"."""
    return _Page(release, language).html(query, declared, earlier)


class _Page:
    def __init__(self, release: Release, language: str) -> None:
        self._release = release
        self._language = language

    def _say(self, name: str, **facts: object) -> str:
        return escape(_SAYS[name][self._language == "zh"].format(**facts))

    def html(self, query: str, declared: Declared, earlier: bool) -> str:
        from mpc.query import salted_hash
        from privacy.explain import purpose_title

        release = self._release
        asked = release.query
        title = purpose_title(asked.purpose, self._language)
        facts = {"population": asked.population, "purpose": asked.purpose, "title": title}
        facts["sites"] = _list(release.sites)
        protection = escape(release.protection(self._language))
        parts = [
            f'<div class="mv" lang="{"zh" if self._language == "zh" else "en"}"><style>{_STYLE}</style>',
            f"<h1>{self._say('title', query=query)}</h1>",
            f"<p>{self._say('about', **facts, height=declared.height)}",
            f" {self._say('lost', sites=_list(release.lost))}</p>" if release.lost else "</p>",
            f'<p class="w">{protection}</p>' if asked.exact else f"<p>{protection}</p>",
            f'<p class="w">{self._say("earlier")}</p>' if earlier else "",
            *(f'<p class="w">{escape(line)}</p>' for line in release.disclosures(self._language)),
        ]
        for result in release.results:
            parts += self._result(asked, result)
        noted = ("bounds",) if asked.exact else ("interval", "bounds")
        parts.append(f"<p><small>{' '.join(self._say(name) for name in noted)}</small></p>")
        parts.append(f"<h2>{self._say('privacy')}</h2><ul>")
        parts += [f"<li>{line}</li>" for line in self._privacy(declared)]
        parts.append(
            f"<li>{self._say('hash')} <code>{salted_hash(asked, release.salt).hex()}</code></li></ul>",
        )
        if release.notes:
            parts.append(f"<h2>{self._say('notes')}</h2><ul>")
            parts += [f"<li>{escape(f'{note.site}: {note.text}')}</li>" for note in release.notes]
            parts.append("</ul>")
        return "\n".join(part for part in (*parts, "</div>") if part)

    def _privacy(self, declared: Declared) -> Iterable[str]:
        from mpc.budget import rows_words

        release = self._release
        left = {"after": _rho(release.budget_after_nano), "available": _rho(declared.available)}
        yield self._say("spent", rho=_rho(release.rho_nano), **left, height=declared.height)
        unit = _SAYS[release.unit][self._language == "zh"]
        yield self._say("unit", unit=unit, rows=rows_words(release.rows_of_one_unit, self._language))
        for one in release.epsilons:
            assumed = _SAYS[one.assumption][self._language == "zh"]
            yield self._say("epsilon", epsilon=one.epsilon, delta=f"{Decimal(one.delta):.0e}", assumed=assumed)

    def _result(self, query: Query, result: MeasureResult) -> Iterable[str]:
        """One measure: a table of its groups, the hidden ones with the reason."""
        from mpc.release import hidden_words

        measure = next((one for one in query.measures if one.column == result.measure), None)
        edges: list[str] = []
        heading, numbers = self._say("rows"), ["count"]
        if measure is not None:
            low, high = _decimal(measure.low, measure.scale), _decimal(measure.high, measure.scale)
            heading, numbers = self._say("measure", column=measure.column, low=low, high=high), ["count", "mean", "sd"]
            edges = [_decimal(edge, measure.scale) for edge in measure.edges]
        yield f'<h2>{heading}</h2><div class="wide"><table><thead><tr>'
        names = [group.name for group in query.groups]
        yield "".join(f"<th>{escape(name)}</th>" for name in names or [""])
        yield "".join(f'<th class="n">{self._say(name)}</th>' for name in numbers)
        yield f"<th>{self._say('histogram', edges=_list(edges))}</th></tr></thead>" if edges else "</tr></thead>"
        top = max((Decimal(cell.value or 0) for group in result.groups for cell in group.bins), default=Decimal(0))
        for group in result.groups:
            estimates = (self._estimate(getattr(group, name), query.exact) for name in numbers)
            cells = "".join(f'<td class="n">{one}</td>' for one in estimates)
            yield f"<tr>{self._values(group.values)}{cells}{f'<td>{_bars(group, top)}</td>' if edges else ''}</tr>"
        width = len(numbers) + bool(edges) - 1
        for hidden in result.hidden:
            count = f"{escape(hidden.noisy_count)} <small>{self._say('noisy')}</small>"
            why = self._say(hidden.reason, minimum=hidden.minimum)
            beside = f'</td><td colspan="{width}">{why}' if width else f" <small>{why}</small>"
            yield f'<tr class="h">{self._values(hidden.values)}<td class="n">{count}{beside}</td></tr>'
        yield "</table></div>"
        for line in hidden_words(result.hidden, self._language):
            yield f'<p class="why">{escape(line)}</p>'

    def _values(self, values: Sequence[str]) -> str:
        return "".join(f"<td>{escape(value)}</td>" for value in values) or f"<td>{self._say('all')}</td>"

    def _estimate(self, one: Estimate, exact: bool) -> str:
        value = self._say("unresolved") if one.value is None else escape(one.value)
        if exact:
            return value
        return f"{value} <small>[{escape(one.low)}, {escape(one.high)}]</small>"


def _bars(group: GroupResult, top: Decimal) -> str:
    """A histogram: bars from zero, each with its number for whoever points at it; below zero, noise alone, is none."""
    width, height = 22, 44
    bars = []
    for at, cell in enumerate(group.bins):
        value = max(Decimal(cell.value or 0), Decimal(0))
        tall = round(float(value / top) * height, 1) if top > 0 else 0
        title = escape(f"{cell.value} [{cell.low}, {cell.high}]")
        place = f'x="{at * width + 1}" y="{height - tall}" width="{width - 2}" height="{tall}"'
        bars.append(f'<rect {place} fill="#0b6e6e"><title>{title}</title></rect>')
    base = f'<rect x="0" y="{height}" width="{len(group.bins) * width}" height="1" fill="#5a6875"/>'
    size = f'width="{len(group.bins) * width}" height="{height + 1}"'
    return f'<svg role="img" {size}>{"".join(bars)}{base}</svg>'


def escape(text: str) -> str:
    """A text in HTML, without what nobody sees."""
    return html_escape(plain(text))


def _list(items: Iterable[str]) -> str:
    return ", ".join(items)


def _decimal(units: int, scale: int) -> str:
    return f"{Decimal(units) / scale:f}"


def _rho(nano: int) -> str:
    return f"{Decimal(nano).scaleb(-9).normalize():f}"
