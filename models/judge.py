"""How good a model is on the dev set, by the very loop that a user will run."""

from typing import cast

from seq2edge.models.contract import StepModule
from seq2edge.models.network import Network
from seq2edge.models.task import Task
from seq2edge.models.torch_stepper import TorchLabeller, TorchStepper
from seq2edge.runtime.evaluate import Scorers, exact_share, label_accuracy, labels_of
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.predictor import Prediction, Predictor
from seq2edge.runtime.translator import Translator


def dev_score(model: Network, task: Task) -> float:
    """Per cent by the task's metric: bleu, exact or accuracy."""
    references = task.dev_set.references
    if task.vocabulary is None:
        predictions = _predict(model, task)
        if task.metric == "accuracy":
            return label_accuracy(
                [one.labels for one in predictions],
                [labels_of(text, task.train.task) for [text] in references],
            )
        texts = [one.text for one in predictions]
    else:
        texts = _write(model, task)
    if task.metric == "exact":
        return exact_share(texts, references)
    # sacreBLEU, cased, 13a
    return Scorers.load().score(texts, references)[0].score


def _write(model: Network, task: Task) -> list[str]:
    assert task.vocabulary is not None
    translator = Translator(
        stepper=TorchStepper(cast(StepModule, model)),
        vocabulary=task.vocabulary,
        limits=task.limits,
        tokenizer=task.tokenizer,
        inputs=task.inputs,
        folder=task.data,
    )
    options = SearchOptions(beam_size=task.recipe.evaluation.beam_size)
    found = translator.translate_batch(task.dev_set.sources, options)
    return [translation.text for translation in found]


def _predict(model: Network, task: Task) -> list[Prediction]:
    predictor = Predictor(
        labeller=TorchLabeller(model, inputs=task.inputs),
        task=task.train.task,
        labels=task.labels,
        limits=task.limits,
        tokenizer=task.tokenizer,
        inputs=task.inputs,
        folder=task.data,
    )
    return predictor.predict_batch(task.dev_set.sources)
