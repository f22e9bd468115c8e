"""The `dendrite` command: its subcommands, and errors as one line and exit code 2."""

from __future__ import annotations

import sys

import click

from dendrite_jax.cli.bench import bench
from dendrite_jax.cli.generate import generate
from dendrite_jax.cli.info import info
from dendrite_jax.cli.search import search
from dendrite_jax.cli.solve import solve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dendrite-jax")
def cli() -> None:
    """Search with language models: forks that cost a table row.

    \b
    Examples:
      dendrite solve "4 5 6 10"
      dendrite search --model ./Llama-3.2-1B --prompt "Three facts about owls:"
      dendrite generate --model ./Llama-3.2-1B --prompt "Once upon a time" -n 4
      dendrite bench fork --json
      dendrite info
    """


for command in (solve, search, generate, bench, info):
    cli.add_command(command)


def main() -> None:
    """Runs the command; a bad argument or a known failure is one line on stderr and exit code 2.

    A group without a command prints its help there.
    """
    try:
        cli.main(prog_name="dendrite", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message())
    except (ValueError, OSError, RuntimeError) as error:
        _fail(str(error))


def _fail(message: str) -> None:
    print(f"dendrite: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
