"""What is found without being registered: credentials by the forms that their makers gave them, and personal data.

Each is checked as far as it can be: a number by its check digit, a token by its prefix and length. What has no form of its own
(a password, a name) is found where something says so ("password="), or not at all: register it.
"""

from __future__ import annotations

from stanchion.guard import number
from stanchion.guard.pattern import Core, Either, Lit, Many, Pattern, maybe, words

VERSION = "1"
"""Of these rules: a bundle names the one that its runs go by. It moves whenever a rule finds more or less."""

_ALNUM = "[A-Za-z0-9]"
_TOKEN = "[A-Za-z0-9_-]"
_NEW_LINE = (Either(((Many(r"\s", 1, 1),), (Many(r"\\", 1, 8), Many("[nrt]", 1, 1)))),)
"""Also as it stands in JSON."""

_BASE64 = "[A-Za-z0-9+/=]"
_KEY_LABEL = words(
    *(f"{kind}PRIVATE KEY" for kind in ("", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ", "SSH2 ENCRYPTED ")),
    "PGP PRIVATE KEY BLOCK",
)
_KEY_HEADER = (Many("[A-Za-z-]", 3, 24), Lit(": "), Many(r"[^\r\n\\]", 1, 80), Many(_NEW_LINE, 1, 8))
_PRIVATE_KEY = (
    Lit("-----BEGIN "),
    _KEY_LABEL,
    Lit("-----"),
    Many(_NEW_LINE, 0, 8),
    Many(_KEY_HEADER, 0, 4),
    Many(_BASE64, 16, 16_384),
    Many((Many(_NEW_LINE, 1, 8), Many(_BASE64, 16, 16_384)), 0, 400),
    maybe(
        Many(_NEW_LINE, 0, 8),
        Many(_BASE64, 0, 15),
        Many(_NEW_LINE, 0, 8),
        Lit("-----END "),
        _KEY_LABEL,
        Lit("-----"),
    ),
)
"""One that was cut off, too."""

_KEYWORDS = words(
    *("password", "passwd", "passphrase", "pwd", "secret", "token", "credential", "credentials"),
    *("api_key", "api-key", "apikey", "api key", "access_key", "access-key", "accesskey", "secret_key", "secret-key"),
)
_QUOTES = Many(r"[\\\"'`]", 0, 4)
_ASSIGNED = (
    _KEYWORDS,
    _QUOTES,
    Many("[ \t]", 0, 4),
    words(":", "=", "=>", ":=", " is"),
    Many("[ \t]", 0, 4),
    _QUOTES,
    Core((Many(r"[^\s\"'`\\<>,;(){}\[\]]", 8, 512),)),
)

SECRETS = (
    Pattern("private_key", _PRIVATE_KEY, before="", after=""),
    Pattern("aws_key", (words("AKIA", "ASIA", "ABIA", "ACCA"), Many("[A-Z0-9]", 16, 16))),
    Pattern("google_key", (Lit("AIza"), Many(_TOKEN, 35, 35)), after="(?![A-Za-z0-9_-])"),
    Pattern("google_token", (Lit("ya29."), Many(_TOKEN, 20, 1024))),
    Pattern("google_secret", (Lit("GOCSPX-"), Many(_TOKEN, 28, 28))),
    Pattern(
        "github_token",
        (Lit("gh"), words("p", "o", "u", "s", "r"), Lit("_"), Many(_ALNUM, 36, 255)),
    ),
    Pattern("github_token", (Lit("github_pat_"), Many("[A-Za-z0-9_]", 40, 255))),
    Pattern(
        "gitlab_token",
        (
            Lit("gl"),
            words("pat", "rt", "dt", "ptt", "cbt", "soat", "ft", "imt", "agent"),
            Lit("-"),
            Many(_TOKEN, 20, 255),
        ),
        number.mixed,
    ),
    Pattern(
        "slack_token",
        (
            words("xoxb", "xoxa", "xoxp", "xoxe", "xoxr", "xoxs", "xoxc", "xoxd", "xapp"),
            Lit("-"),
            Many(_TOKEN, 10, 255),
        ),
        number.mixed,
    ),
    Pattern(
        "slack_webhook",
        (Lit("hooks.slack.com/services/"), Core((Many("[A-Za-z0-9_/]", 32, 120),))),
    ),
    Pattern(
        "stripe_key",
        (words("sk", "rk"), Lit("_"), words("live", "test"), Lit("_"), Many(_ALNUM, 16, 255)),
        number.mixed,
    ),
    Pattern("webhook_secret", (Lit("whsec_"), Many("[A-Za-z0-9+/=]", 24, 128)), number.mixed),
    Pattern("anthropic_key", (Lit("sk-ant-"), Many(_TOKEN, 20, 255)), number.mixed),
    Pattern("api_key", (Lit("sk-"), Many(_TOKEN, 20, 255)), number.random),
    Pattern("huggingface_token", (Lit("hf_"), Many(_ALNUM, 30, 64)), number.mixed),
    Pattern("npm_token", (Lit("npm_"), Many(_ALNUM, 36, 64)), number.mixed),
    Pattern("pypi_token", (Lit("pypi-AgE"), Many(_TOKEN, 50, 512))),
    Pattern(
        "jwt",
        (Lit("eyJ"), Many(_TOKEN, 8, 4096), Lit(".eyJ"), Many(_TOKEN, 8, 16_384), Lit("."), Many(_TOKEN, 8, 2048)),
    ),
    Pattern(
        "bearer_token",
        (Lit("bearer"), Many("[ \t]", 1, 4), Core((Many("[A-Za-z0-9._~+/=-]", 16, 4096),))),
        number.mixed,
        any_case=True,
    ),
    Pattern(
        "basic_credentials",
        (Lit("basic"), Many("[ \t]", 1, 4), Core((Many("[A-Za-z0-9+/=]", 8, 1024),))),
        number.basic,
        any_case=True,
    ),
    Pattern(
        "url_password",
        (
            Lit("://"),
            Many(r"[^\s:@/\"'<>\\`\[\]]", 0, 128),
            Lit(":"),
            Core((Many(r"[^\s@/\"'<>\\`]", 3, 256),)),
            Lit("@"),
        ),
        number.url_password,
        before="",
        after="",
    ),
)
"""Credentials that tell by themselves what they are."""

ASSIGNED = (
    Pattern(
        "password",
        _ASSIGNED,
        number.password,
        any_case=True,
        before=r"(?!(?<=\[)secret:[A-Za-z0-9_.-]{1,64}\])",
        after="",
    ),
)
""".. and those that are only called one. Not looked for in arguments of tools, where each value stands behind a name."""

PERSONAL = (
    Pattern(
        "email",
        (
            Many("[A-Za-z0-9._%+-]", 1, 64),
            Lit("@"),
            Many("[A-Za-z0-9-]", 1, 63),
            Many((Lit("."), Many("[A-Za-z0-9-]", 1, 63)), 1, 6),
        ),
        number.email,
        hint="@",
        before="(?<![A-Za-z0-9._%+-])",
    ),
    Pattern(
        "card",
        (Many("[0-9]", 4, 19), Many((Many("[ -]", 1, 1), Many("[0-9]", 1, 7)), 0, 3)),
        number.card,
        hint="0",
        before="(?<![A-Za-z0-9_.+-])",
    ),
    Pattern(
        "iban",
        (
            Many("[A-Z]", 2, 2),
            Many("[0-9]", 2, 2),
            Many((Many("[ ]", 0, 1), Many("[A-Z0-9]", 1, 4)), 3, 8),
            Many("[a-z_]", 0, 1),
        ),
        number.iban,
        hint="0",
        after="",
    ),
    Pattern(
        "phone",
        (Lit("+"), Many("[0-9]", 1, 15), Many((Many("[ ().-]", 1, 2), Many("[0-9]", 1, 12)), 0, 6)),
        number.international,
        hint="+",
        before="(?<![A-Za-z0-9_+.])",
    ),
    Pattern(
        "phone",
        (
            maybe(Lit("1"), Many("[ .-]", 1, 1)),
            Either(
                (
                    (Lit("("), Many("[0-9]", 3, 3), Lit(")"), Many("[ ]", 0, 1)),
                    (Many("[0-9]", 3, 3), Many("[ .-]", 1, 1)),
                )
            ),
            Many("[0-9]", 3, 3),
            Many("[ .-]", 1, 1),
            Many("[0-9]", 4, 4),
        ),
        number.north_american,
        hint="0",
        before="(?<![A-Za-z0-9_.+-])",
        after="(?![A-Za-z0-9_-])",
    ),
    Pattern(
        "ssn",
        (Many("[0-9]", 3, 3), Lit("-"), Many("[0-9]", 2, 2), Lit("-"), Many("[0-9]", 4, 4)),
        number.social_security,
        hint="0",
        before="(?<![A-Za-z0-9_.+-])",
        after="(?![A-Za-z0-9_-])",
    ),
    Pattern(
        "ip",
        (Core((Many("[0-9]", 1, 3), Many((Lit("."), Many("[0-9]", 1, 3)), 3, 3))), Many(r"\.", 0, 1)),
        number.public_address,
        hint="0",
        before="(?<![A-Za-z0-9_.+-])",
        after="(?![A-Za-z0-9_-])",
    ),
    Pattern(
        "ip",
        (Many("[0-9A-Fa-f]", 0, 4), Many((Lit(":"), Many("[0-9A-Fa-f]", 0, 4)), 2, 7)),
        number.public_address,
        hint=":",
        before="(?<![A-Za-z0-9_.:-])",
        after=r"(?![A-Za-z0-9_:\[])",
    ),
)
"""Personal data."""
