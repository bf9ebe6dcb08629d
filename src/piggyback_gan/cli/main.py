"""pbgan: run a command, and turn errors into one line and an exit status."""

import importlib
import os
import sys
import warnings
from importlib.metadata import version

from piggyback_gan.errors import PiggybackError, ReportedElsewhere, is_out_of_memory
from piggyback_gan.system.user_code import import_from_working_folder

COMMANDS = {
    "train": "train an image-to-image task of a bank, or resume a training",
    "runs": "list a bank's training runs and how to resume them",
    "translate": "translate images with a task of a bank",
    "evaluate": "evaluate tasks of a bank on held-out images",
    "import": "import networks of CycleGAN, pix2pix and CUT as tasks of a bank",
    "serve": "serve all of a bank's tasks over HTTP, with a page to try them",
    "try": "open that page in a browser",
    "export": "write a task as a file that needs neither bank nor library: ONNX, torch.export, safetensors",
    "tasks": "list a bank's tasks",
    "experiment": "compare strategies of lifelong learning on a sequence of tasks",
    "pull": "copy missing tasks from another bank, here or on the hub",
    "push": "copy missing tasks to another bank, here or on the hub, with a model card",
    "pack": "make a smaller bank of some of a bank's tasks",
    "verify": "check every file of a bank",
    "remove": "remove a bank's newest task",
    "report": "write an experiment's results as a page with plots, tables and images",
    "demo": "train three small tasks on drawn scenes and show that nothing is forgotten",
}

# Keywords of Python can't name modules.
_MODULES = {"import": "import_networks", "try": "try_page"}

FAILED = 2


def main() -> int:
    """Run the command line.

    Returns:
        The exit status: 0 success; 1 problems were found; 2 an error, in one line on stderr; 128 + n
        stopped by signal n.
    """
    # The error that names a damaged file includes what Pillow reports.
    warnings.filterwarnings("ignore", module="PIL")
    import_from_working_folder()
    try:
        status = _run(*(sys.argv[1:] or ["--help"]))
        sys.stdout.flush()
        return status
    except ReportedElsewhere:
        return FAILED
    except PiggybackError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("pbgan: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The pipe's reader is gone: keep Python from flushing to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _fail("out of memory: choose a smaller image size, batch size or network")


def _run(command: str, *arguments: str) -> int:
    if command in ("-h", "--help", "help"):
        print(_help())
        return 0
    if command == "--version":
        print(f"pbgan {version('piggyback-gan')}")
        return 0
    if command not in COMMANDS:
        raise PiggybackError(f"unknown command {command!r}; commands: {', '.join(COMMANDS)}")
    module = importlib.import_module(f"piggyback_gan.cli.{_MODULES.get(command, command)}")
    status: int = module.run(list(arguments))
    return status


def _fail(message: str) -> int:
    """Print an error in one line, even if names in it have line breaks."""
    print(f"pbgan: error: {' '.join(message.splitlines())}", file=sys.stderr)
    return FAILED


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: pbgan COMMAND ...",
            "",
            "One bank of filters learns image-to-image tasks one after another and forgets none.",
            "",
            *lines,
            "",
            "pbgan COMMAND --help describes a command; pbgan --version prints the version.",
        ]
    )
