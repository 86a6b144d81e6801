"""The ops in plain NumPy: the formulas as the chapters write them, every intermediate kept.

No blocks, no threads, no memory used twice: this is what to read first, and what tests compare the
ops with.  A function takes the op's arguments and the gradient of its result, and returns the
result and all gradients.
"""

from math import sqrt

import numpy as np


def linear(x, w, b, dy):
    """y, dx, dw, db of x (N, C), w (C, K) and b (K,)."""
    y = x @ w + b  # (2.1)
    dx = dy @ w.T  # (2.2)
    dw = x.T @ dy  # (2.3)
    db = dy.sum(0)  # (2.4)
    return y, dx, dw, db


def lora(x, y, a, b, scale, dy):
    """y, dx, dy, da, db of x (N, C), y (N, K), a (C, r) and b (r, K), with y the frozen map's."""
    h = scale * x @ a  # (11.1)
    y = y + h @ b  # (11.2)
    db = h.T @ dy  # (11.5)
    dh = dy @ b.T  # (11.6)
    da = x.T @ (scale * dh)  # (11.7)
    dx = scale * dh @ a.T  # (11.8), but for dy Wᵀ
    return y, dx, dy, da, db


def embedding(wte, wpe, ids, positions, dx):
    """x, dwte, dwpe of wte (V, C) and wpe (T, C) at ids and positions (N,)."""
    one_hot_ids = np.eye(len(wte))[ids]  # (N, V)
    one_hot_positions = np.eye(len(wpe))[positions]  # (N, T)
    x = one_hot_ids @ wte + one_hot_positions @ wpe  # (3.1)
    dwte = one_hot_ids.T @ dx  # (3.2)
    dwpe = one_hot_positions.T @ dx  # (3.3)
    return x, dwte, dwpe


def layer_norm(x, gamma, beta, dy, eps=1e-5):
    """y, dx, dgamma, dbeta of x (N, C), gamma and beta (C,)."""
    mu = x.mean(-1, keepdims=True)  # (4.1)
    v = ((x - mu) ** 2).mean(-1, keepdims=True)  # (4.2)
    r = 1 / np.sqrt(v + eps)  # (4.3)
    x_hat = (x - mu) * r  # (4.4)
    y = gamma * x_hat + beta  # (4.5)
    dgamma = (dy * x_hat).sum(0)  # (4.6)
    dbeta = dy.sum(0)  # (4.7)
    g = gamma * dy  # (4.8)
    mean_g = g.mean(-1, keepdims=True)  # (4.18)
    mean_g_x_hat = (g * x_hat).mean(-1, keepdims=True)  # (4.19)
    dx = r * (g - mean_g - x_hat * mean_g_x_hat)  # (4.20)
    return y, dx, dgamma, dbeta


def gelu(x, dy):
    """y, dx of x (N, F)."""
    root, a = np.sqrt(2 / np.pi), 0.044715
    u = root * (x + a * x**3)  # (5.1)
    w = (1 + np.tanh(u)) / 2  # (5.2)
    y = x * w  # (5.3)
    dw_du = 2 * w * (1 - w)  # (5.4)
    du_dx = root * (1 + 3 * a * x**2)  # (5.5)
    dy_dx = w + x * dw_du * du_dx  # (5.6)
    dx = dy * dy_dx  # (5.7)
    return y, dx


def softmax(s, dp):
    """p, ds of s (N, V), by the whole Jacobian of each row."""
    e = np.exp(s - s.max(-1, keepdims=True))  # (6.1) (6.2)
    p = e / e.sum(-1, keepdims=True)  # (6.3)
    jacobians = [np.diag(row) - np.outer(row, row) for row in p]  # (6.5)
    ds = np.stack([dp_row @ jacobian for dp_row, jacobian in zip(dp, jacobians, strict=True)])
    return p, ds


def dropout(x, z, dy):
    """y, dx of x (N, C) with keep factors z (N, C)."""
    y = z * x  # (7.1)
    dx = z * dy  # (7.2)
    return y, dx


def visible_pairs(end):
    """(N, N): whether row i sees row j of the forest that end (N,) describes."""
    i, j = np.indices((len(end), len(end)))
    return (j <= i) & (i < end)  # (8.1)


def heads_of(rows, n_head):
    """Rows (N, H·D) as (H, N, D)."""
    return rows.reshape(len(rows), n_head, -1).swapaxes(0, 1)


def rows_of(heads):
    """Heads (H, N, D) as rows (N, H·D)."""
    return heads.swapaxes(0, 1).reshape(heads.shape[1], -1)


def attention_probabilities(qkv, end, n_head, divisor=None):
    """q, k, v (H, N, D) and p (H, N, N) of qkv (N, 3C)."""
    q, k, v = (heads_of(part, n_head) for part in np.split(qkv, 3, axis=1))
    s = q @ k.swapaxes(1, 2) / (divisor or np.sqrt(q.shape[-1]))  # (8.2)
    s = np.where(visible_pairs(end), s, -np.inf)  # (8.1)
    e = np.exp(s - s.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)  # (8.3)
    return q, k, v, p


