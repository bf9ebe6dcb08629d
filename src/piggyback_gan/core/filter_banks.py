"""Filter banks of all layers of a network, and the tasks in them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from piggyback_gan.core.allocation import LayerSize, Shares, resolve_shares
from piggyback_gan.core.banked_layer import BankedLayer, plan_layers
from piggyback_gan.core.dependencies import Ledger
from piggyback_gan.core.layer_filters import LayerFilters
from piggyback_gan.core.mixings import SELECTED, most_relevant
from piggyback_gan.core.products import rounded
from piggyback_gan.core.task import (
    PLACES,
    UNCONSTRAINED,
    LayerPlan,
    TaskFilters,
    TaskState,
    tensor_key,
)
from piggyback_gan.errors import PiggybackError

STORED_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class BankedTask:
    """A task in the banks: how its filters are made, and its tensors beside the banks' rows.

    Attributes:
        made: how its filters are made.
        values: layer -> mixing tensors of a finished task. Its unconstrained filters are rows of the layer's
            bank; the tensors of a task in training are parameters of the layers.
        starts: layer -> the filters (P, D) that mixed ones are added to, while the task is in training.
        places: layer -> indices of a finished task's unconstrained filters, if they are not the first ones.
    """

    made: TaskFilters
    values: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    starts: dict[str, Tensor] = field(default_factory=dict)
    places: dict[str, Tensor] = field(default_factory=dict)


class FilterBanks:
    """Conv layers of a network with their filter banks, and the tasks in them, in order.

    Args:
        layers: name -> layer, without its weight.
    """

    def __init__(self, layers: dict[str, BankedLayer]) -> None:
        self.layers = layers
        self.ledger = Ledger({name: layer.layout.filters for name, layer in layers.items()})
        self.finished: dict[str, BankedTask] = {}
        self.training: tuple[str, BankedTask] | None = None
        self._started: dict[str, tuple[str, Tensor]] = {}

    @property
    def device(self) -> torch.device:
        """Device of the banks."""
        return self._any_piece().device

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks in order; the last may be in training."""
        return (*self.finished, *([self.training[0]] if self.training else []))

    def task(self, name: str) -> BankedTask:
        """A task, in training or finished.

        Raises:
            PiggybackError: the task does not exist.
        """
        if self.training and self.training[0] == name:
            return self.training[1]
        if name not in self.finished:
            known = ", ".join(self.tasks) or "none"
            raise PiggybackError(f"no task {name!r}; tasks: {known}")
        return self.finished[name]

    def is_training(self, name: str) -> bool:
        """Whether this is the task in training."""
        return self.training is not None and self.training[0] == name

    def shares(self, unconstrained: Shares) -> dict[str, float]:
        """Resolve lambda for every layer of the next task."""
        filters = {name: layer.layout.filters for name, layer in self.layers.items()}
        shares = resolve_shares(unconstrained, filters)
        # The first task of a layer has nothing to mix from.
        return {k: s if self.layers[k].count else 1.0 for k, s in shares.items()}

    def sizes(self) -> dict[str, LayerSize]:
        """Sizes of the layers for the next task."""
        layers = self.layers.items()
        return {n: LayerSize(x.layout.filters, x.layout.length, x.count) for n, x in layers}

    def plan(self, made: TaskFilters) -> list[LayerPlan]:
        """Plan of each layer of a next task."""
        return self._plan(made, None)

    def plan_of(self, name: str) -> list[LayerPlan]:
        """Plan of each layer of a task; its own layers are left out."""
        return self._plan(self.task(name).made, self.ledger.place(name))

    # Tasks

    def begin(
        self, name: str, made: TaskFilters, state: TaskState | None = None, noise: float = 0.0
    ) -> None:
        """Begin a task: initialize its tensors and register them on the layers.

        Args:
            name: the task.
            made: how its filters are made.
            state: values to start from, validated by `check_values`; None: initialize them.
            noise: share of random noise in the filters of an earlier task that it starts from.
        """
        task = BankedTask(made)
        for layer_plan in self.plan(made):
            layer, key = self.layers[layer_plan.name], layer_plan.name
            model = self.model_for(key, made.start)
            if state is not None:
                tensors = _values_in(state, layer_plan, layer.pieces[0])
                if layer_plan.mixing and layer_plan.rule.adds and model is not None:
                    start_ND = self.filters(key, model)
                    task.starts[key] = start_ND[layer_plan.unconstrained :].clone()
            elif not layer.count:
                tensors = {UNCONSTRAINED: layer.given_ND.clone()}
            elif model is None:
                tensors = layer.random_start(layer_plan.unconstrained)
            else:
                filters, rows = self.filters(key, model), layer_plan.unconstrained
                if noise:
                    filters = layer.noisy(filters, noise)
                if not layer_plan.mixing:
                    tensors = {UNCONSTRAINED: filters[:rows].clone()}
                elif layer_plan.rule.adds:
                    tensors = layer.warm_start(filters, rows, layer_plan.rule)
                    if layer_plan.mixing:
                        task.starts[key] = filters[rows:].clone()
                else:
                    tensors = layer.mixed_start(filters, rows, self.coefficients(key, model))
            layer.begin_task(tensors)
        self.training = (name, task)

    @property
    def selecting(self) -> list[str]:
        """Layers of the task in training that have selected mixing."""
        return [name for name, layer in self.layers.items() if SELECTED in layer.trained()]

    def select(self, layer_name: str, gradient_ND: Tensor) -> None:
        """Choose the bank filters of such a layer, by the gradient of its filters."""
        assert self.training is not None
        parts = self.parts(layer_name, self.training[0])
        selected = self.layers[layer_name].trained()[SELECTED]
        gradient_PD = gradient_ND[len(parts.unconstrained_UD) :]
        selected.copy_(most_relevant(gradient_PD, parts.bank_KD, len(selected)))

    def mixed_filters(self, state: TaskState) -> dict[str, Tensor]:
        """Compose the filters (N, D) that a state of a next task gives to each layer that mixes, not exactly."""
        mixed = {}
        for layer_plan in self.plan(state.filters):
            if not layer_plan.mixing:
                continue
            layer, key = self.layers[layer_plan.name], layer_plan.name
            values = _values_in(state, layer_plan, layer.pieces[0])
            free, places = values.pop(UNCONSTRAINED, layer.bank_KD[:0]), values.pop(PLACES, None)
            start, model = None, self.model_for(key, state.filters.start)
            if layer_plan.rule.adds and model is not None:
                start = self.filters(key, model)[len(free) :]
            parts = LayerFilters(
                layer_plan.rule, free, values, layer.bank_KD, [layer.count], start, places_U=places
            )
            mixed[key] = parts.compose(exact=False)
        return mixed

    def end(self) -> None:
        """Drop the task in training."""
        for layer in self.layers.values():
            layer.end_task()
        self.training = None

    def append(self, state: TaskState) -> None:
        """Append a finished task, validated by `check_values`."""
        task = BankedTask(state.filters)
        for layer_plan in self.plan(state.filters):
            layer, key = self.layers[layer_plan.name], layer_plan.name
            like = layer.pieces[0]
            found = _values_in(state, layer_plan, like)
            free, places = found.pop(UNCONSTRAINED, like[:0]), found.pop(PLACES, None)
            if places is not None:
                task.places[key] = places
            task.values[key] = found
            layer.append(free)
            layer.given_ND = like[:0].clone()  # only needed for the first task
        self.ledger.add(state)
        self.finished[state.name] = task

    # Filters

    def filters(self, layer_name: str, name: str) -> Tensor:
        """Compose a task's filters (N, D) of a layer exactly."""
        return self.parts(layer_name, name).compose(exact=True)

    def parts(self, layer_name: str, name: str) -> LayerFilters:
        """Parts of a task's filters of a layer; of a task in training, rounded to the storage dtype."""
        start_ND = None
        if not self.is_training(name) and (model := self._added_to(layer_name, name)):
            start_ND = self._start(layer_name, model)
        return self._parts(layer_name, name, start_ND)

    def _parts(self, layer_name: str, name: str, start_ND: Tensor | None) -> LayerFilters:
        """Parts as above, given the filters that mixed ones are added to, if any."""
        layer, task, place = self.layers[layer_name], self.task(name), self.ledger.place(name)
        count = self.ledger.before(layer_name, place)
        if self.is_training(name):
            stored = STORED_TYPES[task.made.storage]
            values = {n: rounded(t, stored) for n, t in layer.trained().items()}
            free, places = values.pop(UNCONSTRAINED, layer.pieces[0][:0]), values.pop(PLACES, None)
        else:
            free = layer.rows(count, self.ledger.before(layer_name, place + 1))
            values, places = task.values[layer_name], task.places.get(layer_name)
        # A layer of new filters alone does not depend on its bank.
        bank = layer.rows(0, count) if values else free[:0]
        segments = self.ledger.segments(layer_name, place) if values else ()
        rule = task.made.mixing.of_layer(layer.layout.filters - len(free), count, layer_name)
        start, is_bank = None, False
        if values and rule.adds:
            start = task.starts.get(layer_name)
            if start is None and start_ND is not None:
                start = start_ND[len(free) :]
            model = self.model_for(layer_name, task.made.start)
            # The start mixes nothing here and added all filters of the bank.
            is_bank = model is not None and len(bank) == layer.layout.filters
            is_bank = is_bank and not self.finished[str(model)].values[layer_name]
        return LayerFilters(rule, free, values, bank, segments, start, is_bank, places)

    def _added_to(self, layer_name: str, name: str) -> str | None:
        """The task to whose filters of a layer a finished task adds; None if it does not add."""
        task, place = self.finished[name], self.ledger.place(name)
        if not task.values[layer_name]:
            return None
        count = self.ledger.before(layer_name, place)
        free = self.ledger.before(layer_name, place + 1) - count
        mixed = self.layers[layer_name].layout.filters - free
        adds = task.made.mixing.of_layer(mixed, count, layer_name).adds
        return self.model_for(layer_name, task.made.start) if adds else None

    def _start(self, layer_name: str, name: str) -> Tensor:
        """A finished task's filters of a layer, as a start of others; the last result is cached.

        In a long chain each task may start from the one before: so this is a loop instead of a recursion,
        and composing the tasks in order computes each start once.
        """
        kept, filters = self._started.get(layer_name, (None, None))
        row: list[str] = []
        model: str | None = name
        while model is not None and model != kept:
            row.append(model)
            model = self._added_to(layer_name, model)
        if model is None:
            filters = None
        for task in reversed(row):
            filters = self._parts(layer_name, task, filters).compose(exact=True)
        assert filters is not None
        if self.finished[name].values[layer_name]:  # others are rows of the bank
            self._started[layer_name] = (name, filters)
        return filters

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Unconstrained filters and mixing tensors of a task, by name, in its storage dtype."""
        stored = STORED_TYPES[self.task(name).made.storage]
        tensors = {}
        for key in self.task(name).made.shares:
            parts = self._parts(key, name, None)
            free = {UNCONSTRAINED: parts.unconstrained_UD} if len(parts.unconstrained_UD) else {}
            if parts.places_U is not None:
                free[PLACES] = parts.places_U
            for tensor_name, tensor in (free | dict(parts.values)).items():
                if tensor.dtype == torch.float32:
                    tensor = tensor.to(stored)
                tensors[tensor_key(key, tensor_name)] = tensor
        return tensors

    def versions(self) -> list[object]:
        """Version counters of the tensors of the task in training: they change when a composition is outdated."""
        hung = [t for layer in self.layers.values() for t in layer.trained().values()]
        return [value for t in hung for value in (id(t), t._version, t.requires_grad)]

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move the tensors that are not parameters or buffers of the module, after the module was moved."""
        self._started.clear()
        for layer in self.layers.values():
            layer.move(fn)
        for task in (*self.finished.values(), *([self.training[1]] if self.training else [])):
            task.starts = {key: fn(start) for key, start in task.starts.items()}
            for values in (task.places, *task.values.values()):
                values.update({name: fn(tensor) for name, tensor in values.items()})

    def check_type(self, fn: Callable[..., Any]) -> None:
        """Refuse to change the dtype of the banks.

        Raises:
            PiggybackError: `fn` changes the dtype.
        """
        sample = self._any_piece()[:0]
        if fn(sample).dtype != sample.dtype:
            raise PiggybackError(
                f"a bank keeps its filters as they are stored ({sample.dtype}): "
                f"fold a task and convert the folded network to {fn(sample).dtype}"
            )

    def _plan(self, made: TaskFilters, place: int | None) -> list[LayerPlan]:
        banks = {name: self.ledger.before(name, place) for name in self.layers}
        return plan_layers(self.layers, made, banks)

    def _any_piece(self) -> Tensor:
        return next(iter(self.layers.values())).pieces[0]

    def model_for(self, layer_name: str, source: str | None) -> str | None:
        """The task that a layer starts from: the source, or the first task that shares the layer.

        None for a random start, or if no task shares the layer yet.
        """
        if source is None or layer_name in self.finished[source].made.shares:
            return source
        return self.ledger.first(layer_name)

    def coefficients(self, layer_name: str, name: str) -> Tensor:
        """A finished task's filters as mixing weights (N, K) of the layer's whole bank.

        The row of an unconstrained filter selects its bank row; that of a mixed one has the task's mixing
        weights, plus those of its start if the mixing adds to it.
        """
        layer, row = self.layers[layer_name], [name]
        while (model := self._added_to(layer_name, row[-1])) is not None:
            row.append(model)
        filters = layer.layout.filters
        added: Tensor | None = None
        for task in reversed(row):
            parts, place = self._parts(layer_name, task, None), self.ledger.place(task)
            start, count = self.ledger.before(layer_name, place), len(parts.unconstrained_UD)
            weights = layer.bank_KD.new_zeros(filters, layer.count)
            weights[:count, start : start + count].fill_diagonal_(1)
            if count < filters:
                weights[count:, :start] = parts.coefficients()
                if added is not None:
                    weights[count:] += added[count:]
            added = weights = parts.in_place(weights)
        return weights


