"""Purposes of use, from two public vocabularies, which covers which, and the conditions that go with them.

HL7 v3 ActReason, its whole branch PurposeOfUse, for care, payment, running a health service, research and
public health; GA4GH DUO, its permissions, for research. A granted purpose covers itself and everything below
it, never what is above: a grant for disease-specific research does not cover general research. DUO's
permissions stand below ActReason's health-care research, which is wider. Codes that are not in the table
cover nothing and are covered by nothing.

DUO's modifiers are `CONDITIONS`: they only ever narrow. Those that a program can judge are rules of
`privacy.rules`; the others bind the recipient, are part of what it was given and stand in its receipt.

Departures. DUO's NRES ("no restriction") names no purpose, which PIPL 6 asks for, and is left out. DUO's CC
("clinical care use"), a modifier there that widens, is a purpose here, below treatment.

Spec: HL7 Terminology, CodeSystem v3-ActReason 3.1.0 (62 concepts below PurposeOfUse); GA4GH Data Use Ontology
2021-02-23.
"""

from __future__ import annotations

import msgspec

from wire.errors import Refused

ACT_REASON = "v3-ActReason"


class Purpose(msgspec.Struct, frozen=True):
    """A purpose. parent: the next wider one, or "". standard: its id in its vocabulary.

    commercial: serves someone's sales; always needs the patient's separate consent.
    """

    code: str
    parent: str
    standard: str
    english: str
    chinese: str
    commercial: bool = False

    def title(self, language: str = "en") -> str:
        """The purpose in words, "en" or "zh"."""
        return self.chinese if language == "zh" else self.english


class Condition(msgspec.Struct, frozen=True):
    """A condition of DUO. judged: whether `privacy.rules` can tell; otherwise it is the recipient's to keep."""

    code: str
    standard: str
    english: str
    chinese: str
    judged: bool = False

    def title(self, language: str = "en") -> str:
        """The condition in words, "en" or "zh"."""
        return self.chinese if language == "zh" else self.english


def _reason(code: str, parent: str, english: str, chinese: str, commercial: bool = False) -> Purpose:
    return Purpose(code, parent, f"{ACT_REASON}#{code}", english, chinese, commercial)


_TREATMENT = (
    _reason("TREAT", "", "treatment", "诊疗"),
    _reason("CLINTRL", "TREAT", "clinical trial with treatment", "含诊疗的临床试验"),
    _reason("COC", "TREAT", "coordination of care", "诊疗协调"),
    _reason("ETREAT", "TREAT", "emergency treatment", "急诊救治"),
    _reason("BTG", "ETREAT", "break the glass", "紧急越权访问"),
    _reason("ERTREAT", "ETREAT", "emergency room treatment", "急诊室诊疗"),
    _reason("POPHLTH", "TREAT", "population health", "人群健康管理"),
    _reason("TREATDS", "TREAT", "decision support assisted treatment decision", "辅助诊疗决策"),
    Purpose("CC", "TREAT", "DUO:0000043", "clinical care use", "临床照护用途"),
)

_PAYMENT = (
    _reason("HPAYMT", "", "healthcare payment", "医疗费用支付"),
    _reason("CLMATTCH", "HPAYMT", "claim attachment", "理赔附件"),
    _reason("COVAUTH", "HPAYMT", "coverage authorization", "保障授权"),
    _reason("COVERAGE", "HPAYMT", "coverage under policy or program", "保单或计划保障"),
    _reason("ELIGDTRM", "COVERAGE", "eligibility determination", "资格认定"),
    _reason("ELIGVER", "COVERAGE", "eligibility verification", "资格核验"),
    _reason("ENROLLM", "COVERAGE", "enrollment", "参保登记"),
    _reason("MILDCRG", "COVERAGE", "military discharge", "退役安置"),
    _reason("PMTDS", "HPAYMT", "decision support assisted payment decision", "辅助支付决策"),
    _reason("REMITADV", "HPAYMT", "remittance advice", "付款通知"),
)

