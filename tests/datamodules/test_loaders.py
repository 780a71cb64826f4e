"""What every loader promises: samples fixed by (seed, split, index), ranks that never meet, resumption to the batch."""

import gc
import io
import multiprocessing
import subprocess
import sys
from collections import Counter
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import datamodules.loader as loader_module
from datamodules import Adding, CopyMemory, PixelDigits, UserError

SYNTHETIC = {"train_samples": 96, "val_samples": 13, "test_samples": 22}
EPOCH = {"copying": 96, "copying, reused": 96, "adding": 96, "digits": 1200}
BATCH = {"copying": 16, "copying, reused": 16, "adding": 16, "digits": 200}  # divides the epoch over 1, 2 or 3 ranks
FRESH = ["copying", "adding"]
FIXED = ["copying, reused", "digits"]
KINDS = [*FRESH, *FIXED]


def make(kind, **options):
    options = {"batch_size": BATCH[kind], "seed": 3} | options
    if kind == "adding":
        return Adding(length=6, **SYNTHETIC | options)
    if kind == "digits":
        return PixelDigits(**{"val_size": 297, "test_size": 300} | options)
    return CopyMemory(delay=2, reuse=kind == "copying, reused", **SYNTHETIC | options)


def loader(kind, split, rank=0, world_size=1, **options):
    data = make(kind, **options)
    data.prepare_data()
    data.setup("test" if split == "test" else "fit")
    return data.loader(split, rank=rank, world_size=world_size)


def epoch(source):
    """One epoch as a list of batches of samples, each sample the bytes of its input and target."""
    return [sample_keys(batch) for batch in source]


def sample_keys(batch):
    inputs, targets = batch
    assert len(inputs) == len(targets)
    return [x.numpy().tobytes() + y.numpy().tobytes() for x, y in zip(inputs, targets, strict=True)]


def flat(batches):
    return [sample for batch in batches for sample in batch]


def stream(source, count):
    """The next `count` batches, however many passes it takes."""
    batches = []
    for _ in range(count + 2):
        batches += epoch(source)
        if len(batches) >= count:
            break
    return batches[:count]


