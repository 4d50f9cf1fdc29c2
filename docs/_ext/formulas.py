"""The formulas of docstrings, written so that they read well at a terminal, as LaTeX.

>>> to_latex("E_L = -(1/2) sum_i d_i^2 ln psi + V(x)")
'E_{L} = -(1/2) \\\\sum_{i} d_{i}^{2} \\\\ln \\\\psi + V(x)'
>>> to_latex("tw.simulate(process, 1.0)") is None  # code stays code
True
"""

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


GREEK = _words("""
    alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi chi psi omega
    Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega
""")
FUNCTIONS = _words("exp log ln sin cos tan tanh det min max lim sup inf arg")
UPRIGHT = _words("Var Cov cov tr diag offdiag Normal Uniform Comp Op TC mean sd logit softplus sign const")
BIG = {"sum": r"\sum", "int": r"\int", "prod": r"\prod"}
SIGNS = {
    "grad": r"\nabla ", "div": r"\nabla\cdot ", "lap": r"\Delta ", "eps": r"\epsilon", "lam": r"\lambda ",
    "th": r"\theta ", "inf": r"\infty",
    "<=": r" \le ", ">=": r" \ge ", "->": r" \to ", "<-": r" \leftarrow ", "+-": r"\pm ",
    "!=": r" \ne ", "..": r"\ldots ", "...": r"\ldots ", "*": r" \cdot ", "~": r" \sim ", "#": r"_{\#}",
    "=": " = ", "<": " < ", ">": " > ", ".": r"\cdot ",
}  # fmt: skip
TOKENS = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?|\.\d+|[A-Za-z]+|<=|>=|->|<-|\+-|!=|\.\.+|\s+|.")
# What only code has: quotes, dotted calls, keywords without spaces, names with long parts that are called.
CODE = re.compile(
    r"""["\\@%]|==|\*\*|:\s*\d|\w\.[a-z_]{2,}|^\.|[a-z]{2,}=\S|[(,]\s*\w+=\S|\w=\.\.\.|--|\[:|\b(?!lambda_max)[a-z]{2,}_[a-z]{2,}\("""
    r"""|\bNone\b|\bTrue\b|\bFalse\b|\.\.\.,|^[a-z]{2,}(?:_[a-z]+)+$|^[a-z]_[a-z]{3,}$|[A-Z]{2,}_[A-Z]|[-+=]=|=$|\)\s*->|\[[a-z]{3,}\]"""
    r"""|\blog_[a-z]{3,}|log1p|-hat\b|'s """
)
# A formula has at least one of these: a power, an index, a spaced sign, a mean, a bar, or a function at work.
MATHS = re.compile(
    r"\^|\b\w{1,2}_\w|\s(?:[=~<>+/*-]|<=|>=|->|<-|\+-)\s|<[^<>]+>|\|.+\||'\s|^[A-Za-z]\d?'?~?$|"
    r"\b(?:log|ln|exp|sqrt|det|tr|sum|int|grad)\b|^-?\w+/\w+$|\)/\w|^-?[A-Za-z](?: [A-Za-z])+$|^d \w+/d\w$|\w'$|"
    r"^[A-Za-z][(\[]\w(?: ?[|,] ?\w)*[)\]]$"
)


def to_latex(text: str) -> str | None:
    """`text` as LaTeX, or None where it is no formula."""
    if CODE.search(text) or not MATHS.search(text):
        return None
    try:
        reader = _Reader(text)
        latex = reader.until(None)
    except _NoFormula:
        return None
    if not reader.symbols:  # words only: a sentence of code, such as `target > start`
        return None
    return re.sub(r"\s+", " ", latex).strip()


class _NoFormula(Exception):
    """What stands there does not read as a formula."""


