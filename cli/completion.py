"""``discomfort completion``: what makes a shell complete commands, options and files. click writes it."""

from __future__ import annotations

import click

from .output import Failure

_PROGRAM = "discomfort"
_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print what makes your shell complete these commands.

    It completes the command `discomfort`, which an installed package has; not `python -m discomfort`. Put the line
    of your shell into its start-up file, then open a new shell:

    \b
      bash  ~/.bashrc                   eval "$(discomfort completion bash)"
      zsh   ~/.zshrc, behind compinit   eval "$(discomfort completion zsh)"
      fish  ~/.config/fish/config.fish  discomfort completion fish | source

    bash must be version 4.4 or newer. A shell that starts often is quicker with the text in a file: write it there
    once, and source the file instead.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise Failure(f"The installed click has no completion for {shell}. Update it: pip install --upgrade click")
    root = click.get_current_context().find_root().command
    click.echo(kind(root, {}, _PROGRAM, f"_{_PROGRAM.upper()}_COMPLETE").source())
