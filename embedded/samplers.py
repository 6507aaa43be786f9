"""Names of samplers and schedulers, and what of sampling needs no model.

For node packages: ``comfy.samplers``, and single functions of ``comfy.k_diffusion.sampling`` and ``comfy.sample``.
Packages show the names in their inputs, and some add to the lists. What samples is recorded by name only: see
``recorded_names.py``. Names and results are those of ComfyUI 0.3.64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn

from .recorded_names import NotInEmbeddedServer

if TYPE_CHECKING:
    from torch import Tensor

# fmt: off
KSAMPLER_NAMES = [
    "euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", "heun", "heunpp2", "dpm_2",
    "dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp",
    "dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m", "dpmpp_2m_cfg_pp", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu",
    "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm", "lcm", "ipndm",
    "ipndm_v", "deis", "res_multistep", "res_multistep_cfg_pp", "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp", "gradient_estimation", "gradient_estimation_cfg_pp", "er_sde", "seeds_2",
    "seeds_3", "sa_solver", "sa_solver_pece",
]
# fmt: on
SAMPLER_NAMES = [*KSAMPLER_NAMES, "ddim", "uni_pc", "uni_pc_bh2"]


# -- sigmas --------------------------------------------------------------------------------------------------


def get_sigmas_karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0, device: Any = "cpu") -> Tensor:
    """The noise schedule of Karras et al. (2022): n + 1 values that fall to 0, float32."""
    import torch

    ramp = torch.linspace(0, 1, n, device=device)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return append_zero((high + ramp * (low - high)) ** rho)


def get_sigmas_exponential(n: int, sigma_min: float, sigma_max: float, device: Any = "cpu") -> Tensor:
    """A schedule that falls exponentially: n + 1 values, the last 0, float32."""
    import torch

    return append_zero(torch.linspace(math.log(sigma_max), math.log(sigma_min), n, device=device).exp())


def get_sigmas_polyexponential(
    n: int, sigma_min: float, sigma_max: float, rho: float = 1.0, device: Any = "cpu"
) -> Tensor:
    """A schedule polynomial in the logarithm of sigma: n + 1 values, the last 0, float32."""
    import torch

    ramp = torch.linspace(1, 0, n, device=device) ** rho
    return append_zero(torch.exp(ramp * (math.log(sigma_max) - math.log(sigma_min)) + math.log(sigma_min)))


def get_sigmas_vp(
    n: int, beta_d: float = 19.9, beta_min: float = 0.1, eps_s: float = 1e-3, device: Any = "cpu"
) -> Tensor:
    """A continuous variance-preserving schedule: n + 1 values, the last 0, float32."""
    import torch

    t = torch.linspace(1, eps_s, n, device=device)
    return append_zero(torch.sqrt(torch.special.expm1(beta_d * t**2 / 2 + beta_min * t)))


def append_zero(x: Tensor) -> Tensor:
    """A vector [N] with a 0 behind it, [N + 1]."""
    import torch

    return torch.cat([x, x.new_zeros([1])])


def kl_optimal_scheduler(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """The schedule of "Align Your Steps": n + 1 values, the last 0, float32."""
    import torch

    place = torch.arange(n, dtype=torch.float) / (n - 1)
    return append_zero(torch.tan(place * math.atan(sigma_min) + (1 - place) * math.atan(sigma_max)))


def _of_a_model(name: str) -> Callable[..., Tensor]:
    """A schedule that asks a model for its noise levels."""

    def schedule(*_: Any, **__: Any) -> NoReturn:
        raise NotInEmbeddedServer(f"comfy.samplers.{name}")

    schedule.__name__ = schedule.__qualname__ = name
    return schedule


class SchedulerHandler(NamedTuple):
    """How a scheduler is called."""

    handler: Callable[..., Any]
    # true: with (model_sampling, steps); false: with (n, sigma_min, sigma_max)
    use_ms: bool = True


# Packages add their own.
SCHEDULER_HANDLERS: dict[str, SchedulerHandler] = {
    "simple": SchedulerHandler(_of_a_model("simple_scheduler")),
    "sgm_uniform": SchedulerHandler(_of_a_model("normal_scheduler")),
    "karras": SchedulerHandler(get_sigmas_karras, use_ms=False),
    "exponential": SchedulerHandler(get_sigmas_exponential, use_ms=False),
    "ddim_uniform": SchedulerHandler(_of_a_model("ddim_scheduler")),
    "beta": SchedulerHandler(_of_a_model("beta_scheduler")),
    "normal": SchedulerHandler(_of_a_model("normal_scheduler")),
    "linear_quadratic": SchedulerHandler(_of_a_model("linear_quadratic_schedule")),
    "kl_optimal": SchedulerHandler(kl_optimal_scheduler, use_ms=False),
}
SCHEDULER_NAMES = list(SCHEDULER_HANDLERS)


def calculate_sigmas(model_sampling: Any, scheduler_name: str, steps: int) -> Any:
    """The noise levels of a scheduler: steps + 1 values.

    Args:
        model_sampling: an object with ``sigma_min`` and ``sigma_max``.

    Raises:
        NotInEmbeddedServer: this scheduler asks a model for more than these two.
        ValueError: there is no scheduler of this name.
    """
    handler = SCHEDULER_HANDLERS.get(scheduler_name)
    if handler is None:
        raise ValueError(f"error invalid scheduler {scheduler_name}")
    if handler.use_ms:
        return handler.handler(model_sampling, steps)
    low, high = float(model_sampling.sigma_min), float(model_sampling.sigma_max)
    return handler.handler(n=steps, sigma_min=low, sigma_max=high)


class KSampler:
    """The lists packages show in their inputs. It cannot sample."""

    SCHEDULERS: ClassVar[list[str]] = SCHEDULER_NAMES
    SAMPLERS: ClassVar[list[str]] = SAMPLER_NAMES
    DISCARD_PENULTIMATE_SIGMA_SAMPLERS: ClassVar[set[str]] = {"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"}

    def __init__(self, *_: Any, **__: Any) -> None:
        """Raises NotInEmbeddedServer: it needs a model."""
        raise NotInEmbeddedServer("comfy.samplers.KSampler")


# -- noise ---------------------------------------------------------------------------------------------------


def prepare_noise(latent_image: Tensor, seed: int, noise_inds: Sequence[int] | None = None) -> Tensor:
    """Random noise of a latent's shape and data type, on the CPU, the same for the same seed.

    Args:
        latent_image: [B, ...].
        seed: of torch's generator, which is left in the state that follows.
        noise_inds: the number of the noise each item of the batch gets; None: all from one draw.
    """
    import numpy as np
    import torch

    generator = torch.manual_seed(seed)

    def draw(shape: Sequence[int]) -> Tensor:
        return torch.randn(
            shape, dtype=latent_image.dtype, layout=latent_image.layout, generator=generator, device="cpu"
        )

    if noise_inds is None:
        return draw(latent_image.shape)
    numbers, places = np.unique(np.asarray(noise_inds), return_inverse=True)
    wanted = set(numbers.tolist())
    draws = [draw([1, *latent_image.shape[1:]]) for _ in range(int(numbers[-1]) + 1)]
    kept = [noise for number, noise in enumerate(draws) if number in wanted]
    return torch.cat([kept[place] for place in places.tolist()], dim=0)


def prepare_mask(noise_mask: Tensor, shape: Sequence[int], device: Any) -> Tensor:
    """A noise mask in a latent's shape, on a device."""
    from .tensor_helpers import reshape_mask

    return reshape_mask(noise_mask, shape).to(device)
