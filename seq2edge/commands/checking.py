"""`seq2edge verify` and `inspect`: whether a bundle is whole, and what it holds."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from seq2edge.commands.options import FOLDER
from seq2edge.runtime.errors import BundleError


@click.command()
@click.argument("bundle", type=FOLDER)
def verify(bundle: Path) -> None:
    """Check BUNDLE's hashes and replay its golden examples on this machine."""
    from seq2edge.runtime.verify import verify as run

    result = run(bundle)
    print(result.text())
    if not result.passed:
        raise BundleError(f"{bundle} doesn't give its golden results on this machine")


@click.command()
@click.argument("bundle", type=FOLDER)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="The manifest itself, and the declared peaks of memory.",
)
def inspect(bundle: Path, as_json: bool) -> None:
    """What BUNDLE holds: contract, sizes, memory, certificate, provenance."""
    from seq2edge.describe import describe_bundle, peaks_here
    from seq2edge.runtime.bundle import Bundle

    loaded = Bundle.load(bundle)
    if as_json:
        peaks = [asdict(peak) for peak in peaks_here(loaded.manifest)]
        record = {**loaded.manifest.to_json(), "peaks": peaks}
        print(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        print(describe_bundle(loaded))
