"""PiggybackNetwork: a torch module whose conv filters are shared by a sequence of tasks."""

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from piggyback_gan.core.allocation import LayerSize, Shares, allot
from piggyback_gan.core.banked_layer import OwnLayer, take_weights
from piggyback_gan.core.composer import Composer
from piggyback_gan.core.dependencies import Ledger
from piggyback_gan.core.filter_banks import FilterBanks, check_values
from piggyback_gan.core.filter_options import FilterOptions
from piggyback_gan.core.filters import ConvLayer, FilterLayout
from piggyback_gan.core.layer_checks import refuse_unfit
from piggyback_gan.core.mixings import FullMixing, Mixing
from piggyback_gan.core.private_tensors import PrivateTensors
from piggyback_gan.core.products import without_denormals
from piggyback_gan.core.task import (
    BIAS,
    TRAINED,
    UNCONSTRAINED,
    WEIGHT,
    LayerPlan,
    ParameterCount,
    TaskFilters,
    TaskState,
    filter_shapes,
    resolve_start,
    tensor_key,
)
from piggyback_gan.errors import PiggybackError, first_names
from piggyback_gan.names import AUTO, check_task_name


@dataclass
class _Task:
    """What the network holds of one task beside its filters, which are in the banks: private tensors, own layers."""

    private: dict[str, Tensor] = field(default_factory=dict)
    own: dict[str, OwnLayer] = field(default_factory=dict)
    options: FilterOptions | None = None
    """Options by which the filters of a task in training are made, with their defaults, if they are known."""
    free: bool = False
    """Whether it is trained free, to be factorized by its options."""


