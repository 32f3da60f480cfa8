"""The command `train.py`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from live2diff_core.host.location import find_host

from .config import TrainingConfig
from .config_file import read_config
from .manifest import ManifestError
from .option_checks import ConfigError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
# custom_nodes/THIS_PACK/training/command.py
_HOST = Path(__file__).resolve().parents[3]
_EPILOG = """\
A run writes into the folder `output` of its configuration: motion_module.safetensors, which Load
Motion Module reads; curves (tensorboard --logdir OUTPUT); samples, if asked for; and its state.
Stopped or killed, it goes on to the same weights when the command is given again.

Several GPUs or machines: accelerate launch train.py CONFIG. docs/training.md says more.
"""


def build_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Trains a Live2Diff motion module on videos (section 3.5 of the paper).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("config", metavar="CONFIG", type=Path, help="a YAML file, as in training/configs/")
    add(
        "changes",
        metavar="NAME=VALUE",
        nargs="*",
        help="options that replace those of the file, e.g. videos=clips steps=500",
    )
    add(
        "--dry-run",
        action="store_true",
        help="make one step at SD1.5's widths with random weights and made-up videos, check that "
        "every motion parameter gets a gradient and the UNet none, and predict the memory of the "
        "whole run; needs neither checkpoint nor videos",
    )
    add(
        "--comfyui",
        type=Path,
        default=_HOST,
        metavar="DIR",
        help="ComfyUI's folder, whose code runs the UNet (default: %(default)s)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        config = read_config(options.config, options.changes)
        return _run(options, config)
    except (ConfigError, ManifestError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return USAGE
    except (OSError, ValueError, RuntimeError) as error:
        logging.debug("", exc_info=True)
        sys.stderr.write(f"error: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command goes on after the last saved state\n")
        return INTERRUPTED


def _run(options: argparse.Namespace, config: TrainingConfig) -> int:
    # Imported when it is known that there is work, and in this order: accelerate chooses the
    # device of each process, and the host must be told whether there is a GPU before it is loaded.
    from .processes import make_accelerator

    accelerator = make_accelerator(config)
    find_host(options.comfyui, "Training", cpu=accelerator.device.type == "cpu")
    if options.dry_run:
        from .dry_run import dry_run

        sys.stdout.write(dry_run(config))
        return OK
    from .base_model import load_base
    from .loop import train

    path = train(config, load_base(config), accelerator)
    if accelerator.is_main_process:
        sys.stdout.write(f"{path}\n")
    return OK
