"""`seq2edge train` and `export`: from data to a checkpoint, from it to a bundle."""

from pathlib import Path

import click

from seq2edge.commands.options import FILE, FOLDER, language_options

TARGETS = (  # export.targets has them, with their recipes
    "portable",
    "x86-avx2",
    "x86-vnni",
    "arm-dotprod",
    "arm-i8mm",
    "small-memory",
    "native",
)


@click.command()
@click.argument("recipe", type=FILE)
@click.option(
    "--output", type=FOLDER, required=True, help="Folder of the checkpoint to write."
)
@click.option(
    "--data", type=FOLDER, help="Folder of the corpora [default: the recipe's own]."
)
def train(recipe: Path, output: Path, data: Path | None) -> None:
    """Train a model by RECIPE (TOML); the same command resumes a stopped run."""
    from seq2edge.models.recipe import Recipe
    from seq2edge.models.train import train as run
    from seq2edge.progress import TrainingProgress

    loaded = Recipe.load(recipe)
    try:
        print(run(loaded, data or recipe.parent, output, TrainingProgress()))
    except KeyboardInterrupt:
        click.echo("\nthe same command goes on from the last save", err=True)
        raise


@click.command()
@click.argument("checkpoint", type=FOLDER)
@click.argument("bundle", type=FOLDER)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8", "int4"]),
    default="fp32",
    show_default=True,
    help="Arithmetic of the bundle's weights; int4 is int8 with a decoder's layers in "
    "four bits.",
)
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    help="The processor that int8 and int4 are for; native is this one "
    "[default: portable].",
)
@click.option(
    "--sample",
    type=FILE,
    help="Lines of INPUT or INPUT TAB REFERENCE to judge by, a field for each input "
    "[default: the checkpoint's sample.tsv].",
)
@click.option(
    "--shortlist",
    is_flag=True,
    help="Let search choose among a thousand tokens and what a source's own may become "
    "(int8 and int4): faster, and part of what may be lost.",
)
@language_options
@click.option("--force", is_flag=True, help="Replace BUNDLE if it is one already.")
@click.option(
    "--min-exact",
    type=click.FloatRange(0, 1),
    default=0.999,
    show_default=True,
    help="Share of sentences that fp32 must decode exactly as PyTorch does.",
)
@click.option(
    "--max-bleu-loss",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    help="BLEU points that quantization may lose on the sample.",
)
@click.option(
    "--max-accuracy-loss",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Percentage points that it may lose where right results are counted.",
)
def export(
    checkpoint: Path,
    bundle: Path,
    precision: str,
    target: str | None,
    sample: Path | None,
    shortlist: bool,
    source_language: str | None,
    target_language: str | None,
    force: bool,
    min_exact: float,
    max_bleu_loss: float,
    max_accuracy_loss: float,
) -> None:
    """Export CHECKPOINT to a verified BUNDLE; a failing export leaves none.

    CHECKPOINT is a folder of `seq2edge train`, or of Hugging Face transformers.
    """
    if target and precision == "fp32":
        raise click.UsageError("--target goes with --precision int8 or int4")
    if shortlist and precision == "fp32":
        raise click.UsageError("--shortlist goes with --precision int8 or int4")
    from seq2edge.export.parity import QualityLimits
    from seq2edge.export.pipeline import ExportOptions, export_checkpoint
    from seq2edge.progress import stages
    from seq2edge.runtime.languages import LanguagePair

    limits = QualityLimits(
        min_exact=min_exact,
        max_bleu_loss=max_bleu_loss,
        max_accuracy_loss=max_accuracy_loss,
    )
    options = ExportOptions(
        precision=precision,
        target=target,
        sample=sample,
        shortlist=shortlist,
        limits=limits,
        force=force,
        languages=LanguagePair(source_language, target_language),
    )
    with stages() as note:
        export_checkpoint(checkpoint, bundle, options, note)
    print(bundle)