class PiggybackNetwork(nn.Module):
    """A network that learns one task after another without changing the filters of earlier ones.

    Every Conv1d/2d/3d and ConvTranspose1d/2d/3d in a copy of `module` gets its weight composed from
    a filter bank; the module's own forward is unchanged. All other parameters and buffers are private to
    each task. (Piggyback GAN, ECCV 2020, section 3.)

    Example::

        network = PiggybackNetwork(nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 3, 3)))
        network.add_task("maps")
        optimizer = torch.optim.Adam(network.trainable_parameters(), 2e-4)
        ...                                     # train by calling network(x)
        network.finish_task()
        network.add_task("night", FilterOptions(budget=0.05))  # trains new filters and the mixing
        ...
        plain = network.fold("maps")            # an independent nn.Sequential

    Filters are composed again only after the parameters have changed. Changes are detected by the
    parameters' version counters, which `optimizer.step()`, `copy_` and `load_state_dict` increment;
    in-place changes through `.data` and parameters replaced by `torch.func.functional_call` are not
    detected.

    `state_dict()` contains only the task in training; finished tasks are stored by a bank on disk, or by
    `task_state` and `restore_task`. For DistributedDataParallel, wrap this network once per task, with the
    same tasks and the same random seed in every process: banks are not broadcast. DataParallel is not
    supported.

    Args:
        module: a module with at least one conv layer. It is copied, not changed. The first task starts from
            its weights, and random starts of later tasks have their scale.
        factored: train layers with low-rank or selected mixing as the convolution with the start's filters
            plus a low-rank correction of its outputs, instead of composing their weight. Results are equal
            up to rounding, and no gradient of whole filters is computed. The module must call its conv
            layers, must not read their weight elsewhere, and double backward is not supported.

    Raises:
        PiggybackError: no conv layers, a conv weight shared with another layer, or a layer whose weight is not
            a plain float parameter: spectral norm, weight norm, other parametrizations, pruning, quantised,
            complex, lazy. The message names the layer and the remedy.
    """

    def __init__(self, module: nn.Module, *, factored: bool = False) -> None:
        super().__init__()
        # Before the copy: some of these modules can't be copied.
        refuse_unfit(module)
        self.module = copy.deepcopy(module)
        self._banks = FilterBanks(take_weights(self.module))
        self._composer = Composer(self._banks, factored=factored)
        layers = self._banks.layers
        self._filter_keys = {tensor_key(n, k) for n in layers for k in TRAINED}
        self._private = PrivateTensors(self.module, self._filter_keys)
        own = {tensor_key(n, WEIGHT) for n, layer in layers.items() if layer.trainable}
        self._private.trainable |= own
        self._kept: dict[str, _Task] = {}
        self._active: str | None = None

    # Tasks

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks in the order they were added; the last may be the one in training."""
        return self._banks.tasks

    @property
    def task_in_training(self) -> str | None:
        """The task that was added and is not finished; None if there is none."""
        return self._banks.training[0] if self._banks.training else None

    @property
    def active_task(self) -> str | None:
        """The task whose weights a call of the network uses; None if none is set."""
        return self._active

    @torch.inference_mode(False)
    def add_task(
        self,
        name: str,
        options: FilterOptions | None = None,
        *,
        own_layers: Mapping[str, ConvLayer] | None = None,
    ) -> None:
        """Begin a task and make it the active one.

        All filters of a first task are new. A later task starts from an earlier one's filters or at random
        (`FilterOptions.init`), in the latter case all filters at the scale of the module's own weights.

        Args:
            name: `[a-z0-9][a-z0-9._-]*`, at most 64 characters.
            options: how the filters of a later task are made, its start and its storage dtype; None for
                `FilterOptions()`. The storage dtype applies to a first task, too: parameters are rounded
                to it for each composition.
            own_layers: layer name -> a conv layer of the same kind with other channels, such as a first
                layer for images of one channel. The task has a copy of it in that place, outside the
                filter bank: it mixes nothing, later tasks can't mix it, and no budget pays for it.

        Raises:
            PiggybackError: a task is in training, the name is taken or not valid, a share pattern without
                a layer, a budget that is too small, options that exclude each other, an unknown start, or
                an own layer that does not fit in its place.
        """
        check_task_name(name)
        if self._banks.training:
            raise PiggybackError(
                f"task {self._banks.training[0]!r} is in training: finish it first"
            )
        if name in self._banks.finished:
            raise PiggybackError(f"task {name!r} already exists: finished tasks never change")
        own = self._copy_own_layers(own_layers or {})
        self._begin(name, (options or FilterOptions()).with_filter_defaults(), own)

    @property
    def possible_starts(self) -> tuple[str, ...]:
        """Finished tasks without own layers: each is a whole network that the task in training can start from."""
        return tuple(name for name in self._banks.finished if not self._kept[name].own)

    @property
    def chooses_start(self) -> bool:
        """Whether the task in training was begun with `init="auto"`, and there is something to choose."""
        task = self._kept.get(self.task_in_training or "")
        if task is None or task.options is None or task.options.init != AUTO or task.own:
            return False
        return len(self.possible_starts) + self.can_start_at_random > 1

    @property
    def can_start_at_random(self) -> bool:
        """Whether the task in training can start at random: what is mixed from the first step learns badly so."""
        options = self._kept[self._require_training()].options
        return options is not None and options.learn == "free"

    @torch.inference_mode(False)
    def restart_task(self, init: str) -> None:
        """Begin the task in training anew, with the same options but another start.

        Args:
            init: as `FilterOptions.init`.

        Raises:
            PiggybackError: no task is in training, it was not begun by `add_task`, or as `add_task`.
        """
        name = self._require_training()
        task = self._kept[name]
        if task.options is None:
            raise PiggybackError(f"task {name!r} goes on with given values: it has no start")
        self.discard_task()
        self._begin(name, replace(task.options, init=init), task.own)

    def _begin(self, name: str, options: FilterOptions, own: Mapping[str, OwnLayer]) -> None:
        made, noise = self._resolve(options, own), 0.0
        free = options.learn == "free" and bool(self._banks.finished)
        if free:
            noise = options.start_noise
            made = replace(made, shares=dict.fromkeys(made.shares, 1.0), mixing=FullMixing())
        self._banks.begin(name, made, noise=noise)
        private = dict(self._private.given)
        if made.start is not None:
            # An own layer's bias is as particular to its task as its weight.
            theirs = self._kept[made.start]
            foreign = {key for layer in theirs.own for key in self._own_keys(layer)}
            private |= {k: v for k, v in theirs.private.items() if k not in foreign}
        for layer_name, layer_own in own.items():
            private |= layer_own.tensors(layer_name)
        self._kept[name] = _Task(own=dict(own), options=options, free=free)
        self._composer.mark_start()
        self._activate(name, private)

    def finish_task(self) -> None:
        """Finish the task in training: append its unconstrained filters to the bank and freeze it.

        Raises:
            PiggybackError: no task is in training, it is still to be factorized, or one of its values is not finite.
        """
        name = self._require_training()
        if self.to_factorize is not None:
            raise PiggybackError(
                f"task {name!r} is trained free and can't be finished: call factorize_task first, and train on"
            )
        self.set_task(name)
        if bad := self.not_finite(name):
            raise PiggybackError(
                f"task {name!r} can't be finished: {bad} has values that are not finite"
            )
        state = self.task_state(name)
        self.discard_task()
        self.restore_task(state)
        self.set_task(name)

    def discard_task(self) -> None:
        """Drop the task in training; finished tasks are not affected.

        Raises:
            PiggybackError: no task is in training.
        """
        del self._kept[self._require_training()]
        self._banks.end()
        for parameter in self.module.parameters():
            parameter.grad = None  # the next task trains the same private parameters
        self._active = None
        self._composer.remove()
        for layer in self._banks.layers.values():
            layer.put_own(None)
        if self.tasks:
            self.set_task(self.tasks[-1])

    def set_task(self, name: str) -> None:
        """Make a task the active one.

        Raises:
            PiggybackError: the task does not exist; the message lists the tasks.
        """
        self._banks.task(name)
        if not self._is_live(name):
            self._activate(name, self._kept[name].private)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Parameters of the task in training: unconstrained filters, mixing weights, private parameters.

        Raises:
            PiggybackError: no task is in training.
        """
        self._require_training()
        return [
            parameter
            for name, parameter in self.module.named_parameters()
            if name in self._private.trainable
            or (name in self._filter_keys and parameter.requires_grad)
        ]

    @property
    def to_factorize(self) -> FilterOptions | None:
        """Options by which `factorize_task` is to factorize the task in training; None if it is not trained free."""
        task = self._kept.get(self.task_in_training or "")
        return task.options if task is not None and task.free else None

    @torch.no_grad()
    def pull_filters(self, targets: Mapping[str, Tensor], left: float) -> None:
        """Move filters of the task in training, which is trained free, towards others.

        Args:
            targets: layer -> filters (N, D).
            left: share of each filter's distance that is left to it, 0 to 1.

        Raises:
            PiggybackError: no task is trained free, or `left` is out of its range.
        """
        if self.to_factorize is None:
            raise PiggybackError("no task is trained free: there are no filters to pull")
        if not 0 <= left <= 1:
            raise PiggybackError(f"invalid left: found {left!r}, give a number from 0 to 1")
        for name, filters_ND in targets.items():
            self._banks.layers[name].trained()[UNCONSTRAINED].lerp_(filters_ND, 1 - left)

    @property
    def options(self) -> FilterOptions | None:
        """Options of the task in training, with their defaults and what was chosen since; None if they are not known."""
        return self._kept[self._require_training()].options

    @property
    def made(self) -> TaskFilters:
        """How the filters of the task in training are made.

        Raises:
            PiggybackError: no task is in training.
        """
        return self._banks.task(self._require_training()).made

    # Selected mixing

    @property
    def selects_filters(self) -> bool:
        """Whether the task in training has selected mixing, so that `select_filters` applies."""
        return bool(self._banks.selecting)

    @contextmanager
    def filter_gradients(self) -> Iterator[dict[str, Tensor]]:
        """Sum the gradients of filters over all backward passes inside of the block.

        Yields:
            Layer -> sum (N, D), for the layers of the task in training that have selected mixing.
        """
        with self._composer.filter_gradients() as sums:
            yield sums

    @torch.no_grad()
    def select_filters(self, gradients: Mapping[str, Tensor]) -> None:
        """Choose the bank filters that each layer mixes from, by orthogonal matching pursuit.

        Call it before training: mixing weights belong to the chosen filters.

        Args:
            gradients: layer -> gradient of its filters (N, D), as summed by `filter_gradients`.
        """
        for name in self._banks.selecting:
            self._banks.select(name, gradients[name])

    # Size

    def parameter_count(self, name: str) -> ParameterCount:
        """Count the parameters that a task adds, in training or finished; of one that is trained free, as planned.

        Raises:
            PiggybackError: the task does not exist.
        """
        plan, task = self.plan_of(name), self._kept[name]
        own = sum(layer.parameter_count() for layer in task.own.values())
        private = self._private_count(task.own) + own
        return ParameterCount(
            unconstrained=sum(layer.unconstrained * layer.length for layer in plan),
            mixing=sum(layer.mixing for layer in plan),
            private=private,
            standalone=sum(layer.filters * layer.length for layer in plan) + private,
        )

    def plan(
        self,
        options: FilterOptions | None = None,
        *,
        own_layers: Collection[str] = (),
    ) -> list[LayerPlan]:
        """Plan the layers of a next task, without beginning it; its own layers are left out.

        Args:
            options: how its filters are made; None for `FilterOptions()`.
            own_layers: the names of the task's own layers.

        Raises:
            PiggybackError: as `add_task` for `options`.
        """
        return self._banks.plan(self._resolve(options or FilterOptions(), own_layers))

    def plan_of(self, name: str) -> list[LayerPlan]:
        """Plan of each layer of a task, in training or finished; its own layers are left out.

        For a task that is trained free it is what its budget pays for: `factorize_task` decides which layers have new
        filters, and keeps to the budget.

        Raises:
            PiggybackError: the task does not exist.
        """
        if name == self.task_in_training and self.to_factorize is not None:
            return self.plan(self.to_factorize, own_layers=self._kept[name].own)
        return self._banks.plan_of(name)

    @property
    def ledger(self) -> Ledger:
        """Row ranges of each filter bank by task, and task dependencies; read-only."""
        return self._banks.ledger

    # Use

    def train(self, mode: bool = True) -> Self:
        """Set training mode. A finished task stays in eval mode, so that a call can't change its statistics."""
        super().train(mode)
        if self._active in self._banks.finished:
            self.module.eval()
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module with the weights of the active task.

        Only one task's weights are kept composed: to use several tasks in turn, fold them.

        Raises:
            PiggybackError: the network has no task, or none is active.
        """
        if self._active is None:
            tasks = ", ".join(self.tasks)
            raise PiggybackError(
                f"no task is set: call set_task first; tasks: {tasks}"
                if tasks
                else "the network has no task yet: call add_task first"
            )
        self._composer.install(self._active, exact=not self.training)
        return self.module(*args, **kwargs)

    @torch.inference_mode(False)
    def fold(self, name: str) -> nn.Module:
        """Fold a task into an independent module of the wrapped class, in eval mode.

        It has the original's state_dict keys, shares no memory with this network and does not depend on
        this library.

        Raises:
            PiggybackError: the task does not exist.
        """
        shares, layers = self._banks.task(name).made.shares, self._banks.layers
        private = self._private_of(name)
        weights = {key: private[tensor_key(key, WEIGHT)] for key in self._kept[name].own}
        with torch.no_grad():
            for key in shares:
                weights[key] = layers[key].layout.to_weight(self._banks.filters(key, name))
        with self._composer.removed():
            folded = copy.deepcopy(self.module)
        for key, layer in layers.items():
            layer.fold_onto(folded.get_submodule(key), weights[key])
        tensors = dict(folded.named_parameters()) | dict(folded.named_buffers())
        with torch.no_grad():
            for key, value in private.items():
                tensors[key].copy_(value)
        for key in self._private.trainable:
            tensors[key].requires_grad_(True)
        return folded.eval()

    def not_finite(self, name: str) -> str | None:
        """Name the first tensor of a folded task with NaN or infinite values; None if all are finite.

        Infinite values in buffers are allowed: masks have them.

        Raises:
            PiggybackError: the task does not exist.
        """
        folded = self.fold(name)
        bad = [key for key, p in folded.named_parameters() if not torch.isfinite(p).all()]
        bad += [key for key, b in folded.named_buffers() if torch.isnan(b).any()]
        return bad[0] if bad else None

    # Storage

    def task_state(self, name: str) -> TaskState:
        """Copy a task's tensors to the CPU, with how its filters are made, for `restore_task`.

        Raises:
            PiggybackError: the task does not exist.
        """
        task = self._banks.task(name)
        tensors = self._banks.tensors(name) | self._private_of(name)
        # Denormals would make what is composed depend on whether a processor flushes them.
        copied = {key: without_denormals(t.detach().cpu()) for key, t in tensors.items()}
        state = TaskState(name, task.made, copied)
        known = name != self.task_in_training
        state.needs = self.ledger.needs_of(name) if known else self.ledger.needs(state)
        return state

    @torch.inference_mode(False)
    def restore_task(self, state: TaskState) -> None:
        """Append a finished task. Its tensors must fit this network and the earlier tasks.

        Raises:
            PiggybackError: a task is in training, the name is taken, or a tensor is missing, unknown or of
                the wrong shape.
        """
        task = self._fitting(state, trains=False)
        self._banks.append(state)
        self._kept[state.name] = task

    @torch.inference_mode(False)
    def train_task(self, state: TaskState, options: FilterOptions | None = None) -> None:
        """Begin a task with given values instead of a start of its own, and make it the active one.

        Args:
            state: the values.
            options: by which its filters were made, if they are known.

        Raises:
            PiggybackError: as `restore_task`.
        """
        task = self._fitting(state, trains=True)
        task.options = options
        self._banks.begin(state.name, state.filters, state)
        self._kept[state.name] = task
        self._composer.mark_start()
        self._activate(state.name, task.private)

    def bank_filters(self, layer: str) -> Tensor:
        """Filter bank (K, D) of a layer, from which the next task mixes; read-only.

        Raises:
            PiggybackError: the network has no such conv layer.
        """
        if layer not in self._banks.layers:
            raise PiggybackError(f"the network has no conv layer {layer!r}")
        return self._banks.layers[layer].bank_KD

    @property
    def layouts(self) -> dict[str, FilterLayout]:
        """Filter layout of each conv layer, by name."""
        return {name: layer.layout for name, layer in self._banks.layers.items()}

    def private_count(self, name: str) -> int:
        """Number of a task's private parameters, without those of its own layers."""
        return self._private_count(self._kept[name].own)

    def layer_sizes(self) -> dict[str, LayerSize]:
        """Sizes of the layers for the next task, by name."""
        return self._banks.sizes()

    def mixes_linearly(self, layer: str) -> bool:
        """Whether a layer is a plain one without groups: its outputs are linear in its filters."""
        return self._banks.layers[layer].linear

    def mixed_filters(self, state: TaskState) -> dict[str, Tensor]:
        """Compose the filters (N, D) that a state of a next task gives to each layer that mixes, up to rounding."""
        return self._banks.mixed_filters(state)

    def start_weights(self, layer: str, name: str) -> Tensor:
        """Filters that a layer starts from if the task starts from a finished one, as mixing weights (N, K) of its bank."""
        return self._banks.coefficients(layer, str(self._banks.model_for(layer, name)))

    # Internals

    def _fitting(self, state: TaskState, *, trains: bool) -> _Task:
        """Validate a task against this network, and copy its private tensors and own layers."""
        check_task_name(state.name)
        if self._banks.training or state.name in self.tasks:
            raise PiggybackError(
                f"task {state.name!r} can't be restored: the name is taken, or a task is in training"
            )
        layers = self._banks.layers
        own = state.check_layers(layers)
        self.ledger.needs(state)
        plan = self._banks.plan(state.filters)
        private = {key: tuple(t.shape) for key, t in self._private.given.items()}
        task = _Task()
        device = self._banks.device
        for key in own:
            layer, (weight, bias) = layers[key], state.own_layer(key)
            layer.check_own(key, weight, bias)
            task.own[key] = OwnLayer.of(weight.to(device), bias, trains=trains and layer.trainable)
            tensors = task.own[key].tensors(key)
            private |= {name: tuple(t.shape) for name, t in tensors.items()}
        state.check_shapes(filter_shapes(plan, state.tensors) | private)
        check_values(state, plan)
        task.private = {key: state.tensors[key].detach().clone().to(device) for key in private}
        return task

    def _resolve(self, options: FilterOptions, own_layers: Collection[str]) -> TaskFilters:
        """Resolve options for the next task: a share for each layer, the mixing and the start."""
        options, finished = options.with_filter_defaults(), tuple(self._banks.finished)
        start = resolve_start(options.init, finished)
        unconstrained: Shares = 1.0 if options.unconstrained is None else options.unconstrained
        mixing: Mixing = FullMixing()
        if finished:  # else there is nothing to mix from
            sizes = {n: size for n, size in self._banks.sizes().items() if n not in own_layers}
            unconstrained, mixing = allot(options, sizes, self._private_count(own_layers))
        shares = self._banks.shares(unconstrained)
        taken = {n: share for n, share in shares.items() if n not in own_layers}
        return TaskFilters(taken, mixing, start, options.storage)

    def _require_training(self) -> str:
        if self._banks.training is None:
            raise PiggybackError(
                "no task is in training: add one first, finished tasks never change"
            )
        return self._banks.training[0]

    def _private_count(self, own_layers: Iterable[str]) -> int:
        """Count a task's private parameters, without those of its own layers."""
        # Another task's own layers may be installed in the module: count the given parameters.
        own = {key for layer in own_layers for key in self._own_keys(layer)}
        given = self._private.given_parameters()
        return sum(given[key].numel() for key in given.keys() - own)

    def _own_keys(self, layer_name: str) -> tuple[str, str]:
        return tensor_key(layer_name, WEIGHT), tensor_key(layer_name, BIAS)

    def _copy_own_layers(self, given: Mapping[str, ConvLayer]) -> dict[str, OwnLayer]:
        own = {}
        for name, module in given.items():
            if name not in self._banks.layers:
                raise PiggybackError(
                    f"the network has no conv layer {name!r} that could be a task's own"
                )
            layer = self._banks.layers[name]
            layer.check_own(name, module.weight, module.bias)
            own[name] = OwnLayer.of(
                module.weight.to(layer.bank_KD), module.bias, trains=layer.trainable
            )
        return own

    def _activate(self, name: str, private: Mapping[str, Tensor]) -> None:
        """Load a task's private tensors into the module, after saving those of the task in training."""
        training = self.task_in_training
        if training is not None and self._active == training:
            self._kept[training].private = self._private.copy()
        self._composer.remove()
        self._put_own(name)
        self._private.load(private, trains=name == training)
        self._active = name
        self.module.train(self.training and name == training)

    def _put_own(self, name: str) -> None:
        own = self._kept[name].own
        for key, layer in self._banks.layers.items():
            layer.put_own(own.get(key))

    def _is_live(self, name: str) -> bool:
        """Whether a task's private tensors are the module's own: it is active and in training."""
        return name == self._active == self.task_in_training

    def _private_of(self, name: str) -> dict[str, Tensor]:
        return self._private.live() if self._is_live(name) else self._kept[name].private

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "PiggybackNetwork":
        """Move the banks with the network. Their dtype can't change: that would change earlier tasks."""
        self._banks.check_type(fn)
        self._composer.remove()
        for layer in self._banks.layers.values():
            layer.put_own(None)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._banks.move(fn)
        for task in self._kept.values():
            task.private = {key: fn(tensor) for key, tensor in task.private.items()}
            for own in task.own.values():
                own.move(fn)
        self._private.move(fn)
        if self._active is not None:
            self._put_own(self._active)
        return self

    def __repr__(self) -> str:
        training = self.task_in_training
        tasks = [f"{name} (in training)" if name == training else name for name in self.tasks]
        listed = first_names(tasks) or "none"
        return f"{type(self).__name__}({type(self.module).__name__}; tasks: {listed}; active: {self._active})"

    def __getstate__(self) -> dict[str, Any]:
        self._composer.remove()
        return self.__dict__.copy()
