"""The operations, and the rules of all backward passes on one page.

An op returns its result, and keeps what its backward pass needs.  The backward pass takes the
gradient of the result and what was kept, and returns the gradients of the op's arguments.  Here dx
stands for ∂ℒ/∂x, and Σₙ is a sum over the rows.  Every number leads to a chapter, which derives it.

    Forward                                 Backward

    linear, keeps x and W                   linear_backward
    y = residual + x W + b (2.1) (2.5)      dx = dy Wᵀ (2.2), dresidual = dy
                                            dW = xᵀ dy (2.3)
                                            db = Σₙ dyₙ (2.4)

    lora, keeps x and h; W is frozen        lora_backward
    h = s x A (11.1)                        dB = hᵀ dy (11.5), dh = dy Bᵀ (11.6)
    y = y of linear + h B (11.2)            dA = xᵀ (s dh) (11.7)
                                            dx = dy Wᵀ + (s dh) Aᵀ (11.8)

    embedding, keeps t and p                embedding_backward
    xₙ = wte[tₙ] + wpe[pₙ] (3.1)            dwte[v] = Σ dxₙ over the rows n with tₙ = v (3.2)
                                            dwpe[p] = Σ dxₙ over the rows n with pₙ = p (3.3)

    layer_norm, keeps x̂, r and γ            layer_norm_backward
    x̂ᵢ = (xᵢ − μ) r (4.4)                   gᵢ = dx̂ᵢ = γᵢ dyᵢ (4.8)
    yᵢ = γᵢ x̂ᵢ + βᵢ (4.5)                   dxᵢ = r ( gᵢ − ⟨g⟩ − x̂ᵢ ⟨g x̂⟩ ) (4.20)
                                            dγᵢ = Σₙ dyₙᵢ x̂ₙᵢ (4.6)
                                            dβᵢ = Σₙ dyₙᵢ (4.7)

    layer_norm, x with a second reader      layer_norm_backward, with d_residual
                                            dx = d_residual + dx of (4.20): (4.21)

    gelu, keeps ∂y/∂x                       gelu_backward
    w = ½ (1 + tanh u) (5.2)                ∂y/∂x = w + 2 y (1 − w) ∂u/∂x (5.6)
    y = x w (5.3)                           dx = dy ∂y/∂x (5.7)

    softmax, keeps p                        softmax_backward
    pᵢ = exp(sᵢ − m) / Σⱼ exp(sⱼ − m) (6.3) dsₖ = pₖ ( dpₖ − Σᵢ dpᵢ pᵢ ) (6.6)

    dropout, keeps z                        dropout_backward
    y = z x (7.1)                           dx = z dy (7.2)

    attention, keeps q, k, v, o and λ       attention_backward
    sᵢⱼ = qᵢ · kⱼ / τ (8.2)                 dqᵢ = (1/τ) Σⱼ dsᵢⱼ kⱼ (8.19)
                                            dkⱼ = (1/τ) Σᵢ dsᵢⱼ qᵢ (8.20)
    pᵢⱼ = exp(sᵢⱼ − λᵢ) (8.12)              dsᵢⱼ = pᵢⱼ (dpᵢⱼ − Δᵢ) (8.17)
                                            Δᵢ = doᵢ · oᵢ (8.18)
    oᵢ = Σⱼ zᵢⱼ pᵢⱼ vⱼ (8.4)                dpᵢⱼ = zᵢⱼ (doᵢ · vⱼ) (8.14)
                                            dvⱼ = Σᵢ zᵢⱼ pᵢⱼ doᵢ (8.13)

    cross_entropy, keeps nothing            cross_entropy_gradient, with the loss in one pass
    ℓₙᵥ = xₙ · wte[v] (9.1)                 dx[i] = Σ dℓₙᵥ wte[v] over v, n with rowₙ = i (9.9)
                                            dwte[v] = Σₙ dℓₙᵥ x[rowₙ] (9.8)
    ℒ = Σₙ wₙ (λₙ − ℓₙₜ) (9.3) (9.4)        dℓₙᵥ = wₙ (pₙᵥ − δᵥₜ) (9.7)

ops/adamw is an update, and has no backward pass.  All of this in plain NumPy, with every
intermediate kept: tests/plain.py.
"""
