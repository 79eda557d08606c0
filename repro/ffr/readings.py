"""Ways in which a text can be read: look-alikes folded, letters joined, codes undone.

A hint that hides a word from a rule need only be readable by a language model, so every rule of
the leak gate runs on each of these readings (ffr.md 6.5).
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from functools import lru_cache

#: Letters of other alphabets that look like Latin ones (chosen; NFKC knows the rest).
_LIKE = {
    **dict(zip("авеԁнһіјкӏмոорԛгѕтυѵԝхуʏᴢь", "abedhhijklmnopqrstuvwxyyzb", strict=True)),
    **dict(zip("αβγδεζηικλμνορστχωϲϳ", "abydezniklmvopstxwcj", strict=True)),
    "с": "c", "д": "d", "ё": "e", "й": "n", "л": "n", "п": "n", "и": "n", "ц": "u", "ч": "y",
    "θ": "o", "φ": "o", "ս": "u", "օ": "o", "ց": "g", "հ": "h", "ҽ": "e", "ꜱ": "s", "ⅼ": "l",
    "æ": "ae", "œ": "oe", "ß": "ss", "ð": "d", "þ": "p",
}  # fmt: skip
_LATIN = re.compile(
    r"LATIN (?:(?:SMALL|CAPITAL) LETTER(?: TURNED| REVERSED| OPEN| DOTLESS| SCRIPT)?"
    r"|LETTER SMALL CAPITAL) ([A-Z])\b"
)
#: What a letter is upside down, other than itself.
_TURNED = dict(zip("ɐqɔpǝɟƃɓᵷᴉɾʞɯuodbɹʇnʌʍʎɥlsxz", "abcdefgggijkmnopqrtuvwyhlsxz", strict=True))
_LEET = str.maketrans("0134578@$!|", "oieastbasil")
_SYMBOLS = ("So", "Sk")
#: Letters of scripts that are written without spaces, or whose words grow endings (chosen).
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0002ffff"
)
_SEAM = re.compile(rf"(?<=[{_UNSPACED}])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[{_UNSPACED}])")
_RUN = re.compile(rf"[{_UNSPACED}]+")
WORD = re.compile(r"[^\W_]+(?:'[a-z]+)?")
_SINGLES = re.compile(
    r"(?<![A-Za-z0-9])(?:[A-Za-z][\s\-_.,·*/+|~]{1,2}){2,}[A-Za-z](?![A-Za-z0-9])"
)
_CODED = re.compile(r"[A-Za-z0-9+/_-]{2,}={0,2}")
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:0x|\\x)?((?:[0-9a-fA-F]{2}[\s:,\\x]{0,2}){2,})")
_BITS = re.compile(r"\b(?:[01]{8}[\s,]*)+\b")
_DECIMALS = re.compile(r"\b(?:\d{2,3}[\s,;-]+){1,}\d{2,3}\b")
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2})+")
_ESCAPE = re.compile(r"(?:\\u[0-9a-fA-F]{4}|&#x?[0-9a-fA-F]+;)+")


_UPSIDE = re.compile("[ɐɔǝɟƃɓᵷᴉɾʞɯɹʇʌʍʎɥ]")


def fold(text: str) -> str:
    """Latin letters without marks, digits and punctuation; symbols by their names. Case stays."""
    out = []
    for char in unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text)):
        kind = unicodedata.category(char)
        if kind in ("Mn", "Me", "Cf"):
            continue
        if char.isascii():
            out.append(char)
        elif kind in _SYMBOLS:
            out.append(f" {unicodedata.name(char, 'symbol').lower()} ")
        elif kind in ("Nd", "No", "Nl"):
            out.append(f"{unicodedata.numeric(char, 0):g}")
        elif kind == "Pd":
            out.append("-")
        else:
            out.append(_like(char))
    return _SEAM.sub(" ", unicodedata.normalize("NFC", "".join(out)))


@lru_cache(4096)
def _like(char: str) -> str:
    low = char.lower()
    if low in _LIKE:
        return _LIKE[low].upper() if char != low else _LIKE[low]
    if found := _LATIN.match(unicodedata.name(char, "")):
        return found[1] if char != low else found[1].lower()
    return char if char.isalpha() else " "


def foreign(text: str, known: str) -> str:
    """The first letter of an alphabet that is neither Latin nor used in `known`; "" if none."""
    allowed = {"LATIN"} | {_script(c) for c in known if c.isalpha()}
    text = unicodedata.normalize("NFKC", text)
    return next((c for c in text if c.isalpha() and _script(c) not in allowed), "")


@lru_cache(4096)
def _script(char: str) -> str:
    name = unicodedata.name(char, "?")
    return "LATIN" if char.isascii() or "LATIN" in name else name.split()[0]


def hidden(text: str) -> bool:
    """Whether it holds characters that are not seen: zero width, direction marks, tags."""
    return any(unicodedata.category(c) == "Cf" for c in text)


def words(text: str) -> list[str]:
    """Lower-case words and numbers of a folded text."""
    found: list[str] = []
    for word in WORD.findall(text.lower().replace("’", "'")):
        if _RUN.fullmatch(word) is None:
            found.append(word.removeprefix("ال") or word)  # the Arabic article
        else:
            found += [word[i : i + 2] for i in range(max(1, len(word) - 1))]
    return found


def lone(text: str) -> set[str]:
    """Every letter of the scripts whose `words` are pairs of letters."""
    return {letter for run in _RUN.findall(text) for letter in run}


@lru_cache(64)
def readings(text: str) -> tuple[str, ...]:
    """The text folded, then every other way to read it that gives something else."""
    plain = fold(text)
    found = [plain, *_respelled(plain), *_turned(text), *decoded(text)]
    return tuple(dict.fromkeys(found))


def _respelled(plain: str) -> list[str]:
    joined = _SINGLES.sub(lambda m: " " + re.sub(r"[^A-Za-z]", "", m[0]) + " ", plain)
    unbroken = re.sub(r"(?<=[A-Za-z])[-_.·*/+|~](?=[A-Za-z])", "", joined)
    leet = re.sub(
        r"\S*[A-Za-z]\S*",
        lambda m: m[0].translate(_LEET) if re.search(r"[^A-Za-z'\".,;:)(-]", m[0]) else m[0],
        plain,
    )
    squeezed = re.sub(r"([A-Za-z])\1{2,}", r"\1", plain)
    tokens = words(plain)
    backwards = " ".join(w[::-1] for w in tokens if len(w) > 2)
    return [joined, unbroken, leet, squeezed, backwards, _rot13(plain), *_pig_latin(tokens)]


def _pig_latin(tokens: list[str]) -> list[str]:
    """`ellowyay`, `ueblay` and `onway` read back, each by every number of letters moved."""
    found = []
    for word in tokens:
        if len(word) > 4 and word.endswith("ay"):
            bare = word[:-2]
            found += [bare[-n:] + bare[:-n] for n in (1, 2, 3) if n < len(bare)]
            found += [bare[:-1]] if bare[-1] in "wyh" else []
    return [" ".join(found)] if found else []


def _turned(text: str) -> list[str]:
    """Words written upside down, where a letter shows that some are."""
    words_ = [w for w in text.lower().split() if not w.isascii() and _UPSIDE.search(w)]
    found = " ".join("".join(_TURNED.get(c, c) for c in reversed(w)) for w in words_)
    return [found] if found else []


def _rot13(text: str) -> str:
    import codecs

    return codecs.encode(text, "rot13")


def decoded(text: str) -> list[str]:
    """What base64, hexadecimal, binary, decimal, percent and escape codes in it say in ASCII."""
    found: list[str] = []
    for token in _CODED.findall(text):
        bare = token.rstrip("=")
        if bare == token and re.fullmatch(r"[A-Z]?[a-z]+|[A-Z]+", token):
            continue  # a word: codes mix capitals and digits in
        padded = bare.replace("-", "+").replace("_", "/") + "=" * (-len(bare) % 4)
        try:
            found.append(_readable(base64.b64decode(padded, validate=True)))
        except (ValueError, binascii.Error):
            continue
    found += [_readable(bytes.fromhex(re.sub(r"[^0-9a-fA-F]", "", m[1]))) for m in _evenly(text)]
    for bits in _BITS.findall(text):
        packed = re.sub(r"\D", "", bits)
        found.append(_readable(int(packed, 2).to_bytes(len(packed) // 8, "big")))
    for run in _DECIMALS.findall(text):
        numbers = [int(n) for n in re.findall(r"\d+", run)]
        found.append(_readable(bytes(n for n in numbers if n < 128)))
    for run in _PERCENT.findall(text):
        found.append(_readable(bytes.fromhex(run.replace("%", ""))))
    for run in _ESCAPE.findall(text):
        codes = re.findall(r"\\u([0-9a-fA-F]{4})|&#x([0-9a-fA-F]+);|&#(\d+);", run)
        values = [int(u or x, 16) if u or x else int(d) for u, x, d in codes]
        found.append("".join(chr(v) for v in values if 31 < v < 0xD800))
    return [f for f in found if f]


def _evenly(text: str) -> list[re.Match[str]]:
    return [m for m in _HEX.finditer(text) if len(re.sub(r"[^0-9a-fA-F]", "", m[1])) % 2 == 0]


def _readable(data: bytes) -> str:
    """The bytes as text if they are nothing but printable ASCII with a letter, else ""."""
    text = data.decode("ascii", "replace")
    return text if text.isprintable() and re.search("[A-Za-z]", text) and "�" not in text else ""


def encoded(text: str) -> bool:
    """Whether a part of it looks like a code at first sight, whatever it says."""
    long = re.findall(r"[A-Za-z0-9+/_-]{10,}={0,2}|[A-Za-z0-9+/]{2,}={1,2}(?!\w)", text)
    for token in long:
        mixed = re.search(r"[a-z][A-Z]|[A-Z][a-z]*\d|\d[A-Za-z]", token)
        if token.endswith("=") or (mixed and "-" not in token and "/" not in token):
            return True
    if re.search(r"\b[01]{7,}\b|\\[ux][0-9a-fA-F]{2}|&#|%[0-9A-F]{2}%", text):
        return True
    if re.search(r"\b0x[0-9a-fA-F]+\b|#[0-9a-fA-F]{6}\b|\b(?:rgb|hsl|hsv|cmyk)a?\b", text.lower()):
        return True
    if re.search(r"\b(?=[A-F]*\d)(?=\d*[A-F])(?:[0-9A-F]{6}|[0-9A-F]{8})\b", text.upper()):
        return True
    hexes = re.findall(r"\b[0-9a-f]{8,}\b", text.lower())
    return any(re.search("[a-f]", h) and re.search(r"\d", h) for h in hexes) or bool(
        re.search(r"(?:[.\-–·]{1,5}[\s/]+){2,}[.\-–·]{1,5}(?:\s|$)", text)  # Morse
    )