def reloaded(state):
    """The state as a checkpoint that holds nothing but primitives and tensors gives it back."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


# ------------------------------------------------------------------------------------ a sample is (seed, split, index)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_seed_alone_decides(kind, split):
    """Whatever the global generators of torch and NumPy have been through."""
    given = []
    for elsewhere in (1, 2):
        torch.manual_seed(elsewhere)
        np.random.seed(elsewhere)
        source = loader(kind, split)
        given.append([epoch(source), epoch(source)])
    assert given[0] == given[1]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_depend_on_the_batch_size(kind):
    small = BATCH[kind] // 4
    for split in ("val", "test"):
        assert flat(epoch(loader(kind, split))) == flat(epoch(loader(kind, split, batch_size=small)))
    large, fine = loader(kind, "train"), loader(kind, "train", batch_size=small)
    for _ in range(2):
        assert Counter(flat(epoch(large))) == Counter(flat(epoch(fine)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_batches_do_not_depend_on_the_number_of_workers(kind, split):
    alone, helped = loader(kind, split), loader(kind, split, num_workers=2)
    for _ in range(2):
        assert epoch(alone) == epoch(helped)


@pytest.mark.parametrize("kind", FRESH)
def test_more_samples_extend_fewer(kind):
    few = set(flat(epoch(loader(kind, "train", train_samples=48))))
    many = set(flat(epoch(loader(kind, "train", train_samples=96))))
    assert len(few) == 48 and len(many) == 96 and few < many
    assert flat(epoch(loader(kind, "val", val_samples=7))) == flat(epoch(loader(kind, "val")))[:7]


@pytest.mark.parametrize("kind", FRESH)
def test_splits_epochs_and_seeds_share_no_sample(kind):
    groups = {}
    for seed in (0, 1, 2):
        train = loader(kind, "train", seed=seed)
        for number in range(3):
            groups[seed, "train", number] = flat(epoch(train))
        for split in ("val", "test"):
            groups[seed, split] = flat(epoch(loader(kind, split, seed=seed)))
    rows = [row for group in groups.values() for row in group]
    assert len(rows) == 3 * (3 * 96 + 13 + 22)
    assert len(set(rows)) == len(rows), [(a, b) for a, b in combinations(groups, 2) if set(groups[a]) & set(groups[b])]


def test_reused_training_sequences_are_not_those_of_evaluation():
    splits = [set(flat(epoch(loader("copying, reused", split)))) for split in ("train", "val", "test")]
    assert [len(rows) for rows in splits] == [96, 13, 22]
    assert len(set().union(*splits)) == 96 + 13 + 22


@pytest.mark.parametrize("kind", FIXED)
def test_fixed_data_is_shuffled_anew_every_epoch(kind):
    train = loader(kind, "train")
    epochs = [flat(epoch(train)) for _ in range(3)]
    for rows in epochs:
        assert len(rows) == len(set(rows)) == EPOCH[kind]
    for one, other in combinations(epochs, 2):
        assert set(one) == set(other)
        assert np.mean([a == b for a, b in zip(one, other, strict=True)]) < 0.1
    assert flat(epoch(loader(kind, "train", seed=4))) != epochs[0]


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_data_is_the_same_every_time(kind):
    for split in ("val", "test"):
        source = loader(kind, split)
        assert epoch(source) == epoch(source)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_full_and_counted(kind):
    train = loader(kind, "train")
    batches = epoch(train)
    assert [len(batch) for batch in batches] == [BATCH[kind]] * (EPOCH[kind] // BATCH[kind])
    assert len(train) == len(batches)
    for split in ("val", "test"):
        source = loader(kind, split)
        assert len(source) == len(epoch(source))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_trainer_there_is_one_rank(kind):
    data = make(kind)
    data.prepare_data()
    data.setup("fit")
    assert epoch(data.train_dataloader()) == epoch(loader(kind, "train"))
    assert epoch(data.val_dataloader()) == epoch(loader(kind, "val"))
    data.setup("test")
    assert epoch(data.test_dataloader()) == epoch(loader(kind, "test"))
    data.setup("predict")
    assert Counter(flat(epoch(data.predict_dataloader()))) == Counter(flat(epoch(loader(kind, "val"))))


@pytest.mark.parametrize("kind", KINDS)
def test_the_trainer_says_which_rank(kind):
    data = make(kind)
    data.prepare_data()
    data.setup("fit")
    idle = SimpleNamespace(fn=None, status=None)
    on_cpu = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(
        global_rank=1, local_rank=1, world_size=3, overfit_batches=0.0, state=idle, strategy=on_cpu
    )
    assert epoch(data.train_dataloader()) == epoch(loader(kind, "train", 1, 3))
    assert epoch(data.val_dataloader()) == epoch(loader(kind, "val", 1, 3))


def test_memory_is_pinned_for_a_gpu_alone(monkeypatch):
    """Where there is a GPU, a trainer on the CPU needs none; nor do data without a trainer."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    data, place = CopyMemory(delay=2, **SYNTHETIC, batch_size=4), SimpleNamespace()
    found = [data.loader("train").pin]
    for device in ("cpu", "cuda:0"):
        place.root_device = torch.device(device)
        data.trainer = SimpleNamespace(strategy=place, overfit_batches=0.0)
        found.append(data.loader("train").pin)
    assert found == [False, False, True]
    given = []
    monkeypatch.setattr(loader_module, "_Workers", lambda *_, **options: given.append(options["pin_memory"]) or [])
    for pin in (False, True):
        source = data.loader("train")
        source.pin = pin
        assert list(source) == []
    assert given == [False, True]