_OPERATIONS = (
    _reason("HOPERAT", "", "healthcare operations", "医疗运营"),
    _reason("CAREMGT", "HOPERAT", "care management", "诊疗管理"),
    _reason("DONAT", "HOPERAT", "donation", "器官组织捐献"),
    _reason("FRAUD", "HOPERAT", "fraud detection and prevention", "欺诈识别与防范"),
    _reason("GOV", "HOPERAT", "government", "政务"),
    _reason("HACCRED", "HOPERAT", "health accreditation", "医疗机构评审"),
    _reason("HCOMPL", "HOPERAT", "health compliance", "医疗合规"),
    _reason("HDECD", "HOPERAT", "decedent matters", "死者事务"),
    _reason("HDIRECT", "HOPERAT", "directory", "名录管理"),
    _reason("HDM", "HOPERAT", "healthcare delivery management", "医疗服务管理"),
    _reason("HLEGAL", "HOPERAT", "legal proceedings", "司法程序"),
    _reason("HOUTCOMS", "HOPERAT", "health outcome measure", "医疗结果评价"),
    _reason("HPRGRP", "HOPERAT", "health program reporting", "项目报告"),
    _reason("HQUALIMP", "HOPERAT", "health quality improvement", "医疗质量改进"),
    _reason("HSYSADMIN", "HOPERAT", "health system administration", "信息系统管理"),
    _reason("LABELING", "HSYSADMIN", "labeling", "数据标记"),
    _reason("METAMGT", "HSYSADMIN", "metadata management", "元数据管理"),
    _reason("MEMADMIN", "HOPERAT", "member administration", "参保人管理"),
    _reason("MILCDM", "HOPERAT", "military command", "军事管理"),
    _reason("MLTRAINING", "HOPERAT", "machine learning training", "机器学习训练"),
    _reason("PATADMIN", "HOPERAT", "patient administration", "患者管理"),
    _reason("PATSFTY", "HOPERAT", "patient safety", "患者安全"),
    _reason("PERFMSR", "HOPERAT", "performance measure", "绩效评价"),
    _reason("RECORDMGT", "HOPERAT", "records management", "病案管理"),
    _reason("SYSDEV", "HOPERAT", "system development", "系统开发"),
    _reason("HTEST", "SYSDEV", "test health data", "测试用健康数据"),
    _reason("TRAIN", "HOPERAT", "training", "培训教学"),
)

_RESEARCH = (
    _reason("HRESCH", "", "healthcare research", "医疗卫生研究"),
    _reason("BIORCH", "HRESCH", "biomedical research", "生物医学研究"),
    _reason("CLINTRCH", "HRESCH", "clinical trial research", "临床试验研究"),
    _reason("CLINTRCHNPC", "CLINTRCH", "clinical trial research without patient care", "不含诊疗的临床试验研究"),
    _reason("CLINTRCHPC", "CLINTRCH", "clinical trial research with patient care", "含诊疗的临床试验研究"),
    _reason("PRECLINTRCH", "CLINTRCH", "preclinical trial research", "临床前研究"),
    _reason("DSRCH", "HRESCH", "disease specific healthcare research", "特定疾病医疗研究"),
    _reason("POARCH", "HRESCH", "population origins or ancestry healthcare research", "人群起源或族源研究"),
    _reason("TRANSRCH", "HRESCH", "translational healthcare research", "转化医学研究"),
    Purpose("GRU", "HRESCH", "DUO:0000042", "general research use", "一般研究用途"),
    Purpose("HMB", "GRU", "DUO:0000006", "health or medical or biomedical research", "健康、医学或生物医学研究"),
    Purpose("DS", "HMB", "DUO:0000007", "disease specific research", "特定疾病研究"),
    Purpose("POA", "GRU", "DUO:0000011", "population origins or ancestry research only", "人群起源或族源研究（限定）"),
)

_OTHERS = (
    _reason("PUBHLTH", "", "public health", "公共卫生"),
    _reason("DISASTER", "PUBHLTH", "disaster", "灾害应对"),
    _reason("THREAT", "PUBHLTH", "threat", "威胁应对"),
    _reason("PATRQT", "", "patient requested", "患者本人请求"),
    _reason("FAMRQT", "PATRQT", "family requested", "家属请求"),
    _reason("PWATRNY", "PATRQT", "power of attorney", "委托代理人请求"),
    _reason("SUPNWK", "PATRQT", "support network", "患者授权人请求"),
    _reason("HMARKT", "", "healthcare marketing", "医疗营销", commercial=True),
)

