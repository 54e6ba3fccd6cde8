"""Make the data of the small tasks: python examples/tasks/make_data.py TASK FOLDER

Each task needs what a wrong structure lacks: memory of what was read, attention to the
right place, both inputs, the class. Every line is made by rules from a seed; a line of
dev or test is in no other split. Writes train.tsv, dev.tsv and test.tsv (a field for
each input, TAB, the output), and for transcription the frames that they name.
"""

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

SEED = 11
SIZES = {"train": 4000, "dev": 300, "test": 400}

Draw = random.Random
Line = tuple[str, ...]

DETERMINERS = ("the", "a", "this", "every", "our")
ADJECTIVES = ("old", "small", "red", "quiet", "heavy", "bright", "lazy", "new")
NOUNS = ("dog", "garden", "boat", "teacher", "window", "river", "child", "hill")
VERBS = ("sees", "likes", "finds", "follows", "paints", "remembers")
BOTH = ("fish", "watch", "light", "play", "walk", "cook", "saw", "guards")
PHRASAL = ("picks", "turns", "looks", "gives")
PARTICLES = ("up", "over", "in", "off")


def tagging(draw: Draw) -> Line:
    """Words whose tag hangs on what came before, up to the verb of the sentence."""
    words: list[tuple[str, str]] = []

    def noun_phrase() -> None:
        words.append((draw.choice(DETERMINERS), "DET"))
        words.extend(
            (one, "ADJ") for one in draw.sample(ADJECTIVES, draw.randint(0, 2))
        )
        words.append((draw.choice(NOUNS + BOTH), "NOUN"))

    noun_phrase()
    phrasal = draw.random() < 0.5
    words.append((draw.choice(PHRASAL if phrasal else VERBS + BOTH), "VERB"))
    noun_phrase()
    # After a phrasal verb the word belongs to the verb, however long its object is.
    words.append((draw.choice(PARTICLES), "PART" if phrasal else "PREP"))
    if not phrasal or draw.random() < 0.3:
        if phrasal:
            words.append((draw.choice(PARTICLES), "PREP"))
        noun_phrase()
    words.append((".", "PUNCT"))
    return " ".join(word for word, _ in words), " ".join(tag for _, tag in words)


GOOD = ("great", "lovely", "clever", "funny", "moving", "superb")
BAD = ("dull", "awful", "clumsy", "boring", "weak", "silly")
THINGS = ("film", "music", "plot", "acting", "ending", "camera", "dialogue", "cast")


def classification(draw: Draw) -> Line:
    """The last judgement counts, and a negation turns it round."""
    clauses, verdict = [], True
    for _ in range(draw.randint(1, 4)):
        good, negated = draw.random() < 0.5, draw.random() < 0.4
        adverb = draw.choice(("", "really ", "quite ", "often "))
        no = draw.choice(("not ", "never ")) if negated else ""
        word = draw.choice(GOOD if good else BAD)
        clauses.append(f"the {draw.choice(THINGS)} was {no}{adverb}{word}")
        verdict = good != negated
    joined = draw.choice((" but ", " , yet ", " although not at first , ")).join(
        clauses
    )
    return joined, "positive" if verdict else "negative"


NUMERALS = {
    "english": (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen "
        "fourteen fifteen sixteen seventeen eighteen nineteen",
        "- - twenty thirty forty fifty sixty seventy eighty ninety",
    ),
    "german": (
        "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn "
        "vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn",
        "- - zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig",
    ),
}
(ONES, TENS), (EINER, ZEHNER) = (
    (ones.split(), tens.split()) for ones, tens in NUMERALS.values()
)
ROMAN = {900: "CM", 500: "D", 400: "CD", 100: "C", 90: "XC", 50: "L", 40: "XL"}
ROMAN |= {10: "X", 9: "IX", 5: "V", 4: "IV", 1: "I"}