# --------------------------------------------------------------------------------------------------------------- ranks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_no_training_sample_and_give_what_one_rank_gives(kind, world_size):
    alone = loader(kind, "train")
    ranks = [loader(kind, "train", rank, world_size) for rank in range(world_size)]
    for _ in range(2):
        together = [flat(epoch(rank)) for rank in ranks]
        assert [len(rows) for rows in together] == [EPOCH[kind] // world_size] * world_size
        rows = [row for rank in together for row in rank]
        assert len(set(rows)) == len(rows)
        assert set(rows) == set(flat(epoch(alone)))


@pytest.mark.parametrize("kind", FRESH)
def test_ranks_with_workers_share_no_training_sample(kind):
    rows = [row for rank in range(2) for row in flat(epoch(loader(kind, "train", rank, 2, num_workers=2)))]
    assert len(set(rows)) == len(rows) == EPOCH[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_epoch_that_does_not_divide_loses_less_than_one_global_batch(kind, world_size):
    """Ranks stay in step (the same number of batches of the same sizes), and still never share a sample."""
    sizes = {"val_size": 301, "test_size": 385} if kind == "digits" else {"train_samples": 101}
    total = 1111 if kind == "digits" else 101
    batch = 50 if kind == "digits" else 8
    ranks = [loader(kind, "train", rank, world_size, batch_size=batch, **sizes) for rank in range(world_size)]
    batches = [epoch(rank) for rank in ranks]
    assert len({len(part) for part in batches}) == 1
    assert [len(rank) for rank in ranks] == [len(part) for part in batches]
    assert max(len(part) for rank in batches for part in rank) == batch
    rows = [row for rank in batches for row in flat(rank)]
    assert len(set(rows)) == len(rows)
    assert total - world_size * batch < len(rows) <= total
    for rank in batches:
        assert all(rank)


@pytest.mark.parametrize("size", [6, 7, 9, 10, 13, 16, 17, 25])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_gives_every_sample_exactly_once(size, world_size, split):
    """Also where size, ranks and batches do not divide: nothing padded, nothing dropped, no rank waits for another."""
    options = {f"{split}_samples": size, "batch_size": 4}
    ranks = [loader("adding", split, rank, world_size, **options) for rank in range(world_size)]
    batches = [epoch(rank) for rank in ranks]
    assert len({len(part) for part in batches}) == 1
    assert [len(rank) for rank in ranks] == [len(part) for part in batches]
    assert all(1 <= len(batch) <= 4 for rank in batches for batch in rank)
    rows = [row for rank in batches for row in flat(rank)]
    assert len(rows) == size
    assert set(rows) == set(flat(epoch(loader("adding", split, batch_size=4, **{f"{split}_samples": size}))))
    assert len(set(rows)) == size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "batch_size", "world_size"), [(10, 1, 3), (7, 1, 2), (6, 1, 3), (2, 4, 3), (1, 1, 2)])
def test_evaluation_on_hardly_any_samples_is_exact_or_refused(kind, size, batch_size, world_size):
    """Ten samples one by one cannot be shared among three ranks in step: exact all the same, or one sentence on all."""
    key = "val_size" if kind == "digits" else "val_samples"
    outcomes = []
    for rank in range(world_size):
        try:
            outcomes.append(epoch(loader(kind, "val", rank, world_size, batch_size=batch_size, **{key: size})))
        except UserError as error:
            assert "\n" not in str(error)
            outcomes.append(None)
    if None in outcomes:
        assert outcomes == [None] * world_size
        assert size % world_size, "an even share was refused"
    else:
        assert len({len(batches) for batches in outcomes}) == 1
        assert all(batch for batches in outcomes for batch in batches), "an empty batch: its mean loss is NaN"
        rows = [row for batches in outcomes for row in flat(batches)]
        assert len(rows) == len(set(rows)) == size


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_of_real_data_is_exact_over_ranks(world_size, split):
    options = {"val_size": 197, "test_size": 200, "batch_size": 32}
    ranks = [epoch(loader("digits", split, rank, world_size, **options)) for rank in range(world_size)]
    assert len({len(rank) for rank in ranks}) == 1
    rows = [row for rank in ranks for row in flat(rank)]
    assert Counter(rows) == Counter(flat(epoch(loader("digits", split, **options))))
    assert len(rows) == options[f"{split}_size"]


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_samples_for_the_ranks_is_one_sentence(kind):
    size = {"val_size": 1000, "test_size": 767} if kind == "digits" else {"train_samples": 30}  # 30 images remain
    assert len(epoch(loader(kind, "train", 1, 3, batch_size=10, **size))) == 1
    with pytest.raises(UserError) as caught:
        loader(kind, "train", 1, 3, batch_size=11, **size)
    message = str(caught.value)
    assert "\n" not in message
    assert "batch_size" in message or "train_samples" in message
    with pytest.raises(UserError, match=r"batch_size|train_samples"):
        loader(kind, "train", batch_size=31, **size)


