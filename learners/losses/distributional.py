"""Losses of distributions of the return: on a fixed support (C51) and as quantiles (QR-DQN)."""

from __future__ import annotations

import torch
from torch import Tensor

from learners.losses.shapes import check_shapes


def categorical_projection(probabilities: Tensor, atoms: Tensor, support: Tensor) -> Tensor:
    """Share the mass of each atom between its two neighbours on the support (Bellemare et al. 2017, equation 7).

    Atoms beyond the support's ends count as the end. Means within the support are kept.

    Args:
        probabilities: float[B, Z], mass of each atom.
        atoms: float[B, Z], where the masses lie.
        support: float[Z], evenly spaced, increasing, Z >= 2.

    Returns:
        float[B, Z], the masses on the support; rows sum to what they summed to.
    """
    batch, count = probabilities.shape
    check_shapes(atoms=(atoms, (batch, count)), support=(support, (count,)))
    place = ((atoms - support[0]) / (support[1] - support[0])).clamp(0.0, count - 1.0)
    below = place.floor().clamp(max=count - 2.0)  # so that there is always a neighbour above
    upper_share = place - below
    index = below.nan_to_num().long()  # NaN goes on to the masses, never to an index, which would end the process
    projected = torch.zeros_like(probabilities)
    projected.scatter_add_(1, index, probabilities * (1.0 - upper_share))
    return projected.scatter_add_(1, index + 1, probabilities * upper_share)


def categorical_td(
    logits_tm1: Tensor,
    a_tm1: Tensor,
    r_t: Tensor,
    discount_t: Tensor,
    logits_t: Tensor,
    q_t_selector: Tensor,
    support: Tensor,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy to the projected distributional target, and its divergence (Bellemare et al. 2017).

    Args:
        logits_tm1: float[B, A, Z], online logits where the action was taken.
        a_tm1: int64[B], the action taken.
        r_t: float[B], (n-step) reward.
        discount_t: float[B], gamma^n x (1 - terminated).
        logits_t: float[B, A, Z], target network's logits at the successor.
        q_t_selector: float[B, A], values whose argmax picks the successor's action; -inf where it is not allowed.
        support: float[Z], values of the atoms.

    Returns:
        Cross-entropies float[B], and Kullback-Leibler divergences of target from prediction float[B], >= 0, without
        gradient. They differ by the target's own entropy, which no update can remove.
    """
    batch, actions, count = logits_tm1.shape
    check_shapes(
        a_tm1=(a_tm1, (batch,)),
        r_t=(r_t, (batch,)),
        discount_t=(discount_t, (batch,)),
        logits_t=(logits_t, (batch, actions, count)),
        q_t_selector=(q_t_selector, (batch, actions)),
        support=(support, (count,)),
    )
    with torch.no_grad():
        next_probabilities = chosen(logits_t, q_t_selector.argmax(dim=1)).softmax(dim=1)
        atoms = r_t.unsqueeze(1) + discount_t.unsqueeze(1) * support
        target_tm1 = categorical_projection(next_probabilities, atoms, support)
        entropy = -torch.xlogy(target_tm1, target_tm1).sum(dim=1)
    losses = -(target_tm1 * chosen(logits_tm1, a_tm1).log_softmax(dim=1)).sum(dim=1)
    return losses, (losses.detach() - entropy).clamp(min=0.0)


def quantile_td(
    quantiles_tm1: Tensor,
    a_tm1: Tensor,
    r_t: Tensor,
    discount_t: Tensor,
    quantiles_t: Tensor,
    q_t_selector: Tensor,
    kappa: float,
) -> tuple[Tensor, Tensor]:
    """Quantile Huber loss to the distributional target, and the distance of the two (Dabney et al. 2018).

    Args:
        quantiles_tm1: float[B, A, N], online quantiles where the action was taken.
        a_tm1: int64[B], the action taken.
        r_t: float[B], (n-step) reward.
        discount_t: float[B], gamma^n x (1 - terminated).
        quantiles_t: float[B, A, N], target network's quantiles at the successor.
        q_t_selector: float[B, A], values whose argmax picks the successor's action; -inf where it is not allowed.
        kappa: error where the Huber loss turns linear; 0 is plain quantile regression.

    Returns:
        Losses float[B], and mean |difference| of equal quantiles float[B], without gradient: the 1-Wasserstein
        distance where both are in order.
    """
    batch, actions, count = quantiles_tm1.shape
    check_shapes(
        a_tm1=(a_tm1, (batch,)),
        r_t=(r_t, (batch,)),
        discount_t=(discount_t, (batch,)),
        quantiles_t=(quantiles_t, (batch, actions, count)),
        q_t_selector=(q_t_selector, (batch, actions)),
    )
    prediction = chosen(quantiles_tm1, a_tm1)
    with torch.no_grad():
        next_quantiles = chosen(quantiles_t, q_t_selector.argmax(dim=1))
        target_tm1 = r_t.unsqueeze(1) + discount_t.unsqueeze(1) * next_quantiles
        distance = (target_tm1 - prediction).abs().mean(dim=1)
    return quantile_huber(prediction, target_tm1, kappa), distance


def quantile_huber(quantiles: Tensor, targets: Tensor, kappa: float) -> Tensor:
    """Quantile Huber loss (Dabney et al. 2018, equation 10): summed over quantiles, averaged over targets.

    Args:
        quantiles: float[B, N], at the middles (2i + 1) / 2N of N equal shares.
        targets: float[B, M], equally likely values; no gradient flows through them.
        kappa: error where the Huber loss turns linear; 0 is plain quantile regression.

    Returns:
        float[B].
    """
    batch, count = quantiles.shape
    check_shapes(targets=(targets, (batch, targets.shape[-1])))
    middles = (torch.arange(count, device=quantiles.device, dtype=quantiles.dtype) + 0.5) / count
    with torch.no_grad():  # the derivative is worked out here, so that nothing of [B, N, M] is kept for it
        error = targets.unsqueeze(1) - quantiles.unsqueeze(2)
        slope = error.clamp(-kappa, kappa).div_(kappa) if kappa > 0.0 else error.sign()
        above = slope.clamp(min=0.0)
        size = error.sub_(slope, alpha=0.5 * kappa)  # Huber loss / kappa = slope x size
        value = _asymmetric((slope * size).mean(dim=2), (above * size).mean(dim=2), middles)
        pull = _asymmetric(slope.mean(dim=2), above.mean(dim=2), middles)
    return (value - (quantiles - quantiles.detach()) * pull).sum(dim=1)


def _asymmetric(all_errors: Tensor, positive_errors: Tensor, middles: Tensor) -> Tensor:
    """Weigh what comes from positive errors by tau and the rest by 1 - tau."""
    return middles * positive_errors + (1.0 - middles) * (all_errors - positive_errors)


def chosen(outputs: Tensor, action: Tensor) -> Tensor:
    """Outputs of one action each: [B, A, Z] at int64[B] -> [B, Z]."""
    return outputs.gather(1, action.view(-1, 1, 1).expand(-1, 1, outputs.shape[2])).squeeze(1)
