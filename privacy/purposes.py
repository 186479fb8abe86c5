"""Purposes of use, from two public vocabularies, and which covers which.

HL7 v3 ActReason, branch PurposeOfUse, for care, payment and running a health service; GA4GH DUO for
research. A granted purpose covers itself and everything below it, never what is above: a grant for
disease-specific research does not cover general research. DUO's permissions stand below ActReason's
health-care research, which is wider. Codes that are not in the table cover nothing and are covered by
nothing.

Spec: HL7 Terminology, CodeSystem v3-ActReason; GA4GH Data Use Ontology 2021-02-23.
"""

from __future__ import annotations

import msgspec

from wire.errors import Refused


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


def _reason(code: str, parent: str, english: str, chinese: str, commercial: bool = False) -> Purpose:
    return Purpose(code, parent, f"v3-ActReason#{code}", english, chinese, commercial)


PURPOSES: dict[str, Purpose] = {
    purpose.code: purpose
    for purpose in (
        _reason("TREAT", "", "treatment", "诊疗"),
        _reason("ETREAT", "TREAT", "emergency treatment", "急诊救治"),
        _reason("CLINTRL", "TREAT", "clinical trial with treatment", "含诊疗的临床试验"),
        _reason("HPAYMT", "", "healthcare payment", "医疗费用支付"),
        _reason("CLMATTCH", "HPAYMT", "claim attachment", "理赔附件"),
        _reason("COVAUTH", "HPAYMT", "coverage authorization", "保障授权"),
        _reason("COVERAGE", "HPAYMT", "coverage under policy or program", "保单或计划保障"),
        _reason("ELIGDTRM", "COVERAGE", "eligibility determination", "资格认定"),
        _reason("ELIGVER", "COVERAGE", "eligibility verification", "资格核验"),
        _reason("ENROLLM", "COVERAGE", "enrollment", "参保登记"),
        _reason("REMITADV", "HPAYMT", "remittance advice", "付款通知"),
        _reason("HOPERAT", "", "healthcare operations", "医疗运营"),
        _reason("FRAUD", "HOPERAT", "fraud detection and prevention", "欺诈识别与防范"),
        _reason("HACCRED", "HOPERAT", "health accreditation", "医疗机构评审"),
        _reason("HCOMPL", "HOPERAT", "health compliance", "医疗合规"),
        _reason("HOUTCOMS", "HOPERAT", "health outcome measure", "医疗结果评价"),
        _reason("HQUALIMP", "HOPERAT", "health quality improvement", "医疗质量改进"),
        _reason("PATSFTY", "HOPERAT", "patient safety", "患者安全"),
        _reason("PERFMSR", "HOPERAT", "performance measure", "绩效评价"),
        _reason("HRESCH", "", "healthcare research", "医疗卫生研究"),
        _reason("BIORCH", "HRESCH", "biomedical research", "生物医学研究"),
        _reason("CLINTRCH", "HRESCH", "clinical trial research", "临床试验研究"),
        _reason("DSRCH", "HRESCH", "disease specific healthcare research", "特定疾病医疗研究"),
        _reason("POARCH", "HRESCH", "population origins or ancestry healthcare research", "人群起源或族源研究"),
        _reason("TRANSRCH", "HRESCH", "translational healthcare research", "转化医学研究"),
        Purpose("GRU", "HRESCH", "DUO:0000042", "general research use", "一般研究用途"),
        Purpose("HMB", "GRU", "DUO:0000006", "health or medical or biomedical research", "健康、医学或生物医学研究"),
        Purpose("DS", "HMB", "DUO:0000007", "disease specific research", "特定疾病研究"),
        Purpose("POA", "GRU", "DUO:0000011", "population origins or ancestry research only", "人群起源或族源研究"),
        _reason("PUBHLTH", "", "public health", "公共卫生"),
        _reason("DISASTER", "PUBHLTH", "disaster", "灾害应对"),
        _reason("THREAT", "PUBHLTH", "threat", "威胁应对"),
        _reason("PATRQT", "", "patient requested", "患者本人请求"),
        _reason("HMARKT", "", "healthcare marketing", "医疗营销", commercial=True),
    )
}


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


def covers(granted: str, asked: str) -> bool:
    """Whether a grant for `granted` covers a use for `asked`. False where either is unknown."""
    return granted in PURPOSES and asked in PURPOSES and granted in ancestors(asked)
