"""How people say what they demand, and how they write amounts, dates and ids, in the languages that most of them write in. Data. Pure.

It is a net with wide meshes: what it lets through is in the summary still, and what it catches too much is left out again where
there is no room.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_DEMANDS = {
    "en": r"must|never|always|only|don['’]?t|do not|not (?:more|less|before|after|until|unless)|no (?:more|less) than"
    r"|at (?:most|least|the latest)|under|below|above|maximum|minimum|limit|budget|deadline|without|except|unless|prefer|instead"
    r"|make sure|remember|keep in mind|important",
    "de": r"muss|müssen|darf|dürfen|niemals|nie|immer|nur|keine?[nmrs]?|nicht (?:mehr|weniger|vor|nach|später|früher|ohne)|höchstens|mindestens"
    r"|maximal|spätestens|frühestens|(?:unter|über)(?= [\d€$£])|ohne|außer|statt|stattdessen|bevorzug\w*|lieber|wichtig|unbedingt|Frist"
    r"|Grenze|merk dir|denk daran|achte darauf",
    "fr": r"doi[st]|doivent|devez|il faut|jamais|toujours|seulement|uniquement|au (?:plus|moins|maximum|minimum)|pas (?:plus|moins|avant|après)"
    r"|sans|sauf|limite|délai|préf[éè]r\w*|plutôt|impératif|impérativement|n['’]oublie\w*|surtout|interdit|obligatoire\w*",
    "es": r"debe\w*|tienen? que|hay que|nunca|jamás|siempre|s[oó]lo|solamente|únicamente|como (?:máximo|mínimo)|al menos|no más (?:de|tarde)"
    r"|no menos|a más tardar|antes del?|sin|salvo|excepto|máximo|mínimo|límite|presupuesto|plazo|prefier\w*|en (?:vez|lugar) de|importante"
    r"|recuerd\w*|ten en cuenta|asegúr\w*",
    "pt": r"deve\w*|tem (?:que|de)|sempre|só|somente|apenas|no (?:máximo|mínimo)|pelo menos|não (?:mais|menos)|sem|exceto|orçamento|prazo"
    r"|prefir\w*|em vez de|lembr\w*|certifi\w*-se|obrigat\w*",
    "it": r"dev[eo]|devono|bisogna|mai|sempre|solo|soltanto|solamente|al (?:massimo|minimo|più)|almeno|non (?:più|meno|oltre|prima|dopo)|entro"
    r"|senza|tranne|eccetto|massimo|minimo|scadenza|preferi\w*|invece|ricord\w*|assicur\w*|obbligatori\w*",
    "nl": r"moet|moeten|mag|nooit|altijd|alleen|slechts|hoogstens|hooguit|minstens|maximaal|minimaal|uiterlijk|niet (?:meer|minder|voor|na)|geen"
    r"|zonder|behalve|tenzij|limiet|liever|in plaats van|belangrijk|onthoud|zorg (?:er)?voor",
    "pl": r"musi\w*|nie (?:wolno|więcej|mniej|przed|po)|nigdy|zawsze|tylko|co najmniej|najwyżej|najpóźniej|maksymalnie|minimalnie|bez|oprócz"
    r"|chyba że|budżet|termin|wol(?:ę|imy)|zamiast|ważne|pamiętaj\w*|upewnij",
    "tr": r"asla|her zaman|sadece|yalnızca|en (?:az|fazla|çok|geç)|hariç|sınır|bütçe|tercih\w*|yerine|önemli|unutma\w*|mutlaka",
    "ru": r"долж\w*|нельзя|никогда|всегда|только|не (?:более|менее|больше|меньше|раньше|позже)|минимум|максимум|без|кроме|если не|лимит|бюджет"
    r"|срок|предпочита\w*|вместо|важно|помни\w*|запомни\w*|обязательно",
    "ar": r"يجب|أبدا|دائما|فقط|على (?:الأقل|الأكثر)|بدون|إلا|الحد|ميزانية|أفضل|مهم|تذكر",
}
"""Between words, in small or capital letters."""
_UNSPACED = {
    "zh": r"必须|必須|不要|不能|不得|不可|请勿|請勿|只能|只要|仅|僅|至少|至多|最多|最少|不超过|不超過|不少于|不少於|以内|以內|以下|以上|之前"
    r"|除非|除了|预算|預算|截止|期限|务必|務必|一定要|永远|永遠|总是|總是|优先|優先|而不是|重要|记住|記住",
    "ja": r"必ず|絶対|ないで|いけません|なければ|だけ|のみ|以内|未満|までに|最大|最低|少なくとも|予算|締め?切|以外|優先|代わりに|覚えて|決して|常に",
    "ko": r"반드시|절대|하지\s?마|안\s?[돼됩]|항상|오직|이상|이하|이내|미만|까지|최대|최소|적어도|예산|마감|기한|제외|대신|중요|기억",
}
_MONTHS = {
    "en": "January February March April May June July August September October November December",
    "de": "Januar Jänner Februar März Mai Juni Juli Oktober Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "pt": "janeiro fevereiro março maio junho julho setembro outubro novembro dezembro",
    "it": "gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre",
    "nl": "januari februari maart april mei juni juli augustus oktober december",
    "pl": "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada grudnia",
    "tr": "Ocak Şubat Mart Nisan Mayıs Haziran Temmuz Ağustos Eylül Ekim Kasım Aralık",
    "ru": "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
}
_HAN = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_BEFORE, _AFTER = rf"(?<![^\W{_HAN}])", rf"(?![^\W{_HAN}])"
"""No letter or digit stands there, but those of scripts that are written without spaces may."""

DEMAND = re.compile(rf"\b(?:{'|'.join(_DEMANDS.values())})(?!\w)|{'|'.join(_UNSPACED.values())}", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.!?。！？؟\n]+(?:[.!?](?=\S)[^.!?。！？؟\n]*)*[.!?。！？؟]*")
_NUMBER = r"\d(?:[\d.,'’]*\d)?"
_MONTH = "|".join(dict.fromkeys(" ".join(_MONTHS.values()).split()))
_ENGLISH = _MONTHS["en"].replace(" ", "|")
_VALUE = re.compile(
    r"https?://[^\s<>\"']+[^\s<>\"'.,;:!?)]|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"  # addresses
    rf"|[$€£¥₹₩₽₺]\s?{_NUMBER}"
    rf"|{_BEFORE}{_NUMBER}\s?(?:(?:USD|EUR|GBP|CHF|JPY|CNY|dollars|euros?|Franken|złotych|рублей|руб){_AFTER}|[€£¥₹₩₽₺%元円원])"  # amounts
    rf"|{_BEFORE}\d{{4}}-\d{{2}}-\d{{2}}(?:T[\d:.Z+-]+)?{_AFTER}|{_BEFORE}\d{{1,2}}[./]\d{{1,2}}[./]\d{{2,4}}{_AFTER}"  # dates
    r"|(?:\d{4}[年년]\s?)?\d{1,2}[月월]\s?\d{1,2}[日일]"
    rf"|{_BEFORE}\d{{1,2}}(?:st|nd|rd|th|er|\.|º|°)?\s+(?:of\s+|de\s+)?(?:{_MONTH}){_AFTER}(?:,?\s+(?:de\s+)?\d{{4}})?"
    rf"|\b(?:{_ENGLISH})\b(?:\s+\d{{1,2}}(?:st|nd|rd|th)?\b)?(?:,?\s+\d{{4}}\b)?"
    rf"|(?<![^\W{_HAN}])(?<!-)(?=[A-Za-z0-9_-]*\d)[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*(?![^\W{_HAN}]|-)"  # ids: they hang together
)


def sentences(text: str) -> Iterator[str]:
    """Take a text apart into sentences, each on one line."""
    for sentence in _SENTENCE.findall(text):
        yield " ".join(sentence.split())


def values(text: str) -> list[str]:
    """List the addresses, amounts, dates and ids in a text."""
    return _VALUE.findall(text)