def attention(qkv, end, n_head, z=1.0, divisor=None):
    """o (N, C) of qkv (N, 3C); z (H, N, N) are the keep factors of dropout, and divisor is τ."""
    _, _, v, p = attention_probabilities(qkv, end, n_head, divisor)
    return rows_of((z * p) @ v)  # (8.4)


def attention_backward(do, qkv, end, n_head, z=1.0, divisor=None):
    """dqkv (N, 3C) of do (N, C)."""
    q, k, v, p = attention_probabilities(qkv, end, n_head, divisor)
    do = heads_of(do, n_head)
    scale = 1 / (divisor or np.sqrt(q.shape[-1]))
    dv = (z * p).swapaxes(1, 2) @ do  # (8.13)
    dp = z * (do @ v.swapaxes(1, 2))  # (8.14)
    delta = (p * dp).sum(-1, keepdims=True)  # (8.18)
    ds = p * (dp - delta)  # (8.17)
    dq = scale * (ds @ k)  # (8.19)
    dk = scale * (ds.swapaxes(1, 2) @ q)  # (8.20)
    return np.concatenate([rows_of(part) for part in (dq, dk, dv)], axis=1)


def cross_entropy(x, wte, rows, targets, weights):
    """The loss, dx, dwte of x (N, C) and wte (V, C) for triples, from all logits at once."""
    logits = x[rows] @ wte.T  # (9.1)
    lse = np.log(np.exp(logits).sum(-1, keepdims=True))  # (9.2)
    one_hot = np.eye(len(wte))[targets]  # (M, V)
    nll = lse[:, 0] - (logits * one_hot).sum(-1)  # (9.3)
    loss = (weights * nll).sum()  # (9.4)
    p = np.exp(logits - lse)  # (9.5)
    dlogits = weights[:, None] * (p - one_hot)  # (9.6) (9.7)
    dwte = dlogits.T @ x[rows]  # (9.8)
    dx = np.eye(len(x))[rows].T @ (dlogits @ wte)  # (9.9)
    return loss, dx, dwte


def block(x, end, p, n_head, dy):
    """y, dx and the tensors' gradients of a block without dropout; p holds its tensors by name."""
    names = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    ln_1, c_attn, attn_proj, ln_2, c_fc, mlp_proj = (
        (p[f"{name}.weight"], p[f"{name}.bias"]) for name in names
    )
    h = layer_norm(x, *ln_1, 0 * x)[0]  # (15.1)
    qkv = h @ c_attn[0] + c_attn[1]  # (15.2)
    o = attention(qkv, end, n_head)  # (15.3)
    a = o @ attn_proj[0] + attn_proj[1]  # (15.4)
    r = x + a  # (15.5)
    h_2 = layer_norm(r, *ln_2, 0 * r)[0]  # (15.6)
    u = h_2 @ c_fc[0] + c_fc[1]  # (15.7)
    g = gelu(u, 0 * u)[0]  # (15.8)
    m = g @ mlp_proj[0] + mlp_proj[1]  # (15.9)
    y = r + m  # (15.10)

    dm = dy  # (15.11)
    _, dg, *d_mlp_proj = linear(g, *mlp_proj, dm)  # (15.12)
    _, du = gelu(u, dg)  # (15.13)
    _, dh_2, *d_c_fc = linear(h_2, *c_fc, du)  # (15.14)
    _, dr, *d_ln_2 = layer_norm(r, *ln_2, dh_2)
    dr = dy + dr  # (15.15)
    da = dr  # (15.16)
    _, do, *d_attn_proj = linear(o, *attn_proj, da)  # (15.17)
    dqkv = attention_backward(do, qkv, end, n_head)  # (15.18)
    _, dh, *d_c_attn = linear(h, *c_attn, dqkv)  # (15.19)
    _, dx, *d_ln_1 = layer_norm(x, *ln_1, dh)
    dx = dr + dx  # (15.20)
    pairs = (d_ln_1, d_c_attn, d_attn_proj, d_ln_2, d_c_fc, d_mlp_proj)
    d = {}
    for name, (dw, db) in zip(names, pairs, strict=True):
        d[f"{name}.weight"], d[f"{name}.bias"] = dw, db
    return y, dx, d


def adamw(theta, gradients, decayed, settings, etas):
    """theta after the steps, number by number; gradients, and learning rates, are those of steps.

    `decayed` says for each number whether it decays.
    """
    theta, m, v = [float(number) for number in theta], [0.0] * len(theta), [0.0] * len(theta)
    for s, (gradient, eta) in enumerate(zip(gradients, etas, strict=True), 1):
        norm = sqrt(sum(float(g) ** 2 for g in gradient))  # (10.1)
        kappa = min(1.0, settings.clip / norm) if settings.clip else 1.0
        for i, g in enumerate(gradient):
            g = kappa * float(g)  # (10.2)
            m[i] = settings.beta1 * m[i] + (1 - settings.beta1) * g  # (10.3)
            v[i] = settings.beta2 * v[i] + (1 - settings.beta2) * g**2  # (10.4)
            m_hat, v_hat = m[i] / (1 - settings.beta1**s), v[i] / (1 - settings.beta2**s)  # (10.5)
            decay = settings.weight_decay if decayed[i] else 0.0
            theta[i] -= eta * (m_hat / (sqrt(v_hat) + settings.eps) + decay * theta[i])  # (10.6)
    return theta
