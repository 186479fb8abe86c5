"""An explained query in words, English and Simplified Chinese: sections of sentences, for people on any screen."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from medveil.gateway.explaining import Explanation, Leaving
from mpc.budget import rows_of_one_unit, rows_words
from mpc.cells import fewest_rows
from mpc.query import GATE, NANO, Kind, Measure, noised
from privacy.explain import in_words, purpose_title
from wire.secure_sum import FEWEST_APART, apart, threshold

Words = tuple[str, str]
"""English, Simplified Chinese."""

_MOST_LISTED = 20
"""Groups that are named, at most; the others are counted."""

KIND_TITLES: dict[Kind, Words] = {
    "gate": ("rows with a known {column}, by which groups pass", "{column} 已知的行数（据此决定哪些分组通过）"),
    "counts": ("rows with a known {column}", "{column} 已知的行数"),
    "sums": ("sums of {column}", "{column} 的总和"),
    "squares": ("sums of squares of {column}", "{column} 的平方和"),
    "bins": ("rows in each bin of {column}", "{column} 直方图各区间的行数"),
}
"""What a cell of a kind holds of a column."""
_ROWS_KINDS: dict[Kind, Words] = {
    "gate": ("rows, by which groups pass", "行数（据此决定哪些分组通过）"),
    "counts": ("rows", "行数"),
}
_UNITS: dict[str, Words] = {
    "rows": ("rows", "行"),
    "measure": ("units of the column", "该列的单位"),
    "measure squared": ("squared units of the column", "该列单位的平方"),
}
_ASSUMED: dict[str, Words] = {
    "all-honest": ("if every site adds its noise", "若各机构都加噪"),
    "colluders": ("if those assumed to collude ({colluders}) add none", "若假定合谋的 {colluders} 个机构不加噪"),
    "one-honest": ("if one site alone adds noise", "若只有一个机构加噪"),
}
_TITLES: dict[str, Words] = {
    "sites": ("What each site would compute, at home", "各机构将在本地计算什么"),
    "leaving": ("What would leave each site", "每个机构将送出什么"),
    "noise": ("How noisy the answer would be", "结果将有多少噪声"),
    "cost": ("What it would cost", "将花费多少预算"),
    "hidden": ("What may be hidden", "哪些内容可能被隐藏"),
    "beside": ("What it has to do with earlier queries", "与以往查询的关系"),
    "own": ("What this site would answer now", "本机构目前将如何答复"),
}
_SAYS: dict[str, Words] = {
    "at": ("{sites}, each by itself:", "{sites}，各自进行："),
    "site": ("{site} over its table {dataset}", "{site} 使用其表 {dataset}"),
    "reads": ("reads the columns {columns};", "读取列 {columns}；"),
    "filters": (
        "keeps the rows for which {filter}, as far as its own grant covers them, without opted-out people;",
        "保留满足 {filter} 的行，以其自身授权所及为限，并去掉已选择退出者的行；",
    ),
    "all rows": (
        "takes all rows that its own grant covers, without those of people who opted out;",
        "取其自身授权所及的全部行，并去掉已选择退出者的行；",
    ),
    "measure": (
        (
            "{column}: leaves out rows without it{missing}, rounds to {grain}, counts what lies below {low} as {low} "
            "and above {high} as {high}{edges};"
        ),
        "{column}：去掉缺失的行{missing}，取整到{grain}，低于 {low} 记作 {low}，高于 {high} 记作 {high}{edges}；",
    ),
    "missing": (" or with {values}, which stand for not known", "以及取值为 {values}（表示未知）的行"),
    "edges": ("; bins end at {values}", "；直方图边界为 {values}"),
    "caps": (
        "counts at most {rows} of one person ({person} says whose a row is, and never leaves);",
        "每人至多计 {rows}（{person} 标明行属于谁，不会送出）；",
    ),
    "caps rows": (
        "counts a row as its own person; a site whose table says whose a row is refuses that: name that column;",
        "每行视为一个人；若机构的表标明行属于谁，则会拒绝：请写明该列；",
    ),
    "whole": ("whole numbers", "整数"),
    "part": ("1/{scale}", " 1/{scale}"),
    "by row": (
        "protects single rows: a person with several rows is not protected as a whole;",
        "只保护单行：有多行的人并不作为整体受到保护；",
    ),
    "groups": ("puts every row into one of {count} groups, by {columns};", "按 {columns} 把每行归入 {count} 组之一；"),
    "group column": ("{column} ({values})", "{column}（{values}）"),
    "one group": ("puts all rows into one group;", "所有行归为一组；"),
    "adds": ("adds up, for every group, empty or not: {kinds}.", "对每个分组（包括空组）求和：{kinds}。"),
    "phase 1": ("First {count} numbers: {kinds}.", "第一步送出 {count} 个数：{kinds}。"),
    "phase 2": (
        "Then, of the groups that passed, at most {count} numbers: {kinds}.",
        "第二步对通过的分组送出至多 {count} 个数：{kinds}。",
    ),
    "masked": (
        (
            "Each number has the site's own noise in it, and is masked and committed before it leaves: nobody sees it, "
            "neither the researcher nor another site nor the ledger. Only totals over at least {fewest} of the {sites} "
            "sites are opened."
        ),
        (
            "每个数在送出前都已加入本机构自己的噪声，并经掩码和承诺：研究者、其他机构和账本都看不到它。"
            "只公开 {sites} 个机构中至少 {fewest} 个的总和。"
        ),
    ),
    "masked exact": (
        (
            "This question is exact: rows, sums and squares of the second step have no noise in them, the others do. "
            "Every number is masked and committed before it leaves: nobody sees it, neither the researcher nor another "
            "site nor the ledger. Only totals over at least {fewest} of the {sites} sites are opened, and in the "
            "second step over just those of the first."
        ),
        (
            "本问题为精确查询：第二步的行数、总和与平方和不加噪声，其余数加噪声。每个数在送出前都经掩码和承诺："
            "研究者、其他机构和账本都看不到它。只公开 {sites} 个机构中至少 {fewest} 个的总和，"
            "第二步只对与第一步相同的机构公开。"
        ),
    ),
    "ledger": (
        (
            "On the ledger stand from the beginning a salted hash of the query, its population, sites and cost; later "
            "the totals. With the release everybody can read the query."
        ),
        "账本上一开始记有查询的加盐哈希、人群、参与机构和费用，之后记有总和。结果发布后，任何人都可读到该查询。",
    ),
    "noise": (
        "{kind}: standard deviation {pooled} {unit} in each total; each site alone adds {site}.",
        "{kind}：每个总和的标准差为 {pooled} {unit}，每个机构单独加入的为 {site}。",
    ),
    "no noise": ("{kind}: exact, without noise.", "{kind}：精确值，无噪声。"),
    "not private": (
        (
            "What is exact is not differentially private; budget and epsilons are for the rest. It can be asked "
            "because the owners of {population} declared it public, and once only of a table, whatever the question."
        ),
        (
            "精确值不满足差分隐私；预算和各 epsilon 只针对其余的数。"
            "之所以可以这样问，是因为人群 {population} 的所有者已将其声明为公开；且无论问题为何，每个表只能这样问一次。"
        ),
    ),
    "rho": (
        "{rho} of the budget of {population} (rho), which has {before} available: {after} would be left.",
        "花费人群 {population} 的预算 rho {rho}；现可用 {before}，之后剩余 {after}。",
    ),
    "not enough": (
        "{rho} of the budget of {population} (rho), which has {before} available: that is not enough.",
        "需花费人群 {population} 的预算 rho {rho}；现可用 {before}，不足。",
    ),
    "epsilon": ("epsilon {epsilon} at delta {delta}, {assumed}.", "epsilon {epsilon}，delta {delta}，{assumed}。"),
    "unit": (
        "That is for {unit}; neighbouring data differ by up to {rows} over all sites.",
        "以{unit}为单位；相邻数据在全部机构中最多相差 {rows}。",
    ),
    "purpose": ("For {purpose}.", "用途：{purpose}。"),
    "hidden": (
        (
            "A group whose noisy total of rows is below {minimum} shows that number and nothing else. Which ones, "
            "nobody knows before; any of {count} can be: {groups}."
        ),
        "含噪行数总和低于 {minimum} 的分组只显示该数。事先无人知道是哪些；以下 {count} 个分组都有可能：{groups}。",
    ),
    "hidden exactly": (
        (
            "A group shows its noisy total of rows and nothing else, unless that total says that it surely has "
            "{minimum} rows; and so do other groups, chosen by the noisy totals, so that nobody reckons a small one "
            "from a sum over several. Which ones, nobody knows before; any of {count} can be: {groups}."
        ),
        (
            "除非含噪行数总和表明某分组确有至少 {minimum} 行，否则该分组只显示该总和；为使人无法从合计推算出小分组，"
            "还会按含噪总和选出其他分组一并隐藏。事先无人知道是哪些；以下 {count} 个分组都有可能：{groups}。"
        ),
    ),
    "exact before": (
        (
            "Sites will refuse it: query {query} asked the same tables exactly, or those that were there before them, "
            "and two exact answers about the same rows can be subtracted, down to one person. Take its release, or "
            "ask with noise."
        ),
        (
            "各机构会拒绝本查询：查询 {query} 已对相同的表（或此前的表）提出过精确查询，"
            "对同一批行的两个精确答案可以相减，直至得出单个人的数据。请使用其结果，或改为带噪声的查询。"
        ),
    ),
    "answered": (
        "This question was answered already, in release {query}: asking it gives that answer again, at no cost.",
        "该问题已在结果 {query} 中回答：再次询问将得到同一答案，不花费预算。",
    ),
    "refused": (
        (
            "Sites that know query {query} refuse this one, but for those that are set to answer and label it: next to "
            "it, it would disclose what {sites} add, up to the noise. "
            "Ask its roster ({roster}), or one that differs from it by at least {fewest} sites."
        ),
        (
            "知道查询 {query} 的机构会拒绝本查询（设为作答并加注的机构除外）："
            "两者相减会泄露 {sites} 的数值（仅有噪声掩盖）。"
            "请询问该查询的机构名单（{roster}），或与其相差至少 {fewest} 个机构的名单。"
        ),
    ),
    "forgotten": (
        (
            "This organisation approved query {query} over {roster} and does not know what it asked: its home came "
            "back from a backup. It refuses this one."
        ),
        "本机构批准过名单为 {roster} 的查询 {query}，但已不知道其内容：数据由较早的备份恢复而来。因此会拒绝本查询。",
    ),
    "near": (
        (
            "Sums of query {query} were over other sites, by {sites} (phase {phase}; {sums} in all): the release will "
            "say that both together disclose the numbers of these up to the noise, as far as both ask for the same."
        ),
        (
            "查询 {query} 的总和所涉机构与此相差 {sites}（第 {phase} 阶段，共 {sums} 个）："
            "结果将注明，两者合起来会泄露这些机构的数值（仅有噪声掩盖），以两者所问相同为限。"
        ),
    ),
    "alone": (
        "No earlier query known here stands so near that both together disclose a single site.",
        "此处已知的以往查询中，没有与之合起来会泄露单个机构的。",
    ),
    "others": (
        (
            "Sites know the queries of others besides, and refuse one that is too near. Where sites are lost on the "
            "way, the release says what its sums then disclose together with earlier ones."
        ),
        "各机构还知道其他研究者的查询，过于接近的会被拒绝。若途中有机构缺席，结果会说明其总和与以往总和合起来会泄露什么。",
    ),
    "own": ("{recipient}: {decision}", "{recipient}：{decision}"),
    "nobody": (
        "Nobody has a grant of yours for queries of {dataset}: whoever asks is denied.",
        "无人持有本机构就 {dataset} 发出的查询授权：任何人提问都会被拒绝。",
    ),
    "more": ("and {count} more", "以及另外 {count} 个"),
}
_UNIT_TITLES: dict[str, Words] = {
    "row": ("one row more or less", "多一行或少一行"),
    "person": ("one person more or less, with all rows", "多一人或少一人（连同其全部行）"),
}


class Section(NamedTuple):
    """A heading and its sentences."""

    title: str
    lines: tuple[str, ...]


def words(explained: Explanation, language: str = "en") -> tuple[Section, ...]:
    """An explanation in words. language: "en" or "zh"."""
    say = _Words(explained, language)
    parts = {
        "sites": say.sites(),
        "leaving": say.leaving(),
        "noise": say.noise(),
        "cost": say.cost(),
        "hidden": say.hidden(),
        "beside": say.beside(),
    }
    if explained.own is not None:
        parts["own"] = say.own()
    return tuple(Section(say.pick(_TITLES[name]), tuple(lines)) for name, lines in parts.items())


class _Words:
    """One explanation in one language."""

    def __init__(self, explained: Explanation, language: str) -> None:
        self._of = explained
        self._query = explained.query
        self._chinese = language == "zh"
        self._comma = "、" if self._chinese else ", "

    def pick(self, both: Words) -> str:
        """The words in the language."""
        return both[self._chinese]

    def _say(self, name: str, **facts: object) -> str:
        return self.pick(_SAYS[name]).format(**facts)

    def _rows(self, count: int) -> str:
        return rows_words(count, "zh" if self._chinese else "en")

    def _list(self, items: Iterator[str] | tuple[str, ...]) -> str:
        return self._comma.join(items)

    def sites(self) -> Iterator[str]:
        """What each site computes. All do the same, each over its own table."""
        query = self._query
        yield self._say(
            "at", sites=self._list(self._say("site", site=one.site, dataset=one.dataset) for one in self._of.sites)
        )
        yield self._say("reads", columns=self._list(self._of.sites[0].reads))
        if query.filter is None:
            yield self._say("all rows")
        else:
            language = "zh" if self._chinese else "en"
            yield self._say("filters", filter=in_words(query.filter, language))
        for measure in query.measures:
            yield self._measure(measure)
        if query.unit == "row":
            yield self._say("by row")
        elif query.person:
            yield self._say("caps", rows=self._rows(query.rows_per_person), person=query.person)
        else:
            yield self._say("caps rows")
        if query.groups:
            named = (
                self._say("group column", column=one.name, values=self._list(one.labels())) for one in query.groups
            )
            yield self._say("groups", count=len(self._of.groups), columns=self._list(named))
        else:
            yield self._say("one group")
        kinds = [one for one in self._of.leaving if one.phase != GATE]
        yield self._say("adds", kinds=self._list(self._kind(one.kind, one.measure) for one in kinds))

    def _measure(self, measure: Measure) -> str:
        def text(units: int) -> str:
            return f"{Decimal(units) / measure.scale:f}"

        missing = self._say("missing", values=self._list(tuple(map(text, measure.missing)))) if measure.missing else ""
        edges = self._say("edges", values=self._list(tuple(map(text, measure.edges)))) if measure.edges else ""
        return self._say(
            "measure",
            column=measure.column,
            missing=missing,
            grain=self._say("whole") if measure.scale == 1 else self._say("part", scale=measure.scale),
            low=text(measure.low),
            high=text(measure.high),
            edges=edges,
        )

    def _kind(self, kind: Kind, measure: str) -> str:
        if not measure:
            return self.pick(_ROWS_KINDS[kind])
        return self.pick(KIND_TITLES[kind]).format(column=measure)

    def leaving(self) -> Iterator[str]:
        """What leaves a site, what of it is opened."""
        for name, there in (
            ("phase 1", [one for one in self._of.leaving if one.phase == GATE]),
            ("phase 2", [one for one in self._of.leaving if one.phase != GATE]),
        ):
            yield self._say(name, count=_cells(there), kinds=self._list(self._kind(o.kind, o.measure) for o in there))
        sites = len(self._query.roster)
        masked = "masked exact" if self._query.exact else "masked"
        yield self._say(masked, fewest=threshold(sites), sites=sites)
        yield self._say("ledger")

    def noise(self) -> Iterator[str]:
        """How noisy each kind of number is."""
        for one in self._of.noise:
            if not noised(self._query, one.kind):
                yield self._say("no noise", kind=self._kind(one.kind, one.measure))
                continue
            unit = self.pick(_UNITS[one.unit])
            yield self._say(
                "noise", kind=self._kind(one.kind, one.measure), pooled=one.pooled, site=one.site, unit=unit
            )

    def cost(self) -> Iterator[str]:
        """The budget, and what it means."""
        query = self._query
        facts = {"rho": _rho(query.rho_nano), "population": query.population, "before": _rho(self._of.before)}
        yield self._say("not enough" if self._of.after < 0 else "rho", **facts, after=_rho(self._of.after))
        for one in self._of.epsilons:
            assumed = self.pick(_ASSUMED[one.assumption]).format(colluders=query.colluders)
            yield self._say("epsilon", epsilon=one.epsilon, delta=f"{Decimal(one.delta):.0e}", assumed=assumed)
        if query.exact:
            yield self._say("not private", population=query.population)
        yield self._say("unit", unit=self.pick(_UNIT_TITLES[query.unit]), rows=self._rows(rows_of_one_unit(query)))
        title = purpose_title(query.purpose, "zh" if self._chinese else "en")
        gap = "（{}）" if self._chinese else " ({})"
        yield self._say("purpose", purpose=query.purpose + gap.format(title))

    def hidden(self) -> Iterator[str]:
        """The rule, and the groups that it may hide."""
        labels = self._of.groups
        shown = labels[:_MOST_LISTED]
        if len(labels) > len(shown):
            shown = (*shown, self._say("more", count=len(labels) - len(shown)))
        rule = "hidden exactly" if self._query.exact else "hidden"
        yield self._say(rule, minimum=fewest_rows(self._query), count=len(labels), groups=self._list(shown))

    def beside(self) -> Iterator[str]:
        """What was asked before that matters to it."""
        beside = self._of.beside
        if beside.answered:
            yield self._say("answered", query=beside.answered.hex())
        for one in beside.refused:
            roster = one.query.roster
            yield self._say(
                "refused",
                query=one.handle.hex(),
                sites=self._list(apart(roster, self._query.roster)),
                roster=self._list(roster),
                fewest=FEWEST_APART,
            )
        for one in beside.exact:
            yield self._say("exact before", query=one.handle.hex())
        for lost in beside.forgotten:
            yield self._say("forgotten", query=lost.handle.hex(), roster=self._list(lost.roster))
        for near in beside.near:
            sites = self._list(near.sites)
            yield self._say("near", query=near.query.hex(), sites=sites, phase=near.phase, sums=near.sums)
        if not (beside.refused or beside.near or beside.exact or beside.forgotten):
            yield self._say("alone")
        yield self._say("others")

    def own(self) -> Iterator[str]:
        """What this organisation's own grants say, to each that has one."""
        own, language = self._of.own, "zh" if self._chinese else "en"
        if own is None:
            return
        for one in own.decisions:
            yield self._say("own", recipient=one.recipient, decision=one.decision.text(language))
        if not own.decisions:
            yield self._say("nobody", dataset=own.dataset)


def _cells(there: list[Leaving]) -> int:
    return sum(one.cells for one in there)


def _rho(nano: int) -> str:
    return f"{Decimal(nano) / NANO:f}"