def check_values(state: TaskState, plan: Iterable[LayerPlan]) -> None:
    """Validate the values of a task's filter tensors, whose shapes are right.

    Raises:
        PiggybackError: wrong dtype, an index of a filter that is not in the bank, or invalid places.
    """
    for layer in plan:
        _check_layer(state, layer)
        _check_places(state, layer)


def _check_places(state: TaskState, plan: LayerPlan) -> None:
    key = tensor_key(plan.name, PLACES)
    places = state.tensors.get(key)
    if places is None:
        return
    fits = not (places.is_floating_point() or places.is_complex() or plan.rule.adds)
    if fits:
        inside = (places >= 0) & (places < plan.filters)
        fits = bool(inside.all()) and bool((places.diff() > 0).all())
    if not fits or not plan.piggyback:
        raise PiggybackError(
            f"task {state.name!r} does not fit the network: {key} must be indices of {plan.unconstrained} of "
            f"{plan.filters} filters, in ascending order, beside fully mixed ones"
        )


def _values_in(state: TaskState, plan: LayerPlan, like: Tensor) -> dict[str, Tensor]:
    """Copy a state's filter tensors of a layer, by name."""
    keys = {name: tensor_key(plan.name, name) for name in (*plan.shapes, PLACES)}
    return {
        n: _like(like, state.tensors[k].detach()) for n, k in keys.items() if k in state.tensors
    }


def _check_layer(state: TaskState, plan: LayerPlan) -> None:
    """Validate the dtypes and selected filters of a layer."""
    for name in plan.shapes:
        key = tensor_key(plan.name, name)
        tensor = state.tensors[key]
        if (name == SELECTED) == (tensor.is_floating_point() or tensor.is_complex()):
            raise PiggybackError(
                f"task {state.name!r} does not fit the network: {key} has values of type {tensor.dtype}"
            )
        if name == SELECTED and not ((tensor >= 0) & (tensor < plan.bank)).all():
            raise PiggybackError(
                f"task {state.name!r} does not fit the network: {key} selects filters that are not in its bank of {plan.bank}"
            )


def _like(bank: Tensor, tensor: Tensor) -> Tensor:
    """Copy a tensor to the bank's device, floats to its dtype."""
    floats = tensor.is_floating_point()
    return tensor.clone().to(bank.device, bank.dtype if floats else tensor.dtype)
