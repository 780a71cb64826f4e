"""Data: what a batch is. Knows nothing of models."""

from typing import TYPE_CHECKING

from datamodules.errors import UserError
from datamodules.lazy import on_demand
from datamodules.task import Task

if TYPE_CHECKING:
    from datamodules.adding import Adding
    from datamodules.arithmetic import ModularArithmetic
    from datamodules.automata import CycleNavigation, Parity, PermutationWord
    from datamodules.base import GeneratedDataModule, IndexedBatches, SequenceDataModule, SequenceLoader
    from datamodules.batch import Parts
    from datamodules.cifar import PixelCIFAR10
    from datamodules.copying import CopyMemory
    from datamodules.denoising import Denoise
    from datamodules.dyck import Dyck
    from datamodules.lengths import LengthDataModule
    from datamodules.listops import ListOps
    from datamodules.mnist1d import MNIST1D
    from datamodules.parenthesis import Parenthesis
    from datamodules.pixels import PixelDigits, PixelMNIST, pixel_permutation
    from datamodules.published_text import Enwik8, PennTreebank, Text8
    from datamodules.recalling import AssociativeRecall, FlipFlop, InductionHeads, SelectiveCopy
    from datamodules.sequence_files import SequenceFiles
    from datamodules.speech_commands import SpeechCommands
    from datamodules.streams import Series, StreamDataModule
    from datamodules.text import TextCorpus, TextDataModule
    from datamodules.timit import TIMIT
    from datamodules.uea import UEA
else:  # they need torch and Lightning, which take seconds; an error and a Task do not
    __getattr__ = on_demand(
        __name__,
        (
            "adding",
            "arithmetic",
            "automata",
            "base",
            "batch",
            "cifar",
            "copying",
            "denoising",
            "dyck",
            "lengths",
            "listops",
            "mnist1d",
            "parenthesis",
            "pixels",
            "published_text",
            "recalling",
            "sequence_files",
            "speech_commands",
            "streams",
            "text",
            "timit",
            "uea",
        ),
    )

__all__ = [
    "MNIST1D",
    "TIMIT",
    "UEA",
    "Adding",
    "AssociativeRecall",
    "CopyMemory",
    "CycleNavigation",
    "Denoise",
    "Dyck",
    "Enwik8",
    "FlipFlop",
    "GeneratedDataModule",
    "IndexedBatches",
    "InductionHeads",
    "LengthDataModule",
    "ListOps",
    "ModularArithmetic",
    "Parenthesis",
    "Parity",
    "Parts",
    "PennTreebank",
    "PermutationWord",
    "PixelCIFAR10",
    "PixelDigits",
    "PixelMNIST",
    "SelectiveCopy",
    "SequenceDataModule",
    "SequenceFiles",
    "SequenceLoader",
    "Series",
    "SpeechCommands",
    "StreamDataModule",
    "Task",
    "Text8",
    "TextCorpus",
    "TextDataModule",
    "UserError",
    "pixel_permutation",
]
