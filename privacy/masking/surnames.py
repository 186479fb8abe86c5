"""The surname of a Chinese name: one character, or two where the name begins with a compound surname.

A compound surname cut after its first character would be another family's (欧阳 is not 欧), hence the table; what is
not in it counts as one character. Names that are not written in Chinese characters, have a middle dot, or are too
short to be cut have no surname here: for them nothing leaves.

Sources: the compound surnames of the Hundred Family Surnames (百家姓) and those that the Seventh National Census still
counts, in simplified characters, with the traditional spelling of each where it differs.
"""

from __future__ import annotations

import unicodedata

_TABLE = """
欧阳 太史 端木 上官 司马 东方 独孤 南宫 万俟 闻人 夏侯 诸葛 尉迟 公羊 赫连 澹台 皇甫 宗政 濮阳 公冶 太叔 申屠
公孙 慕容 仲孙 钟离 长孙 宇文 司徒 鲜于 司空 闾丘 子车 亓官 司寇 巫马 公西 颛孙 壤驷 公良 漆雕 乐正 宰父 谷梁
拓跋 夹谷 轩辕 令狐 段干 百里 呼延 东郭 南门 羊舌 微生 公户 公玉 公仪 梁丘 公仲 公上 公门 公山 公坚 左丘 公伯
西门 公祖 第五 公乘 贯丘 公皙 南荣 东里 东宫 仲长 子书 子桑 即墨 达奚 褚师 纳兰 归海 贺兰 完颜 耶律 叶赫 贺若
东门 西陵 钟吾 淳于 单于 北宫 斛律 侯莫 爱新 乌雅 富察 钮祜 佟佳 哈剌 歐陽 東方 獨孤 南宮 萬俟 聞人 諸葛 尉遲
赫連 澹臺 濮陽 公孫 仲孫 鍾離 鐘離 長孫 鮮于 閭丘 子車 巫馬 司馬 顓孫 壤駟 樂正 穀梁 夾谷 軒轅 東郭 南門 公戶
公儀 公門 公堅 西門 貫丘 南榮 東里 東宮 仲長 子書 達奚 褚師 納蘭 歸海 賀蘭 完顏 葉赫 賀若 東門 鍾吾 單于 北宮
愛新 烏雅 鈕祜
"""
COMPOUND = frozenset(_TABLE.split())
"""Surnames of two characters."""

_LONGEST = 6
_CHINESE = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x20000, 0x323AF))
"""CJK unified ideographs with their extensions A to H (Unicode 15)."""


def surname(name: str) -> str | None:
    """The surname of `name` (secret), or None where it has none that could be shown alone.

    Never the whole name: one character has no surname, and two characters give the first, also where both together are
    a compound surname.
    """
    text = "".join(unicodedata.normalize("NFKC", name).split())
    if not 2 <= len(text) <= _LONGEST or not all(_is_chinese(character) for character in text):
        return None
    return text[:2] if len(text) > 2 and text[:2] in COMPOUND else text[0]


def _is_chinese(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _CHINESE)
