"""Value functions: a head on the policy's own rows, or a whole GPT-2 apart.

On the policy's rows it costs nothing but C + 1 numbers; apart it is a second model, whose gradient
cannot disturb the policy, and which may begin as the reward model.
"""

from collections.abc import Callable

import numpy as np

from minigpt2.alignment.log_probs import Weigh, policy_gradients
from minigpt2.backend import Array, array_module
from minigpt2.errors import UserError
from minigpt2.model.batch import Batch
from minigpt2.model.gradients import Gradients
from minigpt2.model.heads import (
    SCORE,
    VALUE,
    VALUE_HEAD,
    head_gradients,
    head_values,
    part,
    read_head,
    read_head_backward,
    wide_on_host,
    with_heads,
)
from minigpt2.model.parameters import Parameters
from minigpt2.training.objective import Options

HEAD = VALUE_HEAD.removeprefix(VALUE)
WHOLE = 8  # features in 16 bytes: tensors of other widths would move those behind them


def with_value_head(policy: Parameters) -> Parameters:
    """Return a policy with a value head on its rows, which begins with 0."""
    xp, dtype = array_module(policy), policy.flat.dtype
    w, b = xp.zeros((1, policy.config.n_embd), dtype), xp.zeros(1, dtype)
    return with_heads(policy, {f"{VALUE_HEAD}.weight": w, f"{VALUE_HEAD}.bias": b})


def with_value_model(policy: Parameters, start: Parameters, bias: float = 0.0) -> Parameters:
    """Return a policy with a value function apart, which begins as another model.

    That may be of any shape, on a device with whole accesses (`WHOLE`).  If it is a reward model,
    its head is that of the value function, with its bias; else the head begins with 0.  Raises
    UserError for a width that a device cannot read.
    """
    xp, dtype = array_module(policy), policy.flat.dtype
    widths = policy.config.n_embd, start.config.n_embd
    if xp is not np and widths[0] != widths[1] and any(width % WHOLE for width in widths):
        raise UserError(
            f"on a device the widths of policy and value model must be multiples of {WHOLE}, not "
            f"{widths[0]:,} and {widths[1]:,}: use --value policy, or --device cpu"
        )
    score = f"{SCORE}.weight"
    head = start.views.get(score, xp.zeros((1, start.config.n_embd), dtype))
    tensors = {VALUE + name: view for name, view in start.views.items() if name != score}
    tensors |= {f"{VALUE_HEAD}.weight": head, f"{VALUE_HEAD}.bias": xp.full(1, bias, dtype)}
    return with_heads(policy, tensors, {VALUE: start.config})


def is_apart(parameters: Parameters) -> bool:
    """Whether the value function has a GPT-2 of its own."""
    return f"{VALUE}wte.weight" in parameters.views


def values_of(parameters: Parameters, batch: Batch) -> Array:
    """Return v (M,) before each of a batch's targets, in float64 on the host."""
    if is_apart(parameters):
        return head_values(part(parameters, VALUE), batch, HEAD)
    return head_values(parameters, batch, VALUE_HEAD)


def policy_and_value_gradients(
    parameters: Parameters,
    batch: Batch,
    gradients: Gradients,
    weigh: Weigh,
    slope: Callable[[Array], Array],
    options: Options,
    *,
    temperature: float = 1.0,
) -> tuple[Array, Array]:
    """Write or add the gradients of a loss of ln p and of v; return both, (M,), on the host.

    `weigh` is that of `policy_gradients`; `slope` returns dL/dv (M,) of v (M,), without the loss
    scale.
    """
    values = np.empty(0)

    def derivative(v: Array) -> Array:
        nonlocal values
        values = v
        return options.loss_scale * slope(v)  # (M,)

    def head(h: Array, places: Array, gradients: Gradients) -> Array:
        dv = derivative(wide_on_host(read_head(h, places, parameters, VALUE_HEAD)))  # (M,)
        return read_head_backward(dv, h, places, parameters, VALUE_HEAD, gradients)  # (R, C)

    apart = is_apart(parameters)
    log_p = policy_gradients(
        parameters,
        batch,
        gradients,
        weigh,
        options,
        temperature=temperature,
        head=None if apart else head,
    )  # (M,)
    if apart:
        own = part(parameters, VALUE), batch, gradients.part(VALUE)
        head_gradients(*own, derivative, HEAD, recompute=options.recompute)
    return log_p, values