# -------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
def test_resume_after_every_batch(kind, rank, world_size):
    """After k batches, in the first or a later epoch: the rest of that epoch, then the epochs that follow."""
    source = loader(kind, "train", rank, world_size)
    each = len(source)
    reference = stream(loader(kind, "train", rank, world_size), 4 * each)
    states, seen = [reloaded(source.state_dict())], []
    for _ in range(2):
        for batch in source:
            seen.append(sample_keys(batch))
            states.append(source.state_dict())  # not copied: what follows must not reach back into it
    assert seen == reference[: 2 * each]
    for k, state in enumerate(states):
        resumed = loader(kind, "train", rank, world_size)
        resumed.load_state_dict(reloaded(state))
        assert stream(resumed, 4 * each - k) == reference[k:], k


@pytest.mark.parametrize("kind", KINDS)
def test_the_resumed_pass_ends_with_its_epoch(kind):
    reference = loader(kind, "train")
    first, second = epoch(reference), epoch(reference)
    source = loader(kind, "train")
    batches = iter(source)
    for _ in range(2):
        next(batches)
    resumed = loader(kind, "train")
    resumed.load_state_dict(reloaded(source.state_dict()))
    assert epoch(resumed) == first[2:]
    assert epoch(resumed) == second


@pytest.mark.parametrize("kind", KINDS)
def test_between_epochs_the_next_one_follows(kind):
    reference = loader(kind, "train")
    _, second = epoch(reference), epoch(reference)
    source = loader(kind, "train")
    epoch(source)
    resumed = loader(kind, "train")
    resumed.load_state_dict(reloaded(source.state_dict()))
    assert stream(resumed, len(second)) == second


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_can_be_stopped_again(kind):
    """Stopped after 2 batches, after 3 more, and after the one that ends the epoch and 2 of the next."""
    reference = stream(loader(kind, "train"), 12)
    state, start = loader(kind, "train").state_dict(), 0
    for stop in (2, 5, 8):
        resumed = loader(kind, "train")
        resumed.load_state_dict(reloaded(state))
        seen = []
        while len(seen) < stop - start:
            for batch in resumed:
                seen.append(sample_keys(batch))
                if len(seen) == stop - start:
                    state = resumed.state_dict()
                    break
        assert seen == reference[start:stop]
        start = stop


@pytest.mark.parametrize("kind", ["copying", "digits"])
def test_workers_reading_ahead_do_not_move_the_position(kind):
    reference = stream(loader(kind, "train"), 12)
    source = loader(kind, "train", num_workers=2)
    batches = iter(source)
    for _ in range(2):
        next(batches)
    state = reloaded(source.state_dict())
    resumed = loader(kind, "train", num_workers=2)
    resumed.load_state_dict(state)
    assert stream(resumed, 10) == reference[2:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_small(kind):
    """The position is a few numbers, not the data: it goes into every checkpoint."""
    source = loader(kind, "train")
    next(iter(source))
    buffer = io.BytesIO()
    torch.save(source.state_dict(), buffer)
    assert buffer.tell() < 10_000


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_ends_with_the_seed_it_began_with(kind):
    source, other = loader(kind, "train"), loader(kind, "train", seed=4)
    batches = iter(source)
    next(batches)
    with pytest.raises(UserError, match=r"data\.init_args\.seed is 4, but .* inside an epoch .* of seed 3"):
        other.load_state_dict(reloaded(source.state_dict()))
    list(batches)
    other.load_state_dict(reloaded(source.state_dict()))
    assert (other.seed_before, other.seed) == (3, 4)


def test_a_process_ends_though_its_workers_are_held():
    """As by the error that a batch of theirs raised: they take no signal that Python sends before it waits for them."""
    code = (
        "from datamodules import Adding\nheld = iter(Adding(length=6, batch_size=8, num_workers=1).train_dataloader())"
    )
    done = subprocess.run([sys.executable, "-c", f"{code}\nnext(held)"], timeout=100, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_workers_end_with_an_iterator_that_the_collector_finds(monkeypatch):
    """In a circle, as an error's frames hold it: its queues are closed before it could tell them."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    before = multiprocessing.active_children()
    circle = [iter(loader("digits", "train", num_workers=1))]
    next(circle[0])
    (worker,) = set(multiprocessing.active_children()) - set(before)
    circle.append(circle)
    del circle
    gc.collect()
    assert not worker.is_alive()