def english(number: int) -> str:
    """Three hundred forty-two."""
    if number >= 100:
        rest = f" {english(number % 100)}" if number % 100 else ""
        return f"{ONES[number // 100]} hundred{rest}"
    if number < 20:
        return ONES[number]
    return TENS[number // 10] + (f"-{ONES[number % 10]}" if number % 10 else "")


def german(number: int) -> str:
    """Dreihundertzweiundvierzig."""
    if number >= 100:
        rest = german(number % 100) if number % 100 else ""
        return (
            EINER[number // 100].removesuffix("s" * (number < 200)) + "hundert" + rest
        )
    if number < 20:
        return EINER[number]
    ones = EINER[number % 10].removesuffix("s" * (number % 10 == 1))
    return (f"{ones}und" if number % 10 else "") + ZEHNER[number // 10]


def roman(number: int) -> str:
    """CCCXLII."""
    written = ""
    for value, letters in ROMAN.items():
        written += letters * (number // value)
        number %= value
    return written


WRITERS: dict[str, Callable[[int], str]] = {
    "english": english,
    "german": german,
    "roman": roman,
}


def class_to_sequence(draw: Draw) -> Line:
    """A number's digits as a vector, written as the class says."""
    number, style = draw.randint(1, 999), draw.choice(list(WRITERS))
    vector = ["0"] * 30
    for place, digit in enumerate(f"{number:03d}"):
        vector[10 * place + int(digit)] = "1"
    return style, " ".join(vector), WRITERS[style](number)


PEOPLE = ("mayor", "minister", "coach", "judge", "farmer", "singer", "pilot", "baker")
PLACES = ("london", "paris", "rome", "oslo", "vienna", "madrid", "lisbon", "dublin")
ACTS = ("opens", "closes", "visits", "sells", "repairs", "praises", "leaves", "paints")
OBJECTS = ("bridge", "school", "museum", "market", "station", "library", "harbour")
DAYS = ("monday", "tuesday", "thursday", "friday", "sunday")
ASIDES = (
    "who had been ill for weeks",
    "after a long debate",
    "as many had expected",
    "despite the heavy rain",
    "to everyone's surprise",
)


def shortening(draw: Draw) -> Line:
    """A report to its headline: who does what, and where it happens."""
    who, act, what = draw.choice(PEOPLE), draw.choice(ACTS), draw.choice(OBJECTS)
    where, old = draw.choice(PLACES), draw.choice(ADJECTIVES)
    opening = draw.choice(
        (f"on {draw.choice(DAYS)} ", f"in {draw.choice(PLACES)} , ", "")
    )
    place = "" if opening.startswith("in") else f" in {where}"
    aside = f" , {draw.choice(ASIDES)} ," if draw.random() < 0.6 else ""
    other = f" near the {draw.choice(OBJECTS)}" if draw.random() < 0.4 else ""
    report = (
        f"{opening}the {old} {who}{aside} {act} the {draw.choice(ADJECTIVES)} {what}"
    )
    where = where if place else opening.split()[1]
    return f"{report}{place}{other} .", f"{who} {act} {what} in {where}"


COLOURS = ("red", "blue", "green", "white", "black")
GOODS = ("ball", "key", "cup", "book", "hat", "coin")
SPOTS = (
    "in the box",
    "under the bed",
    "on the shelf",
    "behind the door",
    "near the sofa",
)


def questions(draw: Draw) -> Line:
    """Where one of several things is, that a passage tells."""
    goods = draw.sample(GOODS, draw.randint(2, 4))
    told = {good: draw.choice(SPOTS) for good in goods}
    facts = [f"the {draw.choice(COLOURS)} {good} is {told[good]}" for good in goods]
    asked = draw.choice(goods)
    return " . ".join(facts), f"where is the {asked} ?", told[asked]


SOUNDS = {
    "zero": "z i r o",
    "one": "w u n",
    "two": "t u",
    "three": "th r i",
    "four": "f o r",
    "five": "f ai v",
    "six": "s i k s",
    "seven": "s e v e n",
    "eight": "ei t",
    "nine": "n ai n",
}
FEATURES = 16


def transcription(draw: Draw) -> tuple[np.ndarray, str]:
    """Frames of spoken digits: a pattern a sound, of varying length and noise."""
    words = draw.choices(list(SOUNDS), k=draw.randint(1, 4))
    names = sorted({sound for each in SOUNDS.values() for sound in each.split()})
    patterns = np.random.default_rng(SEED).standard_normal((len(names) + 1, FEATURES))
    noise = np.random.default_rng(draw.getrandbits(32))
    frames: list[np.ndarray] = []
    for word in words:
        sounds = [names.index(sound) for sound in SOUNDS[word].split()] + [len(names)]
        for sound in sounds:
            frames += [patterns[sound]] * draw.randint(2, 4)
    smooth = np.array(frames)
    smooth[1:] = 0.7 * smooth[1:] + 0.3 * smooth[:-1]  # sounds run into each other
    smooth *= noise.uniform(0.8, 1.25)  # a loud or a quiet speaker
    smooth += 0.3 * noise.standard_normal(smooth.shape)
    return smooth.astype(np.float32), " ".join(words)


TASKS: dict[str, Callable[[Draw], Line]] = {
    "tagging": tagging,
    "classification": classification,
    "class_to_sequence": class_to_sequence,
    "shortening": shortening,
    "questions": questions,
}


def write_task(task: str, folder: Path, sizes: dict[str, int] | None = None) -> None:
    """Write the three splits of a task into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes, draw = sizes or SIZES, Draw(SEED)
    if task == "transcription":
        _write_frames(folder, sizes, draw)
        return
    seen: set[Line] = set()
    # The small splits first: what they hold is kept out of the training half, where a
    # line may come twice, for some tasks have few lines.
    for split in sorted(sizes, key=lambda name: sizes[name]):
        lines: list[Line] = []
        while len(lines) < sizes[split]:
            line = TASKS[task](draw)
            if line[:-1] not in seen:
                lines.append(line)
        seen |= {line[:-1] for line in lines}
        _write(folder / f"{split}.tsv", lines)


def _write_frames(folder: Path, sizes: dict[str, int], draw: Draw) -> None:
    for split, size in sizes.items():
        (folder / split).mkdir(exist_ok=True)
        lines: list[Line] = []
        for number in range(size):
            frames, text = transcription(draw)
            name = f"{split}/{number:05d}.npy"
            np.save(folder / name, frames)
            lines.append((name, text))
        _write(folder / f"{split}.tsv", lines)


def _write(path: Path, lines: list[Line]) -> None:
    text = "".join("\t".join(line) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=[*TASKS, "transcription"])
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    write_task(given.task, given.folder)
    print(given.folder)


if __name__ == "__main__":
    main()
