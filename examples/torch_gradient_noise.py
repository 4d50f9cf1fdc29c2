"""The gradient noise of a PyTorch model: torch hands over per-datum gradients and Hessian products.

Run it as `python examples/torch_gradient_noise.py`. It needs torch; the answer is checked against the same
network written for JAX.
"""

import sys

import numpy as np
from scipy.sparse.linalg import LinearOperator

import thalweg as tw


def main() -> None:
    try:
        import torch
        from torch.func import functional_call, grad, jvp, vmap
    except ImportError:
        print("torch is not installed: pip install torch, then run this again")
        sys.exit(0)

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    digits = tw.systems.digits(keep=(0, 1, 2))
    x, y = torch.tensor(digits.images[:200]), torch.tensor(digits.labels[:200])
    model = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    params = {name: p.detach() for name, p in model.named_parameters()}
    sizes = [p.numel() for p in params.values()]

    def loss(params, x, y):
        return torch.nn.functional.cross_entropy(functional_call(model, params, (x[None],)), y[None])

    def flat(tree):
        return torch.cat([part.reshape(-1) for part in tree.values()])

    def tree(vector):
        parts = torch.split(vector, sizes)
        return {name: part.reshape(p.shape) for part, (name, p) in zip(parts, params.items(), strict=True)}

    # One gradient a datum, and the Hessian of the mean loss as something that multiplies vectors.
    gradients = vmap(lambda x, y: flat(grad(loss)(params, x, y)))(x, y).numpy()

    def mean_gradient(p):
        return grad(lambda p: vmap(lambda x, y: loss(p, x, y))(x, y).mean())(p)

    def hessian_times(v):
        direction = tree(torch.tensor(np.ravel(v)))
        return flat(jvp(mean_gradient, (params,), (direction,))[1]).detach().numpy()

    d = gradients.shape[1]
    hessian = LinearOperator((d, d), matvec=hessian_times, rmatvec=hessian_times, dtype=float)
    noise = tw.flow.gradient_noise(gradients=gradients, hessian=hessian)
    print(f"parameters          {d}")
    print(f"|drift|             {np.linalg.norm(noise.drift.value):.6f}")
    print(f"tr covariance       {noise.trace}")
    print(f"largest eigenvalue  {noise.top(1).values}")
    print(f"alignment with H    {noise.alignment}")
    print(f"anisotropy          {noise.anisotropy}")

    # The same network in JAX: covariance and drift must agree to rounding.
    network = tw.systems.perceptron((64, 16, 3), "tanh", "xent")
    ours = {f"{kind[0]}{layer}": None for layer in (1, 2) for kind in ("W", "b")}
    for layer, name in ((1, "0"), (2, "2")):
        ours[f"W{layer}"] = params[f"{name}.weight"].T.numpy()
        ours[f"b{layer}"] = params[f"{name}.bias"].numpy()
    same = tw.flow.gradient_noise(network.loss, ours, (digits.images[:200], digits.labels[:200]))
    print(f"the same in JAX     {same.trace}; alignment {same.alignment}")
    assert abs(float(same.trace) / float(noise.trace) - 1) < 1e-10
    assert abs(float(same.alignment) - float(noise.alignment)) < 3 * (same.alignment.error + noise.alignment.error)


if __name__ == "__main__":
    main()
