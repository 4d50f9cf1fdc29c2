"""The core on an accelerator: the same numbers as on the CPU, where there is one; else one line that says so."""

import shutil
import sys

import jax


def main() -> int:
    """Run the pit's ensemble on both kinds of device and compare."""
    accelerators = [device for device in jax.devices() if device.platform != "cpu"]
    if not accelerators:
        has_card = shutil.which("nvidia-smi") is not None
        why = "this JAX is built for CPUs only (pip install 'jax[cuda12]')" if has_card else "JAX sees only CPUs"
        print(f"gpu-smoke skipped: {why}")
        return 0

    import numpy as np

    import thalweg as tw

    def final(device: jax.Device) -> np.ndarray:
        with jax.default_device(device):
            pit = tw.systems.pit(learning_rate=0.02)
            starts = jax.numpy.full(1000, 1.0075)
            return np.asarray(tw.ensemble(pit, starts, 200, key=jax.random.key(0)).state)

    here, there = final(jax.devices("cpu")[0]), final(accelerators[0])
    # Maps that expand amplify the last bit: compare what is carried in law, and most members one by one.
    same = np.mean(np.isclose(here, there, rtol=1e-6))
    escaped = [np.mean(values >= 1.196) for values in (here, there)]
    print(
        f"{accelerators[0].device_kind}: {same:.1%} of the members as on the CPU; escaped {escaped[0]} and {escaped[1]}"
    )
    return 0 if np.all(np.isfinite(there)) and abs(escaped[0] - escaped[1]) < 0.02 else 1


if __name__ == "__main__":
    sys.exit(main())