PURPOSES: dict[str, Purpose] = {
    purpose.code: purpose for purpose in (*_TREATMENT, *_PAYMENT, *_OPERATIONS, *_RESEARCH, *_OTHERS)
}

CONDITIONS: dict[str, Condition] = {
    condition.code: condition
    for condition in (
        Condition("COL", "DUO:0000020", "collaboration required", "须与数据方合作"),
        Condition("GS", "DUO:0000022", "geographical restriction", "限定地域", judged=True),
        Condition("GSO", "DUO:0000016", "genetic studies only", "仅限遗传研究"),
        Condition("IRB", "DUO:0000021", "ethics approval required", "须经伦理审查"),
        Condition("IS", "DUO:0000028", "institution specific restriction", "限定机构", judged=True),
        Condition("MOR", "DUO:0000024", "publication moratorium", "暂缓发表"),
        Condition("NCU", "DUO:0000046", "non-commercial use only", "仅限非商业用途", judged=True),
        Condition("NMDS", "DUO:0000015", "no general methods research", "不得用于一般方法学研究"),
        Condition("NPOA", "DUO:0000044", "no population origins or ancestry research", "不得用于族源研究", judged=True),
        Condition("NPU", "DUO:0000045", "not for profit organisations only", "仅限非营利机构"),
        Condition("NPUNCU", "DUO:0000018", "not for profit, non-commercial use", "仅限非营利、非商业用途", judged=True),
        Condition("PS", "DUO:0000027", "project specific restriction", "限定项目"),
        Condition("PUB", "DUO:0000019", "publication required", "须公开发表"),
        Condition("RS", "DUO:0000012", "research specific restrictions", "限定研究类型"),
        Condition("RTN", "DUO:0000029", "return to database or resource", "须回传成果"),
        Condition("TS", "DUO:0000025", "time limit on use", "限定期限", judged=True),
        Condition("US", "DUO:0000026", "user specific restriction", "限定使用者"),
    )
}
"""GS, IS and TS are judged of every grant anyway: by its jurisdiction, its recipient and its period."""


def purpose(code: str) -> Purpose:
    """The purpose of that code. Raises Refused for an unknown one."""
    found = PURPOSES.get(code)
    if found is None:
        raise Refused("privacy.unknown_purpose", purpose=code)
    return found


def ancestors(code: str) -> tuple[str, ...]:
    """The code itself, then each wider one. Raises Refused for an unknown code."""
    chain = [purpose(code)]
    while chain[-1].parent:
        chain.append(PURPOSES[chain[-1].parent])
    return tuple(step.code for step in chain)


_ALIKE: dict[str, str] = {"DSRCH": "DS", "DS": "DSRCH", "POARCH": "POA", "POA": "POARCH"}
"""Codes that the two vocabularies have for one purpose."""

_WIDER: dict[str, frozenset[str]] = {code: frozenset(ancestors(code)) for code in PURPOSES}
_MEANT = {asked: wider | {_ALIKE[code] for code in wider if code in _ALIKE} for asked, wider in _WIDER.items()}


def covers(granted: str, asked: str) -> bool:
    """Whether a grant for `granted` covers a use for `asked`. False where either is unknown."""
    return granted in _WIDER.get(asked, ())


def covering(asked: str) -> frozenset[str]:
    """The purposes that cover `asked`: itself and the wider ones; none for an unknown one."""
    return _WIDER.get(asked, frozenset())


def meaning(asked: str) -> frozenset[str]:
    """`covering`, and the codes by which the other vocabulary calls one of them: what a refusal of either reaches."""
    return _MEANT.get(asked, frozenset())


def covered(granted: str) -> tuple[str, ...]:
    """The purposes that a grant for `granted` covers, in the table's order; none for an unknown one."""
    return tuple(code for code, wider in _WIDER.items() if granted in wider)
