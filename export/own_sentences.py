"""Sentences to compare by where a model comes without a sample of its own.

They have no references: they show that a bundle says what PyTorch says, and how far
int8 agrees with fp32, but not how good either is. A model reads those of its source
language; where that isn't known or not among them, all.
"""

import re
from itertools import cycle
from pathlib import Path

from seq2edge.export.sample import Sample
from seq2edge.runtime.manifest import LanguagesSpec
from seq2edge.runtime.records import Reader

ORIGIN = Path("sentences that come with seq2edge")

# ISO 639 codes, of two and of three letters, to a sentence a line.
SENTENCES = {
    ("en", "eng"): """\
The train to the coast leaves at half past seven.
I have never seen so many birds in one place.
Could you tell me where the nearest pharmacy is?
She opened the window, because the room was far too warm.
If it rains tomorrow, we will stay at home and read.
He paid 24 euros for two tickets and a cup of coffee.
Don't forget to lock the door when you go out!
My grandmother's house stands at the end of a narrow lane.
The committee will publish its report on 3 March 2021.
"Come in," said the old man, "and take off your coat."
Water boils at one hundred degrees, though not on a mountain.
They had been working on the bridge for three years when the money ran out.
Good morning.
What would you do if you were in my place?
The children were playing in the garden while their parents cooked dinner.
Most of the books in this library were given by people of the town.
Please send us the signed form by the end of the week.
Nobody knows why the lights went out last night.
The museum, which was closed for repairs, opens again on Monday.
Her first novel sold more copies than anyone had expected.
I would like to change my booking, please.
There is a small café behind the church where they bake their own bread.
The doctor told him to rest and to drink plenty of water.
Can this program read files that are larger than 4 GB?
""",
    ("de", "deu", "ger"): """\
Der Zug an die Küste fährt um halb acht ab.
Können Sie mir sagen, wo die nächste Apotheke ist?
Sie öffnete das Fenster, weil es im Zimmer viel zu warm war.
Wenn es morgen regnet, bleiben wir zu Hause und lesen.
Er bezahlte 24 Euro für zwei Karten und eine Tasse Kaffee.
Vergiss nicht, die Tür abzuschließen, wenn du gehst!
Der Ausschuss veröffentlicht seinen Bericht am 3. März 2021.
Niemand weiß, warum gestern Abend das Licht ausging.
""",
    ("fr", "fra", "fre"): """\
Le train pour la côte part à sept heures et demie.
Pourriez-vous me dire où se trouve la pharmacie la plus proche ?
Elle a ouvert la fenêtre, car il faisait trop chaud dans la pièce.
S'il pleut demain, nous resterons à la maison pour lire.
Il a payé 24 euros pour deux billets et une tasse de café.
N'oublie pas de fermer la porte à clé en sortant !
La commission publiera son rapport le 3 mars 2021.
Personne ne sait pourquoi la lumière s'est éteinte hier soir.
""",
    ("es", "spa"): """\
El tren a la costa sale a las siete y media.
¿Podría decirme dónde está la farmacia más cercana?
Abrió la ventana porque hacía demasiado calor en la habitación.
Si mañana llueve, nos quedaremos en casa leyendo.
Pagó 24 euros por dos entradas y una taza de café.
¡No olvides cerrar la puerta con llave cuando salgas!
La comisión publicará su informe el 3 de marzo de 2021.
Nadie sabe por qué se apagó la luz anoche.
""",
    ("it", "ita"): """\
Il treno per la costa parte alle sette e mezza.
Potrebbe dirmi dov'è la farmacia più vicina?
Aprì la finestra perché nella stanza faceva troppo caldo.
Se domani piove, resteremo a casa a leggere.
Ha pagato 24 euro per due biglietti e una tazza di caffè.
Nessuno sa perché ieri sera si è spenta la luce.
""",
    ("pt", "por"): """\
O comboio para a costa parte às sete e meia.
Pode dizer-me onde fica a farmácia mais próxima?
Ela abriu a janela porque o quarto estava quente demais.
Se chover amanhã, ficaremos em casa a ler.
Ele pagou 24 euros por dois bilhetes e uma chávena de café.
Ninguém sabe por que a luz se apagou ontem à noite.
""",
    ("nl", "nld", "dut"): """\
De trein naar de kust vertrekt om half acht.
Kunt u mij zeggen waar de dichtstbijzijnde apotheek is?
Ze deed het raam open, want het was veel te warm in de kamer.
Als het morgen regent, blijven we thuis om te lezen.
Hij betaalde 24 euro voor twee kaartjes en een kop koffie.
Niemand weet waarom gisteravond het licht uitging.
""",
    ("ru", "rus"): """\
Поезд к побережью отправляется в половине восьмого.
Не могли бы вы сказать, где ближайшая аптека?
Она открыла окно, потому что в комнате было слишком жарко.
Если завтра пойдёт дождь, мы останемся дома и будем читать.
Он заплатил 24 евро за два билета и чашку кофе.
Никто не знает, почему вчера вечером погас свет.
""",
    ("zh", "zho", "chi", "cmn"): """\
去海边的火车七点半出发。
请问最近的药店在哪里？
她打开了窗户，因为房间里太热了。
如果明天下雨，我们就待在家里看书。
他花了24欧元买了两张票和一杯咖啡。
没有人知道昨天晚上为什么停电。
""",
    ("ja", "jpn"): """\
海岸行きの列車は七時半に出ます。
いちばん近い薬局はどこか教えていただけますか。
部屋が暑すぎたので、彼女は窓を開けた。
明日雨が降ったら、家で本を読みます。
彼は切符二枚とコーヒー一杯に24ユーロ払った。
""",
    ("ar", "ara", "arb"): """\
يغادر القطار إلى الساحل في السابعة والنصف.
هل يمكنك أن تخبرني أين أقرب صيدلية؟
فتحت النافذة لأن الغرفة كانت حارة جدا.
إذا أمطرت غدا فسنبقى في البيت ونقرأ.
لا أحد يعرف لماذا انقطع النور ليلة أمس.
""",
}


def own_sample(source: str, languages: LanguagesSpec | None, reader: Reader) -> Sample:
    """Sentences for a model whose source language has this code, or "".

    Where each text must say its target language, they take turns with the languages.
    """
    lines = _sentences(source)
    if languages and languages.target_place == "front" and languages.target is None:
        codes = cycle(sorted(languages.tokens))
        lines = [f">>{next(codes)}<< {line}" for line in lines]
    return Sample.parse("\n".join(lines).encode(), ORIGIN, reader)


def _sentences(source: str) -> list[str]:
    code = re.split("[_-]", source.lower())[0]  # of eng_Latn, en_XX or en-GB
    own = [text for codes, text in SENTENCES.items() if code in codes]
    return "".join(own or SENTENCES.values()).splitlines()
