"""The examples by which a device checks that a bundle says there what it says here.

Another processor rounds otherwise, so an example must not hang on a near tie: those are
preferred that come out the same with every log-probability a little off.
"""

from collections.abc import Sequence

from seq2edge.export.near_ties import is_firm
from seq2edge.export.parity import searches
from seq2edge.export.sample import Sample
from seq2edge.runtime.golden import Golden, GoldenExample
from seq2edge.runtime.translator import Translator
from seq2edge.runtime.verify import replay

EXAMPLES = 5
CANDIDATES = 10  # tried for each
# How far a log-probability may be off elsewhere. In int8 one rounding may turn into a
# whole step of a quantized activation.
NOISE = {"fp32": 1e-3, "int8": 0.05}


def golden_examples(translator: Translator, sample: Sample, precision: str) -> Golden:
    """Sentences of all lengths, as this bundle decodes each alone."""
    noise = NOISE[precision]
    places = sorted(range(len(sample.texts)), key=lambda one: len(sample.sources[one]))
    step = max(1, len(places) // EXAMPLES)
    groups = [places[first : first + step] for first in range(0, len(places), step)]
    chosen = [_firmest(translator, sample, group, noise) for group in groups[:EXAMPLES]]
    examples = [
        replay(translator, GoldenExample(sample.texts[place], beam_size, (), "", 0.0))
        for place in chosen
        for beam_size in dict.fromkeys([1, translator.defaults.beam_size])
    ]
    return Golden(tuple(examples), score_tolerance=noise)


def _firmest(
    translator: Translator, sample: Sample, places: Sequence[int], noise: float
) -> int:
    """The first of these sentences that noise doesn't change, or just the first."""
    options = searches(translator.defaults)
    for place in places[:CANDIDATES]:
        source = sample.sources[place]
        if all(is_firm(translator, source, option, noise) for option in options):
            return place
    return places[0]
