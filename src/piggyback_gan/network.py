"""PiggybackNetwork: any torch module whose conv filters are shared by a sequence of tasks."""

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import register_optimizer_step_post_hook

from piggyback_gan.banked_layers import OwnLayer, plan_layers, take_weights
from piggyback_gan.errors import PiggybackError
from piggyback_gan.filters import ConvLayer, compose, unconstrained_count, without_denormals
from piggyback_gan.names import Allocation, check_task_name
from piggyback_gan.private_tensors import PrivateTensors
from piggyback_gan.tasks import (
    BIAS,
    DEFAULT_UNCONSTRAINED,
    MIXING,
    UNCONSTRAINED,
    WEIGHT,
    LayerPlan,
    ParameterCount,
    Shares,
    TaskState,
    allocated_shares,
    filter_shapes,
    resolve_shares,
    resolve_start,
    tensor_key,
)


def _count_fused_steps(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Raise the version counters of what a fused step changed: alone among steps, it does not."""
    for group in optimizer.param_groups:
        if group.get("fused"):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    torch.autograd.graph.increment_version(parameter)


register_optimizer_step_post_hook(_count_fused_steps)


@dataclass
class _Task:
    """A task's shares and tensors; its unconstrained filters are rows of the layers' banks."""

    shares: dict[str, float]
    mixing: dict[str, Tensor] = field(default_factory=dict)
    private: dict[str, Tensor] = field(default_factory=dict)
    own: dict[str, OwnLayer] = field(default_factory=dict)


class PiggybackNetwork(nn.Module):
    """A network that learns one task after another without changing the filters of earlier ones.

    Every Conv1d/2d/3d and ConvTranspose1d/2d/3d in a copy of `module` gets its weight composed from
    a filter bank; the module's own forward, with all its links, stays as it is. All other parameters
    and buffers are private to each task. (Piggyback GAN, ECCV 2020, section 3.)

    Example::

        network = PiggybackNetwork(nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 3, 3)))
        network.add_task("maps")
        optimizer = torch.optim.Adam(network.trainable_parameters(), 2e-4)
        ...                                     # train by calling network(x)
        network.finish_task()
        network.add_task("night", unconstrained=0.25)   # trains a quarter of new filters and the mixing
        ...
        plain = network.fold("maps")            # an independent nn.Sequential

    Filters are composed once per change of the parameters, however often the network is called. Changes
    are seen by the parameters' version counters, which `optimizer.step()`, `copy_` and
    `load_state_dict` raise; in-place changes through `.data` are not seen, nor is what
    `torch.func.functional_call` puts in their place.

    `state_dict()` has the task in training only; a bank on disk, or `task_state` and `restore_task`,
    keep finished tasks. With DistributedDataParallel wrap this network, anew for each task, with the
    same tasks and the same random seed in every process: banks are not sent. DataParallel is not
    supported.

    Args:
        module: a module with at least one conv layer. It is copied and stays as it is; its weights are
            where the first task starts, and their scale is that of later random starts.

    Raises:
        PiggybackError: no conv layers, a conv weight shared with another layer, or a layer whose weight
            is not a plain float parameter (weight norm, spectral norm, lazy, complex).
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if is_lazy(tensor):
                raise PiggybackError(
                    f"{name!r} is lazy: call the network once before it is wrapped"
                )
        self.module = copy.deepcopy(module)
        self._layers = take_weights(self.module)
        keys = {tensor_key(n, k) for n in self._layers for k in (UNCONSTRAINED, MIXING)}
        self._filter_keys = keys
        self._private = PrivateTensors(self.module, keys)
        own = {tensor_key(n, WEIGHT) for n, layer in self._layers.items() if layer.trainable}
        self._private.trainable |= own
        self._finished: dict[str, _Task] = {}
        self._in_training: tuple[str, _Task] | None = None
        self._active: str | None = None
        self._composed: tuple[object, ...] | None = None
        self._start: list[object] = []

    # Tasks

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks in the order they were added; the last may be the one in training."""
        training = (self._in_training[0],) if self._in_training else ()
        return (*self._finished, *training)

    @property
    def task_in_training(self) -> str | None:
        """The task that was added and not yet finished."""
        return self._in_training[0] if self._in_training else None

    @property
    def active_task(self) -> str | None:
        """The task that calls of the network serve now."""
        return self._active

    @torch.inference_mode(False)
    def add_task(
        self,
        name: str,
        unconstrained: Shares = DEFAULT_UNCONSTRAINED,
        init: str | None = None,
        own_layers: Mapping[str, ConvLayer] | None = None,
    ) -> None:
        """Begin a task and make it the active one.

        Args:
            name: `[a-z0-9][a-z0-9._-]*`, at most 64 characters.
            unconstrained: lambda, the share of new filters per layer, in [0, 1]; or a mapping from
                layer names and patterns to shares (see `tasks.resolve_shares`). A plain number leaves
                layers of fewer than 8 filters free; `{"*": 0.25}` does not. A first task has nothing to
                mix from: all of its filters are unconstrained.
            init: where a later task starts. "standalone": at random, all filters at the scale of the
                module's own weights. An earlier task's name, or "previous": the output equals that
                task's at step 0. None: the first task, the start that measured best.
            own_layers: layer name -> a conv layer of the same kind with other channels, such as a first
                layer for images of one channel. The task has a copy of it in that place, outside the
                filter bank: it mixes nothing and later tasks can't mix it.

        Raises:
            PiggybackError: a task is in training, the name is taken or can't be one, a bad share, a
                pattern without a layer, an unknown start, or an own layer that can't stand in its place.
        """
        check_task_name(name)
        if self._in_training:
            raise PiggybackError(f"task {self._in_training[0]!r} is in training: finish it first")
        if name in self._finished:
            raise PiggybackError(f"there is a task {name!r} already: finished tasks never change")
        source = resolve_start(init, tuple(self._finished))
        own = self._copy_own_layers(own_layers or {})
        shares = self._shares(unconstrained)
        for layer_name in own:
            del shares[layer_name]
        for layer_name, share in shares.items():
            layer = self._layers[layer_name]
            rows = unconstrained_count(share, layer.layout.filters)
            model = self._model_for(layer_name, source)
            if not len(layer.bank_KD):
                free, mixing = layer.given_ND.clone(), layer.given_ND.new_empty(0, 0)
            elif model is None:
                free, mixing = layer.random_start(rows)
            else:
                free, mixing = layer.warm_start(*self._parts(layer_name, model), rows)
            layer.begin_task(free, mixing)
        private = dict(self._private.given)
        if source is not None:
            # An own layer's bias is as particular to its task as its weight.
            theirs = self._finished[source]
            foreign = {key for layer in theirs.own for key in self._own_keys(layer)}
            private |= {k: v for k, v in theirs.private.items() if k not in foreign}
        for layer_name, layer_own in own.items():
            private |= layer_own.tensors(layer_name)
        self._in_training = (name, _Task(shares, own=own))
        self._start = self._versions()
        self._activate(name, private)

    def finish_task(self) -> None:
        """End the task in training: its unconstrained filters join the bank, it never changes again.

        Raises:
            PiggybackError: no task is in training, or one of its values is not finite.
        """
        name, _ = self._require_training()
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
        """Drop the task in training; the finished ones are as they were.

        Raises:
            PiggybackError: no task is in training.
        """
        self._require_training()
        for layer in self._layers.values():
            layer.end_task()
        for parameter in self.module.parameters():
            parameter.grad = None  # the next task trains the same private parameters
        self._in_training = None
        self._active = None
        self._release()
        for layer in self._layers.values():
            layer.put_own(None)
        if self._finished:
            self.set_task(next(reversed(self._finished)))

    def set_task(self, name: str) -> None:
        """Make a task the one that calls serve.

        Raises:
            PiggybackError: there is no such task; the message lists those there are.
        """
        task = self._task(name)
        if not self._is_live(name):
            self._activate(name, task.private)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """What the task in training trains: unconstrained filters, mixing weights, private parameters.

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

    # Size

    def parameter_count(self, name: str) -> ParameterCount:
        """How many parameters a task adds, in training or finished.

        Raises:
            PiggybackError: there is no such task.
        """
        task = self._task(name)
        plan = self.plan_of(name)
        # The module may have another task's own layers on: count what it came with.
        own = {key for layer in task.own for key in self._own_keys(layer)}
        given = self._private.given_parameters()
        shared = sum(given[key].numel() for key in given.keys() - own)
        private = shared + sum(layer.parameter_count() for layer in task.own.values())
        return ParameterCount(
            unconstrained=sum(layer.unconstrained * layer.length for layer in plan),
            mixing=sum(layer.mixing for layer in plan),
            private=private,
            standalone=sum(layer.filters * layer.length for layer in plan) + private,
        )

    def allocated_shares(
        self, unconstrained: Shares, allocation: Allocation, own_layers: Collection[str] = ()
    ) -> Shares:
        """A share of new filters spread over the layers, for `add_task`: see `tasks.allocated_shares`.

        Args:
            unconstrained, allocation: lambda, and where new filters are.
            own_layers: layers that the task has of its own, with nothing to mix or to share.

        Raises:
            PiggybackError: a share outside [0, 1].
        """
        layouts = {n: layer.layout for n, layer in self._layers.items() if n not in own_layers}
        return allocated_shares(unconstrained, allocation, layouts)

    def plan(self, unconstrained: Shares = DEFAULT_UNCONSTRAINED) -> list[LayerPlan]:
        """What the next task would take of each layer, without beginning it.

        Raises:
            PiggybackError: as `add_task` for `unconstrained`.
        """
        return plan_layers(self._layers, self._shares(unconstrained), len(self._finished))

    def plan_of(self, name: str) -> list[LayerPlan]:
        """What a task takes of each layer but its own ones, in training or finished.

        Raises:
            PiggybackError: there is no such task.
        """
        return plan_layers(self._layers, self._task(name).shares, self._order(name))

    # Use

    def train(self, mode: bool = True) -> Self:
        """Set training mode. A finished task stays in eval mode: a call must not move its statistics."""
        super().train(mode)
        if self._active in self._finished:
            self.module.eval()
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module with the filters of the active task.

        Only the active task's filters are kept composed; fold tasks that are to be used in turn.

        Raises:
            PiggybackError: there is no task yet, or none is set.
        """
        if self._active is None:
            tasks = ", ".join(self.tasks)
            raise PiggybackError(
                f"no task is set: call set_task first; tasks: {tasks}"
                if tasks
                else "the network has no task yet: call add_task first"
            )
        self._compose_active()
        return self.module(*args, **kwargs)

    @torch.inference_mode(False)
    def fold(self, name: str) -> nn.Module:
        """A task's network as an independent plain module of the class that was given, in eval mode.

        It has the keys of the original, shares no memory with this network and needs nothing of this
        library.

        Raises:
            PiggybackError: there is no such task.
        """
        private = self._private_of(name)
        weights = {key: private[tensor_key(key, WEIGHT)] for key in self._task(name).own}
        with torch.no_grad():
            for key in self._task(name).shares:
                filters = self._filters(key, name, exact=True)
                weights[key] = self._layers[key].layout.to_weight(filters)
        composed, put_on = self._composed, self._release()
        folded = copy.deepcopy(self.module)
        for key, weight in put_on.items():
            self._layers[key].put_on(weight)
        self._composed = composed
        for key, layer in self._layers.items():
            layer.fold_onto(folded.get_submodule(key), weights[key])
        tensors = dict(folded.named_parameters()) | dict(folded.named_buffers())
        with torch.no_grad():
            for key, value in private.items():
                tensors[key].copy_(value)
        for key in self._private.trainable:
            tensors[key].requires_grad_(True)
        return folded.eval()

    def not_finite(self, name: str) -> str | None:
        """The first tensor of a task, as composed, with NaN or infinite values; None if all are finite.

        Infinite values in buffers are passed over: masks have them.

        Raises:
            PiggybackError: there is no such task.
        """
        folded = self.fold(name)
        bad = [key for key, p in folded.named_parameters() if not torch.isfinite(p).all()]
        bad += [key for key, b in folded.named_buffers() if torch.isnan(b).any()]
        return bad[0] if bad else None

    # Storage

    def task_state(self, name: str) -> TaskState:
        """A task's shares and a copy of all of its tensors on the CPU, as `restore_task` takes them.

        Raises:
            PiggybackError: there is no such task.
        """
        task = self._task(name)
        tensors: dict[str, Tensor] = {}
        for key in task.shares:
            free, mixing, *_ = self._parts(key, name)
            tensors |= {tensor_key(key, UNCONSTRAINED): free} if len(free) else {}
            tensors |= {tensor_key(key, MIXING): mixing} if len(mixing) else {}
        tensors |= self._private_of(name)
        # Denormals would make what is composed depend on whether a processor flushes them.
        copied = {key: without_denormals(t.detach().cpu()) for key, t in tensors.items()}
        return TaskState(name, dict(task.shares), copied)

    @torch.inference_mode(False)
    def restore_task(self, state: TaskState) -> None:
        """Append a finished task. Its tensors must fit this network and the tasks before it.

        Raises:
            PiggybackError: a task is in training, the name is taken, or tensors are missing, unknown or
                of another shape.
        """
        check_task_name(state.name)
        if self._in_training or state.name in self._finished:
            raise PiggybackError(f"task {state.name!r} can't be restored: taken or in training")
        own = state.check_layers(self._layers)
        plan = plan_layers(self._layers, state.shares, len(self._finished))
        private = {key: tuple(t.shape) for key, t in self._private.given.items()}
        task = _Task(dict(state.shares))
        device = self._device()
        for key in own:
            weight, bias = state.own_layer(key)
            self._layers[key].check_own(key, weight, bias)
            task.own[key] = OwnLayer.of(weight.to(device), bias, trains=False)
            tensors = task.own[key].tensors(key)
            private |= {name: tuple(t.shape) for name, t in tensors.items()}
        state.check_shapes(filter_shapes(plan) | private)
        for key in own:
            self._layers[key].rows.append(0)
        for layer_plan in plan:
            layer = self._layers[layer_plan.name]
            bank = layer.bank_KD
            empty = bank.new_empty(0, layer_plan.bank)
            mixing = state.tensors.get(tensor_key(layer_plan.name, MIXING), empty)
            free = state.tensors.get(tensor_key(layer_plan.name, UNCONSTRAINED), bank[:0])
            task.mixing[layer_plan.name] = mixing.detach().clone().to(bank)
            layer.bank_KD = torch.cat([bank, free.detach().to(bank)])
            layer.rows.append(layer_plan.unconstrained)
            layer.given_ND = bank[:0].clone()  # it served the first task, and need not be kept
        task.private = {key: state.tensors[key].detach().clone().to(device) for key in private}
        self._finished[state.name] = task

    # How it works

    def _device(self) -> torch.device:
        return next(iter(self._layers.values())).bank_KD.device

    def _require_training(self) -> tuple[str, _Task]:
        if self._in_training is None:
            raise PiggybackError(
                "no task is in training: add one first, finished tasks never change"
            )
        return self._in_training

    def _task(self, name: str) -> _Task:
        if self._in_training and self._in_training[0] == name:
            return self._in_training[1]
        if name not in self._finished:
            known = ", ".join(self.tasks) or "none"
            raise PiggybackError(f"there is no task {name!r}; tasks: {known}")
        return self._finished[name]

    def _order(self, name: str) -> int:
        """How many tasks came before this one."""
        self._task(name)
        return self.tasks.index(name)

    def _shares(self, unconstrained: Shares) -> dict[str, float]:
        filters = {name: layer.layout.filters for name, layer in self._layers.items()}
        shares = resolve_shares(unconstrained, filters)
        # The first task of a layer has nothing to mix from.
        return {k: s if len(self._layers[k].bank_KD) else 1.0 for k, s in shares.items()}

    def _own_keys(self, layer_name: str) -> tuple[str, str]:
        return tensor_key(layer_name, WEIGHT), tensor_key(layer_name, BIAS)

    def _copy_own_layers(self, given: Mapping[str, ConvLayer]) -> dict[str, OwnLayer]:
        own = {}
        for name, module in given.items():
            if name not in self._layers:
                raise PiggybackError(f"there is no conv layer {name!r} that could be a task's own")
            layer = self._layers[name]
            layer.check_own(name, module.weight, module.bias)
            own[name] = OwnLayer.of(
                module.weight.to(layer.bank_KD), module.bias, trains=layer.trainable
            )
        return own

    def _model_for(self, layer_name: str, source: str | None) -> str | None:
        """The task that a layer starts from: the source, or the first that shares the layer."""
        if source is None or layer_name in self._finished[source].shares:
            return source
        return next((name for name, t in self._finished.items() if layer_name in t.shares), None)

    def _activate(self, name: str, private: Mapping[str, Tensor]) -> None:
        """Load a task's private tensors into the module; those of a task in training are kept first."""
        training = self.task_in_training
        if self._in_training and self._active == training:
            self._in_training[1].private = self._private.copy()
        self._put_own(name)
        self._private.load(private, trains=name == training)
        self._active = name
        self._composed = None
        self.module.train(self.training and name == training)

    def _put_own(self, name: str) -> None:
        own = self._task(name).own
        for key, layer in self._layers.items():
            layer.put_own(own.get(key))

    def _is_live(self, name: str) -> bool:
        """Whether the module's own private tensors are a task's: only those of one in training can be."""
        return name == self._active == self.task_in_training

    def _private_of(self, name: str) -> dict[str, Tensor]:
        return self._private.live() if self._is_live(name) else self._task(name).private

    def _versions(self) -> list[object]:
        """What changes whenever a composition of the task in training is out of date."""
        own = [p for layer in self._layers.values() for p in layer.own_parameters()]
        return [value for p in own for value in (id(p), p._version, p.requires_grad)]

    def _parts(self, layer_name: str, task: str) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """(U, D) unconstrained, (P, K) mixing, (K, D) bank and the bank's rows per earlier task."""
        layer = self._layers[layer_name]
        rows = layer.rows[: self._order(task)]
        bank = layer.bank_KD[: sum(rows)]
        if self._in_training and self._in_training[0] == task:
            return (*layer.trained_parts(), bank, rows)
        free = layer.bank_KD[len(bank) : len(bank) + layer.rows[len(rows)]]
        return free, self._finished[task].mixing[layer_name], bank, rows

    def _filters(self, layer_name: str, task: str, *, exact: bool) -> Tensor:
        return compose(*self._parts(layer_name, task), exact=exact)

    def _compose_active(self) -> None:
        """Give the layers the active task's weights, unless they have them."""
        name = self._active
        assert name is not None
        trains = name == self.task_in_training
        # A finished task is always composed for use; one in training in evaluation, and while it stands
        # where it started: there it equals the task that it started from.
        versions = self._versions() if trains else []
        exact = not (trains and self.training) or versions == self._start
        key = (name, exact, *versions)
        if key == self._composed:
            return
        # The composition must carry gradients even if this first call needs none.
        with torch.inference_mode(False), torch.set_grad_enabled(trains):
            for layer_name in self._task(name).shares:
                layer = self._layers[layer_name]
                filters = self._filters(layer_name, name, exact=exact)
                layer.put_on(layer.layout.to_weight(filters))
        self._composed = key

    def _release(self) -> dict[str, Tensor]:
        """Take composed weights off the layers: tensors with a history can't be copied or pickled."""
        self._composed = None
        return {name: w for name, x in self._layers.items() if (w := x.take_off()) is not None}

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "PiggybackNetwork":
        """Move the banks with the network. Their type can't change: it would change earlier tasks."""
        sample = next(iter(self._layers.values())).bank_KD[:0]
        if fn(sample).dtype != sample.dtype:
            raise PiggybackError(
                f"a bank keeps its filters as they are stored ({sample.dtype}): "
                f"fold a task and convert the folded network to {fn(sample).dtype}"
            )
        for layer in self._layers.values():
            layer.put_own(None)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for layer in self._layers.values():
            layer.move(fn)
        for name in self.tasks:
            task = self._task(name)
            task.mixing = {key: fn(tensor) for key, tensor in task.mixing.items()}
            task.private = {key: fn(tensor) for key, tensor in task.private.items()}
            for own in task.own.values():
                own.move(fn)
        self._private.move(fn)
        self._release()
        if self._active is not None:
            self._put_own(self._active)
        return self

    def __getstate__(self) -> dict[str, Any]:
        self._release()
        return self.__dict__.copy()