class _Reader:
    """Reads from left to right; `at` is the place of the next token."""

    def __init__(self, text: str):
        self.tokens = TOKENS.findall(text)
        self.at = 0
        self.symbols = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def until(self, closing: str | None) -> str:
        """Everything up to `closing`, or to the end."""
        parts: list[str] = []
        while self.peek():
            if self.peek() == closing:
                self.take()
                return "".join(parts)
            spaced = self.peek().isspace() and bool(self.take())
            if not self.peek() or self.peek() == closing:
                continue
            part = self.one()
            # LaTeX drops spaces; beside a word they are meant.
            words = part.startswith(r"\text") or (bool(parts) and parts[-1].lstrip("\\ ").startswith("text"))
            parts.append((r"\ " if words else " ") * spaced + part)
        if closing is not None:
            raise _NoFormula
        return "".join(parts)

    def one(self) -> str:
        """One symbol with its indices, powers, primes and tilde, or one sign."""
        token = self.take()
        if token == "<" and (mean := self.mean()) is not None:
            return mean + self.scripts()
        if token in ("(", "[", "{"):
            closing = {"(": ")", "[": "]", "{": "}"}[token]
            inside = self.until(closing)
            opening, closing = (r"\{", r"\}") if token == "{" else (token, closing)
            return f"{opening}{inside}{closing}{self.scripts()}"
        if token.isalpha():
            return self.word(token)
        if token.strip(".")[:1].isdigit():
            self.symbols += 1
            mantissa, mark, power = token.partition("e")
            number = rf"{mantissa} \cdot 10^{{{int(power)}}}" if mark else token
            return number + self.scripts()
        if token == "#" and self.peek() == "{":
            return r"\#"
        if token == "|":
            return "|" + self.scripts()
        if token in SIGNS:
            return SIGNS[token]
        if token in "+-/,;:!|()[]'":
            return token
        raise _NoFormula

    def mean(self) -> str | None:
        """`<x>` as an average, where the bracket is closed and does not compare."""
        rest = "".join(self.tokens[self.at :])
        if not re.match(r"[^\s<>=][^<>{}]*>", rest):
            return None
        return rf"\langle {self.until('>')}\rangle "

    def word(self, token: str) -> str:
        """Letters: a Greek one, a function, a symbol, or a word."""
        if self.long_name(token):
            names = [token]
            while self.peek() == "_" and self.tokens[self.at + 1 : self.at + 2]:
                self.take()
                names.append(self.take())
            return rf"\text{{{' '.join(names)}}}" + self.scripts()
        if token == "sum" and "".join(self.tokens[self.at : self.at + 2]) in (" of", " over"):
            return r"\text{sum}"
        self.symbols += not _letters(token).startswith(r"\text") or token in FUNCTIONS or token in {*BIG, "sqrt"}
        if token == "sqrt" and self.peek() == "(":
            self.take()
            return rf"\sqrt{{{self.until(')')}}}" + self.scripts()
        if token in BIG:
            return BIG[token] + self.scripts() + " "
        if token in FUNCTIONS and token != "inf":
            digits = self.take() if self.peek().isdigit() else ""
            return rf"\{token}" + (f"_{{{digits}}}" if digits else "") + self.scripts() + " "
        if token in SIGNS:
            return SIGNS[token].rstrip() + self.scripts() + " "
        if self.peek() == "~":
            self.take()
            return rf"\tilde{{{_letters(token)}}}" + self.scripts()
        return _letters(token) + self.scripts()

    def long_name(self, token: str) -> bool:
        """Whether `learning_rate` begins here: both halves are words."""
        after = self.tokens[self.at + 1 : self.at + 2]
        return (
            self.peek() == "_" and len(token) > 2 and token not in GREEK | FUNCTIONS | {*BIG, "grad", "lap"}
            and bool(after) and len(after[0]) > 2 and after[0].isalpha()
        )  # fmt: skip

    def scripts(self) -> str:
        """What hangs on a symbol: digits, `_i`, `^2`, primes, a star."""
        below, above = "", ""
        while True:
            token, before = self.peek(), self.tokens[self.at - 1]
            if token.isdigit() and before.isalpha():
                below += self.take()
            elif token == "_":
                self.take()
                below += self.script(below=True)
            elif token == "^":
                self.take()
                above += self.script()
            elif token == "'":
                self.take()
                above += r"\prime "
            elif token == "*" and not before.isspace() and self.tokens[self.at + 1 : self.at + 2] == [" "]:
                above += self.take()
            else:
                return (f"_{{{below}}}" if below else "") + (f"^{{{above.strip()}}}" if above else "")

    def script(self, below: bool = False) -> str:
        """One index or power."""
        token = self.take()
        self.symbols += token.isdigit() and not below
        if token in ("{", "("):
            return self.until("}" if token == "{" else ")")
        if token == "-" and not below:
            return "-" + self.script()
        if token == "+" and not below:
            return "+"
        if token == "T" and not below:
            return r"\top "
        if token.isalpha():
            if len(token) == 2 and below and token not in GREEK:
                letters = token  # W_ij
            elif len(token) > 2 and token not in GREEK | FUNCTIONS:
                letters = rf"\text{{{token}}}"
            else:
                letters = _letters(token) if token not in FUNCTIONS else rf"\{token}"
            if not below and self.peek() == "_":
                self.take()
                return f"{letters}_{{{self.script(below=True)}}}"
            return letters
        if token[:1].isdigit():
            return token
        raise _NoFormula


def _letters(token: str) -> str:
    if token in GREEK:
        return rf"\{token} "
    if token in UPRIGHT:
        return rf"\operatorname{{{token}}}"
    if len(token) == 1 or (len(token) == 2 and (not token.islower() or token[0] == "d")):
        return token
    return rf"\text{{{token}}}"
